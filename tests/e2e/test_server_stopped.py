# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that do not get to run, for whatever reason, at moments that matter."""
import os
import signal
import socket
import struct

import fault
import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


def stop(process):
    """Returns when it has stopped."""
    process.signal(signal.SIGSTOP)
    process.wait_stopped()


class Handover(ServerTest):
    """A successor by hand, or one with somebody in between."""

    def setUp(self):
        super().setUp()
        self.first = self.start(ConfigServer("-S", self.path("s"), "-m", self.dir))
        self.group = self.start(Load(self.path("s"), "--keep"))
        self.group("join 2")
        self.group("settle 1")

    def take(self):
        """What the first server hands over: the socket, and the frames with their descriptors."""
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.settimeout(support.DEFAULT_WAIT * support.SCALE)
        sock.connect(self.path("s.ctl"))
        sock.sendall(b"replace\n")
        frames = []
        while not frames or len(frames) <= frames[0][0]:
            data, fds, _, _ = socket.recv_fds(sock, 8, 1)
            self.addCleanup(os.close, fds[0])
            frames.append((struct.unpack("<q", data)[0], fds[0]))
        return sock, frames

    def goes_on(self):
        self.first.err.wait_for("going on as before")
        self.group("join 1")
        self.group("settle 2")
        self.assertEqual(self.group("verify"), {"rings": "6"})
        self.assertIsNone(self.first.status)

    def test_successor_has_gone_when_its_word_is_read(self):
        sock, _ = self.take()
        stop(self.first)
        sock.sendall(b"\0")
        sock.close()
        self.first.signal(signal.SIGCONT)
        self.goes_on()

    def test_successor_gives_up(self):
        listener = support.listen(self.path("between"))
        self.addCleanup(listener.close)
        successor = self.start(support.Process(
            [support.program("server"), "-F", "-S", self.path("s"), "-m", self.dir,
             "--control-socket", self.path("between"), "--replace"]))
        with support.accept(listener, successor) as its:
            os.unlink(self.path("between"))
            self.assertEqual(its.recv(64), b"replace\n")
            sock, frames = self.take()
            for value, fd in frames:
                socket.send_fds(its, [struct.pack("<q", value)], [fd])
            self.assertEqual(its.recv(1), b"\0")
            stop(self.first)
            self.assertEqual(successor.wait(), 1)
            self.assertIn("does not end", successor.err.text)
        sock.sendall(b"\0")
        self.first.signal(signal.SIGCONT)
        self.goes_on()


class Stall(ServerTest):
    TIMEOUT = int(4 * support.SCALE)

    def stalled(self):
        """A server, and a client that does not read."""
        server = self.server("--stall-timeout=%d" % self.TIMEOUT)
        group = self.load(server)
        group("mute 1")
        group("join 400")
        group("settle 400")
        return server, group

    def test_stopped_with_its_client(self):
        server, group = self.stalled()
        stop(server)
        other = self.stalled()[0]
        other.err.wait_for("has not read for %d s" % self.TIMEOUT)
        server.signal(signal.SIGCONT)
        clients = fault.ask(server.socket + ".ctl", "status")["regions"][0]["clients"]
        self.assertIn(0, [client["id"] for client in clients], server.err.text)
        group("resume 0 0")
        group("settle 400")
