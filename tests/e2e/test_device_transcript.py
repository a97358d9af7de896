# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's transcript of query-ivshmem before, during and after a server's death is real."""
import json
import os
import textwrap

import support
import tiny
from test_device_reconnect import Reconnecting
from tiny import ivec

MANUAL = os.path.join(support.TOP, "docs", "system", "devices", "ivshmem.rst")
WIDTH = 92


class Transcript(Reconnecting, tiny.TinyCase):
    path = tiny.Path("tcg")
    vectors = 1

    def show(self, mark, message):
        message.pop("timestamp", None)
        self.lines.append(textwrap.fill(
            mark + json.dumps(message, sort_keys=True), WIDTH, initial_indent="   ", subsequent_indent="      ",
            break_long_words=False, break_on_hyphens=False))

    def ask(self, guest):
        self.show("-> ", {"execute": "query-ivshmem"})
        self.show("<- ", {"return": guest.qmp.cmd("query-ivshmem")})

    def ring_both_ways(self, a, b):
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        b.ring(a.id, 0)
        a.wait_count(ivec(0), 1)
        for guest in (a, b):
            guest.clear()

    def test_the_manual_shows_what_happens(self):
        self.lines = []
        self.serve()
        a, b = self.two()
        self.ring_both_ways(a, b)
        self.ask(a)
        self.kill_server()
        self.show("<- ", a.qmp.wait_event("IVSHMEM_DISCONNECTED"))
        b.qmp.wait_event("IVSHMEM_DISCONNECTED")
        self.ring_both_ways(a, b)           # without the server
        self.ask(a)
        self.serve()
        self.show("<- ", a.qmp.wait_event("IVSHMEM_CONNECTED"))
        b.qmp.wait_event("IVSHMEM_CONNECTED")
        self.introduce(a, b)
        self.ring_both_ways(a, b)
        self.ask(a)
        transcript = "\n".join(self.lines)
        with open(MANUAL, encoding="utf-8") as file:
            self.assertTrue(transcript + "\n" in file.read(), "the manual needs:\n" + transcript)
