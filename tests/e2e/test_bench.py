# SPDX-License-Identifier: GPL-2.0-or-later
"""./run bench --quick: that it runs and what it writes, not how fast anything is."""
import json
import os
import sys
import unittest
from xml.etree import ElementTree

import support
import tiny

RUN = os.path.join(support.TOP, "tests/bench/run.py")
MINUTES = 5 * 60
BENCH = os.path.dirname(RUN)


class Bench(support.TestCase):
    def bench(self, *options):
        """Returns (exit status, the terminal's text, the figures by row)."""
        process = self.start(support.Process(
            [sys.executable, RUN, "--output", self.dir] + list(options)))
        status = process.wait(MINUTES)
        if status and "is not built" in process.err.text:
            self.skipTest(process.err.text.strip())
        with open(os.path.join(self.dir, "bench.json"), encoding="utf-8") as file:
            self.data = json.load(file)
        return status, process.out.text, {row["row"]: row for row in self.data["rows"]}

    def test_quick(self):
        support.program("qemu")
        tiny.image()
        status, text, rows = self.bench("--quick")
        self.assertEqual(status, 0, self.data["failed"])
        self.assertEqual([fail for fail in self.data["failed"] if fail["side"] == "A"], [])
        for row in ("trip/guest-guest/tcg/on/v2", "trip/guest-guest/tcg/on/v16",
                    "trip/guest-guest/tcg/off/v2", "trip/guest-host/tcg/on/v2", "trip/host-host",
                    "ring/alone/tcg/on/v2", "smp/tcg/off/2", "start/none", "plug/doorbell",
                    "absorb/256 x 1/join/main_loop_ms", "harm/tcg/loop",
                    "join/64x1/cpu_us_per_frame"):
            self.assertGreater(rows[row]["A"]["median"], 0, row)
            self.assertIn(rows[row]["name"], text)
        self.assertGreater(rows["floor/eventfd-same"]["floor"]["median"], 0)
        if not tiny.why_not("kvm"):
            self.assertIn("trip/guest-guest/kvm/on/v2", rows)
        for key in ("CPU", "kernel", "pinning", "A: ours"):
            self.assertTrue(self.data["environment"][key], key)
        self.check_plots()

    def check_plots(self):
        plots = [name for name in os.listdir(self.dir) if name.endswith(".svg")]
        self.assertTrue(any("histogram" in name for name in plots), plots)
        self.assertTrue(any("bars" in name for name in plots), plots)
        with open(os.path.join(self.dir, "bench.html"), encoding="utf-8") as file:
            page = file.read()
        for name in plots:
            with open(os.path.join(self.dir, name), encoding="utf-8") as file:
                image = file.read()
            self.assertIn(image, page)
            self.assertGreater(len(list(ElementTree.fromstring(image))), 5, name)
        self.assertNotRegex(page, r'src=|href="http', "the page must be whole in itself")

    def test_ours_alone(self):
        support.program("qemu")
        status, text, rows = self.bench("--quick", "--alone", "--only", "start")
        self.assertEqual(status, 0, text)
        self.assertEqual(sorted(rows), ["plug/doorbell", "plug/plain", "start/doorbell",
                                        "start/none", "start/peers", "start/plain"])
        self.assertFalse(any("B" in row for row in rows.values()))

    def test_b_that_fails_is_said_and_no_failure(self):
        support.program("qemu")
        status, text, rows = self.bench("--quick", "--only", "start", "--peer-qemu", "/bin/false")
        self.assertEqual(status, 0, text)
        self.assertIn("FAILED: device_add, side B", text)
        self.assertIn("A", rows["plug/doorbell"])

    def test_wrong_options(self):
        for options, words in ((["--rounds", "0"], "1 is the least"),
                               (["--peer-qemu", "/nothing"], "cannot be run"),
                               (["--only", "nothing"], "invalid choice")):
            process = self.start(support.Process([sys.executable, RUN] + options))
            self.assertEqual(process.wait(), 2)
            self.assertIn(words, process.err.text)


class Figures(unittest.TestCase):
    """The arithmetic, on numbers whose answers are known."""

    def setUp(self):
        sys.path.insert(0, BENCH)
        self.addCleanup(sys.path.remove, BENCH)
        import figures                                  # pylint: disable=import-outside-toplevel
        self.figures = figures

    def compare(self, a, b, better="lower"):
        columns = []
        for values in (a, b):
            column = self.figures.Column()
            column.rounds = values
            columns.append(column)
        return self.figures.compare(*columns, better)

    def test_quantiles(self):
        self.assertEqual(self.figures.quantile([1, 2, 3, 4, 5], 0.25), 2)
        self.assertEqual(self.figures.quantile([1, 2], 0.5), 1.5)
        self.assertEqual(self.figures.quantile([7], 0.99), 7)
        self.assertEqual(self.figures.thin(list(range(101)), 3), [0, 50, 100])

    def test_verdicts(self):
        steady, half = [10, 10.1, 10], [5, 5.1, 5]
        self.assertEqual(self.compare(half, steady)["verdict"], "ahead")
        self.assertEqual(self.compare(steady, half)["verdict"], "behind")
        self.assertEqual(self.compare(half, steady, "higher")["verdict"], "behind")
        self.assertEqual(self.compare(steady, steady)["verdict"], "equal")
        self.assertEqual(self.compare([10, 20, 10], [9, 9, 9])["verdict"], "equal")
        self.assertEqual(self.compare([10, 10, 10], [20, 20, 9])["verdict"], "equal")
        self.assertEqual(self.compare([1], [2])["verdict"], "too few rounds")
        self.assertNotIn("verdict", self.compare(steady, half, ""))
        self.assertAlmostEqual(self.compare(half, steady)["ratio"], 0.5, places=2)

    def test_noise_is_the_typical_change(self):
        self.assertAlmostEqual(self.figures.change([10, 11, 10, 11]), 1 / 10.5)
        self.assertIsNone(self.figures.change([10]))

    def test_a_side_that_fails_is_not_asked_again(self):
        sides = [self.figures.Side("A", "ours", "a"), self.figures.Side("B", "other", "b")]
        asked = []

        def measure(side):
            asked.append(side.key)
            if side.key == "B":
                raise AssertionError("broken\nin detail")
            yield self.figures.Taken("row", "part", "name", "us", [2.0])
        book = self.figures.Book(sides, 3)
        book.alternate("what", measure)
        self.assertEqual(asked, ["A", "B", "A", "A"])
        data = book.data()
        self.assertEqual(data["failed"], [{"what": "what", "side": "B", "error": "broken"}])
        self.assertEqual(data["rows"][0]["A"]["rounds"], [2.0, 2.0, 2.0])


if __name__ == "__main__":
    unittest.main()
