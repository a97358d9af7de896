# SPDX-License-Identifier: GPL-2.0-or-later
"""Beside vhost-user devices: BAR2 is kept from them, or theirs with dma=on (virtiofsd)."""
import os
import shutil
import subprocess

import support
import tiny
from tiny import BAR2, CONFIG, FUNCTION, MEM

VIRTIO_FS = 0x105A1AF4
WINDOW = 0xF8000000             # for its BAR4, where the tiny guest puts nothing
CAP_VENDOR, COMMON_CONFIG = 9, 1
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8
SLOTS = 32                      # memory regions that virtiofsd can have


def virtiofsd():
    for path in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"):
        if os.access(path, os.X_OK):
            return path
    return shutil.which("virtiofsd")


class VirtioFs(tiny.TinyCase):
    """The tiny guest starts the device without using it: that is when it gets the memory."""

    def setUp(self):
        super().setUp()
        exe = virtiofsd()
        if not exe:
            self.skipTest("no virtiofsd: apt-get install qemu-system-common or virtiofsd")
        if os.getuid():
            self.skipTest("virtiofsd wants root for its sandbox")
        known = subprocess.run([support.program("qemu"), "-device", "help"], check=True,
                               capture_output=True, text=True).stdout
        if "vhost-user-fs-pci" not in known:
            self.skipTest("this QEMU is built without vhost-user: "
                          "set QEMU to one that has been configured with --enable-vhost-user")
        self.socket = os.path.join(self.dir, "fs")
        share = os.path.join(self.dir, "share")
        os.mkdir(share)
        self.daemon = self.start(support.Process(
            [exe, "--socket-path=" + self.socket, "-o", "source=" + share, "-o", "sandbox=chroot",
             "-d"], name="virtiofsd"))
        self.daemon.err.wait_for("Waiting for vhost-user socket")

    def start_guest(self, devices, more=""):
        arguments = ["-machine", "memory-backend=ram", "-object",
                     "memory-backend-memfd,id=ram,size=16M", "-chardev",
                     "socket,id=fs,path=" + self.socket,
                     "-device", "vhost-user-fs-pci,chardev=fs,tag=fs,addr=4"]
        for n in range(devices):
            arguments += ["-object", "memory-backend-memfd,id=m%d,size=1M" % n, "-device",
                          "ivshmem-plain,id=s%d,memdev=m%d,multifunction=on,addr=%x.%x%s"
                          % (n, n, 16 + n // 8, n % 8, more)]
        guest = self.guest(*arguments)
        self.assertEqual(guest.scan(), devices)
        return guest

    def common_config(self, guest, function):
        capability = guest.r8(FUNCTION, function | 0x34)
        while capability:
            if (guest.r8(FUNCTION, function | capability) == CAP_VENDOR and
                    guest.r8(FUNCTION, function | capability + 3) == COMMON_CONFIG):
                self.assertEqual(guest.r8(FUNCTION, function | capability + 4), 4)
                return WINDOW + guest.r32(FUNCTION, function | capability + 8)
            capability = guest.r8(FUNCTION, function | capability + 1)
        raise AssertionError("no common configuration")

    def start_device(self, guest):
        function = 4 << 11
        self.assertEqual(guest.r32(FUNCTION, function), VIRTIO_FS)
        guest.w32(FUNCTION, function | 0x20, WINDOW)
        guest.w32(FUNCTION, function | 0x24, 0)
        guest.w16(FUNCTION, function | 4, 6)
        config = self.common_config(guest, function)
        guest.w32(MEM, config + 8, 1)
        guest.w32(MEM, config + 12, 1)
        status = 0
        for bit in (ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK):
            status |= bit
            guest.w8(MEM, config + 0x14, status)

    def regions(self):
        """How many pieces of memory virtiofsd has mapped."""
        with open("/proc/%d/maps" % self.daemon.pid, encoding="utf-8") as file:
            return sum("memfd:" in line for line in file)

    def test_bar2_is_kept_from_it(self):
        guest = self.start_guest(SLOTS)
        self.start_device(guest)
        ram = self.regions()
        self.assertTrue(0 < ram < 8, ram)
        guest.use()
        low, high = guest.r32(CONFIG, 0x18), guest.r32(CONFIG, 0x1C)
        for offset, value in ((0x1C, 0xFFFFFFFF), (0x18, 0xFFFFFFFF), (0x18, low), (0x1C, high)):
            guest.w32(CONFIG, offset, value)
        guest.w32(BAR2, 0, 7)
        self.assertEqual(guest.r32(BAR2, 0), 7)
        self.assertEqual(self.regions(), ram)
        self.assertIsNone(self.daemon.status)
        self.assertEqual(guest.err.text, "")

    def test_dma_gives_it_bar2(self):
        guest = self.start_guest(2, ",dma=on")
        self.start_device(guest)
        shared = self.regions()
        self.assertIsNone(self.daemon.status)
        guest.use()
        guest.w16(CONFIG, 4, 0)
        guest.use(1)
        guest.w16(CONFIG, 4, 0)
        self.assertEqual(self.regions(), shared - 2)

    def test_dma_of_too_many_is_the_end_of_it(self):
        """As it was without the property."""
        guest = self.start_guest(SLOTS, ",dma=on")
        self.start_device(guest)
        self.assertEqual(self.daemon.wait(), 1)
        guest.err.wait_for("vhost_set_mem_table failed|Error starting vhost")
        self.assertEqual(guest.qmp.cmd("query-status")["status"], "running")
