# SPDX-License-Identifier: GPL-2.0-or-later
"""
The tiny guest (tinyguest/tiny.c says what it does) as an object, and what its tests share.

TinyGuest(dir, "-device", ...)   a VM that has started; one method for each command of the guest
TinyCase                         server(), guest(), doorbell(): a test's VMs, on one Path
HotPlugging                      unplug(), plug(), exchange() for such tests
Path                             accelerator, interrupt controller, ioeventfd, machine: one way
                                 that a ring can take;  each_path(...) makes one test class of each
"""
import fcntl
import functools
import os
import platform
import secrets
import select
import shutil
import subprocess
import sys
import unittest
from typing import NamedTuple

import support

SOURCE = os.path.join(support.HERE, "tinyguest")
IVEC_FIRST, IVEC_END = 0x30, 0xF0
LAPIC_MESSAGE = 0xFEE00000
BAR0, BAR1, BAR2, MEM, CONFIG, IO, FUNCTION = 0, 1, 2, 0xA, 0xC, 0xD, 0xF
INTR_MASK, INTR_STATUS, IV_POSITION, DOORBELL = 0, 4, 8, 12
NO_OFFSET = 0xFFFFFFFF
NEVER = 0xFFFFFFFF
ACPI_PCI_EJECT = 0xAE08         # of machine pc: a bit for each slot


@functools.lru_cache(maxsize=None)
def image():
    """Path of the guest's image; builds it first where that is needed."""
    if platform.machine() not in ("x86_64", "i686"):
        raise unittest.SkipTest("the tiny guest is x86 code; this is " + platform.machine())
    for tool in ("make", "cc", "objcopy"):
        if not shutil.which(tool):
            raise unittest.SkipTest("no %s to build the tiny guest: apt-get install build-essential"
                                    % tool)
    out = os.path.join(support.BUILD, "tinyguest")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make = subprocess.run(["make", "-s", "-C", SOURCE, "O=" + out], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if make.returncode:
        raise AssertionError("the tiny guest does not build:\n" + make.stdout)
    return os.path.join(out, "tiny.bin")


def ivec(vector):
    """The interrupt vector that fill() gives to an MSI-X vector."""
    return IVEC_FIRST + vector % (IVEC_END - IVEC_FIRST)


def bell(peer, vector):
    return peer << 16 | vector


class TinyGuest(support.Qemu):
    """A started VM.  Numbers are Python's; a failing command raises AssertionError."""

    def __init__(self, directory, *args, machine="pc", accel="tcg", memory="16M", exe=None):
        path = os.path.join(directory, "com-" + secrets.token_hex(3))
        listener = support.listen(path)
        self.serial = None
        self.unread = b""
        self.vectors = 0
        try:
            super().__init__(directory, "-machine", machine, "-accel", accel, "-m", memory,
                             "-bios", image(), "-chardev", "socket,id=com1,path=" + path,
                             "-serial", "chardev:com1", *args, exe=exe, name="tiny guest")
            try:
                self.serial = support.accept(listener, self)
                self.started()
            except BaseException:
                self.stop()
                raise
        finally:
            listener.close()
            os.unlink(path)

    def stop(self, seconds=5):
        if self.serial:
            self.serial.close()
        return super().stop(seconds)

    def started(self, seconds=support.DEFAULT_WAIT):
        """Wait until the guest says that it has started."""
        limit = support.Deadline(seconds)
        while self._line(limit, "the start") != "ready 1":
            pass
        self.vectors = 0

    def _line(self, limit, what):
        while b"\n" not in self.unread:
            if not select.select([self.serial], [], [], limit.left())[0]:
                raise support.TimeoutExpired("tiny guest: nothing within %.0f s after %s\n%s"
                                             % (limit.seconds, what, self.err.text[-2000:]))
            chunk = self.serial.recv(4096)
            if not chunk:
                raise AssertionError("tiny guest: QEMU ended with %s after %s\n%s"
                                     % (self.wait(), what, self.err.text[-2000:]))
            self.unread += chunk
        line, self.unread = self.unread.split(b"\n", 1)
        return line.decode("ascii", "replace")

    def send(self, name, *numbers):
        text = " ".join([name] + ["%x" % number for number in numbers])
        self.serial.sendall(text.encode() + b"\n")
        return text

    def answer(self, what, seconds=support.DEFAULT_WAIT):
        words = self._line(support.Deadline(seconds), what).split(" ")
        if words[0] != "ok":
            raise AssertionError("tiny guest: %s: %s" % (what, " ".join(words)))
        return [int(word, 16) for word in words[1:]]

    def cmd(self, name, *numbers, seconds=support.DEFAULT_WAIT):
        """One command, the numbers of its answer."""
        return self.answer(self.send(name, *numbers), seconds)

    def _cmd_abortable(self, seconds, *command):
        """A command that waits: after the time a byte ends it, and it tells how far it came."""
        what = self.send(*command)
        limit = support.Deadline(seconds)
        if b"\n" not in self.unread and not select.select([self.serial], [], [], limit.left())[0]:
            self.serial.sendall(b"!")
        return self.answer(what)

    # ---- the device ----

    def scan(self, high=False):
        """Find all ivshmem devices, give them addresses, switch them on; how many there are."""
        return self.cmd("scan", high)[0]

    def use(self, number=0):
        bdf, self.vectors, cap, bar0, bar1, bar2, size = self.cmd("use", number)
        return {"bdf": bdf, "vectors": self.vectors, "msix": cap, "bar0": bar0, "bar1": bar1,
                "bar2": bar2, "size": size}

    def setup(self, high=False, masked=False, enable=True):
        """One device with all its vectors ready; returns the peer ID."""
        if self.scan(high) < 1:
            raise AssertionError("tiny guest: no ivshmem device found")
        self.use()
        self.fill(0, self.vectors, IVEC_FIRST, masked)
        if enable:
            self.msix(True)
        return self.position()

    def r8(self, space, addr):
        return self.cmd("r8", space, addr)[0]

    def r16(self, space, addr):
        return self.cmd("r16", space, addr)[0]

    def r32(self, space, addr):
        return self.cmd("r32", space, addr)[0]

    def w8(self, space, addr, value):
        self.cmd("w8", space, addr, value)

    def w16(self, space, addr, value):
        self.cmd("w16", space, addr, value)

    def w32(self, space, addr, value):
        self.cmd("w32", space, addr, value)

    def position(self):
        return self.r32(BAR0, IV_POSITION)

    # ---- MSI-X ----

    def msix(self, enable, function_mask=False):
        self.cmd("msix", enable, function_mask)

    def fill(self, first, count, first_ivec=IVEC_FIRST, masked=False):
        self.cmd("fill", first, count, first_ivec, masked)

    def entry(self, vector, address, data, masked=False):
        self.cmd("entry", vector, address, data, masked)

    def mask(self, vector, masked=True):
        self.cmd("mask", vector, masked)

    def pending(self, vector):
        return self.cmd("pba", vector)[0]

    # ---- interrupts ----

    def count(self, interrupt):
        return self.cmd("count", interrupt)[0]

    def total(self):
        return self.cmd("total")[0]

    def clear(self):
        self.cmd("clear")

    def wait_count(self, interrupt, count, seconds=support.DEFAULT_WAIT, spin=False):
        """Wait until an interrupt came that often; returns how often it came."""
        seen = self._cmd_abortable(seconds, "wait", interrupt, count, spin)[0]
        if seen < count:
            raise support.TimeoutExpired("tiny guest: %d of %d interrupts %#x within %.0f s\n%s"
                                         % (seen, count, interrupt, seconds * support.SCALE,
                                            self.err.text[-2000:]))
        return seen

    def ring(self, peer, vector, times=1):
        """TSC ticks it took."""
        return self.cmd("ring", bell(peer, vector), times)[0]

    def ring_together(self, cpus, peer, vector, times):
        """On several processors at once; TSC ticks of each."""
        return self.cmd("mring", cpus, bell(peer, vector), times, seconds=60)

    def echo(self, interrupt, peer, vector, on=True):
        """Answer each interrupt with a ring, from the interrupt itself."""
        self.cmd("echo", interrupt, bell(peer, vector), on)

    def pingpong(self, interrupt, peer, vector, times, offset=NO_OFFSET, spin=False, seconds=60):
        """Round trips: (how many, TSC ticks in all); each one's ticks at offset in BAR2."""
        return tuple(self._cmd_abortable(seconds, "pingpong", interrupt, bell(peer, vector), times,
                                         offset, spin))

    def time(self):
        """(TSC, HPET counter, HPET period in femtoseconds)"""
        return tuple(self.cmd("time"))

    def reset(self):
        """System reset, up to the guest's new start."""
        self.qmp.cmd("system_reset")
        self.started()


class Path(NamedTuple):
    """One way that a ring can take from guest to guest."""
    accel: str
    irqchip: str = "on"
    ioeventfd: bool = True
    machine: str = "pc"

    @property
    def name(self):
        words = [self.accel.capitalize(), self.machine.capitalize()]
        if self.accel == "kvm":
            words.append("Irqchip" + self.irqchip.capitalize())
        return "_".join(words + ["Ioeventfd" + ("On" if self.ioeventfd else "Off")])

    def machine_option(self):
        if self.accel == "kvm":
            return "%s,kernel-irqchip=%s" % (self.machine, self.irqchip)
        return self.machine

    @property
    def in_kernel_ring(self):
        return self.accel == "kvm" and self.ioeventfd

    @property
    def in_kernel_interrupt(self):
        return self.accel == "kvm"


# Not kernel-irqchip=off: since 8.0 QEMU has no local APIC then, and MSI-X needs one.
ALL_PATHS = [Path("kvm", irqchip, ioeventfd, machine)
             for irqchip, machine in (("on", "pc"), ("split", "q35"))
             for ioeventfd in (True, False)]
ALL_PATHS += [Path("tcg", machine="pc"), Path("tcg", ioeventfd=False, machine="q35")]


@functools.lru_cache(maxsize=None)
def why_not(accel, irqchip="on", *options):
    """Why the tiny guest cannot run there; None if it can.  Tried once."""
    if accel != "kvm":
        return None
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "no access to /dev/kvm"
    directory = support.temporary_directory()
    try:
        TinyGuest(directory, *options, accel="kvm", machine="pc,kernel-irqchip=" + irqchip).stop()
        return None
    except AssertionError as error:
        return ("the tiny guest does not start under KVM with kernel-irqchip=%s here: %s"
                % (irqchip, str(error).splitlines()[0]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class TinyCase(support.TestCase):
    """A test with tiny guests on self.path."""
    path = Path("tcg")

    options = ()                # QEMU's, for all guests

    def setUp(self):
        reason = why_not(self.path.accel, self.path.irqchip, *self.options)
        if reason:
            self.skipTest(reason)
        super().setUp()

    def server(self, vectors=1, *options, size="1M"):
        return super().server("-n", str(vectors), "-l", size, *options)

    def guest(self, *args, **kwargs):
        return self.start(TinyGuest(self.dir, *self.options, *args, machine=self.path.machine_option(),
                                    accel=self.path.accel, **kwargs))

    def doorbell_options(self, server, vectors=1, name="shm", more=""):
        return ["-chardev", "socket,id=%s-c,path=%s" % (name, server.socket),
                "-device", "ivshmem-doorbell,id=%s,chardev=%s-c,vectors=%d,ioeventfd=%s%s"
                % (name, name, vectors, "on" if self.path.ioeventfd else "off", more)]

    def doorbell(self, server, vectors=1, *args, **kwargs):
        """A guest with one device that has not been set up."""
        return self.guest(*self.doorbell_options(server, vectors), *args, **kwargs)

    def ready(self, server, vectors=1, *args, **kwargs):
        """A guest with one device, vectors unmasked and enabled; .id is its peer ID."""
        guest = self.doorbell(server, vectors, *args, **kwargs)
        guest.id = guest.setup()
        return guest

    def pair(self, vectors=1, server=None):
        """Two guests that are ready and know each other."""
        server = server or self.server(vectors)
        a, b = self.ready(server, vectors), self.ready(server, vectors)
        self.introduce(a, b)
        return a, b

    def introduce(self, *guests, vectors=None):
        for guest in guests:
            for other in guests:
                if other is not guest:
                    self.wait_peer(guest, other.id, vectors or other.vectors)

    def peers(self, guest, name="shm"):
        """{peer ID: number of vectors} as the device has them."""
        listed = guest.qmp.qom_get("/machine/peripheral/" + name, "peers")
        return {peer["id"]: peer["vectors"] for peer in listed}

    def wait_peer(self, guest, peer, vectors, name="shm", seconds=support.DEFAULT_WAIT):
        """Until the device can ring so many vectors of a peer; 0: until the peer is gone."""
        limit = support.Deadline(seconds)
        while self.peers(guest, name).get(peer, 0) != vectors:
            if limit.expired():
                raise support.TimeoutExpired("peer %d has not come to %d vectors, known are %s"
                                             % (peer, vectors, self.peers(guest, name)))

    def quiet(self, guest, other, fence):
        """
        Let in what is on its way: the other guest rings the vector "fence" behind
        it.  Returns how many interrupts came in all, but for that one.
        """
        before = guest.count(ivec(fence))
        other.ring(guest.id, fence)
        guest.wait_count(ivec(fence), before + 1)
        return guest.total() - 1

    def assert_counts(self, guest, other, expected, fence):
        """The guest got just these interrupts ({interrupt: count}), all in quiet()."""
        before = guest.count(ivec(fence))
        total = self.quiet(guest, other, fence)
        for interrupt, count in expected.items():
            self.assertEqual(guest.count(interrupt), count, "interrupt %#x" % interrupt)
        self.assertEqual(total, sum(expected.values()) + before)


class HotPlugging:
    """For use with TinyCase, on machine pc: device "shm" comes and goes."""

    def unplug(self, guest):
        guest.qmp.cmd("device_del", id="shm")
        slot = guest.use()["bdf"] >> 3
        guest.w32(IO, ACPI_PCI_EJECT, 1 << slot)
        guest.qmp.wait_event("DEVICE_DELETED",
                             test=lambda event: event["data"].get("device") == "shm")
        guest.qmp.cmd("chardev-remove", id="shm-c")

    def plug(self, guest, server, vectors):
        guest.qmp.cmd("chardev-add", id="shm-c", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": server.socket}}, "server": False}})
        guest.qmp.cmd("device_add", driver="ivshmem-doorbell", id="shm", chardev="shm-c",
                      vectors=vectors, ioeventfd=self.path.ioeventfd)
        guest.clear()
        guest.id = guest.setup()

    def exchange(self, a, b):
        self.introduce(a, b)
        b.echo(ivec(0), a.id, 0)
        self.assertEqual(a.pingpong(ivec(0), b.id, 0, 20)[0], 20)
        a.clear()
        b.clear()


def each_path(paths=tuple(ALL_PATHS)):
    """Class decorator: the tests once for each path, in classes of the module named after it."""
    def decorate(base):
        module = sys.modules[base.__module__]
        for path in paths:
            name = "%s_%s" % (base.__name__, path.name)
            setattr(module, name, type(name, (base, TinyCase),
                                       {"path": path, "__module__": base.__module__}))
        return base
    return decorate
