# SPDX-License-Identifier: GPL-2.0-or-later
"""
ivshmem-guest for aarch64 and big-endian ppc64: cross-compiled, its own test run under user mode
emulation, and a conversation between two byte orders.
"""
import os
import shutil
import sys
import unittest

import crossguest
import support


class Targets(support.TestCase):
    def build(self, cpu, emulator):
        emulator = shutil.which(emulator + "-static") or shutil.which(emulator)
        if not emulator:
            raise unittest.SkipTest("apt-get install qemu-user-static to run this")
        binary = crossguest.build(cpu)
        script = os.path.join(self.dir, "run-" + cpu)
        with open(script, "w", encoding="ascii") as file:
            file.write('#!/bin/sh\nexec %s %s "$@"\n' % (emulator, binary))
        os.chmod(script, 0o755)
        return script

    def run_tests(self, program, *arguments, peer=None):
        environment = dict(os.environ)
        environment.pop("IVSHMEM_GUEST_PEER", None)
        if peer:
            environment["IVSHMEM_GUEST_PEER"] = peer
        tests = self.start(support.Process(
            [sys.executable, os.path.join(crossguest.SOURCE, "tests", "test_cli.py"), program,
             *arguments], env=environment))
        self.assertEqual(tests.wait(180), 0, tests.err.text)
        self.assertRegex(tests.err.text, r"Ran [1-9]\d* test")

    def test_aarch64(self):
        self.run_tests(self.build("aarch64", "qemu-aarch64"))

    def test_big_endian_ppc64(self):
        program = self.build("powerpc64", "qemu-ppc64")
        self.run_tests(program)
        self.run_tests(support.program("guest"), "Sysfs.test_chat", "Sysfs.test_chat_in_turns",
                       "Sysfs.test_ping", peer=program)
