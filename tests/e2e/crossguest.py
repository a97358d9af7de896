# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-guest for another processor, by a cross compiler of the distribution."""
import functools
import glob
import os
import shutil
import subprocess
import unittest

import support

SOURCE = os.path.join(support.TOP, "contrib", "ivshmem-guest")


@functools.lru_cache(maxsize=None)
def build(cpu):
    """The path of a static program, built once; skips the test without a compiler."""
    compiler = shutil.which(cpu + "-linux-gnu-gcc")
    if not compiler:
        raise unittest.SkipTest("apt-get install gcc-%s-linux-gnu to run this" % cpu)
    binary = os.path.join(_directory(), "ivshmem-guest-" + cpu)
    result = subprocess.run(
        [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
         '-DIVSHMEM_VERSION="0.0"', "-I" + os.path.join(support.TOP, "include"),
         "-I" + os.path.join(support.TOP, "subprojects", "libivshmem"), "-static",
         "-o", binary, *sorted(glob.glob(os.path.join(SOURCE, "*.c")))],
        capture_output=True, text=True)
    if result.returncode:
        raise AssertionError("%s: %s" % (compiler, result.stderr))
    return binary


@functools.lru_cache(maxsize=None)
def _directory():
    return support.temporary_directory()
