#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
ivshmem-guest on a machine without a device: its command line, and everything that a made-up
sysfs can show.  Usage: test_cli.py IVSHMEM-GUEST [unittest arguments]

IVSHMEM_GUEST_PEER=PROGRAM makes another build of the tool, one for another byte order for
example, the second party of the conversations.
"""
import fcntl
import json
import mmap
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import unittest

PROGRAM = None
PEER = os.environ.get("IVSHMEM_GUEST_PEER")


def run(*args, stdin=b"", seconds=30, program=None):
    result = subprocess.run([program or PROGRAM, *args], input=stdin, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, timeout=seconds)
    return result.returncode, result.stdout, result.stderr.decode()


class CommandLine(unittest.TestCase):
    def check_usage(self, args, text):
        status, out, err = run(*args)
        self.assertEqual(status, 2, (args, out, err))
        self.assertIn(text, err)
        self.assertEqual(out, b"")

    def test_wrong_usage(self):
        for args, text in (
                ((), "which command?"),
                (("frobnicate",), "'frobnicate' is not a command"),
                (("ring",), "usage: ivshmem-guest ring PEER [VECTOR]"),
                (("ring", "1", "2", "3"), "usage: ivshmem-guest ring"),
                (("fill", "0", "1"), "usage: ivshmem-guest fill OFFSET LENGTH BYTE"),
                (("list", "--bogus"), "wrong option"),
                (("list", "--count", "3"), "list does not take --count"),
                (("dump", "--reply"), "dump does not take --reply"),
                (("ring", "1", "--count"), "wrong option"),
                (("ring", "1", "--count", "0"), "--count '0' is not a positive number"),
                (("ring", "1", "--count", "-1"), "--count '-1' is not a positive number"),
                (("ring", "1", "--count", "99999999999999999999"), "is not a positive number"),
                (("ping", "1", "--offset", "x"), "--offset 'x' is not a number"),
                (("ping", "1", "--offset", "17000000T"), "is not a number"),
                (("ping", "1", "--vector", "65536"), "--vector '65536' is not a number from 0"),
                (("wait", "--timeout", "soon"), "--timeout 'soon' is not a time like"),
                (("wait", "--timeout", "-1"), "--timeout '-1' is not a time like"),
                (("wait", "--timeout", "nan"), "--timeout 'nan' is not a time like"),
                (("info", "--via", "magic"), "--via 'magic' is none of auto, vfio, sysfs, uio"),
                (("info", "--map", "wb"), "--map 'wb' is none of auto, uc, wc")):
            with self.subTest(args=args):
                self.check_usage(args, text)

    def test_help_names_every_command(self):
        status, out, _ = run("--help")
        self.assertEqual(status, 0)
        for name in ("list info bind unbind read write dump fill cat ring wait ping bench "
                     "chat").split():
            self.assertRegex(out.decode(), r"(?m)^  %s " % name)

    def test_version(self):
        status, out, _ = run("--version")
        self.assertEqual(status, 0)
        self.assertRegex(out.decode(), r"^ivshmem-guest \d+\.\d+")

    def test_no_sysfs(self):
        status, _, err = run("list", "--sysfs", "/nonexistent")
        self.assertEqual(status, 1)
        self.assertIn("cannot list PCI devices", err)
        self.assertIn("mount -t sysfs", err)


class Sysfs(unittest.TestCase):
    """A sysfs made of ordinary files: memory and registers can be mapped."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ivshmem-guest-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.devices = os.path.join(self.dir, "bus/pci/devices")
        os.makedirs(self.devices)

    def add(self, address="0000:00:03.0", size=65536, vectors=0, region_id=0x1100, device=0x1110,
            revision=1, registers=256, enabled=True, peer_id=0, wc=True, bar2=0xfe000000,
            group=None):
        path = os.path.join(self.devices, address)
        os.mkdir(path)
        config = bytearray(256)
        struct.pack_into("<HHHH", config, 0, 0x1af4, device, 2 * enabled, 0x10 * (vectors > 0))
        config[0x34] = 0x40
        config[0x40] = 0x11
        struct.pack_into("<H", config, 0x42, max(vectors - 1, 0))
        bars = [(0xfebf1000, registers), (0xfebf2000, 4096 if vectors else 0),
                (bar2, size)]
        resource = "".join("0x%016x 0x%016x 0x%016x\n" % ((base, base + n - 1, 0x200) if n
                                                          else (0, 0, 0)) for base, n in bars)
        memory = bytearray(4096)
        struct.pack_into("<I", memory, 8, peer_id)
        for name, data in (("vendor", "0x1af4\n"), ("device", "0x%04x\n" % device),
                           ("revision", "0x%02x\n" % revision), ("resource", resource),
                           ("subsystem_device", "0x%04x\n" % region_id), ("config", config),
                           ("resource0", memory), ("enable", "0\n"),
                           ("resource2", bytes(size + bar2 % mmap.PAGESIZE))):
            with open(os.path.join(path, name), "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
        if wc:
            os.link(os.path.join(path, "resource2"), os.path.join(path, "resource2_wc"))
        if group:
            os.makedirs(os.path.join(self.dir, "kernel/iommu_groups/7"))
            os.symlink(os.path.join(self.dir, "kernel/iommu_groups/7"),
                       os.path.join(path, "iommu_group"))
            with open(os.path.join(path, "iommu_group/name"), "w", encoding="ascii") as file:
                file.write(group + "\n")
        return path

    def guest(self, *args, **kwargs):
        return run(*args, "--sysfs", self.dir, **kwargs)

    def good(self, *args, **kwargs):
        status, out, err = self.guest(*args, **kwargs)
        self.assertEqual(status, 0, err)
        return out

    def bad(self, text, *args, **kwargs):
        status, _, err = self.guest(*args, **kwargs)
        self.assertEqual(status, 1, err)
        self.assertIn(text, err)

    def test_no_device(self):
        for command in (("list",), ("info",), ("dump",), ("ring", "1"), ("bind",), ("wait",),
                        ("chat", "1"), ("ping", "1"), ("bench",)):
            with self.subTest(command=command):
                self.bad("this machine has no ivshmem device (PCI 1af4:1110", *command)

    def test_foreign_device_and_old_revision(self):
        self.add("0000:00:02.0", device=0x1000)
        self.bad("no ivshmem device", "info")
        self.bad("0000:00:02.0 is PCI device 1af4:1000 revision 1, not an ivshmem device",
                 "info", "--device", "0000:00:02.0")
        self.add("0000:00:04.0", revision=0)
        self.bad("old revision only", "info")

    def test_list(self):
        self.add("0000:00:04.0", size=1 << 20, vectors=8, region_id=7)
        self.add("0000:00:03.0")
        lines = self.good("list").decode().splitlines()
        self.assertEqual([line.split() for line in lines[1:]],
                         [["0000:00:03.0", "plain", "id=4352", "64K", "0", "none"],
                          ["0000:00:04.0", "doorbell", "id=7", "1M", "8", "none"]])
        answers = [json.loads(line) for line in self.good("list", "--json").splitlines()]
        self.assertEqual(answers[1]["region_id"], 7)
        self.assertEqual(answers[1]["vectors"], 8)
        self.assertEqual(answers[0]["size"], 65536)

    def test_choose(self):
        self.add("0000:00:03.0", region_id=1)
        self.add("0000:00:04.0", region_id=2)
        self.bad("2 ivshmem devices fit: choose one", "info")
        self.bad("no ivshmem device '00:09.0'", "info", "-d", "00:09.0")
        self.bad("no ivshmem device 'id=3'", "info", "-d", "id=3")
        for name in ("0000:00:04.0", "00:04.0", "id=2"):
            answer = json.loads(self.good("info", "--json", "--device", name))
            self.assertEqual(answer["address"], "0000:00:04.0")

    def test_info(self):
        self.add(vectors=2, peer_id=5)
        text = self.good("info").decode()
        for part in ("peer id:     5\n", "vectors:     2\n", "64K (65536 bytes)",
                     "write-combining", "run 'ivshmem-guest bind'", "iommu group: none"):
            self.assertIn(part, text)
        self.assertIn("uncached", self.good("info", "--map", "uc").decode())

    def test_info_without_wc(self):
        self.add(wc=False)
        self.assertIn("this kernel offers no resource2_wc", self.good("info").decode())
        self.bad("the kernel lacks this file", "info", "--map", "wc")

    def test_read_write(self):
        path = self.add()
        self.good("write", "16", "hello")
        self.assertEqual(self.good("read", "0x10", "5"), b"68656c6c6f\n")
        self.good("write", "4K", "0x00ff10")
        self.assertEqual(self.good("read", "4096"), b"00ff1000\n")
        with open(os.path.join(path, "resource2"), "rb") as file:
            self.assertEqual(file.read()[16:21], b"hello")
        self.bad("is not pairs of hexadecimal digits", "write", "0", "0x123")
        self.bad("offset 'x' is not a number", "write", "x", "y")

    def test_memory_smaller_than_a_page(self):
        """sysfs maps whole pages; the BAR lies somewhere in one."""
        path = self.add(size=1024, bar2=0xfe000400)
        self.good("write", "16", "hello")
        for kind in ("uc", "wc"):
            self.assertEqual(self.good("cat", "0", "21", "--map", kind), b"\0" * 16 + b"hello")
        with open(os.path.join(path, "resource2"), "rb") as file:
            self.assertEqual(file.read()[0x410:0x415], b"hello")

    def test_bounds(self):
        self.add(size=8192)
        self.assertEqual(self.good("read", "8191", "1"), b"00\n")
        self.assertEqual(self.good("read", "8192", "0"), b"\n")
        for args in (("read", "8192", "1"), ("read", "8193"), ("dump", "0", "8193"),
                     ("fill", "8000", "193", "0"), ("cat", "9K"), ("write", "8190", "abc"),
                     ("read", "0xffffffffffffffff", "2"), ("read", "2", "0xffffffffffffffff")):
            with self.subTest(args=args):
                self.bad("reach past the end: the memory of 0000:00:03.0 has 8192 bytes", *args)
        self.bad("fill byte '256' is not a number from 0 to 255", "fill", "0", "1", "256")

    def test_pipes(self):
        self.add(size=1 << 20)
        data = os.urandom(1 << 20)
        self.good("write", "0", "-", stdin=data)
        self.assertEqual(self.good("cat"), data)
        self.assertEqual(self.good("cat", "1001", "70001"), data[1001:71002])
        self.good("write", "3", "-", stdin=b"")
        self.bad("the input is longer than the memory", "write", "1", "-", stdin=data)

    def test_fill_and_dump(self):
        self.add()
        self.good("fill", "3", "62", "0x41")
        self.assertEqual(self.good("cat", "0", "68"), b"\0" * 3 + b"A" * 62 + b"\0" * 3)
        lines = self.good("dump", "0", "72").decode().splitlines()
        self.assertEqual(lines[0], "00000000  00 00 00 41 41 41 41 41  41 41 41 41 41 41 41 41"
                                   "  |...AAAAAAAAAAAAA|")
        self.assertEqual(lines[1][:8], "00000010")
        self.assertEqual(lines[2], "*")
        self.assertEqual(lines[-1], "00000040  41 00 00 00 00 00 00 00 " + " " * 24 +
                         "  |A.......|")

    def test_small_and_missing_bars(self):
        self.add(registers=128)
        self.bad("BAR0 of 0000:00:03.0 is too small for the registers: 128 bytes", "info")
        shutil.rmtree(os.path.join(self.devices, "0000:00:03.0"))
        self.add(size=0)
        self.bad("has no shared memory (BAR2 is empty", "dump")
        shutil.rmtree(os.path.join(self.devices, "0000:00:03.0"))
        self.add(size=2048)
        self.bad("BAR2 of 0000:00:03.0 is too small: the channel needs 3456 bytes", "chat", "1")

    def test_plain_has_no_interrupts(self):
        self.add()
        self.bad("no doorbell and no MSI-X", "wait", "--timeout", "1")
        self.bad("no doorbell and no peers", "ring", "1")
        self.bad("one side says 0 and the other 1, not 2", "chat", "2")
        self.bad("is not a multiple of 64", "chat", "1", "--offset", "8")

    def test_interrupts_need_a_driver(self):
        self.add(vectors=1)
        self.bad("run 'ivshmem-guest bind'", "wait")
        self.bad("VFIO needs vfio-pci: run 'ivshmem-guest bind'", "info", "--via", "vfio")
        self.bad("has no uio device", "info", "--via", "uio")
        self.bad("the module vfio-pci is missing", "bind")
        self.assertIn(b"bound to no driver", self.good("unbind"))

    def test_bind_without_iommu(self):
        self.add(vectors=1)
        os.makedirs(os.path.join(self.dir, "bus/pci/drivers/vfio-pci"))
        self.bad("this kernel has no VFIO no-IOMMU mode", "bind")
        parameters = os.path.join(self.dir, "module/vfio/parameters")
        os.makedirs(parameters)
        mode = os.path.join(parameters, "enable_unsafe_noiommu_mode")
        with open(mode, "w", encoding="ascii") as file:
            file.write("N\n")
        self.bad("run 'ivshmem-guest bind --no-iommu'", "bind")
        self.guest("bind", "--no-iommu")
        with open(mode, encoding="ascii") as file:
            self.assertEqual(file.read()[0], "Y")

    def test_unbind_while_in_use(self):
        """A terminal stands for the group: it, too, can be had by one program alone."""
        if os.geteuid() != 0:
            self.skipTest("needs root, to put files into /dev/vfio")
        script = ("mkdir $0/pts && mount --bind /dev/pts $0/pts && mount -t tmpfs none /dev && "
                  "mkdir /dev/vfio && ln -s $0/pts/$1 /dev/vfio/$2 && shift 2 || exit 77; "
                  "exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"")
        holder, terminal = pty.openpty()
        self.addCleanup(os.close, holder)
        self.addCleanup(os.close, terminal)
        fcntl.ioctl(terminal, termios.TIOCEXCL)
        for name, kind in (("noiommu-7", "vfio-noiommu"), ("7", "type1")):
            path = self.add(vectors=1, group=kind)
            os.makedirs(os.path.join(self.dir, "bus/pci/drivers/vfio-pci"))
            os.symlink(os.path.join(self.dir, "bus/pci/drivers/vfio-pci"),
                       os.path.join(path, "driver"))
            done = subprocess.run(["unshare", "-m", "sh", "-c", script, self.dir,
                                   os.path.basename(os.ttyname(terminal)), name, PROGRAM,
                                   "unbind", "--sysfs", self.dir], timeout=30,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if done.returncode == 77 or done.stderr.startswith(b"unshare:"):
                self.skipTest("cannot mount: %s" % done.stderr.decode())
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(b"device in use: a program has VFIO group 7", done.stderr)
            for folder in ("bus", "kernel", "pts"):
                shutil.rmtree(os.path.join(self.dir, folder))
            os.makedirs(self.devices)

    def test_bind_makes_the_group(self):
        """With an IOMMU it is the driver's part whether the device gets a group."""
        override = os.path.join(self.add(vectors=1), "driver_override")
        os.makedirs(os.path.join(self.dir, "bus/pci/drivers/vfio-pci"))
        os.makedirs(os.path.join(self.dir, "class/iommu/smmu3"))
        for path in (override, os.path.join(self.dir, "bus/pci/drivers_probe")):
            with open(path, "w", encoding="ascii"):
                pass
        self.bad("vfio-pci did not take 0000:00:03.0", "bind")
        with open(override, encoding="ascii") as file:
            self.assertEqual(file.read(), "vfio-pci")

    def test_ring(self):
        path = self.add(vectors=1)
        self.good("ring", "3", "2")
        with open(os.path.join(path, "resource0"), "rb") as file:
            self.assertEqual(struct.unpack_from("<I", file.read(), 12)[0], 3 << 16 | 2)
        self.bad("peer '65536' is not a number from 0 to 65535", "ring", "65536")
        self.bad("vector 'x' is not a number from 0 to 65535", "ring", "1", "x")

    def test_device_gets_enabled(self):
        path = self.add(enabled=False)
        self.good("dump")
        with open(os.path.join(path, "enable"), encoding="ascii") as file:
            self.assertEqual(file.read()[0], "1")

    def talk(self, first, second, inputs):
        """Two of the commands at once, on the one made-up memory."""
        results = [None, None]

        def one(index, args):
            results[index] = self.guest(*args, stdin=inputs[index],
                                        program=PEER if index else None)

        threads = [threading.Thread(target=one, args=pair) for pair in ((0, first), (1, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for status, _, err in results:
            self.assertEqual(status, 0, err)
        return [out.decode() for _, out, _ in results]

    def test_chat(self):
        self.add()
        lines = ["line %d %s" % (i, "x" * i) for i in range(400)]
        text = "\n".join(lines).encode() + b"\n"
        out = self.talk(("chat", "1", "-t", "20", "--expect", "400"),
                        ("chat", "0", "-t", "20", "--expect", "400"), (text, text))
        self.assertEqual(out[0].splitlines(), ["peer 1: " + line for line in lines])
        self.assertEqual(out[1].splitlines(), ["peer 0: " + line for line in lines])

    def test_chat_reply_and_control_characters(self):
        self.add()
        out = self.talk(("chat", "1", "-t", "20", "--expect", "2"),
                        ("chat", "0", "-t", "20", "--reply"), (b"one\x1b[2J\ntwo", b"1\n2\n"))
        self.assertEqual(out, ["peer 1: 1\npeer 1: 2\n", "peer 0: one?[2J\npeer 0: two\n"])

    def test_chat_c1_controls_and_utf8(self):
        """A character may be cut in two where a long line is cut."""
        self.add()
        long = "\u00fc\u20ac\U0001f600" * 100
        for start in range(4):
            lines = (("x" * start + long).encode(), b"\xc2\x9b2J\x9b2J", b"\xe0\x82\x9b2J",
                     b"\xf0\x80\x82\x9b", "\u00a0 t\u00f6".encode(), b"half\xe2\x82", b"\xe2ok",
                     b"\xc1\x9b\xff\x7f")
            out = self.talk(("chat", "1", "-t", "20"),
                            ("chat", "0", "-t", "20", "--expect", str(len(lines))),
                            (b"\n".join(lines) + b"\n", b""))
            self.assertEqual([line.partition(": ")[2] for line in out[1].split("\n")[:-1]],
                             ["x" * start + long, "?2J?2J", "?2J", "?", "\u00a0 t\u00f6", "half?", "?ok",
                              "???"])

    def test_chat_in_turns(self):
        self.add()
        for side in (0, 1):
            peer = 1 - side
            out = self.talk(("chat", str(peer), "-t", "20", "-v", "--lead", "--expect", "2"),
                            ("chat", str(side), "-t", "20", "-v", "--reply"),
                            (b"1\n3\n", b"2\n4\n"))
            turns = [line[:6] for line in out[0].splitlines()[1:]]
            self.assertEqual(turns, ["  [wro", "peer %d" % peer] * 2)
            turns = [line[:6] for line in out[1].splitlines()[1:]]
            self.assertEqual(turns, ["peer %d" % side, "  [wro"] * 2)

    def test_chat_misses_messages(self):
        self.add()
        with self.assertRaisesRegex(AssertionError, "said goodbye after 1 of 2 messages"):
            self.talk(("chat", "1", "-t", "20"), ("chat", "0", "-t", "20", "--expect", "2"),
                      (b"one\n", b""))

    def test_ping(self):
        self.add()
        out = self.talk(("ping", "1", "-c", "2000", "--json"), ("ping", "0", "--answer"),
                        (b"", b""))
        answer = json.loads(out[0])
        self.assertEqual(answer["round_trips"], 2000)
        self.assertEqual(answer["how"], "polling")
        self.assertLessEqual(answer["min_us"], answer["median_us"])
        self.assertLessEqual(answer["median_us"], answer["p99_us"])
        self.assertIn("answered 2000 pings", out[1])

    def test_nobody_answers(self):
        self.add()
        self.bad("did not answer in time", "ping", "1", "--timeout", "50ms")
        self.bad("did not answer in time", "chat", "1", "--timeout", "50ms")

    def test_damaged_message(self):
        path = self.add()
        side = "<4sII52xI60xI60x"
        with open(os.path.join(path, "resource2"), "r+b", buffering=0) as file:
            first = subprocess.Popen([PROGRAM, "chat", "1", "-t", "20", "--sysfs", self.dir],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)
            nonce = 0
            while not nonce:            # ends: it writes its nonce or it exits
                self.assertIsNone(first.poll())
                file.seek(0)
                nonce = struct.unpack(side, file.read(192))[1]
            file.seek(384 + 8 * 192)    # side 1 writes a message that is none, then itself
            file.write(b"\xff" * 192)
            file.seek(192)
            file.write(struct.pack(side, b"IVVM", 77, nonce, 1, 0))
            _, err = first.communicate(timeout=30)
        self.assertEqual(first.returncode, 1)
        self.assertIn(b"message 0 from peer 1 is damaged", err)

    def test_bench_leaves_memory_as_it_was(self):
        self.add()
        data = os.urandom(65536)
        self.good("write", "0", "-", stdin=data)
        lines = [json.loads(line) for line in self.good("bench", "--json").splitlines()]
        self.assertIn("sysfs resource2_wc", [line["how"] for line in lines])
        self.assertTrue(all(line["value"] > 0 for line in lines))
        self.assertEqual(self.good("cat"), data)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
