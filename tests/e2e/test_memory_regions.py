# SPDX-License-Identifier: GPL-2.0-or-later
"""Many devices in one VM, each with its own region, told apart by their region IDs."""
import os
import struct

import support
import tiny
from tiny import BAR2, CONFIG, IVEC_FIRST, ivec

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
SUBSYSTEM = 0x2C
DEFAULT = 0x1100


@tiny.each_path(PATHS)
class Regions:
    def backend(self, name, size="1M"):
        path = os.path.join(self.dir, name)
        return ["-object", "memory-backend-file,id=%s,share=on,size=%s,mem-path=%s"
                % (name, size, path)]

    def plain(self, name, more="", size="1M"):
        return self.backend("mem-" + name, size) + \
            ["-device", "ivshmem-plain,id=%s,memdev=mem-%s%s" % (name, name, more)]

    def in_file(self, name, offset=0):
        with open(os.path.join(self.dir, "mem-" + name), "rb") as file:
            file.seek(offset)
            return struct.unpack("<I", file.read(4))[0]

    def by_region(self, guest):
        """{region ID: device number}, as the guest finds them."""
        found = {}
        for number in range(guest.scan()):
            guest.use(number)
            subsystem = guest.r32(CONFIG, SUBSYSTEM)
            self.assertEqual(subsystem & 0xFFFF, 0x1AF4)
            found[subsystem >> 16] = number
        return found

    def test_default_is_that_of_before(self):
        guest = self.guest(*self.plain("a"), *self.doorbell_options(self.server()))
        self.assertEqual(guest.scan(), 2)
        for number in range(2):
            guest.use(number)
            self.assertEqual(guest.r32(CONFIG, SUBSYSTEM), DEFAULT << 16 | 0x1AF4)

    def test_limits(self):
        guest = self.guest(*self.plain("low", ",region-id=0"),
                           *self.plain("high", ",region-id=65535"))
        self.assertEqual(sorted(self.by_region(guest)), [0, 65535])
        for wrong in ("65536", "-1", "camera"):
            with self.assertRaisesRegex(AssertionError, "region-id"):
                self.guest(*self.plain("wrong", ",region-id=" + wrong))

    def test_survives_reset_and_is_read_only(self):
        guest = self.guest(*self.plain("a", ",region-id=7"))
        guest.scan()
        guest.use()
        guest.w32(CONFIG, SUBSYSTEM, 0xFFFFFFFF)
        self.assertEqual(guest.r32(CONFIG, SUBSYSTEM), 7 << 16 | 0x1AF4)
        guest.reset()
        self.assertEqual(list(self.by_region(guest)), [7])

    # R-DEV-39
    def test_each_has_its_own_region(self):
        """Sixteen on files, four at servers of their own: what is written to one is in that one."""
        servers = {100 + n: self.server(2) for n in range(4)}
        arguments = []
        for region in range(16):
            arguments += self.plain("p%d" % region, ",region-id=%d" % region,
                                    size="%dK" % (4 << region % 8))
        for region, server in servers.items():
            arguments += self.doorbell_options(server, 2, "d%d" % region,
                                               ",region-id=%d" % region)
        guest = self.guest(*arguments)
        where = self.by_region(guest)
        self.assertEqual(sorted(where), list(range(16)) + sorted(servers))
        for region, number in where.items():
            size = guest.use(number)["size"]
            self.assertEqual(size, 4096 << region % 8 if region < 16 else 1 << 20)
            guest.w32(BAR2, 0, 0xA0000000 + region)
            guest.w32(BAR2, size - 4, 0xB0000000 + region)
        for region in range(16):
            self.assertEqual(self.in_file("p%d" % region), 0xA0000000 + region)
            self.assertEqual(self.in_file("p%d" % region, (4096 << region % 8) - 4),
                             0xB0000000 + region)
        for region, server in servers.items():
            with open("/dev/shm/" + server.shm_name, "rb") as file:
                self.assertEqual(struct.unpack("<I", file.read(4))[0], 0xA0000000 + region)
        self.assertEqual(len(guest.qmp.cmd("query-ivshmem")), 20)

    def test_interrupts_of_each(self):
        """A ring at one server interrupts by that server's device, and no other."""
        servers = [self.server() for _ in range(3)]
        arguments = []
        for number, server in enumerate(servers):
            arguments += self.doorbell_options(server, 1, "d%d" % number,
                                               ",region-id=%d" % (number + 1))
        guest = self.guest(*arguments)
        for region, number in self.by_region(guest).items():
            guest.use(number)
            guest.fill(0, 1, IVEC_FIRST + region)
            guest.msix(True)
        for region, server in enumerate(servers, 1):
            result = support.Client.run(server.socket, "int 0 0")
            self.assertEqual(result.status, 0, repr(result))
            guest.wait_count(ivec(region), 1)
        self.assertEqual(guest.total(), 3)
