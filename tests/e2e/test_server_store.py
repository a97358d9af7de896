# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server --fdstore: what the service manager keeps, and what the next start makes of it."""
import array
import os
import pathlib
import resource
import signal
import socket

import support
from server_load import Load
from test_server_systemd import ManagedTest

R = "[region r]\nsize=1M\nsocket=DIR/r\n"
Q = "[region q]\nsize=1M\nsocket=DIR/q\nmemory=shm:NAME\n"
PACK_MAX = 253      # descriptors of a message


def empty_pack(pack):
    """[(number, descriptor)] in the order of the pack, which loses them."""
    found = []
    with socket.socket(fileno=os.dup(pack)) as sock:
        while True:
            data, control, _, _ = sock.recvmsg(4 * PACK_MAX, socket.CMSG_SPACE(4 * PACK_MAX))
            if not data:
                return found
            found += zip(array.array("i", data), array.array("i", control[0][2]))


class StoreTest(ManagedTest):
    TEXT = R

    def group(self, name, count, others, vectors=1):
        group = self.start(Load(self.path(name), "--keep", vectors=vectors))
        group("join %d" % count)
        group("settle %d" % others)
        return group

    def names(self):
        return [name for name, _ in self.kept()]


class Failure(StoreTest):
    """A start that fails is not the end: systemd tries again."""

    def test_everything_is_kept_until_a_start_succeeds(self):
        server = self.launch("--fdstore")
        group = self.group("r", 3, 2)
        frames = group("settle 2")["frames"]
        kept = self.stop(server)
        for text, reason in (
                (R + "[client r/x]\nsocket=DIR/missing/x\n", "DIR/missing/x: No such file"),
                (R.replace("1M", "2M"), "has sealed memory (1M), not sealed memory (2M)"),
                ("[region p]\nsocket=DIR/p\n", "has a region r, which is not in")):
            self.TEXT = text
            server = self.spawn("--fdstore", fds=kept)
            self.assertEqual(server.wait(), 1)
            self.assertIn(reason.replace("DIR", self.dir), server.err.text)
            self.assertEqual(self.kept(), kept)
        self.TEXT = R
        self.launch("--fdstore", fds=kept)
        self.assertEqual(group("settle 2")["frames"], frames)
        self.assertEqual(group("verify"), {"rings": "6"})
        group("join 1")
        group("settle 3")
        self.assertEqual(self.names(), ["ivshmem-memory-r"])

    def test_too_few_descriptors(self):
        server = self.launch("--fdstore")
        group = self.group("r", 20, 19)
        kept = self.stop(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        server = self.spawn("--fdstore", fds=kept, preexec=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (32, 32)))
        self.assertEqual(server.wait(), 1)
        self.assertIn("Too many open files; raise LimitNOFILE=", server.err.text)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (soft, hard))
        self.launch("--fdstore", fds=self.kept())
        self.assertEqual(group("verify"), {"rings": "380"})


class Many(StoreTest):
    """What is kept has few names: all of them are in one environment variable."""

    TEXT = R + "vectors=2000\n"

    def test_ten_thousand_descriptors(self):
        server = self.launch("--fdstore")
        groups = [self.group("r", 1, others, vectors=2000) for others in range(5)]
        frames = groups[0]("settle 4")["frames"]
        kept = self.stop(server)
        self.assertLess(len(kept), 10)
        self.assertGreater(len([name for name, _ in kept if "pack" in name]), 1)
        server = self.launch("--fdstore", fds=kept)
        self.assertEqual(groups[0]("settle 4")["frames"], frames)
        self.assertGreater(support.fd_count(server.pid), 5 * 2001)
        self.group("r", 1, 5, vectors=2000)
        groups[0]("settle 5")

    def fill(self, server, limit):
        """Take the server's last descriptors by asking it, and then not saying what."""
        patience = support.Deadline()
        while support.fd_count(server.pid) < limit and not patience.expired():
            before = support.fd_count(server.pid)
            asking = socket.socket(socket.AF_UNIX)
            self.addCleanup(asking.close)
            asking.connect(self.path("r.ctl"))
            while support.fd_count(server.pid) == before and not patience.expired():
                pass
        self.assertEqual(support.fd_count(server.pid), limit)

    def test_when_there_are_none_left(self):
        self.TEXT = R
        server = self.launch("--fdstore", preexec=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (64, 64)))
        group = self.group("r", 20, 19)
        self.fill(server, 64)
        kept = self.stop(server)
        self.assertIn("left everything with the service manager", server.err.text)
        self.launch("--fdstore", fds=kept)
        group("settle 19")
        self.assertEqual(group("verify"), {"rings": "380"})

class Rest(StoreTest):
    """What cannot be used must not hold on to those who were connected."""

    def dropped(self, server, group):
        server.err.wait_for("clients have to connect again")
        group("closed 0 2")
        self.group("r", 1, 0)
        self.assertEqual(self.names(), ["ivshmem-memory-r"])

    def test_without_the_option(self):
        server = self.launch("--fdstore")
        group = self.group("r", 3, 2)
        self.dropped(self.launch(fds=self.stop(server)), group)

    def test_half_of_it(self):
        self.TEXT = R + "vectors=2000\n"
        server = self.launch("--fdstore")
        group = self.group("r", 2, 1, vectors=2000)
        more = [self.group("r", 1, 2 + i, vectors=2000) for i in range(3)]
        kept = self.stop(server)
        packs = [name for name, _ in kept if "pack" in name]
        self.assertGreater(len(packs), 1)
        self.manager.drop(packs[1])
        server = self.launch("--fdstore", fds=self.kept())
        server.err.wait_for("FileDescriptorStoreMax=.*clients have to connect again")
        group("closed 0 1")
        for client in more:
            client("closed 0 0")
        self.group("r", 1, 0, vectors=2000)
        self.assertEqual(self.names(), ["ivshmem-memory-r"])

    def test_of_the_version_before(self):
        """It left the document and each descriptor under a name of its own."""
        server = self.launch("--fdstore")
        group = self.group("r", 3, 2)
        self.stop(server)
        (document, *others) = empty_pack(self.manager.store["ivshmem-pack-0-of-1"])
        self.manager.drop("ivshmem-pack-0-of-1")
        self.manager.drop("ivshmem-memory-r")
        self.manager.store["ivshmem-document"] = document[1]
        for number, fd in others:
            self.manager.store["ivshmem-fd-%d" % number] = fd
        self.launch("--fdstore", fds=self.kept())
        self.assertEqual(group("verify"), {"rings": "6"})
        group("join 1")
        group("settle 3")
        self.assertEqual(self.names(), ["ivshmem-memory-r"])


class Closing(StoreTest):
    """A region that SIGHUP has removed lives as long as its clients, whoever serves them."""

    def setUp(self):
        super().setUp()
        self.shm = os.path.basename(self.dir)
        # A server that is to come back leaves it.
        self.addCleanup(pathlib.Path("/dev/shm", self.shm).unlink, missing_ok=True)
        self.TEXT = R + Q.replace("NAME", self.shm)
        self.running = self.launch("--fdstore")
        self.r = self.group("r", 2, 1)
        self.q = self.group("q", 2, 1)
        self.inode = self.q("memory 0")["inode"]
        self.reload(R)

    def reload(self, text):
        self.TEXT = text
        with open(self.path("server.conf"), "w", encoding="ascii") as out:
            out.write(text.replace("DIR", self.dir).replace("NAME", self.shm))
        self.running.signal(signal.SIGHUP)
        self.manager.wait_for("RELOADING=1")
        self.manager.wait_for("READY=1")

    def restart(self, server, number=signal.SIGTERM):
        self.running = super().restart(server, number)
        self.running.err.wait_for("region q: not in the configuration; it goes with its last")
        self.assertFalse(os.path.exists(self.path("q")))
        self.assertEqual(self.q("verify"), {"rings": "2"})

    def test_gone_with_its_last_client(self):
        self.restart(self.running)
        self.restart(self.running)
        self.q("leave 0 0")
        self.q("settle 0")
        self.running = super().restart(self.running)
        self.assertTrue(os.path.exists("/dev/shm/" + self.shm))
        self.q("leave 1 1")
        self.running.err.wait_for("region q: removed")
        self.assertEqual(self.r("verify"), {"rings": "2"})
        self.r("join 1")
        self.r("settle 2")
        self.assertFalse(os.path.exists("/dev/shm/" + self.shm))
        self.assertEqual(self.names(), ["ivshmem-memory-r"])

    def test_was_to_have_other_memory(self):
        self.reload(R + Q.replace("NAME", self.shm))
        self.reload(R + Q.replace("shm:NAME", "memfd"))
        self.running.err.wait_for("region q: its memory cannot change")
        self.reload(R)
        self.restart(self.running)

    def test_comes_back(self):
        self.restart(self.running)
        self.reload(R + Q.replace("NAME", self.shm))
        self.assertEqual(self.group("q", 1, 2)("memory 0")["inode"], self.inode)
        self.assertNotIn("its memory cannot change", self.running.err.text)

    def test_comes_back_at_a_restart(self):
        self.TEXT = R + Q.replace("NAME", self.shm)
        self.running = super().restart(self.running)
        self.assertEqual(self.group("q", 1, 2)("memory 0")["inode"], self.inode)
        self.assertEqual(self.q("verify"), {"rings": "2"})
