# SPDX-License-Identifier: GPL-2.0-or-later
"""
Doorbells between tiny guests, and between them and the host.

Each round starts the VMs anew.  The guests measure with the TSC, which their HPET calibrates; the
tiny guest has no operating system, so its figures are those of device, QEMU and kernel.
"""
import contextlib
import itertools
import json
import os
import shutil
import signal
import struct

import machine
import support
import tiny
from figures import Taken
from tiny import ivec

TRIP, RATE, SMP = "Doorbell round trip", "Rings and interrupts", "Several vCPUs ring at once"
HARM = "Round trip while a client misbehaves"
REGION = 1 << 20
POLL_NS = 50000


class Pinning:
    """Number k on CPU k.  Else the kernel moves two that talk onto one CPU and off it again, and
    a round trip is either of two figures that differ by a factor."""
    on = True

    @staticmethod
    @contextlib.contextmanager
    def to(number):
        """What starts inside stays there."""
        old = os.sched_getaffinity(0)
        if number is not None and Pinning.on:
            ids = machine.cpus()
            os.sched_setaffinity(0, {ids[number % len(ids)]})
        try:
            yield
        finally:
            os.sched_setaffinity(0, old)


class Peer(support.Process):
    """bench-peer: a host program that is a peer."""

    def __init__(self, sock):
        super().__init__([machine.program("peer"), sock], stdin=True)
        self.id = self("id")["id"]

    def answer(self, seconds=60):
        try:
            return json.loads(self.out.wait_for(r"^\{.*\n", seconds).group())
        except support.TimeoutExpired as error:
            raise AssertionError("bench-peer: %s" % (self.err.text.strip() or error)) from None

    def __call__(self, command):
        self.write(command + "\n")
        return self.answer()


class Stage:
    """A server and what is connected to it, for one side and one path; ends as a context."""

    def __init__(self, side, path, vectors=1, pinned=False, ours=""):
        """ours: more properties of the device, which only A's has."""
        self.side, self.path, self.vectors, self.pinned = side, path, vectors, pinned
        self.more = ours if side.key == "A" else ""
        self.stack = contextlib.ExitStack()
        self.guests = itertools.count()

    def __enter__(self):
        reason = tiny.why_not(self.path.accel, self.path.irqchip)
        if reason:
            raise support.unittest.SkipTest(reason)
        self.dir = support.temporary_directory()
        self.stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.server = self.start(support.Server(self.dir, "-n", str(self.vectors),
                                                "-l", str(REGION)))
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def start(self, process):
        self.stack.callback(process.stop)
        return process

    def guest(self, *options):
        """A guest with the device set up and its vectors open."""
        ioeventfd = "on" if self.path.ioeventfd else "off"
        with Pinning.to(next(self.guests) if self.pinned else None):
            guest = self.start(tiny.TinyGuest(
                self.dir, "-chardev", "socket,id=c,path=" + self.server.socket, "-device",
                "ivshmem-doorbell,id=shm,chardev=c,vectors=%d,ioeventfd=%s%s"
                % (self.vectors, ioeventfd, self.more), *options, exe=self.side.qemu,
                machine=self.path.machine_option(), accel=self.path.accel))
        guest.id = guest.setup()
        return guest

    def peer(self):
        """A host program, which keeps clear of the first guest."""
        with Pinning.to(1 if self.pinned else None):
            return self.start(Peer(self.server.socket))

    def introduce(self, *guests):
        """Until each can ring each other's last vector: works with any device."""
        last = self.vectors - 1
        for one, other in itertools.permutations(guests, 2):
            reach(lambda one=one, other=other: one.ring(other.id, last), other, ivec(last))
        for guest in guests:
            guest.clear()

    def pair(self):
        guests = self.guest(), self.guest()
        self.introduce(*guests)
        return guests

    def samples(self, count):
        """The ticks that pingpong left in the memory."""
        with open("/dev/shm/" + self.server.shm_name, "rb") as file:
            return struct.unpack("<%dI" % count, file.read(4 * count))


def reach(ring, guest, interrupt):
    """Ring until the first interrupt: before, the device may not know the peer yet."""
    limit = support.Deadline()
    while True:
        ring()
        try:
            return guest.wait_count(interrupt, 1, seconds=0.2 / support.SCALE)
        except support.TimeoutExpired:
            if limit.expired():
                raise


class Clock:
    """Microseconds of a guest's TSC tick, by its HPET; as a context around what is measured."""

    def __init__(self, guest):
        self.guest = guest

    def __enter__(self):
        self.tsc, self.hpet, self.period = self.guest.time()
        return self

    def __exit__(self, *error):
        if error[0] is None:
            tsc, hpet, _ = self.guest.time()
            self.us = ((hpet - self.hpet) & 0xFFFFFFFF) * self.period / 1e9 / (tsc - self.tsc)


def title(path, more=""):
    return "%s, ioeventfd %s%s" % (path.accel.upper(), "on" if path.ioeventfd else "off", more)


def trips(stage, a, b, count, vector):
    """Round trips of two guests: microseconds of each, and CPU microseconds per trip."""
    answer = stage.vectors - 1
    b.echo(ivec(answer), a.id, vector)
    a.pingpong(ivec(vector), b.id, answer, max(count // 10, 20))
    before = machine.cpu_seconds(a.pid, b.pid)
    with Clock(a) as clock:
        done, _ = a.pingpong(ivec(vector), b.id, answer, count, offset=0)
    cpu = machine.cpu_seconds(a.pid, b.pid) - before
    b.echo(ivec(answer), a.id, vector, on=False)
    if done < count:
        raise AssertionError("%d of %d round trips within a minute" % (done, count))
    return [ticks * clock.us for ticks in stage.samples(done)], cpu * 1e6 / done


@contextlib.contextmanager
def stopped(*processes):
    """So that a figure is the sender's alone."""
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


def alone(a, b, count):
    """Microseconds of one ring while the receiver stands still, and CPU time of the sender."""
    with Clock(a) as clock, stopped(b):
        before = machine.cpu_seconds(a.pid)
        ticks = a.ring(b.id, 0, count)
        cpu = machine.cpu_seconds(a.pid) - before
    return ticks * clock.us / count, cpu * 1e6 / count


def flood(stage, senders, b, count):
    """All ring b at once: what a ring costs each, interrupts per second, rings per interrupt."""
    fence = stage.vectors - 1
    b.clear()
    before = machine.cpu_seconds(b.pid, *(s.pid for s in senders))
    with Clock(senders[0]) as clock:
        sent = [(s, s.send("ring", tiny.bell(b.id, 0), count)) for s in senders]
        ticks = [s.answer(what, 60)[0] for s, what in sent]
        senders[0].ring(b.id, fence)
        b.wait_count(ivec(fence), 1)
    cpu = machine.cpu_seconds(b.pid, *(s.pid for s in senders)) - before
    rings, came = count * len(senders), b.count(ivec(0))
    seconds = max(ticks) * clock.us / 1e6
    each = [t * clock.us / count for t in ticks]
    return each, came / seconds, rings / max(came, 1), cpu * 1e6 / rings


def pair(path, vectors, scale):
    """Measure for Book.alternate: everything about two guests and one host peer."""
    tag = "%s/%s/v%d" % (path.accel, "on" if path.ioeventfd else "off", vectors)
    more = ", %d vectors" % vectors if vectors > 2 else ""

    def measure(side):
        with Stage(side, path, vectors, pinned=True) as stage:
            a, b = stage.pair()
            us, cpu = trips(stage, a, b, scale.trips, 0)
            yield Taken("trip/guest-guest/" + tag, TRIP, "guest-guest, " + title(path, more), "us",
                        us, cpu, histogram=True)
            if vectors > 2:
                return
            us, cpu = alone(a, b, scale.rings)
            yield Taken("ring/alone/" + tag, RATE, "one ring, receiver stopped, " + title(path),
                        "us", [us], cpu, note="what it costs the vCPU that rings, by itself")
            yield from rates(stage, [a], b, scale, tag, "one to one")
            yield from host(stage, a, scale, tag)
    return measure


def polling(path, scale):
    """Ours may look for rings before it sleeps."""
    def measure(side):
        with Stage(side, path, 2, pinned=True, ours=",poll-max-ns=%d" % POLL_NS) as stage:
            us, cpu = trips(stage, *stage.pair(), scale.trips, 0)
            yield Taken("trip/guest-guest/%s/poll" % path.accel, TRIP, "guest-guest, %s, ours with "
                        "poll-max-ns=%d" % (path.accel.upper(), POLL_NS), "us", us, cpu,
                        histogram=True)
    return measure


def rates(stage, senders, b, scale, tag, how):
    each, rate, merged, cpu = flood(stage, senders, b, scale.rings)
    name = "%s, %s" % (how, title(stage.path))
    yield Taken("ring/%s/%s" % (how, tag), RATE, "one ring, " + name, "us", each,
                cpu)
    yield Taken("rate/%s/%s" % (how, tag), RATE, "interrupts taken: " + name, "1/s", [rate],
                better="higher", note="while rung without a pause")
    yield Taken("merged/%s/%s" % (how, tag), RATE, "rings per interrupt: " + name, "rings",
                [merged], better="",
                note="rings that come while one is under way are merged, as eventfds do")


def host(stage, guest, scale, tag):
    """A host program and a guest."""
    peer = stage.peer()
    peer("await %d %d" % (guest.id, stage.vectors))
    reach_host(peer, guest)
    guest.echo(ivec(0), peer.id, 0)
    before = machine.cpu_seconds(guest.pid, peer.pid)
    ns = peer("ping %d 0 0 %d" % (guest.id, scale.trips))["ns"]
    cpu = machine.cpu_seconds(guest.pid, peer.pid) - before
    guest.echo(ivec(0), peer.id, 0, on=False)
    yield Taken("trip/guest-host/" + tag, TRIP, "guest-host, " + title(stage.path), "us",
                [n / 1000 for n in ns], cpu * 1e6 / len(ns), histogram=True)


def reach_host(peer, guest):
    """Until the guest's device knows the host peer, which answers its rings."""
    peer.write("pong %d 0\n" % guest.id)
    guest.clear()
    reach(lambda: guest.ring(peer.id, 0), guest, ivec(0))
    peer.write("\n")
    peer.answer()
    guest.clear()


def many(path, senders, scale):
    tag = "%s/%s" % (path.accel, "on" if path.ioeventfd else "off")

    def measure(side):
        with Stage(side, path, 2) as stage:
            b = stage.guest()
            others = [stage.guest() for _ in range(senders)]
            for other in others:
                reach(lambda other=other: other.ring(b.id, 1), b, ivec(1))
                b.clear()
            yield from rates(stage, others, b, scale, tag, "%d to one" % senders)
    return measure


def several(path, count, scale):
    """The vCPUs of one guest ring another guest at once, which stands still meanwhile."""
    tag = "%s/%s/%d" % (path.accel, "on" if path.ioeventfd else "off", count)

    def measure(side):
        with Stage(side, path, 1) as stage:
            a, b = stage.guest("-smp", str(count)), stage.guest()
            stage.introduce(a, b)
            a.ring_together(count, b.id, 0, 100)
            with Clock(a) as clock, stopped(b):
                before = machine.cpu_seconds(a.pid)
                ticks = a.ring_together(count, b.id, 0, scale.rings)
                cpu = machine.cpu_seconds(a.pid) - before
        seconds = max(ticks) * clock.us / 1e6
        rings = count * scale.rings
        yield Taken("smp/" + tag, SMP, "%d vCPU%s, %s" % (count, "s"[:count > 1], title(path)),
                    "1/s", [rings / seconds], cpu * 1e6 / rings, better="higher", x=count,
                    curve="rings per second, " + title(path))
    return measure


def host_host(book, scale):
    """Two host programs: no QEMU, so there are no sides."""
    book.say("doorbell: host to host")
    directory = support.temporary_directory()
    server = support.Server(directory, "-n", "1", "-l", "1M")
    peers = []
    try:
        for _ in range(book.rounds):
            for number in range(2):
                with Pinning.to(number):
                    peers.append(Peer(server.socket))
            one, other = peers
            one("await %d 1" % other.id)
            other("await %d 1" % one.id)
            other.write("pong %d 0\n" % one.id)
            before = machine.cpu_seconds(one.pid, other.pid)
            ns = one("ping %d 0 0 %d" % (other.id, scale.trips))["ns"]
            cpu = machine.cpu_seconds(one.pid, other.pid) - before
            book.add("A", Taken("trip/host-host", TRIP, "host-host, libivshmem", "us",
                                [n / 1000 for n in ns], cpu * 1e6 / len(ns), histogram=True))
            while peers:
                peers.pop().stop()
    finally:
        for process in peers + [server]:
            process.stop()
        shutil.rmtree(directory, ignore_errors=True)
