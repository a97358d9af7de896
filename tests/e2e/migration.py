# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the tests of migration share.

Route         accelerator, machine, and whose QEMU is at either end ("qemu": ours, "stock")
Arriving      a tiny guest that waits for the state of another
HostPeer      a peer on the host that rings guests; works beside stock devices as well
Migrating     mixin for tiny.TinyCase: leaving(), arriving(), migrate(), unplug(), ...
"""
import os
import secrets
from typing import NamedTuple

import support
import tiny
from tiny import ACPI_PCI_EJECT, IO

ENDS = ("completed", "failed", "cancelled")


class Route(NamedTuple):
    """From where to where, and on what; stands in for tiny.Path.  Both sides know the machine."""
    accel: str
    irqchip: str = "on"
    ioeventfd: bool = True
    machine: str = "pc-i440fx-7.2"
    source: str = "qemu"
    target: str = "qemu"

    @property
    def name(self):
        words = [self.accel.capitalize(), "Q35" if "q35" in self.machine else "Pc"]
        if self.irqchip != "on":
            words.append("Irqchip" + self.irqchip.capitalize())
        if self.stock:
            words.append("FromStock" if self.source == "stock" else "ToStock")
        return "_".join(words)

    @property
    def stock(self):
        return "stock" in (self.source, self.target)

    def machine_option(self):
        if self.accel == "kvm":
            return "%s,kernel-irqchip=%s" % (self.machine, self.irqchip)
        return self.machine


OURS = [Route("tcg"), Route("kvm"),
        Route("tcg", ioeventfd=False, machine="pc-q35-7.2"),
        Route("kvm", irqchip="split", ioeventfd=False, machine="pc-q35-7.2")]
WITH_STOCK = [Route(accel, source=source, target=target)
              for accel in ("tcg", "kvm")
              for source, target in (("qemu", "stock"), ("stock", "qemu"))]
TWO = [Route("tcg"), Route("kvm")]


class Arriving(tiny.TinyGuest):
    """A VM without a state of its own yet."""
    waiting = True

    def __init__(self, directory, *args, **kwargs):
        super().__init__(directory, "-incoming", "defer", *args, **kwargs)

    def started(self, seconds=support.DEFAULT_WAIT):
        if not self.waiting:
            super().started(seconds)


class HostPeer(support.Client):
    """ivshmem-client as the one who rings."""

    def __init__(self, sock):
        super().__init__(sock, "--reconnect")
        self.id = self.command("id")["id"]

    def meet(self, peer, vectors):
        self.do("wait-peer %d 20s %d" % (peer, vectors))

    def ring(self, peer, vector):
        self.do("int %d %d" % (peer, vector))

    def do(self, text):
        answer = self.command(text)
        if not answer["ok"]:
            raise AssertionError("ivshmem-client: %s: %s" % (text, answer))
        return answer


class Migrating:
    """For use with tiny.TinyCase."""
    vectors = 4
    FENCE = 3

    def machine(self, cls, end, *args):
        return self.start(cls(self.dir, *args, machine=self.path.machine_option(),
                              accel=self.path.accel, exe=support.program(end)))

    def leaving(self, *args):
        return self.machine(tiny.TinyGuest, self.path.source, *args)

    def arriving(self, *args):
        return self.machine(Arriving, self.path.target, *args)

    def device(self, server, master="on", vectors=None):
        return self.doorbell_options(server, vectors or self.vectors, more=",master=" + master)

    def host_peer(self, server):
        return self.start(HostPeer(server.socket))

    def source(self, server=None, master="on"):
        """(guest that is ready and master, peer on the host that rings it)"""
        server = server or self.server(self.vectors)
        guest = self.leaving(*self.device(server, master))
        guest.id = guest.setup()
        peer = self.host_peer(server)
        peer.meet(guest.id, self.vectors)
        return guest, peer

    def target(self, server=None, others=0, **kwargs):
        """(guest to be, peer on the host) of another server, where others came first."""
        server = server or self.server(self.vectors)
        for _ in range(others):
            self.host_peer(server)
        guest = self.arriving(*self.device(server, "auto", **kwargs))
        return guest, self.host_peer(server)

    def capabilities(self, guest, *names):
        guest.qmp.cmd("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": True} for name in ("events",) + names])

    def begin(self, source, target, *capabilities):
        uri = "unix:" + os.path.join(self.dir, "stream-" + secrets.token_hex(3))
        for guest in (source, target):
            self.capabilities(guest, *capabilities)
        target.qmp.cmd("migrate-incoming", uri=uri)
        source.qmp.cmd("migrate", uri=uri)

    def wait_status(self, guest, *statuses):
        """The first of these statuses, or of those that end a migration."""
        event = guest.qmp.wait_event("MIGRATION", test=lambda event:
                                     event["data"]["status"] in statuses + ENDS)
        return event["data"]["status"]

    def wait_end(self, source, expected="completed"):
        self.assertEqual(self.wait_status(source), expected, source.qmp.cmd("query-migrate"))

    def go_on(self, source):
        """Continue a VM that has been migrated."""
        limit = support.Deadline()
        while source.qmp.cmd("query-status")["status"] != "postmigrate":
            self.assertFalse(limit.expired(), source.qmp.cmd("query-status"))
        source.qmp.cmd("cont")

    def wait_arrived(self, source, target):
        try:
            target.qmp.wait_event("MIGRATION", test=lambda event:
                                  event["data"]["status"] == "completed")
            if target.qmp.cmd("query-status")["status"] == "inmigrate":
                target.qmp.wait_event("RESUME")
        except ConnectionError as error:
            target.wait()
            raise AssertionError("the state did not load:\n" + target.err.text) from error
        target.vectors = source.vectors
        target.waiting = False

    def migrate(self, source, target, *capabilities):
        """The whole of it; the target runs if the source did."""
        self.begin(source, target, *capabilities)
        self.assertEqual(self.wait_status(source), "completed",
                         "%s\n%s" % (source.qmp.cmd("query-migrate"), target.err.text))
        self.wait_arrived(source, target)

    def settle(self, guest, peer):
        """Know the guest's ID of now, and have the peer know the guest."""
        guest.id = guest.position()
        peer.meet(guest.id, self.vectors)

    def eject(self, guest, slot):
        """Unplug device "shm" of machine pc, the guest's part included."""
        guest.qmp.cmd("device_del", id="shm")
        guest.w32(IO, ACPI_PCI_EJECT, 1 << slot)
        guest.qmp.wait_event("DEVICE_DELETED",
                             test=lambda event: event["data"].get("device") == "shm")
