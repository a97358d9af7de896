# SPDX-License-Identifier: GPL-2.0-or-later
"""
The specification is enough: a client and a server written from its text alone (spec_peer.py) work
with our server, client and device.
"""
import os
import secrets
import socket
import threading

import spec_peer
import support
import tiny
from server_load import ConfigServer
from tiny import BAR2, ivec


class SpecTest(tiny.TinyCase):
    def client(self, sock, **options):
        client = spec_peer.Client.connect(sock, **options)
        self.addCleanup(client.close)
        client.ready()
        return client

    def spec_server(self, size=1 << 20, vectors=2):
        server = spec_peer.Server(os.path.join(self.dir, "spec-" + secrets.token_hex(3)),
                                  size, vectors)
        end, stop = os.pipe()
        thread = threading.Thread(target=server.serve, args=(end,))
        thread.start()
        self.addCleanup(server.close)
        self.addCleanup(thread.join, support.DEFAULT_WAIT)
        self.addCleanup(os.close, stop)
        server.socket = server.listener.getsockname()
        return server

    def full(self, *clients, vectors=2):
        """All have been told of all."""
        for client in clients:
            client.until(lambda c: all(len(c.peers.get(other.id, ())) == vectors
                                       for other in clients))


class TheirClientOurServer(SpecTest):
    # R-SRV-2 to R-SRV-6, R-SRV-16, R-SRV-17
    def test_three_of_them(self):
        server = self.server(2)
        a, b, c = (self.client(server.socket) for _ in range(3))
        self.assertEqual([x.id for x in (a, b, c)], [0, 1, 2])
        self.full(a, b, c)
        a.memory[0:5] = b"hello"
        self.assertEqual(b.memory[0:5] + c.memory[0:5], b"hellohello")
        for sender in (a, b, c):
            for receiver in (a, b, c):
                for vector in (0, 1):
                    for _ in range(3):
                        sender.ring(receiver.id, vector)
                    self.assertEqual(receiver.wait(vector), 3)
        b.sock.close()
        for other in (a, c):
            other.until(lambda client: b.id not in client.peers)

    def test_with_our_client(self):
        server = self.server(2)
        theirs = self.client(server.socket)
        self.full(theirs)
        ours = self.start(support.Client(server.socket))
        self.assertTrue(ours.command("wait-peer %d 10s 2" % theirs.id)["ok"])
        number = ours.command("id")["id"]
        theirs.until(lambda client: len(client.peers.get(number, ())) == 2)
        theirs.ring(number, 1)
        self.assertEqual(ours.command("wait 10s")["vector"], 1)
        ours.command("int %d 0 2" % theirs.id)
        self.assertEqual(theirs.wait(0), 2)

    def test_with_our_device(self):
        server = self.server(2)
        theirs = self.client(server.socket)
        self.full(theirs)
        guest = self.ready(server, 2)
        theirs.until(lambda client: len(client.peers.get(guest.id, ())) == 2)
        self.wait_peer(guest, theirs.id, 2)
        theirs.memory[64:68] = b"\x11\x22\x33\x44"
        theirs.ring(guest.id, 1)
        guest.wait_count(ivec(1), 1)
        self.assertEqual(guest.r32(BAR2, 64), 0x44332211)
        guest.ring(theirs.id, 0)
        self.assertEqual(theirs.wait(0), 1)

    # R-CLI-19
    def test_reading_only(self):
        config = os.path.join(self.dir, "config")
        paths = [os.path.join(self.dir, name) for name in ("all", "reader")]
        with open(config, "w", encoding="ascii") as file:
            file.write("[region r]\nsize=1M\nvectors=2\nsocket=%s\n"
                       "[client r/reader]\nsocket=%s\naccess=read-only\n" % tuple(paths))
        self.start(ConfigServer("--config", config))
        writer = self.client(paths[0])
        try:
            reader = self.client(paths[1])
        except spec_peer.Broken as error:   # a server that cannot make it safe refuses
            self.skipTest("no CAP_LINUX_IMMUTABLE: %s" % error)
        writer.memory[0:2] = b"ok"
        self.assertEqual(reader.memory[0:2], b"ok")
        with self.assertRaises(TypeError):
            reader.memory[0:2] = b"no"

    # R-SRV-26
    def test_half_closed_is_gone(self):
        server = self.server(2)
        a, b = self.client(server.socket), self.client(server.socket)
        self.full(a)
        a.until(lambda client: b.id in client.peers)
        b.sock.shutdown(socket.SHUT_WR)
        a.until(lambda client: b.id not in client.peers)

    # R-CLI-5: excess vectors are closed, and the rest works
    def test_fewer_vectors_than_told(self):
        server = self.server(4)
        a, b = self.client(server.socket, limit=1), self.client(server.socket)
        a.until(lambda client: len(client.peers.get(b.id, ())) == 1)
        b.ring(a.id, 0)
        self.assertEqual(a.wait(0), 1)


class OurClientsTheirServer(SpecTest):
    def test_client(self):
        server = self.spec_server()
        a, b = (self.start(support.Client(server.socket)) for _ in range(2))
        ids = [client.command("id")["id"] for client in (a, b)]
        self.assertEqual(sorted(ids), [0, 1])
        self.assertTrue(a.command("wait-peer %d 10s 2" % ids[1])["ok"])
        self.assertTrue(a.command("int %d 1" % ids[1])["ok"])
        self.assertEqual(b.command("wait 10s")["vector"], 1)
        a.command('poke 0 "spec"')
        self.assertEqual(bytes.fromhex(b.command("peek 0 4")["hex"]), b"spec")
        b.write("quit\n")
        self.assertTrue(a.command("wait-gone %d 10s" % ids[1])["ok"])

    def test_device(self):
        server = self.spec_server()
        a, b = self.pair(2, server)
        a.w32(BAR2, 0x100, 0x12345678)
        a.ring(b.id, 1)
        b.wait_count(ivec(1), 1)
        self.assertEqual(b.r32(BAR2, 0x100), 0x12345678)
        b.ring(a.id, 0)
        a.wait_count(ivec(0), 1)
        b.stop()
        self.wait_peer(a, b.id, 0)

    def test_each_with_each(self):
        server = self.spec_server()
        guest = self.ready(server, 2)
        theirs = self.client(server.socket)
        self.wait_peer(guest, theirs.id, 2)
        self.full(theirs)
        guest.ring(theirs.id, 1)
        self.assertEqual(theirs.wait(1), 1)
        theirs.ring(guest.id, 0)
        guest.wait_count(ivec(0), 1)
