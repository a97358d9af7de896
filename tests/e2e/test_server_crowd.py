# SPDX-License-Identifier: GPL-2.0-or-later
"""Twenty-four clients, six of them ill-behaved, and not a ring gets lost."""
import json
import os
import resource
import signal
import unittest

import support
from server_load import ConfigServer, Load, load_program
from test_server_faults import ServerTest

PAIRS = 9
# Rings in all, there and back.
RINGS = int(os.environ.get("IVSHMEM_TEST_RINGS", "1000000"))


class Crowd(ServerTest):
    def ringer(self, server, rounds):
        path = os.path.join(os.path.dirname(load_program()), "server-ring")
        if not os.access(path, os.X_OK):
            raise unittest.SkipTest("%s is not built" % path)
        return self.start(support.Process([path, server.socket, str(rounds)], stdin=True))

    def exhausted(self, server):
        """A client with hardly a descriptor: it cannot take what it is sent."""
        client = self.load(server, "--keep", preexec=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (8, 8)))
        client("join 1")
        return client

    def test_no_ring_gets_lost(self):
        server = self.server("-l", "1M")
        rounds = -(-RINGS // (2 * PAIRS))
        ringers = []
        for number in range(2 * PAIRS):
            ringers.append(self.ringer(server, rounds))
            ringers[-1].out.wait_for("^ready %d$" % number)

        stopped = [self.load(server) for _ in range(2)]
        for client in stopped:
            client("join 1")
            client("settle %d" % (len(ringers) + stopped.index(client)))
            client.signal(signal.SIGSTOP)
        for _ in range(2):
            self.exhausted(server)
        visitors = [self.load(server) for _ in range(2)]
        for ringer in ringers:
            ringer.write("\n")
        while any(ringer.status is None for ringer in ringers):
            for visitor in visitors:
                visitor("churn 50")
        for ringer in ringers:
            self.assertEqual(ringer.wait(), 0, ringer.err.text)
            self.assertIn("done %d\n" % rounds, ringer.out.text)
        # Those who were stopped have missed nothing that still matters.
        for ringer in ringers:
            ringer.stop()
        for client in stopped:
            client.signal(signal.SIGCONT)
        for client in stopped:
            client("settle 3")          # each other, and those without descriptors


class StockDevice(ServerTest):
    def test_socket_with_a_fixed_id(self):
        """A stock QEMU device comes in by a client's own socket and is that client."""
        config = self.path("server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write("[region r]\nsize=1M\nvectors=2\nsocket=DIR/r\n"
                      "[client r/disk]\nsocket=DIR/disk\nid=9\n".replace("DIR", self.dir))
        self.start(ConfigServer("--config", config))
        group = self.start(Load(self.path("r"), "--keep", vectors=2))
        group("join 2")
        self.qemu("-machine", "pc", "-accel", "tcg", "-S",
                  "-chardev", "socket,id=c,path=" + self.path("disk"),
                  "-device", "ivshmem-doorbell,chardev=c,vectors=2",
                  exe=support.program("stock"))
        group("settle 2")
        process = self.start(support.Process([support.program("server"), "--config", config,
                                              "--json"]))
        self.assertEqual(process.wait(), 0, process.err.text)
        clients = {client["id"]: client
                   for client in json.loads(process.out.text)["regions"][0]["clients"]}
        self.assertEqual(sorted(clients), [0, 1, 9])
        self.assertEqual((clients[9]["name"], clients[9]["state"]), ("disk", "ready"))
        self.assertIn("qemu-system", clients[9]["executable"])
