# SPDX-License-Identifier: GPL-2.0-or-later
"""The device: start-up, device_add, taking in peers, memory for each, a client's mischief."""
import contextlib
import resource
import shutil
import threading
import time

import doorbell
import machine
import support
import tiny
from figures import Taken

START, ABSORB = "Start-up and hot-plug", "Many peers (x vectors) at one device"
PEERS_AT_START = 15
ABSORB_SECONDS = 150
# What absorb and QEMU need beside an eventfd for each vector of each peer.
OTHER_DESCRIPTORS = 64
# With fewer, what each needs is lost in what QEMU happens to allocate meanwhile.
ENOUGH_FOR_MEMORY = 1000


@contextlib.contextmanager
def directory():
    path = support.temporary_directory()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def qemu_ms(side, where, *options):
    """From exec to the end of the QMP greeting."""
    begin = time.monotonic()
    vm = support.Qemu(where, "-machine", "pc", "-accel", "tcg", "-m", "16M", "-bios", tiny.image(),
                      *options, exe=side.qemu)
    ms = (time.monotonic() - begin) * 1000
    vm.stop()
    return ms


def start_up(side):
    """QEMU's start without, with a plain, with a doorbell device; the last one among peers."""
    def taken(row, name, ms):
        return Taken("start/" + row, START, "start of QEMU, " + name, "ms", [ms])

    with directory() as where, support_server(where, 1) as one, support_server(where, 16) as many:
        chardev = ["-chardev", "socket,id=c,path=" + one.socket, "-device"]
        yield taken("none", "no ivshmem", qemu_ms(side, where))
        yield taken("plain", "ivshmem-plain", qemu_ms(
            side, where, "-object", "memory-backend-memfd,id=m,size=1M,share=on",
            "-device", "ivshmem-plain,memdev=m"))
        yield taken("doorbell", "ivshmem-doorbell", qemu_ms(
            side, where, *chardev, "ivshmem-doorbell,chardev=c"))
        with contextlib.ExitStack() as stack:
            for _ in range(PEERS_AT_START):
                stack.callback(doorbell.Peer(many.socket).stop)
            yield taken("peers", "ivshmem-doorbell, 16 vectors, %d peers" % PEERS_AT_START, qemu_ms(
                side, where, "-chardev", "socket,id=c,path=" + many.socket,
                "-device", "ivshmem-doorbell,chardev=c,vectors=16"))


@contextlib.contextmanager
def support_server(where, vectors):
    server = support.Server(where, "-n", str(vectors), "-l", "1M")
    try:
        yield server
    finally:
        server.stop()


def hot_plug(side):
    """device_add up to its answer, in a VM that runs; the chardev or memory is there before."""
    with directory() as where, support_server(where, 1) as server:
        guest = tiny.TinyGuest(where, exe=side.qemu)
        try:
            guest.qmp.cmd("object-add", qom_type="memory-backend-memfd", id="m", size=1 << 20,
                          share=True)
            guest.qmp.cmd("chardev-add", id="c", backend={"type": "socket", "data": {
                "server": False, "addr": {"type": "unix", "data": {"path": server.socket}}}})
            for name, options in (("plain", {"memdev": "m"}), ("doorbell", {"chardev": "c"})):
                begin = time.monotonic()
                guest.qmp.cmd("device_add", driver="ivshmem-" + name, **options)
                yield Taken("plug/" + name, START, "device_add, ivshmem-" + name, "ms",
                            [(time.monotonic() - begin) * 1000])
        finally:
            guest.stop()


def absorb_fits(peers, vectors):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or (peers + 1) * vectors + OTHER_DESCRIPTORS <= hard


def absorb(accel, peers, vectors):
    """Measure for Book.alternate: peers come, and go again."""
    case = "%d x %d" % (peers, vectors)

    def measure(side):
        if not absorb_fits(peers, vectors):
            raise support.unittest.SkipTest(
                "%s needs %d descriptors; ulimit -Hn is %d: raise it" %
                (case, (peers + 1) * vectors + OTHER_DESCRIPTORS,
                 resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        reason = tiny.why_not(accel)
        if reason:
            raise support.unittest.SkipTest(reason)
        with directory() as where:
            result = machine.call(machine.program("absorb"), side.qemu, accel, str(peers),
                                  str(vectors), tiny.image(), seconds=ABSORB_SECONDS,
                                  directory=where)
        for how, word in (("join", "peers come"), ("leave", "peers go")):
            for key, name in (("main_loop_ms", "main loop CPU"), ("wall_ms", "time"),
                              ("longest_qmp_ms", "longest QMP answer")):
                curve = None
                if key == "main_loop_ms":
                    curve = "main loop CPU while %s, ms" % word
                yield Taken("absorb/%s/%s/%s" % (case, how, key), ABSORB,
                            "%s %s: %s" % (case, word.split()[1], name), "ms",
                            [result[how][key]], x=peers * vectors, curve=curve)
        if peers >= ENOUGH_FOR_MEMORY:
            yield Taken("absorb/%s/memory" % case, ABSORB, "%s: memory for each peer" % case,
                        "bytes", [result["bytes"] / peers])
    return measure


# ---- A client misbehaves ----

class Mischief:
    """Something done in a thread again and again until the end."""

    def __init__(self, act):
        self.ended, self.act, self.error = threading.Event(), act, None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.ended.is_set():
                self.act()
        except OSError as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join(10)
        if self.error and not error[0]:
            raise self.error


def connect_and_close(path):
    def act():
        sock = support.socket.socket(support.socket.AF_UNIX, support.socket.SOCK_STREAM)
        with sock:
            sock.connect(path)
            sock.recv(8)
    return act


def never_reading(stage, stack):
    """Eight clients that connect and never read again."""
    for _ in range(8):
        sock = support.socket.socket(support.socket.AF_UNIX, support.socket.SOCK_STREAM)
        stack.callback(sock.close)
        sock.connect(stage.server.socket)


def misbehave(path, scale):
    """The round trip of two guests: undisturbed, and while others do what they should not."""
    def measure(side):
        with doorbell.Stage(side, path, 2, pinned=True) as stage:
            a, b = stage.pair()

            def taken(row, name):
                us, cpu = doorbell.trips(stage, a, b, scale.trips, 0)
                return Taken("harm/%s/%s" % (path.accel, row), doorbell.HARM,
                             name + ", " + doorbell.title(path), "us", us, cpu, histogram=True)
            yield taken("none", "nobody misbehaves")
            with contextlib.ExitStack() as stack:
                never_reading(stage, stack)
                yield taken("silent", "8 clients never read")
            with Mischief(connect_and_close(stage.server.socket)):
                yield taken("loop", "a client connects and leaves in a loop")
            peer = stage.peer()
            peer("await %d 2" % a.id)
            peer.write("flood %d 1 %d\n" % (a.id, scale.flood_ms))
            yield taken("flood", "a client rings one of the two without a pause")
    return measure
