#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Fuzz ivshmem-doorbell and ivshmem-plain in QEMU, from both sides: the guest (through qtest)
reads and writes registers, MSI-X tables, memory and configuration space at any place and in
any width, and resets; the server sends any frames in any pieces with any descriptors, rings,
and hangs up.

After each round QEMU must answer, find its server again, give the id that this one says, ring
and be written to; and end with status 0.
"""
import json
import os
import select
import socket
import struct
import threading

import rounds
import support

SHM_SIZE = 64 << 10
VECTORS = 4
DOORBELL, PLAIN = 4, 5                          # device numbers
# address, size: where we put the BARs of the one and the other
BARS = {DOORBELL: ((0xe0000000, 0x100), (0xe0001000, 0x1000), (0xe0010000, SHM_SIZE)),
        PLAIN: ((0xe0100000, 0x100), (0xe0101000, 0), (0xe0110000, SHM_SIZE))}
BAR_OFFSETS = (0x10, 0x14, 0x18)
OWN, PEER = 7, 9
WIDTHS = {1: "b", 2: "w", 4: "l", 8: "q"}


class Guest:
    """The qtest protocol: a line there, a line back."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def ask(self, *words):
        self.sock.sendall((" ".join(str(word) for word in words) + "\n").encode())
        while True:
            while b"\n" not in self.buffer:
                if not select.select([self.sock], [], [], support.DEFAULT_WAIT * support.SCALE)[0]:
                    raise support.TimeoutExpired("qtest: no answer to %s" % (words,))
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("qtest: QEMU has ended at %s" % (words,))
                self.buffer += data
            line, self.buffer = self.buffer.split(b"\n", 1)
            if not line.startswith(b"IRQ"):
                return int(line.split()[1], 0) if len(line.split()) > 1 else None

    def config(self, device, offset):
        self.ask("outl", 0xcf8, 0x80000000 | device << 11 | offset & 0xfc)
        return 0xcfc + (offset & 3)

    def config_write(self, device, offset, width, value):
        port = self.config(device, offset)
        self.ask("out" + WIDTHS[width], port, value & (1 << 8 * width) - 1)

    def enable(self):
        """BARs where we want them, decoding and bus mastering on, MSI-X on if there is one."""
        for device, bars in BARS.items():
            self.config_write(device, 4, 2, 0)
            for offset, (address, _) in zip(BAR_OFFSETS, bars):
                self.config_write(device, offset, 4, address)
            self.config_write(device, 0x1c, 4, 0)
            self.config_write(device, 4, 2, 6)


class Server:
    """One connection at a time; the first handshake is a thread's, for QEMU waits for it."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "server")
        self.listener = support.listen(self.path)
        self.shm = os.memfd_create("fuzz")
        os.ftruncate(self.shm, SHM_SIZE)
        self.own = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(VECTORS)]
        self.peer = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(VECTORS)]
        self.null = os.open("/dev/null", os.O_RDWR)
        self.fds = [self.shm, self.null] + self.own + self.peer
        self.sock = None
        self.thread = threading.Thread(target=self.greet, daemon=True)
        self.thread.start()

    def accept(self, seconds):
        if select.select([self.listener], [], [], seconds)[0]:
            self.hang_up()
            self.sock = self.listener.accept()[0]
            return True
        return False

    def greet(self):
        if self.accept(support.DEFAULT_WAIT * support.SCALE):
            self.handshake()

    def handshake(self):
        """Of the good kind: True if QEMU took all of it."""
        frames = [(0, None), (OWN, None), (-1, self.shm)]
        frames += [(PEER, fd) for fd in self.peer] + [(OWN, fd) for fd in self.own]
        return all([self.send(struct.pack("<q", value), [] if fd is None else [fd])
                    for value, fd in frames])

    def send(self, data, fds=()):
        try:
            socket.send_fds(self.sock, [data], list(fds))
            return True
        except (OSError, AttributeError):       # the device has hung up, or we have
            return False

    def hang_up(self):
        if self.sock:
            self.sock.close()
            self.sock = None

    def close(self):
        self.hang_up()
        self.thread.join()
        self.listener.close()
        for fd in self.fds:
            os.close(fd)


class DeviceFuzz:
    def __init__(self, directory):
        self.server = Server(directory)
        self.qemu = None
        path = os.path.join(directory, "qtest")
        listener = support.listen(path)
        try:
            self.qemu = support.Qemu(
                directory, "-machine", "pc", "-accel", "qtest", "-m", "16",
                "-qtest", "unix:" + path, "-qtest-log", "none",
                "-chardev", "socket,id=server,reconnect-ms=1,path=" + self.server.path,
                "-device", "ivshmem-doorbell,id=doorbell,chardev=server,vectors=%d,addr=%d"
                % (VECTORS, DOORBELL),
                "-object", "memory-backend-memfd,id=mem,size=%d,share=on" % SHM_SIZE,
                "-device", "ivshmem-plain,id=plain,memdev=mem,addr=%d" % PLAIN)
            self.guest = Guest(support.accept(listener, self.qemu))
        except BaseException:
            self.close()
            raise
        finally:
            listener.close()
        self.guest.enable()

    # What a step may be: each takes the random numbers.

    def place(self, rng, most):
        """An address in or just beyond a BAR, in 9 of 10 cases of the doorbell device."""
        address, size = rng.choice(BARS[DOORBELL if rng.randrange(10) else PLAIN])
        return address + rng.choice((rng.randrange(0, 32), rng.randrange(0, size + 16),
                                     max(size - rng.randint(0, most), 0)))

    def value(self, rng):
        return rng.choice((rng.randrange(4), rng.getrandbits(64), (1 << 64) - 1,
                           rng.choice((0, OWN, PEER, 65535)) << 16 | rng.randrange(VECTORS + 1)))

    def write(self, rng):
        width = rng.choice(tuple(WIDTHS))
        self.guest.ask("write" + WIDTHS[width], self.place(rng, width),
                       self.value(rng) & (1 << 8 * width) - 1)

    def read(self, rng):
        width = rng.choice(tuple(WIDTHS))
        self.guest.ask("read" + WIDTHS[width], self.place(rng, width))

    def block(self, rng):
        size = rng.randint(1, 600)
        self.guest.ask("write", self.place(rng, size), size, "0x" + rng.randbytes(size).hex())

    def ring(self, rng):
        self.guest.ask("writel", BARS[DOORBELL][0][0] + 12, self.value(rng) & 0xffffffff)

    def configure(self, rng):
        device = rng.choice((DOORBELL, DOORBELL, PLAIN))
        width = rng.choice((1, 2, 4))
        offset = rng.choice((4, rng.randrange(0x10, 0x20), rng.randrange(0x40, 0x80),
                             rng.randrange(0, 0x100))) & -width
        self.guest.config_write(device, offset, width, self.value(rng))

    def enable(self, _rng):
        self.guest.enable()

    def reset(self, _rng):
        self.qemu.qmp.cmd("system_reset")
        self.guest.enable()

    def look(self, _rng):
        json.dumps(self.qemu.qmp.cmd("query-ivshmem"))

    def halt(self, _rng):
        self.qemu.qmp.cmd("stop")
        self.qemu.qmp.cmd("cont")

    def frame(self, rng):
        value = rng.choice((-2, -1, 0, OWN, OWN, PEER, PEER, rng.randrange(16), 65535, 65536,
                            rng.getrandbits(62)))
        data = struct.pack("<q", value)
        fds = rng.sample(self.server.fds, rng.choice((0, 0, 1, 1, 1, 2)))
        if rng.randrange(8) == 0:
            cut = rng.randrange(1, 8)
            self.server.send(data[:cut], fds)
            data, fds = data[cut:], ()
        self.server.send(data, fds)

    def greet(self, _rng):
        if self.server.accept(0 if self.server.sock else 0.05):
            self.server.handshake()

    def hang_up(self, _rng):
        self.server.hang_up()

    def interrupt(self, rng):
        os.eventfd_write(rng.choice(self.server.own), 1)

    def round(self, rng):
        steps = ((self.write,) * 5 + (self.read,) * 3 + (self.ring,) * 3 + (self.frame,) * 3 +
                 (self.configure,) * 2 + (self.interrupt,) * 2 + (self.greet,) * 2 +
                 (self.block, self.enable, self.look, self.hang_up))
        for _ in range(rng.randint(50, 400)):
            rng.choice(steps)(rng)
            if not rng.randrange(40):
                rng.choice((self.reset, self.halt))(rng)
        self.check()

    def check(self):
        """A new connection, and everything works."""
        self.server.hang_up()
        # One that was never given out as the device's own, which it would drain.
        self.server.peer[VECTORS - 1] = os.eventfd(0, os.EFD_NONBLOCK)
        self.server.fds.append(self.server.peer[VECTORS - 1])
        limit = support.Deadline()
        self.reset(None)
        registers, memory = BARS[DOORBELL][0][0], BARS[DOORBELL][2][0]
        greeted = False
        while not (greeted and self.guest.ask("readl", registers + 8) == OWN and self.connected()):
            if limit.expired():
                raise AssertionError("not connected again: %s" % self.qemu.qmp.cmd("query-ivshmem"))
            if self.server.accept(0.02):
                greeted = self.server.handshake()
        self.guest.ask("writel", memory + 64, 0x600df00d)
        if os.pread(self.server.shm, 4, 64) != struct.pack("<I", 0x600df00d):
            raise AssertionError("what the guest wrote is not in the memory")
        rung = self.server.peer[VECTORS - 1]
        self.guest.ask("writel", registers + 12, PEER << 16 | VECTORS - 1)
        if not select.select([rung], [], [], support.DEFAULT_WAIT * support.SCALE)[0]:
            raise AssertionError("the ring did not arrive")
        ended = self.qemu.quit()
        if ended:
            raise AssertionError("QEMU ended with status %s" % ended)

    def connected(self):
        return all(device.get("connected", True)
                   for device in self.qemu.qmp.cmd("query-ivshmem"))

    def close(self):
        if self.qemu:
            self.qemu.stop()
        self.server.close()


if __name__ == "__main__":
    rounds.run("device", DeviceFuzz)
