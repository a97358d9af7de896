#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Benchmarks: ours (A) against the distribution's QEMU (B), alternating in one run, with the floor
of the machine beside them. Prints a table; writes bench.json, bench.html and the plots.
"""
import argparse
import json
import os
import sys
import unittest
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
sys.path.insert(0, HERE)

import support                                                  # noqa: E402
import device                                                   # noqa: E402
import doorbell                                                 # noqa: E402
import figures                                                  # noqa: E402
import joining                                                  # noqa: E402
import linux                                                    # noqa: E402
import machine                                                  # noqa: E402
import report                                                   # noqa: E402
import tiny                                                     # noqa: E402
import vm                                                       # noqa: E402

PATHS = [tiny.Path("kvm"), tiny.Path("kvm", ioeventfd=False),
         tiny.Path("tcg"), tiny.Path("tcg", ioeventfd=False)]
PUBLISHED = os.path.join(support.TOP, "docs/performance")
PARTS = ("floor", "doorbell", "rates", "smp", "start", "absorb", "harm", "join", "linux")


class Scale(NamedTuple):
    """How much of everything."""
    rounds: int
    trips: int
    rings: int
    cpus: tuple
    flood_ms: int
    absorb: tuple               # (peers, vectors, rounds)
    join_clients: tuple
    join_vectors: tuple
    join_frames: float
    join_rounds: int
    linux_rounds: int
    linux_seconds: int
    linux_pings: int


FULL = Scale(rounds=7, trips=3000, rings=20000, cpus=(1, 2, 4), flood_ms=1000,
             absorb=((256, 1, 7), (900, 1, 7), (4000, 1, 5), (1100, 4, 5), (15000, 1, 3)),
             join_clients=(16, 64, 250, 500, 1000), join_vectors=(1, 8), join_frames=1e6,
             join_rounds=3, linux_rounds=3, linux_seconds=120,
             linux_pings=2000)
QUICK = Scale(rounds=1, trips=200, rings=2000, cpus=(1, 2), flood_ms=200, absorb=((256, 1, 1),),
              join_clients=(16, 64), join_vectors=(1,), join_frames=1e6, join_rounds=1,
              linux_rounds=1, linux_seconds=60, linux_pings=200)


def arguments():
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="about a minute: whether everything runs, not how fast")
    parser.add_argument("--rounds", type=int, help="rounds of A and B in turn (%d)" % FULL.rounds)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART",
                        help="only these parts: " + " ".join(PARTS))
    parser.add_argument("--peer-qemu", metavar="PATH",
                        help="the QEMU to compare with (qemu-system-x86_64 in PATH)")
    parser.add_argument("--peer-server", metavar="PATH", help="a server to compare with")
    parser.add_argument("--alone", action="store_true", help="ours alone, compare with nothing")
    parser.add_argument("--same", action="store_true",
                        help="ours as B too: how far to trust the figures of this machine")
    parser.add_argument("--no-pin", action="store_true",
                        help="let the kernel place the two that ring each other")
    parser.add_argument("--again", metavar="FILE",
                        help="measure nothing: table and plots from the bench.json given")
    parser.add_argument("--publish", action="store_true",
                        help="put table and plots of docs/performance.rst in their place too")
    parser.add_argument("--output", metavar="DIR", help="where files go (build/bench)")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds %d: 1 is the least" % options.rounds)
    for path in (options.peer_qemu, options.peer_server):
        if path and not os.access(path, os.X_OK):
            parser.error("%s cannot be run: give the path of a program" % path)
    return options


def find_sides(options, skipped):
    sides = [figures.Side("A", "ours", support.program("qemu"))]
    if options.same:
        return sides + [figures.Side("B", "ours again", sides[0].qemu)]
    if options.alone:
        return sides
    stock = options.peer_qemu or support.find_program("stock")
    if stock:
        return sides + [figures.Side("B", "stock QEMU", stock)]
    skipped.append({"what": "B", "reason": "no qemu-system-x86_64 in PATH: "
                                           "apt-get install qemu-system-x86, or --peer-qemu PATH"})
    return sides


def doorbells(book, scale, wanted, quick):
    for path in PATHS:
        if "doorbell" in wanted:
            book.alternate("doorbell: " + doorbell.title(path), doorbell.pair(path, 2, scale))
            if path.ioeventfd:
                book.alternate("doorbell, 16 vectors: " + doorbell.title(path),
                               doorbell.pair(path, 16, scale))
        if "rates" in wanted and not quick:
            book.alternate("many to one: " + doorbell.title(path), doorbell.many(path, 3, scale))
        if "smp" in wanted and not (quick and path.ioeventfd):
            for count in scale.cpus:
                book.alternate("%d vCPUs: %s" % (count, doorbell.title(path)),
                               doorbell.several(path, count, scale))
    if "doorbell" in wanted:
        book.alternate("doorbell: TCG, ours polls", doorbell.polling(tiny.Path("tcg"), scale))
        doorbell.host_host(book, scale)


def devices(book, scale, wanted):
    kvm = tiny.why_not("kvm") is None
    if "start" in wanted:
        book.alternate("start of QEMU", device.start_up, rounds=3 * book.rounds)
        book.alternate("device_add", device.hot_plug, rounds=3 * book.rounds)
    if "absorb" in wanted:
        for peers, vectors, rounds in scale.absorb:
            book.alternate("%d peers x %d vectors" % (peers, vectors),
                           device.absorb("kvm" if kvm else "tcg", peers, vectors), rounds)
    if "harm" in wanted:
        for path in (tiny.Path("kvm"), tiny.Path("tcg")):
            if kvm or path.accel == "tcg":
                book.alternate("a client misbehaves: " + doorbell.title(path),
                               device.misbehave(path, scale))


def measure(book, scale, wanted, options):
    """Every part wanted; the floor, which moves as all else does, at both ends."""
    if "floor" in wanted:
        machine.floor(book, scale.trips)
    doorbells(book, scale, wanted, options.quick)
    devices(book, scale, wanted)
    if "join" in wanted:
        joining.run(book, scale, options.peer_server)
    if "linux" in wanted:
        sides = book.sides[:1] if options.quick else book.sides
        book.alternate("Linux guest", linux.guest(scale), scale.linux_rounds, sides)
        if not options.quick:
            book.alternate("Linux guest, hugepages", linux.huge(scale), scale.linux_rounds)
    if "floor" in wanted:
        machine.floor(book, scale.trips)


def accelerators():
    kvm = tiny.why_not("kvm")
    found = {"KVM, tiny guest": kvm or "yes"}
    try:
        found["Linux guest"] = "%s: %s" % vm.accelerator()
    except unittest.SkipTest as reason:
        found["Linux guest"] = "none: %s" % reason
    return found


def run(options):
    """Measures; returns what bench.json holds."""
    scale = QUICK if options.quick else FULL
    wanted = set(options.only or PARTS)
    skipped = []
    try:
        sides = find_sides(options, skipped)
        machine.program("peer")
    except unittest.SkipTest as reason:
        sys.exit("./run bench: %s" % reason)
    doorbell.Pinning.on = not options.no_pin
    book = figures.Book(sides, options.rounds or scale.rounds,
                        lambda text: print("   " + text, file=sys.stderr, flush=True))
    book.skipped += skipped
    pinning = ("floor: two CPUs; those that ring each other: %s; all else: none"
               % ("none" if options.no_pin else "one to a CPU, QEMU with all its threads"))
    about = machine.environment(sides, accelerators() if "linux" in wanted else {}, pinning)
    try:
        measure(book, scale, wanted, options)
    except KeyboardInterrupt:
        book.skip("the rest", "interrupted")
    data = {"format": 1, "quick": options.quick, "environment": about,
            "sides": [side._asdict() for side in sides]}
    data.update(book.data())
    return data


def main():
    options = arguments()
    support.end_on_sigterm()
    if options.again:
        with open(options.again, encoding="utf-8") as file:
            data = json.load(file)
    else:
        data = run(options)
    folder = options.output or os.path.join(support.BUILD, "bench")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "bench.json"), "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
    if options.publish:
        os.makedirs(PUBLISHED, exist_ok=True)
        report.publish(data, PUBLISHED)
    print(report.table_text(data))
    print("%s, bench.json and the plots beside it; measured in %.0f s"
          % (report.write(data, folder), data["seconds"]))
    return 1 if any(fail["side"] == "A" for fail in data["failed"]) else 0


if __name__ == "__main__":
    sys.exit(main())
