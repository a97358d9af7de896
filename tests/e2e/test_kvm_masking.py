# SPDX-License-Identifier: GPL-2.0-or-later
"""Masks, pending bits, late MSI-X, changed routes and vectors that lead nowhere, on every path."""
import select
import socket
import struct

import support
import tiny
from tiny import LAPIC_MESSAGE, ivec


@tiny.each_path()
class Masking:
    # R-DEV-21, R-DEV-22, R-DEV-25
    def test_masked_vector_is_pending_and_comes_once(self):
        a, b = self.pair(3)
        for round_trip in range(1, 4):
            b.mask(0)
            self.assertEqual(b.pending(0), 0)
            a.ring(b.id, 0, 3)
            a.ring(b.id, 1)
            b.wait_count(ivec(1), round_trip)
            self.assert_pending(b, 0)
            self.assertEqual(b.count(ivec(0)), round_trip - 1)
            b.mask(0, False)
            b.wait_count(ivec(0), round_trip)
            self.assertEqual(b.pending(0), 0)
        self.assert_counts(b, a, {ivec(0): 3, ivec(1): 3}, fence=2)

    # R-DEV-21, R-DEV-22, R-DEV-25
    def test_function_mask(self):
        a, b = self.pair(3)
        b.msix(True, function_mask=True)
        a.ring(b.id, 0)
        a.ring(b.id, 1, 2)
        self.assert_pending(b, 0)
        self.assert_pending(b, 1)
        self.assertEqual(b.total(), 0)
        b.mask(1)
        b.msix(True, function_mask=False)
        b.wait_count(ivec(0), 1)
        self.assertEqual((b.count(ivec(1)), b.pending(0), b.pending(1)), (0, 0, 1))
        b.mask(1, False)
        b.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(0): 1, ivec(1): 1}, fence=2)

    # R-DEV-21, R-DEV-25
    def test_rung_before_the_guest_enables_msix(self):
        server = self.server(3)
        a, b = self.ready(server, 3), self.doorbell(server, 3)
        b.id = b.setup(enable=False)
        self.introduce(a, b)
        a.ring(b.id, 0)
        a.ring(b.id, 1, 4)
        self.assertEqual(b.total(), 0)
        b.msix(True)
        b.wait_count(ivec(0), 1)
        b.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(0): 1, ivec(1): 1}, fence=2)

    def test_rung_before_the_guest_has_seen_the_device(self):
        server = self.server(2)
        a, b = self.ready(server, 2), self.doorbell(server, 2)
        self.wait_peer(a, 1, 2)
        a.ring(1, 0, 2)
        b.id = b.setup()
        self.assertEqual(b.id, 1)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    def test_msix_off_and_on_again(self):
        a, b = self.pair(3)
        for count in range(1, 4):
            b.msix(False)
            a.ring(b.id, 0, 2)
            self.assertEqual(b.count(ivec(0)), count - 1)
            b.msix(True)
            b.wait_count(ivec(0), count)
        self.assert_counts(b, a, {ivec(0): 3}, fence=2)

    def test_enabled_while_all_entries_are_masked(self):
        server = self.server(3)
        a, b = self.ready(server, 3), self.doorbell(server, 3)
        b.id = b.setup(masked=True)
        self.introduce(a, b)
        a.ring(b.id, 0)
        self.assert_pending(b, 0)
        for vector in range(3):
            b.mask(vector, False)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=2)

    def assert_pending(self, guest, vector):
        """The bit comes up once the ring has arrived, which the main loop may have to do."""
        limit = support.Deadline()
        while not guest.pending(vector):
            self.assertFalse(limit.expired(), "vector %d is not pending" % vector)


@tiny.each_path()
class Routes:
    # R-DEV-23, R-DEV-25
    def test_message_changed_while_masked(self):
        a, b = self.pair(3)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        for new in (0x60, 0x61, 0x62):
            b.mask(0)
            b.entry(0, LAPIC_MESSAGE, new, masked=True)
            b.mask(0, False)
            a.ring(b.id, 0)
            b.wait_count(new, 1)
        self.assert_counts(b, a, {ivec(0): 1, 0x60: 1, 0x61: 1, 0x62: 1}, fence=2)

    def test_pending_interrupt_goes_to_the_new_message(self):
        a, b = self.pair(3)
        b.mask(0)
        a.ring(b.id, 0)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        b.entry(0, LAPIC_MESSAGE, 0x77, masked=True)
        b.mask(0, False)
        b.wait_count(0x77, 1)
        self.assert_counts(b, a, {0x77: 1, ivec(1): 1}, fence=2)

    def test_address_changed_while_masked(self):
        """To a processor that is not there, and back."""
        a, b = self.pair(3)
        b.entry(0, LAPIC_MESSAGE | 0x0E << 12, ivec(0))
        a.ring(b.id, 0)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        self.assertEqual(b.count(ivec(0)), 0)
        b.entry(0, LAPIC_MESSAGE, ivec(0))
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1, ivec(1): 1}, fence=2)

    def test_message_written_after_enable(self):
        """Drivers may unmask first and write the message later (D22 on Arm)."""
        server = self.server(2)
        a, b = self.ready(server, 2), self.doorbell(server, 2)
        b.scan()
        b.use()
        b.id = b.position()
        b.msix(True)
        self.introduce(a, b)
        b.fill(0, 2)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    def test_two_vectors_with_one_message(self):
        a, b = self.pair(3)
        b.entry(1, LAPIC_MESSAGE, ivec(0))
        for count in (1, 3):
            a.ring(b.id, 0)
            b.wait_count(ivec(0), count)
            a.ring(b.id, 1)
            b.wait_count(ivec(0), count + 1)
        self.assert_counts(b, a, {ivec(0): 4}, fence=2)


@tiny.each_path()
class Unconnected:
    """The device has more vectors than the server gives (D13, D30)."""

    def exercise(self, a, b):
        for vector in (3, 2):
            b.mask(vector)
            self.assertEqual(b.pending(vector), 0)
            b.entry(vector, LAPIC_MESSAGE, 0x66)
            a.ring(b.id, vector)
            b.ring(b.id, vector)
        b.msix(False)
        b.msix(True, function_mask=True)
        b.msix(True)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(1): 1}, fence=0)

    # R-DEV-24, R-DEV-25
    def test_server_gives_fewer_vectors(self):
        server = self.server(2)
        a, b = self.ready(server, 4), self.ready(server, 4)
        self.introduce(a, b, vectors=2)
        self.exercise(a, b)

    # R-CLI-5: excess vectors
    def test_device_has_fewer_vectors(self):
        server = self.server(4)
        a, b = self.ready(server, 4), self.ready(server, 2)
        self.wait_peer(b, a.id, 2)
        b.ring(a.id, 1)
        a.wait_count(ivec(1), 1)
        a.ring(b.id, 3)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    def test_own_vectors_missing_with_a_high_id(self):
        server = self.server(2)
        for _ in range(20):
            self.addCleanup(connect_silently(server.socket).close)
        a, b = self.ready(server, 4), self.ready(server, 4)
        self.assertGreaterEqual(a.id, 16)
        self.introduce(a, b, vectors=2)
        self.exercise(a, b)


def connect_silently(path):
    """A client that has its ID and from then on does nothing."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    data = b""
    limit = support.Deadline()
    while len(data) < 16:
        if not select.select([sock], [], [], limit.left())[0]:
            raise support.TimeoutExpired("the server gives no ID")
        data += sock.recv(16 - len(data))
    assert struct.unpack("<qq", data)[0] == 0
    return sock
