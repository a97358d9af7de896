# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of any size, beyond 4 GiB, of huge pages, preallocated, and bound to a NUMA node."""
import fcntl
import os
import re
import struct
import unittest

import linuximage
import support
import tiny
import vm
from server_load import ConfigServer
from tiny import BAR2, ivec

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
GIB = 1 << 30
HUGE = 2 << 20
HUGE_DIR = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def status_kib(pid, field):
    with open("/proc/%d/status" % pid, encoding="ascii") as file:
        return int(re.search(r"^%s:\s+(\d+) kB" % field, file.read(), re.M).group(1))


def mappings(pid, name, table="smaps"):
    """What a table of /proc says of the mappings whose path contains a name."""
    with open("/proc/%d/%s" % (pid, table), encoding="utf-8") as file:
        text = file.read()
    if table == "numa_maps":
        return [line for line in text.splitlines() if name in line]
    return [part for part in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M)
            if name in part.partition("\n")[0]]


class SizeCase:
    """For use with tiny.TinyCase."""

    def plain(self, backend):
        return self.guest("-object", backend, "-device", "ivshmem-plain,id=shm,memdev=m")

    def write_config(self, text):
        path = os.path.join(self.dir, "server.conf")
        with open(path, "w", encoding="ascii") as out:
            out.write(text.replace("DIR", self.dir))
        return path

    def assert_usable(self, guest, size, high):
        """From end to end, at an address above 4 GiB or not, and the same after it has moved."""
        for above in (high, True):
            self.assertEqual(guest.scan(above), 1)
            place = guest.use()
            self.assertEqual(place["size"], size)
            self.assertEqual(place["bar2"] % size, 0)
            self.assertEqual(place["bar2"] >= 4 * GIB, above)
            for offset in (0, size // 2 - 4, size // 2, size - 4):
                guest.w32(BAR2, offset, offset * 3 + above & 0xFFFFFFFF)
            for offset in (0, size // 2 - 4, size // 2, size - 4):
                self.assertEqual(guest.r32(BAR2, offset), offset * 3 + above & 0xFFFFFFFF)

    def memory(self, guest):
        return guest.qmp.cmd("query-ivshmem")[0]["memory"]


@tiny.each_path(PATHS)
class Sizes(SizeCase):
    # R-DEV-5
    def test_below_and_above_4_gib(self):
        for size in (4096, 64 << 10, 64 << 20):
            with self.subTest(size=size):
                guest = self.plain("memory-backend-memfd,id=m,size=%d" % size)
                self.assert_usable(guest, size, False)
                guest.stop()

    def test_hundreds_of_gib(self):
        """They cost what is used of them, in a memfd as well as in a file."""
        path = os.path.join(self.dir, "sparse")
        for size in (256 * GIB, 512 * GIB):
            for backend in ("memory-backend-memfd,id=m,size=%d" % size,
                            "memory-backend-file,id=m,share=on,mem-path=%s,size=%d"
                            % (path, size)):
                with self.subTest(backend=backend):
                    guest = self.plain(backend)
                    self.assert_usable(guest, size, True)
                    self.assertEqual(self.memory(guest)["size"], size)
                    self.assertLess(status_kib(guest.pid, "VmRSS"), 512 << 10)
                    guest.stop()
            with open(path, "rb") as file:
                file.seek(size - 4)
                self.assertEqual(struct.unpack("<I", file.read(4))[0],
                                 (size - 4) * 3 + 1 & 0xFFFFFFFF)
            os.unlink(path)

    def test_hundreds_of_gib_from_the_server(self):
        size = 256 * GIB
        self.start(ConfigServer("--config", self.write_config(
            "[region r]\nsize=256G\nsocket=DIR/r\n")))
        a, b = [self.guest("-chardev", "socket,id=c,path=%s/r" % self.dir,
                           "-device", "ivshmem-doorbell,id=shm,chardev=c") for _ in range(2)]
        a.id, b.id = a.setup(high=True), b.setup(high=True)
        self.introduce(a, b)
        self.assertGreaterEqual(a.use()["bar2"], 4 * GIB)
        for offset in (0, 100 * GIB, size - 4):
            a.w32(BAR2, offset, offset >> 8 | 1)
            self.assertEqual(b.r32(BAR2, offset), offset >> 8 | 1)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        self.assertEqual(self.memory(a), {"kind": "memfd", "size": size, "readonly": False,
                                          "sealed": True})


class HugePages:
    """Lets the kernel hand out so many huge pages of 2 MiB on demand, for as long as it lives."""

    def __init__(self, pages):
        self.file = None
        path = os.path.join(HUGE_DIR, "nr_overcommit_hugepages")
        if not os.path.exists(path):
            raise unittest.SkipTest("this kernel has no huge pages of 2 MiB")
        if self.number("free_hugepages") >= pages:
            return
        try:
            self.file = open(path, "r+", encoding="ascii")
        except PermissionError:
            raise unittest.SkipTest("no huge pages are free, and only root can reserve some: "
                                    "echo %d > %s/nr_hugepages" % (pages, HUGE_DIR)) from None
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.before = self.file.read()
        self.write("%d\n" % (int(self.before) + pages))

    @staticmethod
    def number(name):
        with open(os.path.join(HUGE_DIR, name), encoding="ascii") as file:
            return int(file.read())

    def write(self, text):
        self.file.seek(0)
        self.file.write(text)
        self.file.flush()

    def close(self):
        if self.file:
            self.write(self.before)
            self.file.close()


@tiny.each_path(PATHS)
class Huge(SizeCase):
    size = 2 * HUGE

    def setUp(self):
        super().setUp()
        pages = HugePages(4)
        self.addCleanup(pages.close)

    def assert_huge(self, guest, name):
        self.assertEqual(self.memory(guest)["kind"], "hugetlb")
        found = mappings(guest.pid, name)
        self.assertTrue(found)
        self.assertIn("KernelPageSize:     2048 kB", found[0])

    def test_backend(self):
        guest = self.plain("memory-backend-memfd,id=m,hugetlb=on,hugetlbsize=2M,size=%d"
                           % self.size)
        self.assert_usable(guest, self.size, False)
        self.assert_huge(guest, "memfd:")
        self.assertTrue(self.memory(guest)["sealed"])

    def test_backend_with_all_pages_at_start(self):
        guest = self.plain("memory-backend-memfd,id=m,hugetlb=on,hugetlbsize=2M,prealloc=on,size=%d"
                           % self.size)
        self.assert_huge(guest, "memfd:")
        self.assertIn("Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:    4096 kB",
                      mappings(guest.pid, "memfd:")[0])

    def test_server(self):
        self.start(ConfigServer("--config", self.write_config(
            "[region r]\nsize=4M\nmemory=hugetlb:2M\nsocket=DIR/r\n")))
        a, b = [self.guest("-chardev", "socket,id=c,path=%s/r" % self.dir,
                           "-device", "ivshmem-doorbell,id=shm,chardev=c") for _ in range(2)]
        for guest in (a, b):
            self.assert_usable(guest, self.size, False)
            self.assert_huge(guest, "memfd:")
        a.w32(BAR2, HUGE, 0x600D)
        self.assertEqual(b.r32(BAR2, HUGE), 0x600D)


class Placement(SizeCase, tiny.TinyCase):
    """What is the backend's goes through to the memory of the device."""

    def test_prealloc(self):
        guest = self.plain("memory-backend-memfd,id=m,prealloc=on,prealloc-threads=2,size=8M")
        self.assertIn("Rss:                8192 kB", mappings(guest.pid, "memfd:")[0])
        self.assert_usable(guest, 8 << 20, False)

    def test_without_prealloc_nothing_is_taken(self):
        guest = self.plain("memory-backend-memfd,id=m,size=8M")
        self.assertIn("Rss:                   0 kB", mappings(guest.pid, "memfd:")[0])

    def test_numa_policy(self):
        try:
            guest = self.plain("memory-backend-memfd,id=m,size=8M,prealloc=on,"
                               "host-nodes=0,policy=bind")
        except AssertionError as error:
            if "NUMA node binding are not supported by this QEMU" in str(error):
                self.skipTest("this QEMU is built without NUMA: build it with --enable-numa")
            raise
        found = mappings(guest.pid, "memfd:", "numa_maps")
        self.assertRegex(found[0], r"bind(=static)?:0 .*N0=2048")


class Firmware(support.TestCase):
    """SeaBIOS and Linux find room for a large BAR2 by themselves."""

    def test_linux_maps_32_gib(self):
        linuximage.kernel()
        size = 32 * GIB
        path = os.path.join(self.dir, "sparse")
        guest = self.start(vm.LinuxVM(self.dir, *vm.plain(path, "32G"), "-cpu",
                                      "qemu64,phys-bits=40", accel="tcg")).ready()
        bars = guest.check("cd /sys/bus/pci/devices && sed -n 3p "
                           "$(dirname $(grep -l 0x1110 */device))/resource")
        self.assertIn("32G", guest.check("ivshmem-guest list"))
        start, end = [int(word, 16) for word in bars.split()[:2]]
        self.assertEqual(end - start + 1, size)
        self.assertGreaterEqual(start, 4 * GIB)
        guest.check("ivshmem-guest write %d far" % (size - 4096))
        with open(path, "rb") as file:
            file.seek(size - 4096)
            self.assertEqual(file.read(3), b"far")
