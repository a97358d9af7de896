# SPDX-License-Identifier: GPL-2.0-or-later
"""The library's examples, with a real server and other peers."""
import hashlib
import os
import random
import signal
import unittest

import support
from support import Client, Process


def example(name):
    path = os.path.join(support.BUILD, "subprojects/libivshmem/examples", name)
    if not os.access(path, os.X_OK):
        raise unittest.SkipTest("%s is not built: configure libivshmem with its tests%s"
                                % (path, " and a C++ compiler" if name == "cplusplus" else ""))
    return path


class ExampleTest(support.TestCase):
    def example(self, name, *arguments, **kwargs):
        return self.start(Process([example(name), *arguments], **kwargs))

    def ends(self, process, status=0, why=""):
        self.assertEqual(process.wait(), status, process.err.text)
        self.assertRegex(process.err.text, why or "^$")


class Logger(ExampleTest):
    def write(self, server, text, *arguments):
        writer = self.example("logger", server.socket, "--write", *arguments, stdin=True)
        writer.write(text)
        writer.close_stdin()
        self.ends(writer)

    def test_followers(self):
        server = self.server("-l", "64K")
        self.write(server, "before anybody follows\n")
        followers = [self.example("logger", server.socket) for _ in range(3)]
        for follower in followers:
            follower.out.wait_for("^before anybody follows\n")
        self.write(server, "one\ntwo\n")
        self.write(server, "three\n")
        for follower in followers:
            follower.out.wait_for("^three\n")
            self.assertEqual(follower.out.text, "before anybody follows\none\ntwo\nthree\n")
        server.stop()
        for follower in followers:
            self.ends(follower, 1, "the server is gone: the other side closed the connection")

    def test_round_and_round(self):
        """Far more than the ring holds, to one who keeps up."""
        server = self.server("-l", "64K")
        follower = self.example("logger", server.socket)
        for block in range(20):
            lines = "".join("line %d of block %d\n" % (line, block) for line in range(400))
            self.write(server, lines)
            follower.out.wait_for("^line 399 of block %d\n" % block)
        self.assertEqual(follower.out.text, "".join(
            "line %d of block %d\n" % (line, block) for block in range(20) for line in range(400)))

    def test_overtaken(self):
        server = self.server("-l", "64K")
        follower = self.example("logger", server.socket)
        self.write(server, "first\n")
        follower.out.wait_for("^first\n")
        follower.signal(signal.SIGSTOP)
        self.write(server, "x" * 300000 + "\nlast\n")
        follower.signal(signal.SIGCONT)
        follower.err.wait_for(r"^logger: missed \d+ bytes\n")
        follower.out.wait_for(r"^x+\nlast\n")
        self.assertLess(len(follower.out.text), 65536)

    def test_no_room(self):
        server = self.server("-l", "4096")
        self.ends(self.example("logger", server.socket), 1, "4096 bytes are no room for a log")

    def test_no_server(self):
        self.ends(self.example("logger", self.dir + "/none"), 1, "No such file")
        self.ends(self.example("logger"), 2, "usage")


class Bridge(ExampleTest):
    def transfer(self, size, *sizes):
        server = self.server("-l", size)
        ends = [self.example("bridge", server.socket, stdin=True) for _ in range(2)]
        data = [random.Random(number).randbytes(number) for number in sizes]
        for end, block in zip(ends, data):
            end.write(block)
        for end in ends:
            end.close_stdin()
        for end in ends:
            self.ends(end)
        for end, block in zip(ends, reversed(data)):
            self.assertEqual(len(end.out.data), len(block))
            self.assertEqual(hashlib.sha256(end.out.data).digest(),
                             hashlib.sha256(block).digest())

    def test_both_ways(self):
        self.transfer("1M", 100000, 50000)

    def test_through_a_small_memory(self):
        self.transfer("4096", 1000000, 300001)

    def test_nothing(self):
        self.transfer("4096", 0, 0)

    def test_one_way(self):
        self.transfer("64K", 0, 200000)

    def test_conversation(self):
        server = self.server()
        a = self.example("bridge", server.socket, stdin=True)
        b = self.example("bridge", server.socket, stdin=True)
        for number in range(20):
            a.write("question %d\n" % number)
            b.out.wait_for("^question %d\n" % number)
            b.write("answer %d\n" % number)
            a.out.wait_for("^answer %d\n" % number)

    def test_partner_dies(self):
        server = self.server()
        a = self.example("bridge", server.socket, stdin=True)
        b = self.example("bridge", server.socket, stdin=True)
        a.write("hello\n")
        b.out.wait_for("^hello\n")
        b.write("bye\n")
        a.out.wait_for("^bye\n")
        b.signal(signal.SIGKILL)
        self.ends(a, 1)

    def test_server_dies(self):
        server = self.server()
        a = self.example("bridge", server.socket, stdin=True)
        b = self.example("bridge", server.socket, stdin=True)
        a.write("hello\n")
        b.out.wait_for("^hello\n")
        server.stop()
        for end in (a, b):
            self.ends(end, 1, "the server is gone")


class MainLoop(ExampleTest):
    def test_events(self):
        server = self.server("-n", "2")
        loop = self.example("mainloop", server.socket, "5")
        own = int(loop.out.wait_for(r"^connected as peer (\d+)\n").group(1))
        client = self.start(Client(server.socket))
        peer = client.command("id")["id"]
        loop.out.wait_for(r"^peer %d has joined\n" % peer)
        self.assertTrue(client.command("wait-peer %d 10s 2" % own)["ok"])
        self.assertTrue(client.command("int %d 1" % own)["ok"])
        loop.out.wait_for(r"^vector 1: 1\n")
        self.assertTrue(client.command("int %d 0 4" % own)["ok"])
        loop.out.wait_for(r"^vector 0: 4\n")
        client.write("quit\n")
        loop.out.wait_for(r"^peer %d has left\n" % peer)
        self.assertEqual(Client.run(server.socket, "int %d 0" % own).status, 0)
        self.ends(loop)
        self.assertIn("vector 0: 5\n", loop.out.text)

    def test_server_gone(self):
        server = self.server()
        loop = self.example("mainloop", server.socket, "1")
        loop.out.wait_for(r"^connected as peer 0\n")
        server.stop()
        self.ends(loop, 1, "the other side closed the connection")


class CPlusPlus(ExampleTest):
    def test_rings_everybody(self):
        server = self.server()
        client = self.start(Client(server.socket))
        peer = client.command("id")["id"]
        program = self.example("cplusplus", server.socket)
        self.ends(program)
        self.assertRegex(program.out.text, r"^connected as peer \d+\nringing peer %d\n$" % peer)
        self.assertTrue(client.command("wait 10s")["ok"])

    def test_no_server(self):
        self.ends(self.example("cplusplus", self.dir + "/none"), 1, "No such file")


if __name__ == "__main__":
    unittest.main()
