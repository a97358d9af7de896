# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux guests with ivshmem-plain on one memory backend, ours and the stock device."""
import json
import os

import support
import vm


class PairTests:
    programs = ("qemu", "qemu")

    @classmethod
    def boot(cls):
        cls.path = os.path.join(cls.dir, "memory")
        programs = [support.program(name) for name in cls.programs]
        cls.a, cls.b = [cls.machine(*vm.plain(cls.path), name=name, exe=exe,
                                    extra_kernel=" intel_iommu=off")
                        for name, exe in zip(("A", "B"), programs)]

    def test_info(self):
        for machine in (self.a, self.b):
            answer = self.answer(machine, "ivshmem-guest info --json")
            self.assertEqual({key: answer[key] for key in
                              ("kind", "size", "vectors", "id", "driver", "via")},
                             {"kind": "plain", "size": 1 << 20, "vectors": 0, "id": 0,
                              "driver": "", "via": "sysfs"})

    def test_chat_by_polling(self):
        out = self.both(
            (self.a, "seq 1 300 | ivshmem-guest chat 1 --expect 300 -t 60 2>/dev/null"),
            (self.b, "seq 1001 1300 | ivshmem-guest chat 0 --expect 300 -t 60 2>/dev/null"), 90)
        self.assertEqual(out[0], "".join("peer 1: %d\n" % n for n in range(1001, 1301)))
        self.assertEqual(out[1], "".join("peer 0: %d\n" % n for n in range(1, 301)))

    def test_ping_by_polling(self):
        out = self.both((self.a, "ivshmem-guest ping 1 -c 1000 --json"),
                        (self.b, "ivshmem-guest ping 0 --answer -t 60"))
        answer = json.loads(out[0])
        self.assertEqual((answer["round_trips"], answer["how"]), (1000, "polling"))
        self.assertIn("answered 1000 pings", out[1])

    def test_memory_is_the_file(self):
        data = os.urandom(100000)
        with open(self.path, "r+b") as file:
            file.seek(200000)
            file.write(data)
        out = self.a.check("ivshmem-guest read 200000 100000").strip()
        self.assertEqual(bytes.fromhex(out), data)
        self.b.check("ivshmem-guest cat 200000 100000 | ivshmem-guest write 500000 -")
        with open(self.path, "rb") as file:
            file.seek(500000)
            self.assertEqual(file.read(100000), data)

    def test_no_interrupts_and_no_iommu(self):
        self.fails(self.a, "ivshmem-guest wait -t 1", "is an ivshmem-plain device",
                   "no MSI-X", "use ivshmem-doorbell, or poll")
        self.fails(self.a, "ivshmem-guest ring 1", "has no doorbell")
        self.fails(self.a, "ivshmem-guest ping 2", "one side says 0 and the other 1")
        self.fails(self.a, "ivshmem-guest bind", "is in no IOMMU group",
                   "-device intel-iommu,intremap=on")
        self.fails(self.a, "ivshmem-guest bind --no-iommu", "is in no IOMMU group")


class Ours(PairTests, vm.LinuxTestCase):
    """Two guests under our QEMU."""


class OursWithStock(PairTests, vm.LinuxTestCase):
    """One guest under our QEMU, one under the distribution's."""

    programs = ("qemu", "stock")
