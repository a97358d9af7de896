#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Fuzz a running ivshmem-server: clients that say anything, with and without descriptors, read
a little, hang up in the middle; any request at the control socket; configuration files with
lines gone, doubled or garbled, read again under way.

After each round the server must serve three good clients without a flaw, hold as many
descriptors as before, and end on SIGTERM with status 0.
"""
import os
import signal
import socket
import struct

import rounds
import fault
import support
from server_load import ConfigServer

CONFIG = """
[server]
queue-limit=64
stall-timeout=1
[region good]
size=64K
vectors=2
socket=DIR/good
[region a]
size=64K
vectors=3
socket=DIR/a
[client a/one]
socket=DIR/one
id=5
second=replace
[client a/two]
socket=DIR/two
id=6
access=read-only
"""
SOCKETS = ("good", "a", "one", "two", "good.ctl")
REQUESTS = (b"status\n", b"text\n", b"metrics\n", b"stat", b"\n", b"\0\n",
            b"x" * 31, b"y" * 200, b"status\nstatus\n")


class ServerFuzz:
    def __init__(self, directory):
        self.directory = directory
        self.config = os.path.join(directory, "server.conf")
        self.write(CONFIG)
        self.server = ConfigServer("--config", self.config)
        self.status()           # it is through with its start
        self.held = support.fd_count(self.server.pid)
        self.socks = []
        self.spare = [os.eventfd(0), os.memfd_create("fuzz"), os.open("/dev/null", os.O_RDWR)]

    def write(self, text):
        with open(self.config, "w", encoding="latin-1") as file:
            file.write(text.replace("DIR", self.directory))

    # What a step may be: each takes the random numbers.

    def connect(self, rng):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(os.path.join(self.directory, rng.choice(SOCKETS)))
        except (BlockingIOError, ConnectionError, FileNotFoundError):
            sock.close()        # full, or gone with a reload
            return
        self.socks.append(sock)

    def say(self, rng):
        data = rng.choice((rng.randbytes(rng.randint(1, 64)), rng.choice(REQUESTS),
                           struct.pack("<q", rng.choice((-2, -1, 0, 5, 6, 65535, 65536, 1 << 62)))))
        fds = rng.sample(self.spare, rng.choice((0, 0, 0, 1, 2, 3)))
        try:
            socket.send_fds(self.pick(rng), [data], fds)
        except OSError:
            pass

    def read(self, rng):
        for _ in range(rng.choice((1, 1, 1, 100))):
            try:
                data, fds, _, _ = socket.recv_fds(self.pick(rng), rng.choice((1, 7, 8, 4096)), 4)
            except OSError:     # nothing there, or no connection any more
                return
            for fd in fds:
                os.close(fd)
            if not data:
                return

    def half(self, rng):
        try:
            self.pick(rng).shutdown(rng.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        except OSError:
            pass                # done before, or the server has closed

    def hang_up(self, rng):
        sock = self.pick(rng)
        self.socks.remove(sock)
        sock.close()

    def replace(self, rng):
        """A successor that thinks better of it: a byte more, and the server would end."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(support.DEFAULT_WAIT * support.SCALE)
            try:
                sock.connect(os.path.join(self.directory, "good.ctl"))
                sock.sendall(b"replace\n")
                for _ in range(rng.choice((0, 1, 5))):
                    for fd in socket.recv_fds(sock, 8, 1)[1]:
                        os.close(fd)
            except OSError:
                return          # a reload has taken the socket away

    def reload(self, rng):
        lines = CONFIG.splitlines()
        for _ in range(rng.randint(0, 4)):
            at = rng.randrange(len(lines))
            change = rng.randrange(4)
            if change == 0:
                del lines[at]
            elif change == 1:
                lines.insert(rng.randrange(len(lines)), lines[at])
            elif change == 2:
                lines[at] = lines[at][:rng.randint(0, len(lines[at]))]
            else:
                lines[at] += chr(rng.randint(1, 255))
        self.write("\n".join(lines))
        self.server.signal(signal.SIGHUP)

    def pick(self, rng):
        if not self.socks:
            self.socks.append(socket.socket(socket.AF_UNIX))
            self.socks[0].setblocking(False)
        return rng.choice(self.socks)

    def round(self, rng):
        steps = ((self.connect,) * 4 + (self.say,) * 4 + (self.read,) * 3 +
                 (self.half, self.hang_up, self.hang_up, self.reload, self.replace))
        for _ in range(rng.randint(20, 200)):
            rng.choice(steps)(rng)
        self.hang_up_all()
        self.write(CONFIG)
        # The first answer may be to an earlier signal, read before the file was good.
        for _ in range(2):
            self.server.err.mark = len(self.server.err.data)
            self.server.signal(signal.SIGHUP)
            self.server.err.wait_for("SIGHUP: read ")
        self.check()

    def status(self):
        answer = fault.ask(os.path.join(self.directory, "good.ctl"), "status")
        if not answer or len(answer["regions"]) != 2:
            raise AssertionError("status: %s" % answer)

    def hang_up_all(self):
        for sock in self.socks:
            sock.close()
        self.socks.clear()

    def check(self):
        """Nothing of all this is left, and the server does its work."""
        group = fault.Group(os.path.join(self.directory, "good"), 2)
        limit = support.Deadline()
        while self.server.status is not None or support.fd_count(self.server.pid) != self.held:
            if limit.expired() or self.server.status is not None:
                raise AssertionError("not %d descriptors as before, or ended; status %s\n%s" % (
                    self.held, self.server.status, self.server.err.text[-3000:]))
            self.server.err.wait_change(0.02)
        try:
            group.join(3)
            group.settle()
            group.ring_all()
        finally:
            group.close()
        self.status()
        ended = self.server.stop()
        if ended:
            raise AssertionError("SIGTERM: status %s\n%s" % (ended, self.server.err.text[-3000:]))

    def close(self):
        self.hang_up_all()
        for fd in self.spare:
            os.close(fd)
        self.server.stop()


if __name__ == "__main__":
    rounds.run("server", ServerFuzz)
