# SPDX-License-Identifier: GPL-2.0-or-later
"""
Figures: rows of two sides, taken in turn, with median, quartiles and noise.

    book = Book(sides, rounds)
    book.alternate("what", measure)     calls measure(side) for A, B, A, B, ...; it yields Taken
    book.value(...)                     a figure without sides: the floor
    book.skip("what", "why")
book.data() is what bench.json holds.  Not responsible for how a figure is shown.
"""
import math
import statistics
import subprocess
import time
import unittest
from typing import NamedTuple, Optional, Sequence

MAX_KEPT = 4000             # samples of a side that bench.json keeps for the histogram
LEAST_DIFFERENCE = 0.03     # below that no difference is claimed, however small the noise
AGREEING = 0.75             # of the rounds, for a difference to be claimed
FAILURES = (AssertionError, OSError, subprocess.SubprocessError, ValueError, LookupError)


class Side(NamedTuple):
    """One of the two that are compared."""
    key: str
    name: str
    qemu: str


class Taken(NamedTuple):
    """What one round found out about one row."""
    row: str
    part: str
    name: str
    unit: str
    samples: Sequence[float]
    cpu_us: Optional[float] = None      # CPU time of all processes concerned, per operation
    better: str = "lower"               # or higher, or "": neither
    x: Optional[float] = None           # for curves: where on the axis
    curve: Optional[str] = None
    histogram: bool = False
    note: str = ""


def quantile(ordered, share):
    """Of a sorted list, with interpolation."""
    at = (len(ordered) - 1) * share
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def thin(ordered, count):
    """At most that many of a sorted list, evenly."""
    if len(ordered) <= count:
        return ordered
    return [ordered[i * (len(ordered) - 1) // (count - 1)] for i in range(count)]


class Column:
    """One side of a row."""

    def __init__(self):
        self.rounds, self.samples, self.cpu = [], [], []

    def add(self, taken):
        self.rounds.append(statistics.median(taken.samples))
        self.samples.extend(taken.samples)
        if taken.cpu_us is not None:
            self.cpu.append(taken.cpu_us)

    def data(self, histogram):
        ordered = sorted(self.samples)
        result = {"median": statistics.median(self.rounds), "rounds": self.rounds,
                  "q1": quantile(ordered, 0.25), "q3": quantile(ordered, 0.75),
                  "samples": len(ordered)}
        if histogram:
            result.update(p99=quantile(ordered, 0.99), min=ordered[0], max=ordered[-1],
                          kept=[round(value, 3) for value in thin(ordered, MAX_KEPT)])
        if self.cpu:
            result["cpu_us"] = statistics.median(self.cpu)
        return result


def change(values):
    """By how much one of these differs from the next, typically: A against A."""
    pairs = [abs(a - b) / ((a + b) / 2) for a, b in zip(values, values[1:]) if a + b > 0]
    return statistics.median(pairs) if pairs else None


def compare(a, b, better):
    """A against B: the ratio of the medians, the noise, and what can be said."""
    pairs = [x / y for x, y in zip(a.rounds, b.rounds) if y > 0]
    if not pairs:
        return {}
    ratio = statistics.median(pairs)
    noise = max([n for n in (change(a.rounds), change(b.rounds)) if n is not None], default=None)
    result = {"ratio": ratio, "noise": noise}
    if not better:
        return result
    if len(pairs) < 3 or min(pairs) <= 0:
        return dict(result, verdict="too few rounds")
    gains = [pair if better == "higher" else 1 / pair for pair in pairs]
    gain, limit = statistics.median(gains), 1 + max(noise, LEAST_DIFFERENCE)
    if gain > limit and sum(g > 1 for g in gains) >= AGREEING * len(gains):
        return dict(result, verdict="ahead")
    if gain < 1 / limit and sum(g < 1 for g in gains) >= AGREEING * len(gains):
        return dict(result, verdict="behind")
    return dict(result, verdict="equal")


class Book:
    """All rows of a run, in the order in which they were first seen."""

    def __init__(self, sides, rounds, say=lambda text: None):
        self.sides, self.rounds, self.say = sides, rounds, say
        self.rows, self.skipped, self.failed = {}, [], []
        self.begin = time.monotonic()

    def alternate(self, what, measure, rounds=None, sides=None):
        """Every side once in each round; a side that fails is noted and not asked again."""
        self.say(what)
        asked = list(sides or self.sides)
        for _ in range(rounds or self.rounds):
            for side in list(asked):
                try:
                    for taken in measure(side):
                        self.add(side.key, taken)
                except unittest.SkipTest as reason:
                    self.skip("%s (%s)" % (what, side.name), str(reason))
                    asked.remove(side)
                except FAILURES as error:
                    self.fail(what, side, error)
                    asked.remove(side)

    def add(self, key, taken):
        row = self.rows.setdefault(taken.row, {"first": taken, "columns": {}})
        row["columns"].setdefault(key, Column()).add(taken)

    def value(self, taken):
        self.add("floor", taken)

    def skip(self, what, reason):
        self.skipped.append({"what": what, "reason": reason})

    def fail(self, what, side, error):
        text = str(error).strip().splitlines() or [type(error).__name__]
        self.failed.append({"what": what, "side": side.key, "error": text[0]})

    def median(self, row, key):
        columns = self.rows.get(row, {}).get("columns", {})
        return statistics.median(columns[key].rounds) if key in columns else None

    def data(self):
        rows = []
        for name, row in self.rows.items():
            first, columns = row["first"], row["columns"]
            entry = {"row": name, "part": first.part, "name": first.name, "unit": first.unit,
                     "better": first.better}
            if first.note:
                entry["note"] = first.note
            if first.curve:
                entry.update(curve=first.curve, x=first.x)
            entry.update({key: column.data(first.histogram) for key, column in columns.items()})
            if "A" in columns and "B" in columns:
                entry.update(compare(columns["A"], columns["B"], first.better))
            elif "A" in columns:
                entry["noise"] = change(columns["A"].rounds)
            rows.append(entry)
        noises = sorted(row["noise"] for row in rows if row.get("noise") is not None)
        return {"rows": rows, "skipped": self.skipped, "failed": self.failed,
                "noise": {"median": statistics.median(noises), "q3": quantile(noises, 0.75)}
                if noises else None,
                "seconds": round(time.monotonic() - self.begin, 1)}
