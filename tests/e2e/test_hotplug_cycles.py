# SPDX-License-Identifier: GPL-2.0-or-later
"""A device is plugged and unplugged again and again while others ring: nothing accumulates."""
import os

import support
import tiny
from soak import is_sanitized, resident
from tiny import ivec

# IVSHMEM_TEST_CYCLES=1000 makes it a test of endurance.
CYCLES = int(os.environ.get("IVSHMEM_TEST_CYCLES", "100"))
WARM_UP = 10
ROUND_TRIPS = 1000
MEMORY_SLACK_KIB = 4096
VECTORS = 2


@tiny.each_path((tiny.Path("tcg"), tiny.Path("kvm")))
class Cycles(tiny.HotPlugging):
    # R-DEV-30
    def test_constant_descriptors_and_memory(self):
        server = self.server(VECTORS)
        a, c = self.pair(VECTORS, server)
        c.echo(ivec(0), a.id, 0)
        plugged = self.guest()
        answered = 0
        first = None
        what = None
        for cycle in range(WARM_UP + CYCLES):
            if cycle % 10 == 0:         # a and c ring each other meanwhile
                answered += a.answer(what, 60)[0] if what else 0
                what = a.send("pingpong", ivec(0), tiny.bell(c.id, 0), ROUND_TRIPS,
                              tiny.NO_OFFSET, 0)
            self.plug(plugged, server, VECTORS)
            self.introduce(c, plugged)
            plugged.ring(c.id, 1)
            c.wait_count(ivec(1), 1)
            c.clear()
            c.ring(plugged.id, 1)
            plugged.wait_count(ivec(1), 1)
            self.unplug(plugged)
            if cycle == WARM_UP:
                first = self.at_rest(plugged, server, None)
        answered += a.answer(what, 60)[0]
        self.assertEqual(answered, (WARM_UP + CYCLES) // 10 * ROUND_TRIPS)
        last = self.at_rest(plugged, server, first)
        self.assertEqual(last["descriptors"], first["descriptors"])
        if not is_sanitized(plugged.pid):
            self.assertLess(last["memory"] - first["memory"], MEMORY_SLACK_KIB)
        self.assertEqual(last["regions"], first["regions"])
        print("     %d cycles: descriptors of VM and server %s -> %s, memory of the VM %d -> %d KiB"
              % (CYCLES, first["descriptors"], last["descriptors"], first["memory"],
                 last["memory"]), flush=True)

    def at_rest(self, guest, server, wanted):
        """What the VM and the server hold; waits for what was wanted as long as that may take."""
        limit = support.Deadline(40 if wanted else 2)
        while True:
            now = {"descriptors": (support.fd_count(guest.pid), support.fd_count(server.pid)),
                   "memory": resident(guest.pid),
                   "regions": guest.qmp.hmp("info mtree").count("\n")}
            if limit.expired() or (wanted and now["descriptors"] == wanted["descriptors"]):
                return now
            support.select.select([], [], [], 0.05)
