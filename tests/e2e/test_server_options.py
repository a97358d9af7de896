# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server, option by option."""
import grp
import os
import signal
import stat
import unittest

import fault
import support
from server_load import ConfigServer
from test_server_faults import ServerTest


class Options(ServerTest):
    def run_server(self, *argv):
        process = self.start(support.Process([support.program("server")] + list(argv)))
        status = process.wait()
        return status, process.out.text, process.err.text

    def test_help(self):
        for option in ("-h", "--help"):
            status, out, err = self.run_server(option)
            self.assertEqual((status, err), (0, ""))
            for word in ("-S, --socket=", "-l, --size=", "-n, --vectors=", "-M, --shm-name=",
                         "-m, --shm-dir=", "-p, --pid-file=", "-F, --foreground", "-v, --verbose",
                         "--ready-fd", "--queue-limit", "--stall-timeout", "--version"):
                self.assertIn(word, out)

    def test_version(self):
        status, out, err = self.run_server("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"^ivshmem-server [0-9]+\.[0-9.]+\n$")

    def test_wrong_command_lines(self):
        for argv, reason in ((["--nonsense"], "--nonsense"), (["left", "over"], "'left'"),
                             (["-n", "0"], "from 1 to 2048"), (["-n", "2049"], "from 1 to 2048"),
                             (["-n", "two"], "'two'"), (["-n", "1 "], "from 1"),
                             (["-M", ""], "-M"), (["-M", ".."], "-M"), (["-M", "x" * 300], "-M"),
                             (["-M", "a", "-m", "/tmp"], "exclude each other"),
                             (["-S", ""], "a path is missing"),
                             (["-S", "/tmp/" + "x" * 120], "107 at most"),
                             (["--queue-limit=0"], "--queue-limit"),
                             (["--stall-timeout=x"], "--stall-timeout"),
                             (["--ready-fd=99"], "descriptor 99 is not open"),
                             (["--first-id=65536"], "from 0 to 65535"),
                             (["--socket-mode=0999"], "octal"),
                             (["--socket-group=no-such-group"], "no group 'no-such-group'"),
                             (["--socket-owner=no-such-user"], "no user 'no-such-user'"),
                             (["-m", self.path("none")], "directory")):
            with self.subTest(argv):
                error = self.fails("-F", "-S", self.path("s"), *argv)
                self.assertIn(reason, error)
                self.assertEqual(os.listdir(self.dir), [])

    # R-SRV-16
    def test_vectors(self):
        server = self.server("-n", "2048")
        group = self.load(server, "--keep", vectors=2048)
        group("join 2")
        group("settle 1")
        self.assertEqual(group("verify"), {"rings": "4096"})

    def test_defaults(self):
        server = self.server()
        group = self.load(server, "--keep")
        group("join 3")
        group("settle 2")
        self.assertEqual(group("verify"), {"rings": "6"})
        self.assertEqual(int(group("memory 0")["size"]), 4 << 20)
        self.assertEqual(group("ids"), {"ids": "0,1,2"})

    def test_long_options(self):
        server = self.server("--size=1M", "--vectors=3", "--verbose", "--shm-name=/" +
                             os.path.basename(self.dir), memory=False)
        group = self.load(server, vectors=3)
        group("join 2")
        group("settle 1")
        inode = os.stat(os.path.join("/dev/shm", os.path.basename(self.dir))).st_ino
        self.assertEqual(group("memory 1"), {"size": str(1 << 20), "inode": str(inode)})

    # R-SRV-14, R-SRV-15
    def test_first_id(self):
        server = self.server("--first-id=65534")
        group = self.load(server)
        group("join 2")
        group("settle 1")
        self.assertEqual(group("ids"), {"ids": "65534,65535"})
        extra = self.load(server)
        extra("join 1")
        server.err.wait_for("refused: .*ids are in use")
        extra("closed 0 0")
        group("leave 0 0")
        group("settle 0")
        again = self.load(server)
        again("join 1")
        again("settle 1")
        self.assertEqual(again("ids"), {"ids": "65534"})

    def test_directory(self):
        directory = self.path("memory")
        os.mkdir(directory)
        server = self.server("-m", directory, "-l", "8M")
        group = self.load(server)
        group("join 1")
        group("settle 0")
        self.assertEqual(group("memory 0")["size"], str(8 << 20))
        self.assertEqual(os.listdir(directory), [])

    def test_more_than_there_is_room_for(self):
        if not os.statvfs("/dev/shm").f_blocks:
            raise unittest.SkipTest("/dev/shm has room without limit")
        server = self.server("-l", "64T")
        server.err.wait_for("no room for [0-9]+[KMGT]? of its memory.* killed")
        config = self.path("server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write("[region a]\nsize=64T\nsocket=%s\n" % self.path("a"))
        for server in (self.server("-l", "4096"), self.start(ConfigServer("--config", config))):
            self.assertEqual(server.stop(), 0)
            self.assertNotIn("no room for", server.err.text)

    def test_hugetlbfs(self):
        mounts = [line.split() for line in open("/proc/mounts", encoding="ascii")]
        where = [mount[1] for mount in mounts
                 if mount[2] == "hugetlbfs" and os.access(mount[1], os.W_OK)]
        if not where:
            raise unittest.SkipTest("no hugetlbfs is mounted that we may write to")
        page = os.statvfs(where[0]).f_bsize
        server = self.server("-m", where[0], "-l", "4096")
        group = self.load(server)
        group("join 1")
        group("settle 0")
        self.assertEqual(int(group("memory 0")["size"]), page)

    def test_socket_mode(self):
        old = os.umask(0o077)
        self.addCleanup(os.umask, old)
        server = self.server("--socket-mode=0666")
        self.assertEqual(stat.S_IMODE(os.stat(server.socket).st_mode), 0o666)

    def test_umask(self):
        old = os.umask(0o027)
        self.addCleanup(os.umask, old)
        server = self.server()
        self.assertEqual(stat.S_IMODE(os.stat(server.socket).st_mode), 0o750)

    # R-SRV-22
    def test_socket_owner_and_group(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can give files away")
        server = self.server("--socket-owner=nobody", "--socket-group=%d" %
                             grp.getgrnam("nogroup").gr_gid)
        st = os.stat(server.socket)
        self.assertEqual((st.st_uid, grp.getgrgid(st.st_gid).gr_name, stat.S_IMODE(st.st_mode)),
                         (65534, "nogroup", 0o660))

    # R-SRV-22
    def test_private_until_it_has_its_owner(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can give files away")
        self.addCleanup(os.umask, os.umask(0))
        control, path = fault.Control(self.dir), self.path("s")
        self.addCleanup(control.close)
        control.arm(fault.Fault("lchown", 1, fault.WAIT))
        server = self.start(support.Process(
            [support.program("server"), "-F", "-S", path, "-m", self.dir, "-l", "64K",
             "--socket-group=nogroup"], env=control.env))
        limit = support.Deadline()
        while not control.hits:
            self.assertFalse(limit.expired(), server.err.text)
        server.wait_stopped()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        server.signal(signal.SIGCONT)
        server.err.wait_for("region default: .*socket")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)

    # R-SRV-12
    def test_a_client_that_talks(self):
        server = self.server()
        group = self.load(server)
        group("join 2")
        group("settle 1")
        self.assertEqual(group("chatter 0 100"), {"sent": "100"})
        server.err.wait_for("client 0 .*sends data, which this protocol does not know")
        group("join 1")
        group("settle 2")
        group("chatter 0 8000")
        server.err.wait_for("client 0 .*disconnected: sent more than")
        group("closed 0 0")
        group("leave 0 0")
        group("settle 1")

    def test_log_lines_name_who_and_why(self):
        server = self.server("-n", "2")
        group = self.load(server, vectors=2)
        group("join 1")
        group("settle 0")
        group("leave 0 0")
        who = r"region default: client 0 \(pid %d\): " % group.pid
        server.err.wait_for(who + r"joined with 2 vectors \(user %d\)$" % os.getuid())
        server.err.wait_for(who + r"left: closed the connection$")

    def test_a_flood_does_not_fill_the_log(self):
        """8,000 visitors are at least that many events; each kind may have 1,000 lines, and few more."""
        server = self.server()
        flood = self.load(server, timeout=60)
        for _ in range(80):
            flood("churn 100")
        flood("join 1")
        flood("settle 0")
        self.assertLess(len(server.err.text.splitlines()), 4000)
