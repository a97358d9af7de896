# SPDX-License-Identifier: GPL-2.0-or-later
"""device_add with a server that is silent: the guest goes on, and cannot get at the device."""
import concurrent.futures
import os
import signal
import socket

import spec_peer
import support
import tiny
from tiny import ACPI_PCI_EJECT, IO, ivec

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
SLOT = 7
TIMEOUT_MS = 60000
EJECTS = {"tcg": 50000, "kvm": 10000}


@tiny.each_path(PATHS)
class Silent:
    def setUp(self):
        super().setUp()
        self.silent = spec_peer.Server(os.path.join(self.dir, "silent"), 1 << 20, 1)
        self.addCleanup(self.silent.close)
        self.pool = concurrent.futures.ThreadPoolExecutor()
        self.addCleanup(self.pool.shutdown)

    def start_plugging(self, guest, slot=SLOT):
        """device_add's answer to come; the device is in the middle of the handshake."""
        guest.qmp.cmd("chardev-add", id="silent", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": os.path.join(self.dir, "silent")}},
            "server": False}})
        plugged = self.pool.submit(guest.qmp.cmd, "device_add", seconds=120, **{
            "driver": "ivshmem-doorbell", "id": "late", "chardev": "silent",
            "addr": "%x" % slot, "handshake-timeout": TIMEOUT_MS})
        guest.err.wait_for("ivshmem_link_up late")
        return plugged

    def refuse(self, plugged):
        self.silent.listener.accept()[0].close()
        with self.assertRaisesRegex(support.Qmp.Error, "closed the connection"):
            plugged.result()

    # R-DEV-28
    def test_guests_ring_each_other_meanwhile(self):
        server = self.server(2)
        a = self.ready(server, 2, "-trace", "ivshmem_link_up")
        b = self.ready(server, 2)
        self.introduce(a, b)
        b.echo(ivec(0), a.id, 0)
        what = a.send("pingpong", ivec(0), tiny.bell(b.id, 0), tiny.NEVER, tiny.NO_OFFSET, 0)
        b.wait_count(ivec(0), 1)
        plugged = self.start_plugging(a)
        b.wait_count(ivec(0), b.count(ivec(0)) + 1000)
        self.assertFalse(plugged.done())
        self.refuse(plugged)
        a.serial.sendall(b"!")
        self.assertGreater(a.answer(what)[0], 1000)

    def eject_meanwhile(self, guest, slot):
        """device_add's answer to come, after the guest has tried in the middle of the handshake."""
        written = "acpi_pci_eject_slot .*slot: %d$" % slot
        what = guest.send("w32s", IO, ACPI_PCI_EJECT, 1 << slot,
                          EJECTS[self.path.accel])
        guest.err.wait_for(written)
        plugged = self.start_plugging(guest, slot)
        guest.err.wait_for(written)
        guest.answer(what, 60)
        self.assertFalse(plugged.done())
        return plugged

    def test_guest_cannot_eject_it(self):
        guest = self.guest("-trace", "ivshmem_link_up", "-trace", "acpi_pci_eject_slot")
        self.refuse(self.eject_meanwhile(guest, SLOT + 1))
        guest.qmp.cmd("chardev-remove", id="silent")
        self.assertEqual(guest.scan(), 0)
        plugged = self.eject_meanwhile(guest, SLOT)
        self.silent.accept()
        plugged.result()
        self.assertEqual(guest.setup(), 0)
        guest.qmp.cmd("device_del", id="late")
        guest.w32(IO, ACPI_PCI_EJECT, 1 << SLOT)
        guest.qmp.wait_event("DEVICE_DELETED",
                             test=lambda event: event["data"].get("device") == "late")


class Unaccepted(tiny.TinyCase):
    """The server's queue is full: a chardev that reconnects does not even get there."""

    def setUp(self):
        super().setUp()
        self.socket = os.path.join(self.dir, "full")

    def fill(self):
        """A full queue appears at the path, all at once."""
        path = self.socket + "-to-be"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        self.addCleanup(waiting.close)
        waiting.connect(path)
        os.rename(path, self.socket)

    def chardev_options(self):
        return "socket,id=c,reconnect-ms=10,path=" + self.socket

    @staticmethod
    def is_connecting(log):
        ended = log.count(b"connect_complete") + log.count(b"connect_fail")
        return log.count(b"connect_sync") > ended

    # R-DEV-28
    def test_at_first(self):
        self.fill()
        guest = self.guest("-chardev", self.chardev_options())
        with self.assertRaisesRegex(support.Qmp.Error, "no server to connect to within 100 ms"):
            guest.qmp.cmd("device_add", driver="ivshmem-doorbell", chardev="c",
                          handshake_timeout=100)
        self.assertEqual(guest.scan(), 0)

    def test_unplug_while_it_reconnects(self):
        server = self.server(1)
        self.socket = server.socket
        guest = self.guest("-trace", "qio_channel_socket_connect*", "-chardev", self.chardev_options(),
                           "-device", "ivshmem-doorbell,id=shm,chardev=c,addr=%x" % SLOT)
        server.signal(signal.SIGKILL)
        guest.qmp.wait_event("IVSHMEM_DISCONNECTED")
        self.fill()
        guest.err.wait_until(self.is_connecting, 20, "an attempt that does not end")
        guest.qmp.cmd("device_del", id="shm")
        guest.w32(IO, ACPI_PCI_EJECT, 1 << SLOT)
        guest.qmp.wait_event("DEVICE_DELETED",
                             test=lambda event: event["data"].get("device") == "shm")
        self.assertEqual(guest.scan(), 0)
