# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every command of ivshmem-guest and its errors, in one Linux guest with four devices: a doorbell
alone in its IOMMU group, a plain one of the smallest size, and two that share a group.
"""
import json
import os

import support
import vm

ALONE = "0000:00:05.0"
PLAIN = "0000:00:06.0"


class Tool(vm.LinuxTestCase):
    @classmethod
    def boot(cls):
        qemu = support.program("qemu")
        cls.server = cls.start(support.Server(cls.dir, "-l", "1M", "-n", "2"))
        memory = [os.path.join(cls.dir, "memory%d" % n) for n in range(3)]
        bridge = ("-device", "pcie-root-port,id=rp1,addr=8,bus=pcie.0,chassis=1",
                  "-device", "pcie-pci-bridge,id=pci1,bus=rp1")
        cls.vm = cls.machine(
            *vm.doorbell(cls.server.socket, 2, options=",addr=5"),
            *vm.plain(memory[0], "4K", device_id="small", options=",addr=6"), *bridge,
            *vm.plain(memory[1], "1M", device_id="one", options=",bus=pci1,addr=1"),
            *vm.plain(memory[2], "2M", device_id="two", options=",bus=pci1,addr=2"), exe=qemu)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.vm.run, "ivshmem-guest unbind -d 00:05.0")

    def tool(self, command, device=ALONE, seconds=support.DEFAULT_WAIT):
        return self.vm.check("ivshmem-guest %s --device %s" % (command, device), seconds)

    def refused(self, command, *texts, device=ALONE):
        return self.fails(self.vm, "ivshmem-guest %s --device %s" % (command, device), *texts)

    def test_list(self):
        lines = self.vm.check("ivshmem-guest list --json").splitlines()
        devices = {entry["address"]: entry for entry in map(json.loads, lines)}
        self.assertEqual(len(devices), 4)
        self.assertEqual([devices[ALONE][key] for key in ("kind", "size", "vectors", "region_id")],
                         ["doorbell", 1 << 20, 2, 0x1100])
        self.assertEqual([devices[PLAIN][key] for key in ("kind", "size", "vectors")],
                         ["plain", 4096, 0])
        self.assertEqual(sorted(entry["size"] for entry in devices.values()),
                         [4096, 1 << 20, 1 << 20, 2 << 20])
        self.assertRegex(self.vm.check("ivshmem-guest list"),
                         r"(?m)^ADDRESS .*\n0000:00:05.0 +doorbell +id=4352 +1M +2 +none$")

    def test_choice_of_the_device(self):
        self.fails(self.vm, "ivshmem-guest info", "4 ivshmem devices fit: choose one")
        self.refused("info", "is PCI device 8086:29c0", device="00:00.0")
        self.refused("info", "no ivshmem device '00:19.0'", device="00:19.0")
        self.assertIn("address:     " + PLAIN, self.tool("info", device="00:06.0"))

    def test_info(self):
        text = self.tool("info")
        for part in ("kind:        ivshmem-doorbell\n", "peer id:     0\n", "vectors:     2\n",
                     "memory:      1M (1048576 bytes)", "not usable yet: run 'ivshmem-guest bind'",
                     "mapping:     write-combining (sysfs resource2_wc"):
            self.assertIn(part, text)
        self.assertIn("mapping:     uncached (sysfs resource2", self.tool("info --map uc"))
        self.tool("bind")
        text = self.tool("info --via vfio")
        for part in ("driver:      vfio-pci\n", "mapping:     uncached (VFIO",
                     "interrupts:  MSI-X by way of VFIO\n", "reached by:  VFIO\n"):
            self.assertIn(part, text)
        self.assertIn("write-combining", self.tool("info --via vfio --map wc"))

    def test_bind_and_unbind(self):
        self.refused("wait", "no interrupts by way of sysfs (driver of %s: none)" % ALONE,
                     "run 'ivshmem-guest bind'")
        self.refused("info --via vfio", "bound to driver 'none'", "run 'ivshmem-guest bind'")
        self.assertIn("bound to no driver", self.tool("unbind"))
        self.assertRegex(self.tool("bind"), r"%s is bound to vfio-pci, IOMMU group \d+" % ALONE)
        self.assertIn("already bound", self.tool("bind"))
        self.assertIn("%s is free" % ALONE, self.tool("unbind"))
        self.assertIn("driver:      none", self.tool("info"))

    def test_module_missing(self):
        self.vm.check("rmmod vfio_pci")
        try:
            self.refused("bind", "the module vfio-pci is missing", "--via sysfs")
        finally:
            self.vm.check("insmod /modules/vfio-pci.ko")

    def test_iommu_driver_missing(self):
        self.tool("bind")
        self.vm.check("rmmod vfio_iommu_type1")
        try:
            self.refused("wait -t 1", "VFIO finds no IOMMU driver", "modprobe vfio_iommu_type1")
        finally:
            self.vm.check("insmod /modules/vfio_iommu_type1.ko")

    def test_group_not_viable(self):
        lines = map(json.loads, self.vm.check("ivshmem-guest list --json").splitlines())
        shared = [entry for entry in lines if not entry["address"].startswith("0000:00")]
        self.assertEqual(len({entry["iommu_group"] for entry in shared}), 1, shared)
        one, two = [entry["address"] for entry in shared]
        sysfs = "/sys/bus/pci/devices/%s" % two
        self.vm.check("echo uio_pci_generic >%s/driver_override; echo %s >/sys/bus/pci/drivers_probe"
                      % (sysfs, two))
        self.tool("bind", device=one)
        try:
            self.refused("info --via vfio", "is not viable", "%s (uio_pci_generic)" % two,
                         "bind those to vfio-pci too", device=one)
        finally:
            self.vm.check("echo %s >%s/driver/unbind" % (two, sysfs))
            self.tool("unbind", device=one)
        self.tool("bind", device=one)
        self.assertIn("reached by:  VFIO", self.tool("info --via vfio", device=one))
        self.tool("unbind", device=one)

    def test_in_use(self):
        """One program waits; another cannot, but everything else goes on."""
        self.tool("bind")
        client = support.Client(self.server.socket)
        self.addCleanup(client.stop)
        own = client.command("id")["id"]
        text = self.vm.check(
            ": >/tmp/first; (ivshmem-guest wait 1 -v -t 20 -d 00:05.0; echo status $?) >/tmp/first 2>&1 & "
            "until grep -q . /tmp/first; do :; done; "
            "ivshmem-guest wait -t 1 -d 00:05.0; echo status $?; "
            "ivshmem-guest unbind -d 00:05.0; echo status $?; "
            "ivshmem-guest info -d 00:05.0 | grep reached; ivshmem-guest ring %d -d 00:05.0" % own)
        self.assertRegex(text, r"wait: device in use: another program has /dev/vfio/\d+ open")
        self.assertRegex(text, r"unbind: device in use: a program has VFIO group \d+")
        self.assertEqual(text.count("status 1\n"), 2, text)
        self.assertIn("reached by:  sysfs\n", text)
        self.assertTrue(client.command("wait 20s 0")["ok"])
        self.assertTrue(client.command("int 0 1")["ok"])
        self.assertEqual(self.vm.check("until grep -q status /tmp/first; do :; done; "
                                       "tail -n 2 /tmp/first"),
                         "vector 1: 1 interrupt\nstatus 0\n")

    def test_mapped_by_another(self):
        """Debian's kernel keeps sysfs off what VFIO has mapped; the message says so."""
        self.tool("bind")
        text = self.vm.check(
            ": >/tmp/first; ivshmem-guest chat 1 -v -t 20 -d 00:05.0 >/tmp/first 2>&1 & PID=$!; "
            "until grep -q . /tmp/first; do :; done; ivshmem-guest ring 9 -d 00:05.0; "
            "echo status $?; kill $PID; wait; ivshmem-guest ring 9 -d 00:05.0; echo status $?")
        self.assertIn("has it mapped; end that, or boot this guest with iomem=relaxed\nstatus 1",
                      text)
        self.assertTrue(text.endswith("\nstatus 0\n"), text)

    def test_not_root(self):
        self.vm.check("echo 'u:x:1000:1000::/:/bin/sh' >/etc/passwd || "
                      "(mkdir /etc && echo 'u:x:1000:1000::/:/bin/sh' >/etc/passwd)")
        user = "su u -c 'ivshmem-guest %s -d 00:05.0'"
        self.assertIn("?", self.vm.check("su u -c 'ivshmem-guest list'"))
        self.fails(self.vm, user % "info", "cannot open /sys", "run as root")
        self.fails(self.vm, user % "bind", "cannot write driver_override", "run as root")
        self.tool("bind")
        self.fails(self.vm, user % "wait -t 1", "cannot open /dev/vfio/", "run as root")

    def test_memory_commands(self):
        for device, via in ((ALONE, ""), (PLAIN, ""), (ALONE, "--map uc"), (PLAIN, "--map uc")):
            with self.subTest(device=device, via=via):
                end = " %s --device %s" % (via, device)
                self.vm.check("ivshmem-guest fill 0 4K 0" + end)
                self.vm.check("ivshmem-guest write 8 hello" + end)
                self.vm.check("ivshmem-guest write 0x10 0xdeadbeef" + end)
                self.vm.check("echo piped | ivshmem-guest write 101 -" + end)
                self.assertEqual(self.vm.check("ivshmem-guest read 8 12" + end),
                                 "68656c6c6f000000deadbeef\n")
                self.assertEqual(self.vm.check("ivshmem-guest cat 101 6" + end), "piped\n")
                self.assertIn("00000000  00 00 00 00 00 00 00 00  68 65 6c 6c 6f 00 00 00  "
                              "|........hello...|\n", self.vm.check("ivshmem-guest dump 0 32" + end))
                self.vm.check("ivshmem-guest fill 4095 1 255" + end)
                self.assertEqual(self.vm.check("ivshmem-guest read 4094 2" + end), "00ff\n")
        self.refused("read 4096 1", "reach past the end", "has 4096 bytes", device=PLAIN)
        self.refused("fill 0 4097 1", "reach past the end", device=PLAIN)
        self.refused("write 4095 ab", "reach past the end", device=PLAIN)
        self.fails(self.vm, "cat /bin/busybox | ivshmem-guest write 0 - -d 00:06.0",
                   "the input is longer than the memory")

    def test_memory_over_vfio(self):
        self.tool("bind")
        self.tool("write 77777 over-vfio --via vfio")
        self.assertEqual(self.tool("cat 77777 9 --via vfio"), "over-vfio")
        self.assertEqual(self.tool("cat 77777 9 --via sysfs"), "over-vfio")

    def test_uio(self):
        """uio_pci_generic shows registers and memory by way of sysfs, and has no interrupts."""
        self.refused("info --via uio", "has no uio device")
        sysfs = "/sys/bus/pci/devices/" + ALONE
        self.vm.check("echo uio_pci_generic >%s/driver_override; "
                      "echo %s >/sys/bus/pci/drivers_probe" % (sysfs, ALONE))
        try:
            self.assertIn("reached by:  uio\n", self.tool("info --via uio"))
            self.tool("write 555 by-uio --via uio")
            self.assertEqual(self.tool("read 555 6 --via uio"), "62792d75696f\n")
            self.refused("wait -t 5", "this uio driver gives no interrupts", "MSI-X needs VFIO")
            self.refused("unbind", "is bound to 'uio_pci_generic', which 'bind' did not do")
        finally:
            self.vm.check("echo %s >%s/driver/unbind" % (ALONE, sysfs))

    def test_ring_and_wait(self):
        self.tool("bind")
        self.refused("wait 2 -t 1", "has 2 vectors (VFIO): vector 2 does not exist")
        self.refused("wait -t 100ms", "no interrupt within 0.1 s", "does a peer ring this guest's ID")
        job = self.vm.begin("ivshmem-guest wait -v -t 20 -c 3 -d 00:05.0 2>&1")
        job.wait_for(r"^waiting on 2 vectors by way of VFIO\n")
        client = support.Client(self.server.socket)
        self.addCleanup(client.stop)
        self.assertTrue(client.command("int 0 1")["ok"])
        job.wait_for(r"^vector 1: 1 interrupt\n")
        self.assertTrue(client.command("int 0 0")["ok"])
        job.wait_for(r"^vector 0: 1 interrupt\n")
        self.assertTrue(client.command("int 0 1")["ok"])
        self.assertEqual(job.finish().status, 0)

    def test_ring_count(self):
        client = support.Client(self.server.socket)
        self.addCleanup(client.stop)
        own = client.command("id")["id"]
        self.tool("ring %d 1 --count 25" % own)
        rung = 0
        while rung < 25:
            answer = client.command("wait 20s 1")
            self.assertTrue(answer["ok"], "%d of 25 rings arrived" % rung)
            rung += answer["count"]
        self.assertEqual(rung, 25)

    def test_ring_before_anyone_waits(self):
        """The device keeps it until the interrupt is enabled, and delivers it once."""
        self.tool("bind")
        support.Client.run(self.server.socket, "int 0 1")
        self.assertEqual(self.tool("wait 1 -t 10"), "vector 1: 1 interrupt\n")
        self.refused("wait 1 -t 100ms", "no interrupt within")

    def test_channel_errors(self):
        self.tool("bind")
        self.refused("chat 0", "peer 0 is this guest itself")
        self.refused("chat 1 --offset 0x100000", "BAR2 of %s is too small" % ALONE)
        self.refused("chat 1 --offset 1K", "is too small: the channel needs 3456 bytes",
                     device=PLAIN)
        self.refused("chat 1 -t 100ms", "did not answer in time", "and the same memory",
                     device=PLAIN)

    def test_bench(self):
        self.tool("bind")
        self.tool("write 0 kept")
        lines = self.tool("bench --json --size 64K", seconds=60).splitlines()
        values = {(line["what"], line["how"]): line["value"] for line in map(json.loads, lines)}
        for what, how in (("register read", "mapped"), ("interrupt latency, median",
                                                        "ring itself and wait"),
                          ("memory read", "VFIO"), ("memory write", "sysfs resource2_wc"),
                          ("memory read", "sysfs resource2"), ("memory read", "this guest's RAM")):
            self.assertGreater(values[what, how], 0)
        self.assertEqual(self.tool("cat 0 4"), "kept")
        text = self.vm.check("ivshmem-guest bench --size 4096 -d 00:06.0 2>&1", 60)
        self.assertIn("no interrupts measured: ivshmem-plain has none", text)
        self.assertRegex(text, r"memory read +sysfs resource2 +\d")
