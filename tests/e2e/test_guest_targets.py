# SPDX-License-Identifier: GPL-2.0-or-later
"""
ivshmem-guest for aarch64 and big-endian ppc64: cross-compiled, its own test run under user mode
emulation, and a conversation between two byte orders.
"""
import glob
import os
import shutil
import subprocess
import sys
import unittest

import support

SOURCE = os.path.join(support.TOP, "contrib", "ivshmem-guest")


class Targets(support.TestCase):
    def build(self, cpu, emulator):
        compiler = shutil.which(cpu + "-linux-gnu-gcc")
        emulator = shutil.which(emulator + "-static") or shutil.which(emulator)
        if not compiler or not emulator:
            raise unittest.SkipTest("apt-get install gcc-%s-linux-gnu qemu-user-static to run this"
                                    % cpu)
        binary = os.path.join(self.dir, "ivshmem-guest-" + cpu)
        build = subprocess.run(
            [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
             '-DIVSHMEM_VERSION="0.0"', "-I" + os.path.join(support.TOP, "include"),
             "-I" + os.path.join(support.TOP, "subprojects", "libivshmem"), "-static",
             "-o", binary, *sorted(glob.glob(os.path.join(SOURCE, "*.c")))],
            capture_output=True, text=True)
        self.assertEqual(build.returncode, 0, build.stderr)
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
            [sys.executable, os.path.join(SOURCE, "tests", "test_cli.py"), program, *arguments],
            env=environment))
        self.assertEqual(tests.wait(180), 0, tests.err.text)
        self.assertRegex(tests.err.text, r"Ran [1-9]\d* test")

    def test_aarch64(self):
        self.run_tests(self.build("aarch64", "qemu-aarch64"))

    def test_big_endian_ppc64(self):
        program = self.build("powerpc64", "qemu-ppc64")
        self.run_tests(program)
        self.run_tests(support.program("guest"), "Sysfs.test_chat", "Sysfs.test_chat_in_turns",
                       "Sysfs.test_ping", peer=program)
