# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that are functions, reported in TAP: for the checks that build QEMU."""
import os
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")


class Failed(Exception):
    """What a command said that failed."""


class Skip(Exception):
    """Why a test cannot be run here."""


def run(*words, cwd=TOP, fails=True, **more):
    done = subprocess.run(words, cwd=cwd, check=False, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **more)
    if done.returncode and fails:
        raise Failed("%s: status %d\n%s" % (" ".join(words[:3]), done.returncode, done.stdout))
    return done.stdout


def build(name, targets, *options, more=()):
    """Builds QEMU in build/NAME, with options for its configure."""
    run(os.path.join(TOP, "scripts", "build-qemu"), "--name=" + name, *more,
        *["--with=" + option for option in options], *targets)
    return os.path.join(BUILD, name)


def report(tests):
    """Runs them; a test may return more tests.  Returns the exit status."""
    failed = done = 0
    tests = list(tests)
    while tests:
        test = tests.pop(0)
        result, note, began = "ok", "", time.monotonic()
        try:
            tests += test() or []
        except Skip as reason:
            note = " # SKIP %s" % reason
        except (Failed, OSError) as problem:
            failed += 1
            result = "not ok"
            print("".join("# %s\n" % line for line in str(problem).splitlines()), end="")
        done += 1
        print("%s %d - %s%s" % (result, done, test.__doc__, note))
        print("# %d s" % (time.monotonic() - began), flush=True)
    print("1..%d" % done)
    return 1 if failed else 0
