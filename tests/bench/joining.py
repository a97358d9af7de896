# SPDX-License-Identifier: GPL-2.0-or-later
"""The server: joining and leaving, by tests/bench/join, whose figures become rows here."""
import json
import os
import sys

import support
from device import directory
from figures import FAILURES, Side, Taken

SERVER = "Server: joining and leaving"
HERE = os.path.dirname(os.path.abspath(__file__))
# What join gives itself for a frame, three times over, since A, B and the floor each send all.
SECONDS, SECONDS_PER_FRAME = 60, 150e-6
FIGURES = (("cpu_us_per_frame", "server CPU for one message", "us"),
           ("join_ms", "until everybody knows everybody", "ms"),
           ("leave_ms", "until half have gone and all know", "ms"),
           ("memory_kb", "memory of the server", "kB"))


def run(book, scale, peer_server):
    """One call of join for each case and round; a case that fails is noted, the rest goes on."""
    for vectors in scale.join_vectors:
        for clients in scale.join_clients:
            if clients * clients * vectors > scale.join_frames:
                book.say("server: left out, for its time: %d x %d" % (clients, vectors))
                continue
            book.say("server: %d clients x %d vectors" % (clients, vectors))
            try:
                for _ in range(scale.join_rounds):
                    for case in join(clients, vectors, peer_server):
                        rows(book, case)
            except FAILURES as error:
                book.fail("join, %d clients x %d vectors" % (clients, vectors),
                          Side("A", "ours", ""), error)


def join(clients, vectors, peer_server):
    """The cases it measured: one, or none where descriptors do not suffice."""
    with directory() as where:
        out = os.path.join(where, "join.json")
        argv = [sys.executable, os.path.join(HERE, "join"), "--json", out, "--rounds", "1",
                "--clients", str(clients), "--vectors", str(vectors)]
        if peer_server:
            argv += ["--peer-server", peer_server]
        process = support.Process(argv, name="join")
        try:
            status = process.wait(SECONDS + clients * clients * vectors * SECONDS_PER_FRAME)
            if status and not os.path.exists(out):
                raise AssertionError("join: " + process.err.text.strip().splitlines()[-1])
        finally:
            process.stop()
        with open(out, encoding="utf-8") as file:
            return json.load(file)["join"]


def rows(book, case):
    """One case of join: sides a, b, floor, each {figure: median} or {"incomplete": why}."""
    title = "%d clients x %d vectors" % (case["clients"], case["vectors"])
    tag = "join/%dx%d/" % (case["clients"], case["vectors"])
    for key, side in (("A", case["a"]), ("B", case["b"]), ("floor", case["floor"])):
        if not side:
            continue
        if "incomplete" in side:
            book.fail("join, " + title, Side(key, "", ""), side["incomplete"])
            continue
        for figure, name, unit in FIGURES:
            if side.get(figure) is not None:
                curve = "%s, %s, %d vectors each" % (name, unit, case["vectors"])
                book.add(key, Taken(tag + figure, SERVER, "%s: %s" % (title, name), unit,
                                    [side[figure]], x=case["clients"],
                                    curve=curve if figure.startswith(("cpu", "join")) else None))
