# SPDX-License-Identifier: GPL-2.0-or-later
"""The server: joining and leaving, by tests/bench/join, whose figures become rows here."""
import json
import os
import sys

import support
from device import directory
from figures import Taken

SERVER = "Server: joining and leaving"
HERE = os.path.dirname(os.path.abspath(__file__))


def run(book, scale, peer_server):
    book.say("server: clients join and leave")
    with directory() as where:
        out = os.path.join(where, "join.json")
        argv = [sys.executable, os.path.join(HERE, "join"), "--json", out,
                "--rounds", str(scale.join_rounds), "--max-frames", str(scale.join_frames),
                "--vectors", *map(str, scale.join_vectors), "--clients",
                *map(str, scale.join_clients)]
        if peer_server:
            argv += ["--peer-server", peer_server]
        process = support.Process(argv, name="join")
        try:
            status = process.wait(scale.join_seconds)
            with open(out, encoding="utf-8") as file:
                cases = json.load(file)["join"]
        finally:
            process.stop()
    for case in cases:
        rows(book, case)
    if status:
        raise AssertionError("join: " + process.err.text.strip())


def rows(book, case):
    """One case of join: sides a, b, floor, each {figure: median} or {"incomplete": why}."""
    title = "%d clients x %d vectors" % (case["clients"], case["vectors"])
    tag = "join/%dx%d/" % (case["clients"], case["vectors"])
    for key, side in (("A", case["a"]), ("B", case["b"]), ("floor", case["floor"])):
        if not side or "incomplete" in side:
            if side:
                book.failed.append({"what": "join, " + title, "side": key,
                                    "error": side["incomplete"]})
            continue
        for figure, name, unit, scale, curve in (
                ("cpu_us_per_frame", "server CPU for one message", "us", 1, True),
                ("join_ms", "until everybody knows everybody", "ms", 1, False),
                ("leave_ms", "until half have gone and all know", "ms", 1, False),
                ("memory_kb", "memory of the server", "kB", 1, False)):
            if side.get(figure) is not None:
                book.add(key, Taken(
                    tag + figure, SERVER, "%s: %s" % (title, name), unit, [side[figure] * scale],
                    x=case["clients"],
                    curve="%s in us, %d vectors each" % (name, case["vectors"]) if curve else None))
