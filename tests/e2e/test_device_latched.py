# SPDX-License-Identifier: GPL-2.0-or-later
"""Rings that arrive before a reset, while nobody listens."""
import tiny
from tiny import ivec


@tiny.each_path()
class LatchedOverReset:
    def rung_before_reset(self, **setup):
        server = self.server(2)
        a, b = self.ready(server, 2), self.doorbell(server, 2)
        b.id = b.setup(**setup)
        self.introduce(a, b)
        a.ring(b.id, 0, 3)
        self.assertEqual(b.total(), 0)
        b.reset()
        b.setup()
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=1)

    # R-DEV-27
    def test_before_msix_is_enabled(self):
        self.rung_before_reset(enable=False)

    # R-DEV-27
    def test_masked_and_not_looked_at(self):
        self.rung_before_reset(masked=True)
