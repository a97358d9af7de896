# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the fuzzers of running programs share: rounds, each made from one number alone.

    run("server", Target)      the command line: --seconds=N, --rounds=N, --seed=FIRST
A Target(directory) has round(random.Random), which raises when something is wrong, and close().
The numbers in corpus/NAME, one a line, are replayed first: those that once found something.
"""
import argparse
import os
import random
import secrets
import shutil
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import support  # noqa: E402


def corpus(name):
    with open(os.path.join(HERE, "corpus", name), encoding="ascii") as file:
        return [int(line.partition("#")[0]) for line in file if line.partition("#")[0].strip()]


def play(target_type, seed):
    """One round with a program of its own; raises what went wrong."""
    directory = support.temporary_directory()
    try:
        target = target_type(directory)
        try:
            target.round(random.Random(seed))
        finally:
            target.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def seeds(name, options):
    """The corpus, and new ones for as long as there is time."""
    end = time.monotonic() + options.seconds
    if not options.seed:
        yield from corpus(name)
    first = options.seed or 1 + secrets.randbelow(1 << 40)
    number = 0
    while time.monotonic() < end or number < options.rounds:
        yield first + number
        number += 1


def run(name, target_type):
    parser = argparse.ArgumentParser(description="fuzz " + name)
    parser.add_argument("--seconds", type=float, default=0, help="go on for so long")
    parser.add_argument("--rounds", type=int, default=0, help="at least so many")
    parser.add_argument("--seed", type=int, help="begin with this one, without the corpus")
    options = parser.parse_args()
    support.end_on_sigterm()
    done = 0
    for seed in seeds(name, options):
        try:
            play(target_type, seed)
        except Exception:       # of any kind: it ends here
            print("not ok 1 - fuzz %s: round %d" % (name, seed))
            print("#  again: %s --seed=%d --rounds=1; then add %d to tests/fuzz/corpus/%s"
                  % (os.path.relpath(sys.argv[0]), seed, seed, name))
            print("#  " + traceback.format_exc().rstrip().replace("\n", "\n#  "))
            print("1..1")
            sys.exit(1)
        done += 1
    print("ok 1 - fuzz %s: %d rounds\n1..1" % (name, done))
