# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration: no interrupt is lost or comes twice, whichever VM goes on, and with stock QEMU."""
import os
import signal

import support
import tiny
from migration import Migrating, OURS, Route, TWO, WITH_STOCK
from tiny import BAR0, INTR_MASK, INTR_STATUS, ivec


# Under KVM stock QEMU, once it has arrived, gets no interrupts: not from stock either.
RINGING = OURS + [route for route in WITH_STOCK
                  if route != Route("kvm", target="stock")]


@tiny.each_path(OURS + WITH_STOCK)
class Registers(Migrating):
    # R-DEV-36
    def test_they_arrive(self):
        source, _ = self.source()
        source.w32(BAR0, INTR_MASK, 0x12345678)
        source.w32(BAR0, INTR_STATUS, 0x9abcdef0)
        target, _ = self.target()
        self.migrate(source, target)
        self.assertEqual(target.r32(BAR0, INTR_MASK), 0x12345678)
        self.assertEqual(target.r32(BAR0, INTR_STATUS), 0x9abcdef0)
        self.assertEqual(target.r32(BAR0, INTR_STATUS), 0)


@tiny.each_path(RINGING)
class Arrive(Migrating):
    # R-DEV-36
    def test_vectors_go_on(self):
        source, _ = self.source()
        source.mask(1)
        target, peer = self.target()
        self.migrate(source, target)
        self.settle(target, peer)
        peer.ring(target.id, 0)
        target.wait_count(ivec(0), 1)
        peer.ring(target.id, 1)
        self.assert_counts(target, peer, {ivec(0): 1, ivec(1): 0}, self.FENCE)
        target.mask(1, False)
        target.wait_count(ivec(1), 1)

    # R-DEV-37
    def test_pending_while_masked(self):
        source, peer = self.source()
        source.mask(1)
        peer.ring(source.id, 1)
        peer.ring(source.id, 2)
        source.wait_count(ivec(2), 1)
        self.assertEqual(source.pending(1), 1)
        target, peer = self.target()
        self.migrate(source, target)
        self.settle(target, peer)
        self.assertEqual(target.pending(1), 1)
        self.assertEqual(target.count(ivec(1)), 0)
        target.mask(1, False)
        target.wait_count(ivec(1), 1)
        self.assert_counts(target, peer, {ivec(1): 1, ivec(2): 1}, self.FENCE)

    def test_function_masked(self):
        source, peer = self.source()
        source.msix(True, function_mask=True)
        peer.ring(source.id, 0)
        self.assertEqual(source.pending(0), 1)
        target, peer = self.target()
        self.migrate(source, target)
        self.settle(target, peer)
        self.assertEqual(target.total(), 0)
        target.msix(True)
        target.wait_count(ivec(0), 1)
        self.assert_counts(target, peer, {ivec(0): 1}, self.FENCE)


# Stock QEMU does not let a device arrive that the server makes a peer.
@tiny.each_path([route for route in RINGING if route.target == "qemu"])
class AtTarget(Migrating):
    def test_id_and_peers_of_its_server(self):
        source, peer = self.source()
        self.assertEqual(source.id, 0)
        target, other = self.target(others=2)
        self.migrate(source, target)
        self.settle(target, other)
        self.assertEqual(target.id, 2)
        self.assertNotEqual(other.id, peer.id)
        target.ring(other.id, 1)
        self.assertEqual(other.do("wait 20s 1")["vector"], 1)
        other.ring(target.id, 0)
        target.wait_count(ivec(0), 1)
        self.assertEqual(set(self.peers(target)), {0, 1, other.id})

    def test_rung_before_it_arrives(self):
        """Peers of the target's server ring it before it has a state."""
        source, _ = self.source()
        target, peer = self.target()
        peer.meet(0, self.vectors)
        peer.ring(0, 2)
        self.migrate(source, target)
        self.settle(target, peer)
        target.wait_count(ivec(2), 1)
        self.assert_counts(target, peer, {ivec(2): 1}, self.FENCE)


# Not from stock, which loses such rings all by itself.
@tiny.each_path([route for route in RINGING if route.source == "qemu"])
class Latched(Migrating):
    # R-DEV-37
    def test_rung_before_msix_is_on(self):
        source, peer = self.source()
        source.msix(False)
        peer.ring(source.id, 0)
        target, peer = self.target()
        self.migrate(source, target)
        self.settle(target, peer)
        self.assertEqual(target.count(ivec(0)), 0)
        target.msix(True)
        target.wait_count(ivec(0), 1)
        self.assert_counts(target, peer, {ivec(0): 1}, self.FENCE)

    # R-DEV-37
    def test_rung_while_stopped(self):
        source, peer = self.source()
        source.mask(1)
        source.qmp.cmd("stop")
        peer.ring(source.id, 0)
        peer.ring(source.id, 1)
        target, peer = self.target()
        self.migrate(source, target)
        self.assertEqual(target.qmp.cmd("query-status")["status"], "paused")
        target.qmp.cmd("cont")
        target.wait_count(ivec(0), 1)
        self.settle(target, peer)
        target.mask(1, False)
        target.wait_count(ivec(1), 1)
        self.assert_counts(target, peer, {ivec(0): 1, ivec(1): 1}, self.FENCE)

    # R-DEV-37
    def test_rung_at_the_last_moment(self):
        """The migration has stopped the VM, and is about to save its devices."""
        source, peer = self.source()
        target, other = self.target()
        self.begin(source, target, "pause-before-switchover")
        self.assertEqual(self.wait_status(source, "pre-switchover"), "pre-switchover")
        peer.ring(source.id, 2)
        source.qmp.cmd("migrate-continue", state="pre-switchover")
        self.wait_end(source)
        self.wait_arrived(source, target)
        target.wait_count(ivec(2), 1)
        self.settle(target, other)
        self.assert_counts(target, other, {ivec(2): 1}, self.FENCE)


@tiny.each_path(OURS)
class Stay(Migrating):
    """The VM goes on at the source, with all that was rung meanwhile."""

    def ring_all(self, source, peer):
        """Vector 0 while stopped, 1 masked before, 2 masked and stopped."""
        peer.ring(source.id, 0)
        peer.ring(source.id, 2)

    def prepare(self):
        source, peer = self.source()
        source.mask(1)
        source.mask(2)
        peer.ring(source.id, 1)
        return source, peer

    def check(self, source, peer):
        source.wait_count(ivec(0), 1)
        self.assertEqual(source.count(ivec(1)), 0)
        for vector in (1, 2):
            source.mask(vector, False)
            source.wait_count(ivec(vector), 1)
        self.assert_counts(source, peer, {ivec(n): 1 for n in range(3)}, self.FENCE)

    def begin_paused(self, source, target, *capabilities):
        self.begin(source, target, "pause-before-switchover", *capabilities)
        self.assertEqual(self.wait_status(source, "pre-switchover"), "pre-switchover")

    # R-DEV-37
    def test_after_cancel(self):
        source, peer = self.prepare()
        target, _ = self.target()
        self.begin_paused(source, target)
        self.ring_all(source, peer)
        source.qmp.cmd("migrate_cancel")
        self.wait_end(source, "cancelled")
        source.qmp.wait_event("RESUME")
        self.check(source, peer)

    # R-DEV-37
    def test_after_failure(self):
        """The target does not take the devices' state: they have been saved by then."""
        source, peer = self.prepare()
        target, _ = self.target(vectors=self.vectors + 1)
        self.begin_paused(source, target, "return-path")
        self.ring_all(source, peer)
        source.qmp.cmd("migrate-continue", state="pre-switchover")
        self.wait_end(source, "failed")
        self.assertNotEqual(target.wait(), 0)
        source.qmp.wait_event("RESUME")
        self.check(source, peer)

    # R-DEV-37
    def test_after_a_save_to_a_file(self):
        source, peer = self.prepare()
        source.qmp.cmd("stop")
        self.ring_all(source, peer)
        stream = os.path.join(self.dir, "stream")
        self.capabilities(source)
        source.qmp.cmd("migrate", uri="exec:cat >" + stream)
        self.wait_end(source)
        self.go_on(source)
        self.check(source, peer)
        target, peer = self.target()
        self.capabilities(target)
        target.qmp.cmd("migrate-incoming", uri="exec:cat " + stream)
        self.wait_arrived(source, target)
        target.qmp.cmd("cont")
        self.settle(target, peer)
        self.check(target, peer)

    # R-DEV-21, R-DEV-37
    def test_looked_at_while_stopped(self):
        """query-ivshmem shows what is pending; that takes nothing away."""
        for save in (False, True):
            with self.subTest(save=save):
                source, peer = self.source()
                source.qmp.cmd("stop")
                peer.ring(source.id, 0)
                shown = source.qmp.cmd("query-ivshmem")[0]["vectors"]
                self.assertEqual([vector["pending"] for vector in shown],
                                 [True, False, False, False])
                if save:
                    self.capabilities(source)
                    source.qmp.cmd("migrate", uri="exec:cat >/dev/null")
                    self.wait_end(source)
                    self.go_on(source)
                else:
                    source.qmp.cmd("cont")
                source.wait_count(ivec(0), 1, 3)
                self.assert_counts(source, peer, {ivec(0): 1}, self.FENCE)
                source.quit()

    # R-DEV-37
    def test_msix_was_off_at_a_save(self):
        source, peer = self.source()
        source.msix(False)
        peer.ring(source.id, 0)
        self.capabilities(source)
        source.qmp.cmd("migrate", uri="exec:cat >/dev/null")
        self.wait_end(source)
        self.go_on(source)
        self.assertEqual(source.total(), 0)
        source.msix(True)
        source.wait_count(ivec(0), 1)
        self.assert_counts(source, peer, {ivec(0): 1}, self.FENCE)

    def test_next_attempt_succeeds(self):
        source, peer = self.prepare()
        target, _ = self.target()
        self.begin_paused(source, target)
        self.ring_all(source, peer)
        source.qmp.cmd("migrate_cancel")
        self.wait_end(source, "cancelled")
        source.qmp.wait_event("RESUME")
        source.wait_count(ivec(0), 1)
        source.qmp.cmd("migrate-set-capabilities", capabilities=[
            {"capability": "pause-before-switchover", "state": False}])
        target, peer = self.target()
        self.migrate(source, target)
        self.settle(target, peer)
        self.check(target, peer)


@tiny.each_path(TWO)
class Surroundings(Migrating):
    def test_twice(self):
        """The state of a VM that arrived is as good as any."""
        source, _ = self.source()
        middle, peer = self.target()
        self.migrate(source, middle)
        middle.mask(2)
        self.settle(middle, peer)
        peer.ring(middle.id, 2)
        target, peer = self.target()
        self.migrate(middle, target)
        self.settle(target, peer)
        peer.ring(target.id, 0)
        target.wait_count(ivec(0), 1)
        self.assertEqual(target.count(ivec(2)), 0)
        target.mask(2, False)
        target.wait_count(ivec(2), 1)
        self.assert_counts(target, peer, {ivec(0): 1, ivec(2): 1}, self.FENCE)

    def test_peers_join_and_leave_meanwhile(self):
        servers = [self.server(self.vectors) for _ in range(2)]
        source, peer = self.source(servers[0])
        target, other = self.target(servers[1])
        leaving = [self.host_peer(server) for server in servers for _ in range(4)]
        self.begin(source, target, "pause-before-switchover")
        for client in leaving[::2]:
            client.signal(signal.SIGKILL)
        self.assertEqual(self.wait_status(source, "pre-switchover"), "pre-switchover")
        for client in leaving[1::2]:
            client.signal(signal.SIGKILL)
        joined = [self.host_peer(server) for server in servers for _ in range(4)]
        source.qmp.cmd("migrate-continue", state="pre-switchover")
        self.wait_end(source)
        self.wait_arrived(source, target)
        self.settle(target, other)
        for client in joined[4:]:
            self.wait_peer(target, client.id, self.vectors)
            client.meet(target.id, self.vectors)
            client.ring(target.id, 0)
            target.ring(client.id, 1)
            self.assertEqual(client.do("wait 20s 1")["vector"], 1)
        target.wait_count(ivec(0), 1)
        expected = {client.id: self.vectors for client in [other] + joined[4:]}
        limit = support.Deadline()
        while self.peers(target) != expected and not limit.expired():
            pass
        self.assertEqual(self.peers(target), expected)
        self.assertEqual(source.quit(), 0)
        peer.do("wait-gone %d 20s" % source.id)

    def test_within_one_server(self):
        """Both ends share memory and server: an upgrade of QEMU in place."""
        server = self.server(self.vectors)
        source, peer = self.source(server)
        peer.do("poke 0x40 0df00d60")
        target = self.arriving(*self.device(server, "auto"))
        self.migrate(source, target)
        self.assertEqual(source.quit(), 0)
        peer.do("wait-gone %d 20s" % source.id)
        self.settle(target, peer)
        self.assertNotEqual(target.id, source.id)
        self.assertEqual(target.r32(tiny.BAR2, 0x40), 0x600df00d)
        peer.ring(target.id, 0)
        target.wait_count(ivec(0), 1)
        self.assert_counts(target, peer, {ivec(0): 1}, self.FENCE)

    # R-DEV-31, R-DEV-37
    def test_server_is_away(self):
        servers = [self.server(self.vectors) for _ in range(2)]
        guests = []
        for make, server in zip((self.leaving, self.arriving), servers):
            options = self.device(server, "auto")
            options[1] += ",reconnect-ms=50"
            guests.append(make(*options))
        source, target = guests
        source.id = source.setup()
        peer, other = (self.host_peer(server) for server in servers)
        peer.meet(source.id, self.vectors)
        for server in servers:
            server.signal(signal.SIGKILL)
            server.wait()
        for guest in guests:
            guest.qmp.wait_event("IVSHMEM_DISCONNECTED")
        source.mask(1)
        peer.ring(source.id, 1)
        peer.ring(source.id, 0)
        source.wait_count(ivec(0), 1)
        self.migrate(source, target)
        target.id = target.position()
        target.mask(1, False)
        target.wait_count(ivec(1), 1)
        other.ring(target.id, 2)
        target.wait_count(ivec(2), 1)
        again = self.start(support.Server(self.dir, "-M", servers[1].shm_name, "-l", "1M", "-n",
                                          str(self.vectors), socket_path=servers[1].socket))
        target.qmp.wait_event("IVSHMEM_CONNECTED")
        other = self.host_peer(again)
        self.settle(target, other)
        self.assert_counts(target, other, {ivec(n): 1 for n in range(3)}, self.FENCE)


@tiny.each_path(TWO)
class HotPlug(Migrating):
    """What the manual tells owners of peers to do."""

    def plug(self, guest, server):
        guest.qmp.cmd("chardev-add", id="new", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": server.socket}}, "server": False}})
        guest.qmp.cmd("device_add", driver="ivshmem-doorbell", id="shm", chardev="new",
                      vectors=self.vectors)
        guest.setup()

    # R-DEV-30, R-DEV-35
    def test_peer_is_unplugged_and_plugged_in_again(self):
        servers = [self.server(self.vectors) for _ in range(2)]
        source, peer = self.source(servers[0], "off")
        target = self.arriving()
        with self.assertRaisesRegex(support.Qmp.Error, "peer mode"):
            source.qmp.cmd("migrate", uri="exec:cat >/dev/null")
        self.eject(source, source.use()["bdf"] >> 3)
        peer.do("wait-gone %d 20s" % source.id)
        self.migrate(source, target)
        other = self.host_peer(servers[1])
        self.plug(target, servers[1])
        self.settle(target, other)
        other.ring(target.id, 0)
        target.wait_count(ivec(0), 1)
        target.ring(other.id, 1)
        self.assertEqual(other.do("wait 20s 1")["vector"], 1)
