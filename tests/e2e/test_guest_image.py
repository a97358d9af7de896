# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest image to try things with, by the very command lines that are printed with it."""
import os
import re
import secrets
import shutil
import subprocess
import sys
import unittest

import linuximage
import support
import vm

SCRIPT = os.path.join(support.TOP, "scripts", "guest-image")


class GuestImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for name in ("server", "client", "guest", "qemu"):
            support.program(name)
        linuximage.kernel()
        cls.dir = support.temporary_directory()
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.name = "ivshmem-test-" + secrets.token_hex(6)
        result = subprocess.run([sys.executable, SCRIPT, "--into", cls.dir, "--name", cls.name],
                                cwd=support.TOP, capture_output=True, text=True, check=False)
        if result.returncode:
            raise AssertionError(result.stderr)
        blocks = re.sub(r" \\\n\s*", " ", result.stdout)
        cls.commands = re.findall(r"^    (.*)$", blocks, re.M)

    def command(self, pattern):
        found = [line for line in self.commands if re.search(pattern, line)]
        self.assertEqual(len(found), 1, "%s in %s" % (pattern, self.commands))
        return found[0]

    def shell(self, command):
        """A command to its end, at the top of the project as ./run does; what it printed."""
        result = subprocess.run(["sh", "-c", command], cwd=support.TOP, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=60 * support.SCALE)
        self.assertEqual(result.returncode, 0, "%s: %s" % (command, result.stdout))
        return result.stdout

    def start(self, command):
        machine = support.Process(["sh", "-c", "cd '%s' && exec %s" % (support.TOP, command)],
                                  name="vm", stdin=True)
        self.addCleanup(machine.stop)
        machine.out.wait_for(r"\S", vm.BOOT_SECONDS)       # its device has its ID
        return machine

    def talk(self, command, kind):
        """Two VMs, a line each way, and the end."""
        pair = [self.start(command) for _ in range(2)]
        for machine in pair:
            machine.out.wait_for(r" %s +id=4352 +1M " % kind, vm.BOOT_SECONDS)
            machine.out.wait_for("exit ends the VM")
            machine.out.wait_for("guest# ")
        for machine, peer in zip(pair, (1, 0)):
            machine.write(self.command("ivshmem-guest chat %d$" % peer) + "\n")
            machine.out.wait_for("chat %d" % peer)
        for number, machine in enumerate(pair):
            machine.write("I am VM %d\n" % number)
            pair[1 - number].out.wait_for(r"peer %d: I am VM %d" % (number, number))
        return pair

    def finish(self, pair):
        for machine in pair:
            machine.write("\x04")                           # no more lines: both chats end
        for machine in pair:
            machine.out.wait_for("guest# ")
        pair[0].write("\x01x")
        self.assertEqual(pair[0].wait(), 0)
        pair[1].write("exit\n")
        self.assertEqual(pair[1].wait(), 0)

    def test_doorbells(self):
        end = self.command("^kill ")
        self.shell(self.command("ivshmem-server -S "))
        try:
            pair = self.talk(self.command("-device ivshmem-doorbell"), "doorbell")
            said = self.shell(self.command("ivshmem-client -S "))
            self.assertIn("peer 0: 2 vectors\npeer 1: 2 vectors\n", said)
            self.finish(pair)
        finally:
            self.shell(end)
        limit = support.Deadline()
        while os.path.exists("/dev/shm/" + self.name):      # the server ends after "kill" does
            self.assertFalse(limit.expired(), "the memory is still there")

    def test_plain(self):
        memory = "/dev/shm/%s-plain" % self.name
        self.addCleanup(lambda: os.path.exists(memory) and os.unlink(memory))
        self.finish(self.talk(self.command("-device ivshmem-plain"), "plain"))


class Options(unittest.TestCase):
    def test_unwritable_folder(self):
        result = subprocess.run([sys.executable, SCRIPT, "--into", "/proc/none"],
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("guest-image: ", result.stderr)


if __name__ == "__main__":
    unittest.main()
