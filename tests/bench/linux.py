# SPDX-License-Identifier: GPL-2.0-or-later
"""What users see in a Linux guest: "ivshmem-guest bench" and "ping", and memory by mapping."""
import contextlib
import json
import re

import linuximage
import support
import vm
from device import directory, support_server
from figures import Taken

LINUX, MEMORY = "Linux guest, from user space", "Memory in a Linux guest"
MB = 1 << 20
BETTER = {"ns": "lower", "us": "lower", "rings": ""}


def hugepages():
    """(bytes of a hugepage, how many are free)"""
    with open("/proc/meminfo", encoding="ascii") as file:
        text = file.read()
    size, free = (re.search(r"^%s:\s+(\d+)" % name, text, re.M)
                  for name in ("Hugepagesize", "HugePages_Free"))
    return (int(size.group(1)) * 1024 if size else 0), (int(free.group(1)) if free else 0)


def figures(text, tag, pages=""):
    """The lines of "ivshmem-guest bench --json"."""
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        one = json.loads(line)
        what, how, unit = one["what"], one["how"], one["unit"]
        memory = what.startswith(("memory", "load"))
        name = "%s, %s%s" % (what, how, pages if memory and "RAM" not in how else "")
        yield Taken("linux/%s/%s/%s" % (tag, what, how), MEMORY if memory else LINUX, name, unit,
                    [one["value"]], better=BETTER.get(unit, "higher"))


def linux(side, where, server, accel):
    return vm.LinuxVM(where, *vm.doorbell(server.socket), exe=side.qemu, accel=accel)


def ping(one, other, count):
    """Round trips of two guests' programs; the ids are those of the order of connecting."""
    for machine in (one, other):
        machine.check("ivshmem-guest bind")
    ids = [json.loads(machine.check("ivshmem-guest info --json"))["id"]
           for machine in (one, other)]
    answering = other.begin("ivshmem-guest ping %d --answer -t 60" % ids[0])
    answer = json.loads(one.check("ivshmem-guest ping %d -c %d --json" % (ids[1], count), 60))
    answering.finish(60)
    for what in ("median", "p99"):
        yield Taken("linux/ping/" + what, LINUX, "round trip of two guests, %s of %d" %
                    (what, count), "us", [answer[what + "_us"]],
                    note="ivshmem-guest ping: VFIO, a message in the memory and an interrupt "
                         "each way")


def guest(scale):
    """Measure for Book.alternate."""
    def measure(side):
        accel = vm.accelerator(side.qemu)[0]
        linuximage.kernel()
        with directory() as where, support_server(where, 1) as server, \
                contextlib.ExitStack() as stack:
            one, other = (linux(side, where, server, accel) for _ in range(2))
            for machine in (one, other):
                stack.callback(machine.stop)
            for machine in (one, other):
                machine.ready()
            yield from ping(one, other, scale.linux_pings)
            text = one.check("ivshmem-guest bench --json", seconds=scale.linux_seconds)
            yield from figures(text, "4k")
    return measure


def huge(scale):
    """The same memory from hugepages, at ivshmem-plain."""
    def measure(side):
        size, free = hugepages()
        if not size or free * size < 2 * MB:
            raise support.unittest.SkipTest(
                "no free hugepages: echo 16 >/proc/sys/vm/nr_hugepages")
        with directory() as where:
            total = max(size, 2 * MB)
            machine = vm.LinuxVM(
                where, "-object", "memory-backend-memfd,id=m,size=%d,share=on,hugetlb=on,"
                "hugetlbsize=%d" % (total, size), "-device", "ivshmem-plain,memdev=m",
                exe=side.qemu, accel=vm.accelerator(side.qemu)[0])
            try:
                machine.ready()
                text = machine.check("ivshmem-guest bench --json", seconds=scale.linux_seconds)
                for taken in figures(text, "huge", ", pages of %d KiB" % (size // 1024)):
                    if taken.part == MEMORY and "RAM" not in taken.name:
                        yield taken
            finally:
                machine.stop()
    return measure
