# SPDX-License-Identifier: GPL-2.0-or-later
"""Resets, departures, stops, hot-plug and many devices, with rings under way, on every path."""
import signal

import support
import tiny
from tiny import BAR2, ivec


@tiny.each_path()
class Reset:
    # R-DEV-26
    def test_reset_in_the_middle(self):
        a, b = self.pair(3)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        for _ in range(3):
            b.reset()
            self.assertEqual(b.setup(), b.id)
            self.assert_counts(b, a, {}, fence=2)
            b.clear()
            a.ring(b.id, 0)
            b.wait_count(ivec(0), 1)
            b.ring(a.id, 1)
            self.assert_counts(b, a, {ivec(0): 1}, fence=2)
        a.wait_count(ivec(1), 1)

    def test_reset_with_a_masked_vector_pending(self):
        a, b = self.pair(3)
        b.mask(0)
        a.ring(b.id, 0, 2)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        b.reset()
        b.setup()
        self.assertLessEqual(self.quiet(b, a, 2), 1)
        b.clear()
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=2)

    def test_reset_while_a_peer_rings(self):
        a, b = self.pair(2)
        for _ in range(3):
            what = a.send("ring", tiny.bell(b.id, 0), 3000)
            b.reset()
            a.answer(what, 60)
            self.assertEqual(b.setup(), b.id)
            self.quiet(b, a, 1)
            b.clear()
            a.ring(b.id, 0)
            b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)


@tiny.each_path()
class Peers:
    def test_peer_leaves_and_comes_back(self):
        server = self.server(2)
        a, b, c = self.ready(server, 2), self.ready(server, 2), self.ready(server, 2)
        self.introduce(a, b, c)
        b.echo(ivec(0), a.id, 0)
        self.assertEqual(a.pingpong(ivec(0), b.id, 0, 50)[0], 50)
        self.assertEqual(b.quit(), 0)
        self.wait_peer(a, b.id, 0)
        self.wait_peer(c, b.id, 0)
        a.ring(b.id, 0, 10)
        a.ring(c.id, 1)
        c.wait_count(ivec(1), 1)
        self.assert_counts(c, a, {ivec(1): 1}, fence=0)
        d = self.ready(server, 2)
        self.introduce(a, c, d)
        a.ring(d.id, 0)
        d.wait_count(ivec(0), 1)
        self.assert_counts(d, a, {ivec(0): 1}, fence=1)

    def test_peer_is_killed_while_it_is_rung(self):
        server = self.server(2)
        a, b, c = self.ready(server, 2), self.ready(server, 2), self.ready(server, 2)
        self.introduce(a, b, c)
        what = a.send("ring", tiny.bell(b.id, 1), 5000)
        b.signal(signal.SIGKILL)
        a.answer(what, 60)
        self.wait_peer(a, b.id, 0)
        a.ring(b.id, 0)
        a.ring(c.id, 0)
        c.wait_count(ivec(0), 1)
        c.ring(a.id, 1)
        a.wait_count(ivec(1), 1)

    # R-DEV-31
    def test_server_is_gone(self):
        """Doorbells between living peers go on without it."""
        server = self.server(2)
        a, b = self.pair(2, server)
        server.stop()
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        b.ring(a.id, 1)
        a.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    # R-DEV-21
    def test_rung_while_stopped(self):
        a, b = self.pair(2)
        b.qmp.cmd("stop")
        a.ring(b.id, 0, 5)
        b.qmp.cmd("cont")
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    def test_rung_while_stopped_and_masked(self):
        a, b = self.pair(2)
        b.mask(0)
        b.qmp.cmd("stop")
        a.ring(b.id, 0, 5)
        b.qmp.cmd("cont")
        b.mask(0, False)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    def test_many_devices_in_one_guest(self):
        servers = [self.server(2) for _ in range(3)]
        options = []
        for i, server in enumerate(servers):
            options += self.doorbell_options(server, 2, "shm%d" % i)
        guest = self.guest(*options)
        other = [self.ready(server, 2) for server in servers]
        self.assertEqual(guest.scan(), 3)
        for i in range(3):
            guest.use(i)
            guest.fill(0, 2, 0x40 + 0x10 * i)
            guest.msix(True)
            self.wait_peer(other[i], guest.position(), 2)
            guest.w32(BAR2, 0, 0x1000 + i)
        for i in range(3):
            guest.use(i)
            self.assertEqual(other[i].r32(BAR2, 0), 0x1000 + i)
            other[i].ring(guest.position(), 1)
            guest.wait_count(0x41 + 0x10 * i, 1)
            self.wait_peer(guest, other[i].id, 2, "shm%d" % i)
            guest.ring(other[i].id, 0)
            other[i].wait_count(ivec(0), 1)
        self.assertEqual(guest.total(), 3)


@tiny.each_path([path for path in tiny.ALL_PATHS if path.machine == "q35"])
class RootPort:
    def test_behind_a_root_port_with_memory_beyond_4g(self):
        server = self.server(2)
        a = self.ready(server, 2)
        b = self.guest("-device", "pcie-root-port,id=rp,chassis=1,slot=1",
                       *self.doorbell_options(server, 2, more=",bus=rp"))
        b.id = b.setup(high=True)
        self.assertEqual(b.use()["bdf"] >> 8, 1)
        self.assertGreater(b.use()["bar2"], 1 << 32)
        self.introduce(a, b)
        b.w32(BAR2, 0x2000, 0xCAFE)
        b.ring(a.id, 0)
        a.wait_count(ivec(0), 1)
        self.assertEqual(a.r32(BAR2, 0x2000), 0xCAFE)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(1): 1}, fence=0)


@tiny.each_path([path._replace(machine="pc") for path in tiny.ALL_PATHS])
class HotPlug(tiny.HotPlugging):
    # R-DEV-30
    def test_unplug_and_replug_beside_living_peers(self):
        server = self.server(2)
        a, b = self.pair(2, server)
        self.exchange(a, b)
        descriptors = support.fd_count(b.pid)
        for _ in range(5):
            old = b.id
            self.unplug(b)
            self.wait_peer(a, old, 0)
            a.ring(old, 0)
            self.plug(b, server, 2)
            self.exchange(a, b)
        limit = support.Deadline()
        while support.fd_count(b.pid) > descriptors:    # some are closed a little later
            self.assertFalse(limit.expired(), "%d descriptors at first, now %d"
                             % (descriptors, support.fd_count(b.pid)))

    def test_unplug_after_a_peer_has_left(self):
        server = self.server(2)
        a, b = self.pair(2, server)
        self.exchange(a, b)
        a.quit()
        self.wait_peer(b, a.id, 0)
        self.unplug(b)
        self.plug(b, server, 2)
        c = self.ready(server, 2)
        self.exchange(c, b)

    def test_unplug_while_it_is_rung(self):
        server = self.server(2)
        a, b = self.pair(2, server)
        what = a.send("ring", tiny.bell(b.id, 0), 5000)
        self.unplug(b)
        a.answer(what, 60)
        self.plug(b, server, 2)
        self.exchange(a, b)

    def test_unplug_with_pending_and_masked_vectors(self):
        server = self.server(2)
        a, b = self.pair(2, server)
        b.mask(0)
        a.ring(b.id, 0)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        self.unplug(b)
        self.plug(b, server, 2)
        self.assert_counts(b, a, {}, fence=1)
        b.clear()
        self.exchange(a, b)
