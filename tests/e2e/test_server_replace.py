# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server --replace: a successor takes over, and no client notices."""
import os
import random
import signal
import subprocess
import unittest

import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


def become_nobody():
    os.setgid(65534)
    os.setuid(65534)


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

    def test_pid_file_that_cannot_be_written(self):
        server = self.start_server()
        group = self.client("a", vectors=2)
        group("join 2")
        group("settle 1")
        error = self.fails("-F", "--config", self.path("server.conf"), "--replace",
                           "-p", self.path("missing/pid"))
        self.assertIn("cannot write the pid file", error)
        self.goes_on(server, group)

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
            preexec=become_nobody))
        self.assertEqual(process.wait(), 1)
        server.err.wait_for("refused to hand over to another user")
        group("join 1")
        group("settle 2")


class Users(ReplaceTest):
    """A predecessor decides what is served, and which files go in the end."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to be two users")
        os.chmod(self.dir, 0o777)
        self.TEXT = "[region a]\nsize=1M\nsocket=DIR/a\nmemory=file:DIR/memory\npersistent=no\n"
        self.predecessor = self.start(ConfigServer("--config", self.config(), preexec=become_nobody))
        self.group = self.client("a")
        self.group("join 2")
        self.group("settle 1")

    def goes_on(self):
        self.group("join 1")
        self.group("settle 2")
        self.assertIsNone(self.predecessor.status)
        self.assertEqual(sorted(os.listdir(self.dir)),
                         ["a", "a.ctl", "a.state", "memory", "server.conf"])

    def test_root_does_not_trust_everybody(self):
        error = self.fails("-F", "--config", self.path("server.conf"), "--replace")
        self.assertIn("the server to be replaced runs as another user", error)
        self.goes_on()

    def test_root_trusts_the_user_it_becomes(self):
        successor = self.start(ConfigServer("--config", self.path("server.conf"), "--replace",
                                            "--user=nobody"))
        self.assertEqual(self.predecessor.wait(), 0)
        self.group("join 1")
        self.group("settle 2")
        self.assertEqual(successor.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_user_that_cannot_be_had(self):
        process = self.start(support.Process(
            [support.program("server"), "-F", "--config", self.path("server.conf"), "--replace",
             "--user=daemon"], preexec=become_nobody))
        self.assertEqual(process.wait(), 1)
        self.assertIn("cannot become user", process.err.text)
        self.goes_on()


class Changes(ReplaceTest):
    """What may be different in the new configuration, and what may not."""

    def refused(self, text, reason):
        self.config(text)
        error = self.fails("-F", "--config", self.path("server.conf"), "--replace")
        self.assertIn(reason, error)

    def test_other_memory(self):
        a, b, c = (self.path(name) for name in "abc")
        text = "[region r]\nsize=1M\nsocket=DIR/r\nmemory="
        for memory, is_now, others in (
                ("file:" + a, "file " + a + " (1M)", ("memfd", "file:" + b, "shm:NAME", "hugetlb")),
                ("shm:NAME", "object /%s (1M)" % os.path.basename(self.dir),
                 ("memfd", "file:" + c, "shm:NAMEx")),
                ("memfd", "sealed memory (1M)", ("shm:NAME", "file:" + c, "hugetlb"))):
            self.config(text + memory)
            server = self.start(ConfigServer("--config", self.path("server.conf")))
            for other in others:
                with self.subTest(memory=memory, other=other):
                    self.refused(text + other, "region r: the server that runs has ")
                    self.refused(text + other, is_now + ", not ")
                    self.assertFalse(os.path.exists(b) or os.path.exists(c))
                    self.assertIsNone(server.status)
            self.assertEqual(server.stop(), 0)
            self.assertFalse(os.path.exists("/dev/shm/" + os.path.basename(self.dir)))

    def test_huge_pages(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to mount a hugetlbfs")
        pages = self.path("pages")
        os.mkdir(pages)
        if subprocess.run(["mount", "-t", "hugetlbfs", "none", pages], check=False,
                          stderr=subprocess.DEVNULL).returncode:
            raise unittest.SkipTest("cannot mount a hugetlbfs")
        self.addCleanup(subprocess.run, ["umount", pages], check=True)
        self.TEXT = "[region a]\nsize=1M\nsocket=DIR/a\nmemory=file:DIR/pages/x\n"
        server = self.start_server()
        group = self.client("a")
        group("join 1")
        server = self.replace(server)
        self.assertEqual(int(group("memory 0")["size"]), os.statvfs(pages).f_bsize)
        self.refused(self.TEXT.replace("1M", "1G"), ", not file ")
        self.assertIsNone(server.status)

    def test_first_id(self):
        self.TEXT = "[region a]\nsize=1M\nsocket=DIR/a\n"
        server = self.start_server()
        group = self.client("a")
        group("join 3")
        group("settle 2")
        group("leave 1 1")
        group("settle 1")
        self.TEXT += "first-id=100\n"
        self.replace(server)
        group("join 2")
        group("settle 3")
        self.assertEqual(group("ids"), {"ids": "0,1,2,100,101"})

    def test_sockets_that_are_gone(self):
        self.TEXT = ("[region a]\nsize=1M\nsocket=DIR/old\n[client a/x]\nsocket=DIR/x\nid=7\n"
                     "[client a/y]\nsocket=DIR/y\n[server]\ncontrol-socket=DIR/ctl\n")
        server = self.start_server()
        group = self.client("old")
        group("join 2")
        x = self.client("x")
        x("join 1")
        group("settle 2")
        os.unlink(self.path("y"))
        with support.socket.socket(support.socket.AF_UNIX) as another:
            another.bind(self.path("y"))
            self.TEXT = ("[region a]\nsize=1M\nsocket=DIR/new\n"
                         "[server]\ncontrol-socket=DIR/ctl\n")
            server = self.replace(server)
        server.err.wait_for("closed socket .*/x, which is not in the configuration")
        x("settle 2")
        group("settle 2")
        self.client("new")("join 1")
        group("settle 3")
        # Not what has taken a path meanwhile.
        self.assertEqual(sorted(os.listdir(self.dir)),
                         ["ctl", "new", "new.state", "server.conf", "y"])

    def test_region_on_its_way_out(self):
        server = self.start_server()
        b = self.client("b", "--keep")
        b("join 2")
        b("settle 1")
        self.TEXT = self.TEXT[:self.TEXT.index("[region b]")]
        self.config()
        server.signal(signal.SIGHUP)
        server.err.wait_for("SIGHUP: read")
        server = self.replace(server)
        self.assertEqual(b("verify"), {"rings": "2"})
        self.assertTrue(os.path.exists("/dev/shm/" + os.path.basename(self.dir)))
        b("leave 0 1")
        server.err.wait_for("region b: removed")
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists("/dev/shm/" + os.path.basename(self.dir)))


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
