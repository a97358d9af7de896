# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration: the memory goes with the master, peers are refused, and stock QEMU agrees."""
import os
import secrets

import support
import tiny
from migration import Migrating, OURS, TWO, WITH_STOCK
from tiny import BAR0, BAR2, INTR_MASK, INTR_STATUS, ivec

SIZE = 1 << 20


class Plain(Migrating):
    """Guests with ivshmem-plain on files of their own."""

    def file(self, data=b""):
        path = os.path.join(self.dir, "memory-" + secrets.token_hex(3))
        with open(path, "wb") as file:
            file.write(data)
            file.truncate(SIZE)
        return path

    def plain(self, path, master="on", more=""):
        return ["-object", "memory-backend-file,id=mem,share=on,size=%d,mem-path=%s%s"
                % (SIZE, path, more),
                "-device", "ivshmem-plain,id=shm,memdev=mem,master=" + master]

    def use(self, guest):
        self.assertEqual(guest.scan(), 1)
        return guest.use()

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()


@tiny.each_path(OURS + WITH_STOCK)
class Contents(Plain):
    # R-DEV-34, R-DEV-36
    def test_plain(self):
        data = secrets.token_bytes(SIZE)
        for master in ("on", "auto"):
            with self.subTest(master=master):
                source = self.leaving(*self.plain(self.file(data), master))
                self.use(source)
                source.w32(BAR2, 0x1000, 0x600df00d)
                source.w32(BAR0, INTR_MASK, 0x12345678)
                source.w32(BAR0, INTR_STATUS, 0x9abcdef0)
                path = self.file()
                target = self.arriving(*self.plain(path, master))
                self.migrate(source, target)
                self.assertEqual(target.r32(BAR2, 0x1000), 0x600df00d)
                self.assertEqual(target.r32(BAR0, INTR_MASK), 0x12345678)
                self.assertEqual(target.r32(BAR0, INTR_STATUS), 0x9abcdef0)
                self.assertEqual(self.read(path),
                                 data[:0x1000] + b"\x0d\xf0\x0d\x60" + data[0x1004:])
                source.quit()
                target.quit()

    # R-DEV-34, R-DEV-36
    def test_doorbell(self):
        data = secrets.token_bytes(SIZE)
        for master in ("on", "auto"):
            with self.subTest(master=master):
                server = self.server(self.vectors)
                with open(os.path.join("/dev/shm", server.shm_name), "r+b") as file:
                    file.write(data)
                source, _ = self.source(server, master)
                server = self.server(self.vectors)
                target, peer = self.target(server)
                self.migrate(source, target)
                self.assertEqual(self.read(os.path.join("/dev/shm", server.shm_name)), data)
                self.assertEqual(target.r32(BAR2, 0x40),
                                 int.from_bytes(data[0x40:0x44], "little"))
                self.settle(target, peer)
                source.quit()
                target.quit()


@tiny.each_path(TWO)
class Ways(Plain):
    """Other ways than one stream of all memory, to end with the same."""

    def copied_with(self, capability):
        data = secrets.token_bytes(SIZE)
        servers = [self.server(self.vectors) for _ in range(2)]
        with open(os.path.join("/dev/shm", servers[0].shm_name), "r+b") as file:
            file.write(data)
        source, peer = self.source(servers[0])
        source.mask(1)
        peer.ring(source.id, 1)
        target, peer = self.target(servers[1])
        try:
            self.capabilities(target, capability)
        except support.Qmp.Error as error:
            self.skipTest("%s cannot be used here: %s" % (capability, error.desc))
        source.qmp.cmd("migrate-set-parameters", max_bandwidth=SIZE)
        self.begin(source, target, capability)
        if capability == "postcopy-ram":
            self.assertEqual(self.wait_status(source, "active"), "active")
            source.qmp.cmd("migrate-start-postcopy")
        self.wait_end(source)
        self.wait_arrived(source, target)
        self.assertEqual(self.read(os.path.join("/dev/shm", servers[1].shm_name)), data)
        self.settle(target, peer)
        target.mask(1, False)
        target.wait_count(ivec(1), 1)
        self.assert_counts(target, peer, {ivec(1): 1}, self.FENCE)

    def test_postcopy(self):
        self.copied_with("postcopy-ram")

    def test_multifd(self):
        self.copied_with("multifd")


def ram_blocks(stream):
    """[(name, size)] of the RAM section that begins a migration stream."""
    name = stream.index(b"\x03ram")
    at = name + 4 + 8                   # instance and version
    total = int.from_bytes(stream[at:at + 8], "big") & ~0xfff
    at += 8
    blocks = []
    while sum(size for _, size in blocks) < total:
        length = stream[at]
        at += 1
        blocks.append((stream[at:at + length].decode("ascii"),
                       int.from_bytes(stream[at + length:at + length + 8], "big")))
        at += length + 8
    return blocks


@tiny.each_path([route for route in OURS if route.accel == "tcg"])
class Wire(Plain):
    def blocks(self, end, *options):
        """What a QEMU with these options writes."""
        guest = self.machine(tiny.TinyGuest, end, *options)
        self.capabilities(guest)
        path = os.path.join(self.dir, "stream-" + secrets.token_hex(3))
        guest.qmp.cmd("migrate", uri="exec:cat >" + path)
        self.wait_end(guest)
        return ram_blocks(self.read(path))

    # R-DEV-36
    def test_blocks_are_named_as_ever(self):
        for kind, name in (("plain", "mem"), ("doorbell", "ivshmem.bar2")):
            found = []
            for end in ("stock", "qemu"):
                options = (self.plain(self.file()) if kind == "plain"
                           else self.device(self.server(self.vectors)))
                found.append(sorted(self.blocks(end, *options)))
            self.assertEqual(*found)
            self.assertIn(SIZE, [size for block, size in found[1]
                                 if block.split("/")[-1] == name], found)


@tiny.each_path(TWO)
class Peers(Plain):
    def assert_refused(self, guest, *words):
        """By query-migrate, migrate and savevm, with all of these words."""
        reasons = guest.qmp.cmd("query-migrate")["blocked-reasons"]
        self.assertEqual(len(reasons), 1)
        with self.assertRaises(support.Qmp.Error) as caught:
            guest.qmp.cmd("migrate", uri="exec:cat >/dev/null")
        for text in (reasons[0], caught.exception.desc, guest.qmp.hmp("savevm one")):
            for word in words:
                self.assertIn(word, text)

    # R-DEV-35
    def test_device_without_a_name(self):
        guest = self.leaving(*[option.replace("id=shm,", "")
                               for option in self.plain(self.file(), "off")])
        self.assert_refused(guest, "device '0000:00:", "(ivshmem-plain)")

    # R-DEV-35
    def test_refused_and_free_after_unplug(self):
        server = self.server(self.vectors)
        master = self.host_peer(server)
        for options, words in (
                (self.plain(self.file(), "off"), ("'shm' (ivshmem-plain)",)),
                (self.device(server, "off"), ("'shm' (ivshmem-doorbell)",)),
                (self.device(server, "auto"), ("'shm' (ivshmem-doorbell)",))):
            guest = self.leaving(*options)
            self.use(guest)
            self.assert_refused(guest, "peer mode", "unplug", "master=on", *words)
            self.eject(guest, guest.use()["bdf"] >> 3)
            self.assertNotIn("blocked-reasons", guest.qmp.cmd("query-migrate"))
            self.migrate(guest, self.arriving())
        self.assertEqual(master.id, 0)

    # R-DEV-34
    def test_master_with_another_id_does_not_start(self):
        server = self.server(self.vectors)
        self.host_peer(server)
        with self.assertRaisesRegex(AssertionError, "master=on needs peer ID 0"):
            self.leaving(*self.device(server, "on"))

    # R-DEV-30
    def test_after_unplug_of_plain(self):
        """The target knows nothing of the memory that was there."""
        source = self.leaving(*self.plain(self.file()))
        self.use(source)
        self.eject(source, source.use()["bdf"] >> 3)
        target = self.arriving("-object", "memory-backend-file,id=mem,share=on,size=%d,mem-path=%s"
                               % (SIZE, self.file()))
        self.migrate(source, target)
        self.assertEqual(source.qmp.cmd("object-del", id="mem"), {})
        target.qmp.cmd("device_add", driver="ivshmem-plain", id="shm", memdev="mem", master="on")
        self.use(target)
        target.w32(BAR2, 0x40, 0x600df00d)
        final = self.arriving(*self.plain(self.file()))
        self.migrate(target, final)
        self.assertEqual(final.r32(BAR2, 0x40), 0x600df00d)

    def test_plugged_again_before_it_leaves(self):
        """Unplugged and plugged with the same memory, which migrates once."""
        source = self.leaving(*self.plain(self.file(b"before")))
        slot = self.use(source)["bdf"] >> 3
        self.eject(source, slot)
        source.qmp.cmd("device_add", driver="ivshmem-plain", id="shm", memdev="mem", master="on",
                       addr="%x" % slot)
        self.use(source)
        path = self.file()
        target = self.arriving(*self.plain(path))
        self.migrate(source, target)
        self.assertEqual(self.read(path)[:6], b"before")


@tiny.each_path(TWO)
class ReadOnly(Plain):
    # R-DEV-38
    def test_it_stays_where_it_is(self):
        """Not even a migration writes to memory that may only be read."""
        source = self.leaving(*self.plain(self.file(b"from the source"), more=",readonly=on"))
        self.use(source)
        path = self.file(b"at the target")
        target = self.arriving(*self.plain(path, more=",readonly=on"))
        self.migrate(source, target)
        self.assertEqual(target.r32(BAR2, 0), int.from_bytes(b"at t", "little"))

    def test_writable_at_the_source(self):
        source = self.leaving(*self.plain(self.file(b"from the source")))
        self.use(source)
        target = self.arriving(*self.plain(self.file(b"at the target"), more=",readonly=on"))
        self.begin(source, target)
        self.assertGreater(target.wait(), 0)
        self.assertIn("nknown ramblock", target.err.text)
