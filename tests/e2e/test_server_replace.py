# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server --replace: a successor takes over, and no client notices."""
import os
import random
import signal
import unittest

import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


class ReplaceTest(ServerTest):
    TEXT = ("[region a]\nsize=1M\nvectors=2\nsocket=DIR/a\n"
            "[client a/camera]\nsocket=DIR/camera\nid=1\naccess=read-only\n"
            "[region b]\nsize=1M\nsocket=DIR/b\nmemory=shm:NAME\n")

    def config(self, text=None):
        path = self.path("server.conf")
        with open(path, "w", encoding="ascii") as out:
            out.write((text or self.TEXT).replace("DIR", self.dir)
                      .replace("NAME", os.path.basename(self.dir)))
        return path

    def start_server(self, *options):
        return self.start(ConfigServer("--config", self.config(), *options))

    def replace(self, server):
        successor = self.start_server("--replace")
        self.assertEqual(server.wait(), 0, server.err.text)
        return successor

    def client(self, socket, *options, **kwargs):
        return self.start(Load(self.path(socket), *options, **kwargs))


class Replace(ReplaceTest):
    def test_nobody_notices(self):
        server = self.start_server()
        a = self.client("a", "--keep", vectors=2)
        b = self.client("b", "--keep")
        camera = self.client("camera", "--keep", vectors=2)
        a("join 5")
        camera("join 1")
        b("join 2")
        frames = a("settle 5")["frames"], b("settle 1")["frames"], camera("settle 5")["frames"]
        ids, inode = a("ids"), a("memory 0")["inode"]
        for _ in range(3):
            server = self.replace(server)
        # Not a single message has come, and everything works as before.
        self.assertEqual((a("settle 5")["frames"], b("settle 1")["frames"],
                          camera("settle 5")["frames"]), frames)
        self.assertEqual((a("ids"), a("memory 0")["inode"]), (ids, inode))
        self.assertEqual(a("verify"), {"rings": "40"})
        # Those who come now meet the others, with the same rights and ids.
        a("join 2")
        a("settle 7")
        camera("settle 7")
        self.assertEqual(a("verify"), {"rings": "84"})
        self.assertEqual(camera("ids"), {"ids": "1"})
        camera("leave 0 0")
        a("settle 6")
        again = self.client("camera", vectors=2)
        again("join 1")
        again("settle 7")
        self.assertEqual((again("ids"), again("memory 0")["inode"]), ({"ids": "1"}, inode))
        self.assertEqual(again("tamper 0")["reopen"], "no")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])
        self.assertFalse(os.path.exists("/dev/shm/" + os.path.basename(self.dir)))

    def test_with_messages_waiting(self):
        server = self.start_server()
        quiet = self.client("b")
        quiet("join 2")
        quiet("settle 1")
        quiet("pause 0 0")
        crowd = self.client("b", timeout=120)
        crowd("join 200")
        quiet("settle 201")
        crowd("settle 201")
        crowd("leave 0 99")
        crowd("settle 101")
        crowd("join 200")
        crowd("settle 301")
        server = self.replace(server)
        crowd("leave 100 149")
        crowd("settle 251")
        server = self.replace(server)
        quiet("resume 0 0")
        quiet("settle 251")
        self.assertIsNone(server.status)

    def test_pid_file_and_socket_options(self):
        socket, pid_file = self.path("s"), self.path("pid")
        options = ["-S", socket, "-m", self.dir, "-p", pid_file]
        first = self.start(ConfigServer(*options))
        group = self.client("s")
        group("join 2")
        group("settle 1")
        second = self.start(ConfigServer(*options, "--replace"))
        self.assertEqual(first.wait(), 0)
        with open(pid_file, encoding="ascii") as data:
            self.assertEqual(data.read(), "%d\n" % second.pid)
        group("join 1")
        group("settle 2")
        self.assertEqual(second.stop(), 0)
        self.assertEqual(os.listdir(self.dir), [])

    def test_nobody_to_replace(self):
        server = self.start_server("--replace")
        server.err.wait_for("there is no server to replace")
        group = self.client("b")
        group("join 1")
        group("settle 0")


class Failures(ReplaceTest):
    def goes_on(self, server, group):
        group("join 1")
        group("settle 2")
        self.assertIsNone(server.status)
        server.err.wait_for("going on as before")

    def test_region_missing_in_the_new_configuration(self):
        server = self.start_server()
        group = self.client("a", vectors=2)
        group("join 2")
        group("settle 1")
        self.config("[region a]\nsize=1M\nsocket=DIR/a\n")
        error = self.fails("-F", "--config", self.path("server.conf"), "--replace")
        self.assertIn("has a region b, which is not in the configuration", error)
        self.goes_on(server, group)

    def test_other_size(self):
        server = self.start_server()
        group = self.client("a", vectors=2)
        group("join 2")
        group("settle 1")
        error = self.fails("-F", "--config", self.config(self.TEXT.replace("1M", "2M")),
                           "--replace")
        self.assertIn("the server that runs has sealed memory (1M), not sealed memory (2M)", error)
        self.goes_on(server, group)
        self.assertTrue(os.path.exists(self.path("a")))

    def test_successor_that_dies_half_way(self):
        server = self.start_server()
        group = self.client("a", vectors=2)
        group("join 2")
        group("settle 1")
        with support.socket.socket(support.socket.AF_UNIX) as sock:
            sock.connect(self.path("a.ctl"))
            sock.sendall(b"replace\n")
        self.goes_on(server, group)

    def test_other_users_may_not(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to be two users")
        self.TEXT = "[server]\ncontrol-mode=0666\n" + self.TEXT
        os.chmod(self.dir, 0o755)
        server = self.start_server()
        group = self.client("a", vectors=2)
        group("join 2")
        process = self.start(support.Process(
            [support.program("server"), "-F", "--config", self.path("server.conf"), "--replace"],
            preexec=lambda: os.setuid(65534)))
        self.assertEqual(process.wait(), 1)
        server.err.wait_for("refused to hand over to another user")
        group("join 1")
        group("settle 2")


class Random(ReplaceTest):
    def test_under_joins_and_leaves(self):
        seed = random.randrange(1 << 32)
        choose = random.Random(seed)
        server = self.start_server()
        fixed = self.client("b", "--keep")
        fixed("join 4")
        crowd = self.client("b")
        present = 0
        with self.subTest(seed=seed):
            for _ in range(int(os.environ.get("IVSHMEM_TEST_REPLACES", "10"))):
                count = choose.randrange(1, 30)
                crowd.write("join %d\n" % count)        # answered meanwhile
                server = self.replace(server)
                crowd.out.wait_for(r"^ok.*\n")
                present += count
                crowd("settle %d" % (present + 3))
                fixed("settle %d" % (present + 3))
                if choose.randrange(2):
                    crowd.stop()
                    crowd = self.client("b")
                    present = 0
            fixed("settle %d" % (present + 3))
            self.assertEqual(fixed("verify"), {"rings": "12"})
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
