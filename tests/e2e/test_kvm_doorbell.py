# SPDX-License-Identifier: GPL-2.0-or-later
"""Rings between tiny guests, and between them and the host, on every path."""
import re

import support
import tiny
from tiny import BAR0, BAR2, DOORBELL, ivec


@tiny.each_path()
class Doorbell:
    # R-DEV-12, R-DEV-20, R-DEV-25
    def test_both_directions(self):
        a, b = self.pair(4)
        for sender, receiver in ((a, b), (b, a)):
            for vector in range(3):
                sender.ring(receiver.id, vector)
                receiver.wait_count(ivec(vector), 1)
            self.assert_counts(receiver, sender, {ivec(vector): 1 for vector in range(3)}, fence=3)

    # R-DEV-14
    def test_ring_oneself(self):
        server = self.server(3)
        a = self.ready(server, 3)
        for count in range(1, 4):
            a.ring(a.id, 2)
            a.wait_count(ivec(2), count)
        self.assertEqual(a.total(), 3)

    # R-DEV-19
    def test_memory_is_there_when_the_ring_is(self):
        server = self.server(2)
        a, b = self.ready(server, 2), self.doorbell(server, 2)
        b.id = b.setup(high=True)
        self.introduce(a, b)
        for value in (0x11223344, 0x55667788, 0x99AABBCC):
            a.w32(BAR2, 0x1000, value)
            a.ring(b.id, 0)
            b.wait_count(ivec(0), 1)
            self.assertEqual(b.r32(BAR2, 0x1000), value)
            b.w32(BAR2, 0xFFFFC, ~value & 0xFFFFFFFF)
            self.assertEqual(a.r32(BAR2, 0xFFFFC), ~value & 0xFFFFFFFF)
            b.clear()

    def test_round_trips(self):
        a, b = self.pair(2)
        b.echo(ivec(1), a.id, 0)
        self.assertEqual(a.pingpong(ivec(0), b.id, 1, 300, offset=0)[0], 300)
        self.assertEqual(b.count(ivec(1)), 300)
        self.assertEqual(a.count(ivec(0)), 300)
        for i in (0, 299):
            self.assertGreater(a.r32(BAR2, 4 * i), 0)

    # R-DEV-20
    def test_many_rings_at_once_merge(self):
        a, b = self.pair(2)
        a.ring(b.id, 0, 500)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        b.wait_count(ivec(0), 1)
        self.assertLessEqual(self.quiet(b, a, 1), 501)

    def test_host_to_guest_and_back(self):
        server = self.server(3)
        guest = self.ready(server, 3)
        client = self.start(support.Client(server.socket))
        peer = client.command("id")["id"]
        self.assertTrue(client.command("wait-peer %d 10s 3" % guest.id)["ok"])
        self.wait_peer(guest, peer, 3)
        self.assertTrue(client.command("int %d 1" % guest.id)["ok"])
        guest.wait_count(ivec(1), 1)
        guest.ring(peer, 2)
        answer = client.command("wait 10s")
        self.assertTrue(answer["ok"], answer)
        self.assertEqual((answer["vector"], answer["count"]), (2, 1))
        self.assertEqual((guest.count(ivec(1)), guest.total()), (1, 1))

    # R-DEV-13
    def test_unknown_peers_and_vectors_are_ignored(self):
        a, b = self.pair(2)
        for peer, vector in ((b.id, 2), (b.id, 0xFFFF), (a.id, 2), (0xFFFF, 0), (0xFFFF, 0xFFFF),
                             (b.id + 1, 0)):
            a.ring(peer, vector)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)
        self.assert_counts(a, b, {}, fence=1)
        self.assertEqual(a.r32(BAR0, DOORBELL), 0)

    # R-DEV-12
    def test_vectors_beyond_255(self):
        a, b = self.pair(300)
        self.assertNotEqual(ivec(257), ivec(1))
        a.ring(b.id, 257)
        b.wait_count(ivec(257), 1)
        a.ring(b.id, 299)
        b.wait_count(ivec(299), 1)
        self.assert_counts(b, a, {ivec(257): 1, ivec(299): 1}, fence=0)

    def test_several_processors_ring_at_once(self):
        server = self.server(2)
        a, b = self.ready(server, 2, "-smp", "2"), self.ready(server, 2)
        self.introduce(a, b)
        self.assertEqual(len(a.ring_together(2, b.id, 0, 200)), 2)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        b.wait_count(ivec(0), 1)
        self.assertLessEqual(b.count(ivec(0)), 400)


@tiny.each_path()
class InKernel:
    """Which way the rings really take, by QEMU's trace events."""

    def test_path_is_the_one_asked_for(self):
        server = self.server(1)
        a = self.ready(server, 1, "-trace", "memory_region_ops_write", "-trace", "ivshmem*")
        b = self.ready(server, 1, "-trace", "ivshmem*")
        self.introduce(a, b)
        if self.path.in_kernel_ring:
            a.err.wait_for(r"^ivshmem_ioeventfds ")
        for count in range(1, 6):
            a.ring(b.id, 0)
            b.wait_count(ivec(0), count)
        for guest in (a, b):
            guest.w32(BAR0, 0xF0, 0x5EED)       # where the traces end
            guest.err.wait_for(r"^ivshmem_write .*5eed")
        bar0 = a.use()["bar0"]
        rung = len(re.findall(r"^memory_region_ops_write .* addr 0x%x " % (bar0 + DOORBELL),
                              a.err.text, re.M))
        interrupts = len(re.findall(r"^ivshmem_interrupt ", b.err.text, re.M))
        self.assertEqual(rung, 0 if self.path.in_kernel_ring else 5)
        self.assertEqual(interrupts, 0 if self.path.in_kernel_interrupt else 5)


class NoLocalApic(tiny.TinyCase):
    """KVM with kernel-irqchip=off: a processor without local APIC, a machine without MSI-X."""
    path = tiny.Path("kvm", "off")
    options = ("-cpu", "qemu64,-apic")

    def test_plain_works(self):
        backend = ["-object", "memory-backend-memfd,id=m,size=1M,share=on",
                   "-device", "ivshmem-plain,memdev=m"]
        guest = self.guest(*backend)
        self.assertEqual(guest.scan(), 1)
        guest.w32(BAR2, 0xFFFFC, 0x12345678)
        self.assertEqual(guest.r16(BAR2, 0xFFFFE), 0x1234)
        self.assertEqual(guest.position(), 0)

    def test_doorbell_is_refused(self):
        server = self.server(1)
        with self.assertRaisesRegex(AssertionError, "MSI-X is not supported"):
            self.doorbell(server)
