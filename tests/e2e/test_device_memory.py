# SPDX-License-Identifier: GPL-2.0-or-later
"""BAR2 as guests and servers treat it: sized and moved while in use, and read-only."""
import os
import socket
import struct
import threading

import support
import tiny
from tiny import BAR2, CONFIG, MEM, ivec

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
SIZE = 1 << 20


@tiny.each_path(PATHS)
class Bars:
    # R-DEV-8
    def test_sized_and_moved_in_use(self):
        """Zephyr sizes BARs with decoding on; operating systems move them."""
        a, b = self.pair(2)
        a.w32(BAR2, 0x40, 0x12345678)
        low, high = b.r32(CONFIG, 0x18), b.r32(CONFIG, 0x1c)
        registers = b.r32(CONFIG, 0x10)
        # The upper half first: right below 4 GiB BAR2 would cover the firmware.
        for offset in (0x10, 0x1c, 0x18):
            b.w32(CONFIG, offset, 0xffffffff)
        self.assertEqual(b.r32(CONFIG, 0x10), 0xffffff00)
        self.assertEqual(b.r32(CONFIG, 0x18), (-SIZE & 0xffffffff) | 0xc)
        b.w32(CONFIG, 0x10, registers)
        b.w32(CONFIG, 0x18, low)
        b.w32(CONFIG, 0x1c, high)
        self.assertEqual(b.position(), b.id)
        self.assertEqual(b.r32(BAR2, 0x40), 0x12345678)

        moved = 0xe8000000
        b.w32(CONFIG, 0x18, moved)
        b.w32(CONFIG, 0x1c, 0)
        self.assertEqual(b.r32(MEM, moved + 0x40), 0x12345678)
        b.w32(MEM, moved + 0x44, 0x9abcdef0)
        self.assertEqual(a.r32(BAR2, 0x44), 0x9abcdef0)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        b.ring(a.id, 1)
        a.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)


class Granter:
    """A server of one client, which gives it the memory to read only."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "granter")
        self.listener = support.listen(self.path)
        self.memory = os.memfd_create("ivshmem-test")
        os.ftruncate(self.memory, SIZE)
        self.sock = None
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        self.sock = self.listener.accept()[0]
        granted = os.open("/proc/self/fd/%d" % self.memory, os.O_RDONLY | os.O_CLOEXEC)
        eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for value, fd in ((0, None), (3, None), (-1, granted), (3, eventfd)):
            socket.send_fds(self.sock, [struct.pack("<q", value)], [] if fd is None else [fd])
        os.close(granted)
        os.close(eventfd)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        if self.sock:
            self.sock.close()
        os.close(self.memory)


class ReadOnly(tiny.TinyCase):
    # R-DEV-38, R-CLI-19
    def test_writes_are_discarded(self):
        granter = Granter(self.dir)
        self.addCleanup(granter.close)
        os.pwrite(granter.memory, struct.pack("<I", 0x12345678), 0x40)
        guest = self.guest("-chardev", "socket,id=c,path=" + granter.path,
                           "-device", "ivshmem-doorbell,id=shm,chardev=c")
        self.assertEqual(guest.setup(), 3)
        self.assertEqual(guest.r32(BAR2, 0x40), 0x12345678)
        guest.w32(BAR2, 0x40, 0xffffffff)
        self.assertEqual(guest.r32(BAR2, 0x40), 0x12345678)
        self.assertEqual(os.pread(granter.memory, 4, 0x40), struct.pack("<I", 0x12345678))
        os.pwrite(granter.memory, struct.pack("<I", 0x55aa55aa), 0x40)
        self.assertEqual(guest.r32(BAR2, 0x40), 0x55aa55aa)
        guest.ring(3, 0)
        guest.wait_count(ivec(0), 1)
        self.assertTrue(guest.qmp.cmd("query-ivshmem")[0]["memory"]["readonly"])
