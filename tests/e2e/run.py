#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the end-to-end tests: run.py [-x] [-l] [NAME...]; a NAME is a part of a test's name."""
import argparse
import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import support  # noqa: E402


class Report(unittest.TestResult):
    """One line per test, with the reason of a skip and the trace of a failure."""

    def __init__(self, failfast):
        super().__init__()
        self.failfast = failfast
        self.passed = self.failed = self.skip_count = 0
        self.begin = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self.begin = time.monotonic()

    def _line(self, word, test, more=""):
        print("%-4s %s (%.1f s)%s" % (word, test.id(), time.monotonic() - self.begin, more),
              flush=True)

    def _fail(self, test, error):
        self.failed += 1
        self._line("FAIL", test)
        print("     " + self._exc_info_to_string(error, test).rstrip().replace("\n", "\n     "),
              flush=True)
        if self.failfast:
            self.stop()

    def addSuccess(self, test):
        self.passed += 1
        self._line("ok", test)

    def addFailure(self, test, err):
        self._fail(test, err)

    def addError(self, test, err):
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._fail(subtest, err)

    def addSkip(self, test, reason):
        self.skip_count += 1
        self._line("SKIP", test, ": " + reason)

    def addExpectedFailure(self, test, err):
        self._fail(test, err)

    def addUnexpectedSuccess(self, test):
        self.failed += 1
        self._line("FAIL", test, ": unexpected success")


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def main(folder=HERE):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-x", action="store_true", help="stop at the first failure")
    parser.add_argument("-l", action="store_true", help="list the tests and stop")
    parser.add_argument("--without", metavar="NAME", action="append", default=[],
                        help="leave out the tests whose name contains this")
    parser.add_argument("name", nargs="*", help="run the tests whose name contains this")
    options = parser.parse_args()

    tests = list(flatten(unittest.TestLoader().discover(folder, "test_*.py", folder)))
    if options.name:
        tests = [test for test in tests if any(name in test.id() for name in options.name)]
    tests = [test for test in tests if not any(name in test.id() for name in options.without)]
    if options.l:
        print("\n".join(test.id() for test in tests))
        return 0
    if not tests:
        sys.exit("run.py: no test found for: %s; run.py -l lists them"
                 % (" ".join(options.name) or "(all)"))
    report = Report(options.x)
    support.end_on_sigterm()
    try:
        unittest.TestSuite(tests).run(report)
    except KeyboardInterrupt:
        report.failed += 1
        print("interrupted", flush=True)
    print("%d passed, %d failed, %d skipped"
          % (report.passed, report.failed, report.skip_count))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
