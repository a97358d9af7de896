# SPDX-License-Identifier: GPL-2.0-or-later
"""Rounds of the fuzzers in tests/fuzz that once found something, and what they found."""
import os
import sys
import unittest

import support

sys.path.append(os.path.join(support.TOP, "tests", "fuzz"))

import rounds               # noqa: E402
from fuzz_device import BARS, DOORBELL, OWN, DeviceFuzz    # noqa: E402
from fuzz_server import ServerFuzz  # noqa: E402


class Replay(unittest.TestCase):
    def replay(self, name, target):
        seeds = rounds.corpus(name)
        self.assertTrue(seeds)
        for seed in seeds:
            with self.subTest(seed=seed):
                rounds.play(target, seed)

    def test_server(self):
        self.replay("server", ServerFuzz)

    def test_device(self):
        self.replay("device", DeviceFuzz)


class SameEventfds(support.TestCase):
    def test_again_after_a_reconnection(self):
        """A ring of an eventfd that is both retired and current comes once, and is over."""
        target = DeviceFuzz(self.dir)
        self.addCleanup(target.close)
        server, guest = target.server, target.guest
        for vector in range(2):
            server.hang_up()
            self.assertTrue(server.accept(support.DEFAULT_WAIT))
            self.assertTrue(server.handshake())
            limit = support.Deadline()
            while guest.ask("readl", BARS[DOORBELL][0][0] + 8) != OWN or not target.connected():
                self.assertFalse(limit.expired())
            os.eventfd_write(server.own[vector], 1)
            limit = support.Deadline()
            while not self.pending(target, vector):
                self.assertFalse(limit.expired())
        self.assertFalse(self.pending(target, 2))

    def pending(self, target, vector):
        doorbell = next(info for info in target.qemu.qmp.cmd("query-ivshmem") if info.get("vectors"))
        return doorbell["vectors"][vector]["pending"]
