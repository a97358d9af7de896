# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest may only read: by the server's grant, and by the backend's."""
import os
import struct

import support
import tiny
from server_load import ConfigServer
from tiny import BAR2, IO, MEM, ivec

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
SIZE = 1 << 20

# Of the guest's PIIX3 IDE controller: a place for its ports, and for its table in RAM
BUS_MASTER = 0xC000
PRD = 0x300000
SECTOR = 512

REGION = """
[region r]
size=1M
socket=DIR/writer

[client r/reader]
socket=DIR/reader
access=read-only
"""


class ReadOnlyCase:
    """For use with tiny.TinyCase."""
    watch = ("-trace", "ivshmem_write_discarded", "-d", "guest_errors")

    def memory(self, guest):
        return guest.qmp.cmd("query-ivshmem")[0]["memory"]

    def assert_discards(self, guest, offset, told=True):
        """A write of any width changes nothing, and is told of."""
        before = guest.r32(BAR2, offset)
        for width, write in ((1, guest.w8), (2, guest.w16), (4, guest.w32)):
            write(BAR2, offset, 0x5A)
            if not told:
                continue
            guest.err.wait_for("ivshmem_write_discarded .*: read-only memory at 0x%x "
                               "was to get 0x5a, %d bytes" % (offset, width))
            guest.err.wait_for("write to read-only memory at offset 0x%x" % offset)
        self.assertEqual(guest.r32(BAR2, offset), before)


@tiny.each_path(PATHS)
class ReadOnlyDoorbell(ReadOnlyCase):
    def setUp(self):
        super().setUp()
        config = os.path.join(self.dir, "server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(REGION.replace("DIR", self.dir))
        self.start(ConfigServer("--config", config))

    def client(self, name, *args):
        guest = self.guest("-chardev", "socket,id=c,path=" + os.path.join(self.dir, name),
                           "-device", "ivshmem-doorbell,id=shm,chardev=c,ioeventfd=%s"
                           % ("on" if self.path.ioeventfd else "off"), *args)
        guest.id = guest.setup()
        return guest

    # R-DEV-38, R-CLI-19
    def test_reads_and_rings_but_does_not_write(self):
        reader = self.client("reader", "-trace", "ivshmem_memory_readonly", *self.watch)
        writer = self.client("writer")
        self.introduce(reader, writer)
        reader.err.wait_for("ivshmem_memory_readonly")
        self.assertTrue(self.memory(reader)["readonly"])
        self.assertFalse(self.memory(writer)["readonly"])
        for offset in (0, 0x40, SIZE - 4):
            writer.w32(BAR2, offset, 0x12345678 + offset)
            self.assertEqual(reader.r32(BAR2, offset), 0x12345678 + offset)
            self.assert_discards(reader, offset)
            self.assertEqual(writer.r32(BAR2, offset), 0x12345678 + offset)
        reader.ring(writer.id, 0)
        writer.wait_count(ivec(0), 1)
        writer.ring(reader.id, 0)
        reader.wait_count(ivec(0), 1)

    def test_reset_and_unplug(self):
        reader, writer = self.client("reader", *self.watch), self.client("writer")
        writer.w32(BAR2, 0, 0xC0FFEE)
        reader.reset()
        reader.setup()
        self.assertEqual(reader.r32(BAR2, 0), 0xC0FFEE)
        self.assert_discards(reader, 0)
        reader.qmp.cmd("device_del", id="shm")
        reader.reset()
        reader.qmp.wait_event("DEVICE_DELETED",
                              test=lambda event: event["data"].get("device") == "shm")
        self.assertEqual(reader.qmp.cmd("query-ivshmem"), [])


@tiny.each_path(PATHS)
class ReadOnlyPlain(ReadOnlyCase):
    """memory-backend-file opens files to read only, and maps them as ROM or private RAM."""

    def setUp(self):
        super().setUp()
        self.file = os.path.join(self.dir, "memory")
        self.store(0, 0x12345678)
        os.truncate(self.file, SIZE)

    def store(self, offset, value):
        with open(self.file, "r+b" if os.path.exists(self.file) else "w+b") as file:
            file.seek(offset)
            file.write(struct.pack("<I", value))

    def load(self, offset):
        with open(self.file, "rb") as file:
            file.seek(offset)
            return struct.unpack("<I", file.read(4))[0]

    def plain(self, *options, more=()):
        return self.guest("-object", ",".join(("memory-backend-file,id=m,size=1M,mem-path="
                                               + self.file,) + options),
                          "-device", "ivshmem-plain,id=shm,memdev=m", *self.watch, *more)

    def started(self, *options, more=()):
        guest = self.plain(*options, more=more)
        self.assertEqual(guest.scan(), 1)
        guest.use()
        return guest

    def test_readonly(self):
        for rom in ((), ("rom=auto",), ("rom=on",)):
            with self.subTest(rom=rom):
                os.chmod(self.file, 0o444)
                guest = self.started("share=on", "readonly=on", *rom)
                self.assertTrue(self.memory(guest)["readonly"])
                self.assertEqual(guest.r32(BAR2, 0), 0x12345678)
                self.assert_discards(guest, 0, told=False)
                self.assert_discards(guest, SIZE - 4, told=False)
                os.chmod(self.file, 0o644)
                self.store(0x80, 0x55AA55AA)
                self.assertEqual(guest.r32(BAR2, 0x80), 0x55AA55AA)
                self.assertIn("read-only", guest.qmp.hmp("info ivshmem"))
                self.assertEqual(guest.quit(), 0)
                self.assertEqual(self.load(0), 0x12345678)

    def test_dma_out_of_it(self):
        """A disk is written from BAR2: devices borrow the memory, and give it back."""
        os.chmod(self.file, 0o444)
        disk = os.path.join(self.dir, "disk")
        with open(disk, "wb") as file:
            file.truncate(SIZE)
        guest = self.started("share=on", "readonly=on", more=(
            "-drive", "if=none,id=disk,format=raw,file=" + disk,
            "-device", "ide-hd,bus=ide.0,drive=disk"))
        controller = 0x80000000 | 1 << 11 | 1 << 8
        for register, value in ((0x20, BUS_MASTER), (4, 5)):
            guest.w32(IO, 0xCF8, controller | register)
            guest.w32(IO, 0xCFC, value)
        guest.w32(MEM, PRD, guest.use()["bar2"])
        guest.w32(MEM, PRD + 4, 0x80000000 | SECTOR)
        for sector in range(4):
            self.ide_write_dma(guest, sector)
        with open(disk, "rb") as file:
            self.assertEqual(struct.unpack_from("<I", file.read(4 * SECTOR), 3 * SECTOR)[0],
                             0x12345678)
        self.assertEqual(guest.quit(), 0)

    def ide_write_dma(self, guest, sector):
        """The sector gets what the PRD table at PRD points to."""
        guest.w32(IO, BUS_MASTER + 4, PRD)
        guest.w8(IO, BUS_MASTER, 0)
        guest.w8(IO, BUS_MASTER + 2, 6)
        for port, value in ((0x1F6, 0xE0), (0x1F2, 1), (0x1F3, sector), (0x1F4, 0), (0x1F5, 0),
                            (0x1F7, 0xCA)):
            guest.w8(IO, port, value)
        guest.w8(IO, BUS_MASTER, 1)
        limit = support.Deadline()
        while guest.r8(IO, BUS_MASTER + 2) & 1:
            self.assertFalse(limit.expired(), "the disk does not come to an end")

    def test_private_copy_of_a_read_only_file(self):
        guest = self.started("share=off", "readonly=on", "rom=off")
        guest.err.wait_for("share=off: this device shares nothing")
        self.assertFalse(self.memory(guest)["readonly"])
        guest.w32(BAR2, 0, 7)
        self.assertEqual(guest.r32(BAR2, 0), 7)
        self.assertEqual(self.load(0), 0x12345678)

    def test_writable_says_nothing(self):
        guest = self.started("share=on")
        self.assertFalse(self.memory(guest)["readonly"])
        guest.w32(BAR2, 4, 0xABCD)
        self.assertEqual(guest.r32(BAR2, 4), 0xABCD)
        self.assertEqual(self.load(4), 0xABCD)
        self.assertEqual(guest.quit(), 0)
        self.assertNotIn("ivshmem_write_discarded", guest.err.text)

    def test_combination_that_cannot_be(self):
        with self.assertRaises(AssertionError) as caught:
            self.plain("share=on", "readonly=on", "rom=off")
        self.assertIn("'rom' = 'off' is incompatible with 'readonly' = 'on'",
                      str(caught.exception))
