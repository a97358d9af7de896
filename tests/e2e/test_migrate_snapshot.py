# SPDX-License-Identifier: GPL-2.0-or-later
"""savevm and loadvm: the memory and the vectors go back, rings are not lost, peers are refused."""
import os
import shutil
import subprocess
import unittest

import support
import tiny
from migration import Migrating, OURS
from tiny import BAR0, BAR2, CONFIG, INTR_MASK, ivec

BAR2_HIGH = 0x1C                # in configuration space


@tiny.each_path(OURS)
class Snapshot(Migrating):
    def disk(self):
        """Options of a drive that holds the snapshots."""
        tool = shutil.which("qemu-img")
        if not tool:
            raise unittest.SkipTest("no qemu-img to make a qcow2 file: apt-get install qemu-utils")
        path = os.path.join(self.dir, "disk.qcow2")
        subprocess.run([tool, "create", "-q", "-f", "qcow2", path, "1M"], check=True)
        return ["-drive", "if=none,id=disk,format=qcow2,file=" + path]

    def with_disk(self, server, *more, disk=None):
        return self.leaving(*self.device(server), *(disk or self.disk()), *more)

    def source(self, server=None, master="on"):
        server = server or self.server(self.vectors)
        guest = self.with_disk(server)
        guest.id = guest.setup()
        peer = self.host_peer(server)
        peer.meet(guest.id, self.vectors)
        return guest, peer

    def hmp(self, guest, text):
        self.assertEqual(guest.qmp.hmp(text), "")

    # R-DEV-36
    def test_memory_and_vectors_go_back(self):
        guest, peer = self.source()
        guest.w32(BAR2, 0x40, 0x600df00d)
        guest.w32(BAR0, INTR_MASK, 0x12345678)
        guest.mask(1)
        self.hmp(guest, "savevm one")
        guest.w32(BAR2, 0x40, 0)
        guest.w32(BAR0, INTR_MASK, 0)
        guest.mask(1, False)
        guest.msix(False)
        self.hmp(guest, "loadvm one")
        self.assertEqual(guest.r32(BAR2, 0x40), 0x600df00d)
        self.assertEqual(guest.r32(BAR0, INTR_MASK), 0x12345678)
        self.assertEqual(guest.position(), guest.id)
        peer.ring(guest.id, 1)
        peer.ring(guest.id, 0)
        guest.wait_count(ivec(0), 1)
        self.assert_counts(guest, peer, {ivec(0): 1, ivec(1): 0}, self.FENCE)
        guest.mask(1, False)
        guest.wait_count(ivec(1), 1)

    def test_memory_was_elsewhere(self):
        """BAR2 is where the snapshot has it, whether it can be reached there or not."""
        guest, _ = self.source()
        guest.w32(BAR2, 0x40, 0x600df00d)
        self.hmp(guest, "savevm here")
        guest.w32(CONFIG, BAR2_HIGH, 0xFFFFFFFF)
        self.hmp(guest, "savevm nowhere")
        self.hmp(guest, "loadvm here")
        self.assertEqual(guest.r32(BAR2, 0x40), 0x600df00d)
        self.hmp(guest, "loadvm nowhere")
        self.assertEqual(guest.r32(CONFIG, BAR2_HIGH), 0xFFFFFFFF)
        guest.w32(CONFIG, BAR2_HIGH, 0)
        self.assertEqual(guest.r32(BAR2, 0x40), 0x600df00d)

    # R-DEV-37
    def test_pending_ones_are_in_it_and_stay(self):
        """Delivered after the save, and once more in the VM of before, which knows no better."""
        guest, peer = self.source()
        guest.mask(1)
        peer.ring(guest.id, 1)
        guest.qmp.cmd("stop")
        peer.ring(guest.id, 0)
        self.hmp(guest, "savevm one")
        for again in (False, True):
            if again:
                self.hmp(guest, "loadvm one")
            guest.qmp.cmd("cont")
            guest.wait_count(ivec(0), 1)
            self.assertEqual(guest.count(ivec(1)), 0)
            guest.mask(1, False)
            guest.wait_count(ivec(1), 1)
            self.assert_counts(guest, peer, {ivec(0): 1, ivec(1): 1}, self.FENCE)
            guest.qmp.cmd("stop")

    def test_msix_that_was_off(self):
        guest, peer = self.source()
        guest.msix(False)
        self.hmp(guest, "savevm one")
        guest.msix(True)
        peer.ring(guest.id, 0)
        guest.wait_count(ivec(0), 1)
        self.hmp(guest, "loadvm one")
        peer.ring(guest.id, 1)
        self.assertEqual(guest.total(), 0)
        guest.msix(True)
        guest.wait_count(ivec(1), 1)
        self.assert_counts(guest, peer, {ivec(1): 1}, self.FENCE)

    def test_started_from_it(self):
        """Another QEMU, and another server with another order of things."""
        disk = self.disk()
        guest = self.with_disk(self.server(self.vectors), disk=disk)
        guest.setup()
        guest.w32(BAR2, 0x40, 0x600df00d)
        guest.mask(1)
        self.hmp(guest, "savevm one")
        guest.quit()
        server = self.server(self.vectors)
        again = self.arriving_from(server, disk)
        peer = self.host_peer(server)
        again.vectors = self.vectors
        self.settle(again, peer)
        self.assertEqual(again.r32(BAR2, 0x40), 0x600df00d)
        peer.ring(again.id, 1)
        self.assert_counts(again, peer, {ivec(1): 0}, self.FENCE)
        again.mask(1, False)
        again.wait_count(ivec(1), 1)

    def arriving_from(self, server, disk):
        class Loaded(tiny.TinyGuest):
            def started(self, seconds=support.DEFAULT_WAIT):
                """It says nothing: it goes on."""
        return self.machine(Loaded, "qemu", *self.device(server), *disk, "-loadvm", "one")

    # R-DEV-35
    def test_refused_for_peers(self):
        server = self.server(self.vectors)
        guest = self.leaving(*self.device(server, "off"), *self.disk())
        self.assertIn("'shm' (ivshmem-doorbell) is in peer mode", guest.qmp.hmp("savevm one"))
