# SPDX-License-Identifier: GPL-2.0-or-later
"""What users see in a Linux guest: "ivshmem-guest bench" and "ping", and memory by mapping."""
import json
import re

import linuximage
import support
import vm
from device import directory, support_server
from figures import Taken

LINUX, MEMORY = "Linux guest, from user space", "Memory in a Linux guest"
MB = 1 << 20


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
                    [one["value"]], better="higher" if unit.endswith("/s") else "lower")


def guest(scale):
    """Measure for Book.alternate."""
    def measure(side):
        accel = vm.accelerator(side.qemu)[0]
        linuximage.kernel()
        with directory() as where, support_server(where, 1) as server:
            machine = vm.LinuxVM(where, *vm.doorbell(server.socket), exe=side.qemu, accel=accel)
            try:
                machine.ready()
                machine.check("ivshmem-guest bind")
                text = machine.check("ivshmem-guest bench --json", seconds=scale.linux_seconds)
                yield from figures(text, "4k", "")
            finally:
                machine.stop()
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
