# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak (soak.py) for a short time; IVSHMEM_TEST_SOAK is how many seconds."""
import os
import unittest

import soak

SECONDS = float(os.environ.get("IVSHMEM_TEST_SOAK", "20"))


def load_tests(loader, tests, pattern):
    return unittest.TestSuite([ShortSoak("test_nothing_is_lost_and_nothing_grows")])


class ShortSoak(soak.Soak):
    def setUp(self):
        self.path = soak.best_path()
        super().setUp()

    def test_nothing_is_lost_and_nothing_grows(self):
        said = []
        self.assertEqual(self.soak(SECONDS, said.append), [], "\n".join(said))
        print("     " + "\n     ".join(said[-6:]), flush=True)
