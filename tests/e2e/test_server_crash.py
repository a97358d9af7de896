# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server killed at any moment: memory and ids are found again."""
import fcntl
import os
import random
import signal
import subprocess
import time
import unittest
import unittest.mock

import spec_peer
import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest

# Kills of the random test; "soak" runs set it to hundreds and thousands.
KILLS = int(os.environ.get("IVSHMEM_TEST_KILLS", "300"))


class CrashTest(ServerTest):
    TEXT = "[region r]\nsize=1M\nsocket=DIR/r\n[client r/x]\nsocket=DIR/x\nid=1\n"

    OPTIONS = ()

    def config(self):
        path = self.path("server.conf")
        with open(path, "w", encoding="ascii") as out:
            out.write(self.TEXT.replace("DIR", self.dir))
        return path

    def start_server(self):
        return self.start(ConfigServer("--config", self.config(), *self.OPTIONS))

    def kill(self, server):
        server.signal(signal.SIGKILL)
        server.wait()

    def client(self, socket="r", *options):
        client = self.start(Load(self.path(socket), *options))
        client("join 1")
        return client

    def inode(self, client):
        return client("memory 0")["inode"]

    def group(self, size):
        clients = [self.client("r", "--keep") for _ in range(size)]
        for client in clients:
            client("settle %d" % (size - 1))
        return clients


class Crash(CrashTest):
    # R-SRV-21, R-SRV-25
    def test_same_ids_and_same_memory_in_another_order(self):
        server = self.start_server()
        clients = self.group(5)
        ids = [client("ids")["ids"] for client in clients]
        inode = self.inode(clients[0])
        self.kill(server)
        server = self.start_server()
        for client in reversed(clients):
            client("rejoin 0 0")
        for client, number in zip(clients, ids):
            client("settle 4")
            self.assertEqual(client("ids")["ids"], number)
            self.assertEqual(self.inode(client), inode)
        # Still sealed, and still of use to newcomers.
        extra = self.client()
        extra("settle 5")
        answer = extra("tamper 0")
        self.assertEqual((answer["shrink"], answer["map"]), ("no", "yes"))

    # R-SRV-25
    def test_newcomers_do_not_get_the_ids_of_those_who_will_come_back(self):
        server = self.start_server()
        clients = self.group(3)
        ids = [client("ids")["ids"] for client in clients]
        self.kill(server)
        clients.pop(0).stop()           # it will not come back
        server = self.start_server()
        server.err.wait_for("2 clients of a server that crashed may come back")
        extra = self.client()
        extra("settle 0")
        self.assertNotIn(extra("ids")["ids"], ids[1:])
        for client, number in zip(clients, ids[1:]):
            client("rejoin 0 0")
        for client, number in zip(clients, ids[1:]):
            client("settle 2")
            self.assertEqual(client("ids")["ids"], number)

    def test_fixed_ids_come_first(self):
        server = self.start_server()
        client, fixed = self.client(), self.client("x")
        client("settle 1")
        fixed("settle 1")
        self.assertEqual((client("ids")["ids"], fixed("ids")["ids"]), ("0", "1"))
        self.kill(server)
        self.start_server()
        fixed("rejoin 0 0")
        client("rejoin 0 0")
        client("settle 1")
        fixed("settle 1")
        self.assertEqual((client("ids")["ids"], fixed("ids")["ids"]), ("0", "1"))

    def test_same_ids_without_proc(self):
        """Nor with one that hides the processes of others."""
        wrapper = self.path("server")
        with open(wrapper, "w", encoding="ascii") as out:
            out.write("#!/bin/sh\nexec unshare --mount sh -c 'umount -l /proc && exec \"$@\"' sh "
                      "%s \"$@\"\n" % support.program("server"))
        os.chmod(wrapper, 0o755)
        if subprocess.run([wrapper, "--version"], capture_output=True, check=False).returncode:
            raise unittest.SkipTest("no server starts without /proc: run as root, without sanitizers")
        server = self.start_server()
        clients = self.group(3)
        self.kill(server)
        clients.pop(0).stop()
        with unittest.mock.patch.dict(os.environ, IVSHMEM_SERVER=wrapper):
            server = self.start_server()
        server.err.wait_for("2 clients of a server that crashed may come back")
        for client in reversed(clients):
            client("rejoin 0 0")
        for client, number in zip(clients, "23"):
            client("settle 1")
            self.assertEqual(client("ids")["ids"], number)

    def test_orderly_stop_leaves_nothing(self):
        server = self.start_server()
        self.group(2)
        self.assertIn("r.state", os.listdir(self.dir))
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_damaged_or_foreign_state_files_are_ignored(self):
        for text in (b"", b"nonsense", b"ivshmem-server state 1\nclient 70000 1 1\nclient\nmemory 1",
                     b"\xff" * 4096, b"ivshmem-server state 2\nclient 5 1 1\n"):
            with open(self.path("r.state"), "wb") as out:
                out.write(text)
            server = self.start_server()
            client = self.client()
            client("settle 0")
            self.assertEqual(client("ids")["ids"], "0")
            client.stop()
            self.assertEqual(server.stop(), 0)
        os.symlink(self.path("elsewhere"), self.path("r.state"))
        server = self.start_server()
        self.client()("settle 0")
        self.assertFalse(os.path.exists(self.path("elsewhere")))

    def idle_client(self):
        """One that has not connected yet, and the clock tick at which it surely runs."""
        client = self.start(Load(self.path("r")))
        client("ids")
        ticks = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 10**9
        return client, ticks

    def id_with_state(self, client, *lines):
        with open(self.path("r.state"), "w", encoding="ascii") as out:
            out.write("ivshmem-server state 1\n" + "".join(lines))
        server = self.start_server()
        client("join 1")
        client("settle 0")
        number = client("ids")["ids"]
        server.stop()
        return number

    def test_only_complete_lines_of_the_state_count(self):
        for lines, number in (
                (("client 7 %d %d\n",), "7"),
                (("client 7 %d %d\n", "left 7\n"), "0"),
                (("client 7 %d %d\n", "left 7"), "7"),         # the server died on the way
                (("client 8 %d %d\n", "left 8\n", "client 7 %d %d\n"), "7"),
                (("client 7 %d %d",), "0")):
            client, ticks = self.idle_client()
            self.assertEqual(self.id_with_state(client, *(
                line % (client.pid, ticks) if "%" in line else line for line in lines)), number)

    def test_another_process_with_the_same_pid_gets_another_id(self):
        client, ticks = self.idle_client()
        with open("/proc/%d/stat" % client.pid, encoding="ascii") as file:
            born = int(file.read().rsplit(")", 1)[1].split()[19])
        self.assertLessEqual(born, ticks)
        self.assertEqual(self.id_with_state(client, "client 7 %d %d\n" % (client.pid, born - 1)),
                         "0")

    def test_state_file_that_somebody_removed_comes_back(self):
        server = self.start_server()
        first = self.client("r", "--keep")
        os.unlink(self.path("r.state"))
        second = self.client("r", "--keep")
        for client in (first, second):
            client("settle 1")
        self.kill(server)
        self.start_server()
        for client in (second, first):
            client("rejoin 0 0")
        for client, number in ((first, "0"), (second, "2")):
            client("settle 1")
            self.assertEqual(client("ids")["ids"], number)

    def test_another_size_is_not_mistaken_for_the_same(self):
        server = self.start_server()
        clients = self.group(2)
        self.kill(server)
        self.TEXT = self.TEXT.replace("1M", "2M")
        server = self.start_server()
        server.err.wait_for("will find other memory: .*another size")
        clients[0]("rejoin 0 0")
        clients[0]("settle 0")
        self.assertEqual(clients[0]("memory 0")["size"], str(2 << 20))


class FixedAndCommon(CrashTest):
    def test_one_process_with_both(self):
        """Who asks for a fixed id does not use up what is remembered of the other connection."""
        for _ in range(2):
            server = self.start_server()
            burnt = self.client()               # not 0: that is also a newcomer's id
            common = spec_peer.Client.connect(self.path("r"))
            fixed = spec_peer.Client.connect(self.path("x"))
            for peer in (common, fixed):
                self.addCleanup(peer.close)
                peer.ready()
            self.assertEqual((common.id, fixed.id), (2, 1))
            burnt.stop()
            common.until(lambda peer: 0 not in peer.peers)
            self.kill(server)
            server = self.start_server()
            for name, number in (("x", 1), ("r", 2)):
                peer = spec_peer.Client.connect(self.path(name))
                self.addCleanup(peer.close)
                peer.ready()
                self.assertEqual(peer.id, number)
            server.stop()


class FailedStart(CrashTest):
    """What a crashed server left is for the next start that succeeds."""

    def fails_to_start(self):
        error = self.fails("-F", "--config", self.config(), "-p", self.path("none/pid"))
        self.assertIn("none/pid", error)

    def comes_back(self):
        server = self.start_server()
        clients = self.group(2)
        inode = self.inode(clients[0])
        self.kill(server)
        self.fails_to_start()
        self.assertTrue(os.path.exists(self.path("r.state")))
        server = self.start_server()
        for client in reversed(clients):
            client("rejoin 0 0")
        for client, number in zip(clients, "02"):
            client("settle 1")
            self.assertEqual((client("ids")["ids"], self.inode(client)), (number, inode))
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    # R-SRV-21, R-SRV-25
    def test_sealed_memory(self):
        self.comes_back()

    # R-SRV-21, R-SRV-25
    def test_memory_with_a_name(self):
        self.TEXT = self.TEXT.replace("[client", "memory=shm:%s\n[client"
                                      % os.path.basename(self.dir))
        self.comes_back()
        self.assertFalse(os.path.exists("/dev/shm/" + os.path.basename(self.dir)))

    def test_what_it_made_itself_goes(self):
        name = os.path.basename(self.dir)
        self.TEXT = self.TEXT.replace("[client", "memory=shm:%s\n[client" % name)
        self.fails_to_start()
        self.assertFalse(os.path.exists("/dev/shm/" + name))
        self.assertEqual(os.listdir(self.dir), ["server.conf"])


class AnotherUser(CrashTest):
    OPTIONS = ("--user=nobody",)

    # R-SRV-25
    def test_whom_the_server_becomes(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to give its privileges up")
        os.chown(self.dir, 65534, 65534)
        server = self.start_server()
        clients = self.group(2)
        inode = self.inode(clients[0])
        self.assertEqual(os.stat(self.path("r.state")).st_uid, 65534)
        self.kill(server)
        server = self.start_server()
        server.err.wait_for("2 clients of a server that crashed may come back")
        for client in reversed(clients):
            client("rejoin 0 0")
        for client, number in zip(clients, "02"):
            client("settle 1")
            self.assertEqual((client("ids")["ids"], self.inode(client)), (number, inode))


class NamedMemory(CrashTest):
    def test_removed_while_the_next_server_opens_it(self):
        """A server that ends locks the object, and removes it: the next one needs a new one."""
        path = "/dev/shm/" + os.path.basename(self.dir)
        self.TEXT = "[region r]\nsize=1M\nsocket=DIR/r\nmemory=shm:%s\n" % os.path.basename(path)
        with open(path, "xb") as former:
            self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
            former.truncate(1 << 20)
            fcntl.flock(former, fcntl.LOCK_EX)
            process = self.start(support.Process(
                [support.program("server"), "-F", "--config", self.config()]))
            limit = support.Deadline()
            while not self.has_open(process, path):
                self.assertFalse(limit.expired(), process.err.text)
            os.unlink(path)
        process.err.wait_for("region r: 1M in POSIX")
        client = self.client()
        client("settle 0")
        self.assertEqual(int(self.inode(client)), os.stat(path).st_ino)

    def has_open(self, process, path):
        folder = "/proc/%d/fd" % process.pid
        try:
            return path in [os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder)]
        except FileNotFoundError:       # closed meanwhile
            return False


class NamelessFile(CrashTest):
    def start_server(self, size="1M"):
        return self.start(ConfigServer("-S", self.path("r"), "-m", self.dir, "-l", size,
                                       "-p", self.path("pid")))

    def test_memory_of_m_is_found_in_a_client(self):
        server = self.start_server()
        clients = self.group(2)
        inode = self.inode(clients[0])
        self.kill(server)
        self.start_server()
        for client in clients:
            client("rejoin 0 0")
        for client in clients:
            client("settle 1")
            self.assertEqual(self.inode(client), inode)
        extra = self.client()
        extra("settle 2")
        self.assertEqual(self.inode(extra), inode)

    def test_with_another_size_it_is_not(self):
        server = self.start_server()
        client = self.client("r", "--keep")
        client("settle 0")
        inode = self.inode(client)
        self.kill(server)
        server = self.start_server("2M")
        server.err.wait_for("will find other memory: .*another size")
        client("rejoin 0 0")
        client("settle 0")
        self.assertNotEqual(self.inode(client), inode)


class RandomKills(CrashTest):
    def test_under_joins_and_leaves(self):
        """Whoever comes back has its id and the memory, whenever the server was killed."""
        seed = random.randrange(1 << 32)
        choose = random.Random(seed)
        server = self.start_server()
        clients = self.group(6)
        ids = [client("ids")["ids"] for client in clients]
        inode = self.inode(clients[0])
        crowd = self.start(Load(self.path("r")))
        with self.subTest(seed=seed):
            for _ in range(KILLS):
                self.kill(server)
                server = self.start_server()
                # The next one may come while only some are back, and others join and leave.
                back = choose.sample(clients, choose.randrange(7))
                crowd.write("churn %d\n" % choose.randrange(1, 20))
                for client in back:
                    client.write("rejoin 0 0\n")
                waiting = [client for client in clients if client not in back]
                again = choose.randrange(2)
                if again:
                    self.kill(server)
                    waiting = clients
                for process in back + [crowd]:
                    process.out.wait_for(r"^(ok|error).*\n")
                if again:
                    server = self.start_server()
                for client in waiting:
                    client("rejoin 0 0")
                for client, number in zip(clients, ids):
                    client("settle 5")
                    self.assertEqual(client("ids")["ids"], number)
                    self.assertEqual(self.inode(client), inode)


class Soak(CrashTest):
    def test_constant_descriptors_and_memory(self):
        """Many joins and leaves: IVSHMEM_TEST_JOINS of them."""
        joins = int(os.environ.get("IVSHMEM_TEST_JOINS", "100000"))
        server = self.start_server()
        clients = self.group(3)
        crowd = self.start(Load(self.path("r")))
        descriptors = support.fd_count(server.pid)

        def memory():
            with open("/proc/%d/status" % server.pid, encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

        first = None
        for _ in range(joins // 100):
            crowd("join 100")
            crowd("settle 102")
            crowd.stop()
            clients[0]("settle 2")
            crowd = self.start(Load(self.path("r")))
            first = first or memory()
        deadline = support.Deadline()
        while support.fd_count(server.pid) != descriptors:
            self.assertFalse(deadline.expired(), support.fd_count(server.pid))
            support.select.select([], [], [], 0.01)
        with open("/proc/%d/maps" % server.pid, encoding="utf-8") as maps:
            if "libasan" not in maps.read():    # it keeps what was freed for a while
                self.assertLess(memory(), first + 1024)
        for client in clients:
            client("settle 2")


if __name__ == "__main__":
    unittest.main()
