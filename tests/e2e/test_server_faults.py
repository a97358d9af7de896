# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server against the faults of the incumbent's (docs/tools/ivshmem-server.rst): S1 to S7,
S11, S15 and S16, one class for each."""
import os
import resource
import signal
import stat
import subprocess

import fault
import support
from server_load import Load

MIB = 1 << 20
GIB = 1 << 30


def limit_descriptors(number):
    def preexec():
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    return preexec


class ServerTest(support.TestCase):
    def load(self, server, *options, **kwargs):
        return self.start(Load(server.socket, *options, **kwargs))

    def path(self, name):
        return os.path.join(self.dir, name)

    def shm_file(self, server):
        return os.path.join("/dev/shm", server.shm_name)

    def fails(self, *argv):
        """Run the server, which must end with status 1; returns what it said on stderr."""
        process = self.start(support.Process([support.program("server")] + list(argv)))
        self.assertEqual(process.wait(), 1, process.err.text)
        self.assertEqual(process.out.text, "")
        return process.err.text


class ConnectAndClose(ServerTest):
    """S1"""

    # R-SRV-9
    def test_thousands_of_short_connections(self):
        server = self.server()
        group = self.load(server, "--keep")
        group("join 3")
        group("settle 2")
        before = support.fd_count(server.pid)
        self.load(server)("churn 3000")
        group("settle 2")
        self.assertEqual(group("verify"), {"rings": "6"})
        group("join 1")
        group("settle 3")
        # The fourth client has a socket and an eventfd; nothing else may be left.
        self.assertEqual(support.fd_count(server.pid), before + 2)
        self.assertIsNone(server.status)


class OutOfDescriptors(ServerTest):
    """S2: only the newcomer is turned away, and only as long as it lasts."""

    # R-SRV-10, R-SRV-11
    def test_newcomers_are_refused_and_served_again_later(self):
        server = self.server("-n", "4", preexec=limit_descriptors(256))
        server.err.wait_for("allow for 4[0-9] clients")
        group = self.load(server, "--keep", vectors=4)
        group("join 20")
        group("settle 19")
        crowd = self.load(server, vectors=4)
        crowd("join 60")
        server.err.wait_for("refused: the server is out of descriptors")
        crowd("closed 59 59")
        crowd.stop()
        group("settle 19")
        self.assertEqual(group("verify"), {"rings": str(20 * 19 * 4)})
        group("join 10")
        group("settle 29")
        self.assertEqual(group("verify"), {"rings": str(30 * 29 * 4)})

    def test_limit_lowered_while_running(self):
        server = self.server()
        group = self.load(server)
        group("join 4")
        group("settle 3")
        hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (8, hard))
        newcomer = self.load(server)
        newcomer("join 1")
        server.err.wait_for("newcomers have to wait")
        group("settle 3")
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        newcomer("settle 4")
        group("settle 4")


class ManyDescriptors(ServerTest):
    """S3: descriptor numbers past 1024."""

    def test_sixty_clients_with_64_vectors(self):
        server = self.server("-n", "64")
        group = self.load(server, vectors=64, timeout=120)
        group("join 60")
        group("settle 59")
        self.assertGreater(support.fd_count(server.pid), 60 * 64)
        group("leave 0 29")
        group("settle 29")

    def test_six_hundred_clients(self):
        server = self.server()
        group = self.load(server, timeout=120)
        group("join 600")
        group("settle 599")
        self.assertGreater(support.fd_count(server.pid), 1024)


class IdleClients(ServerTest):
    """Who says nothing and is told nothing costs nothing, however many they are."""
    CLIENTS, REQUESTS = 2000, 200

    def cost(self, server):
        """CPU time of the server for one request on its control socket."""
        def spent():
            with open("/proc/%d/schedstat" % server.pid, encoding="ascii") as file:
                return int(file.read().split()[0])
        before = spent()
        for _ in range(self.REQUESTS):
            fault.ask(server.socket + ".ctl", "metrics")
        return (spent() - before) / self.REQUESTS

    def test_thousands_of_them(self):
        if os.sysconf("SC_OPEN_MAX") < 2 * self.CLIENTS + 100:
            self.skipTest("needs %d descriptors: ulimit -n" % (2 * self.CLIENTS + 100))
        if os.geteuid() != 0:
            self.skipTest("needs root, for descriptors in flight without limit")
        server = self.server()
        alone = self.cost(server)
        self.load(server, timeout=60)("mute %d" % self.CLIENTS)
        limit = support.Deadline(60)
        while fault.ask(server.socket + ".ctl", "status")["counters"]["joins"] < self.CLIENTS:
            self.assertFalse(limit.expired(), "they do not get in")
        crowded = min(self.cost(server) for _ in range(3))
        self.assertLess(crowded, 2 * alone)
        # An answer that no socket holds at once comes to its end as well.
        status = fault.ask(server.socket + ".ctl", "status")
        self.assertEqual(len(status["regions"][0]["clients"]), self.CLIENTS)


class SlowClient(ServerTest):
    """S4: who does not read misses nothing, and holds up nobody."""

    # R-SRV-7, R-SRV-9
    def test_stopped_while_others_join_and_leave(self):
        server = self.server("-n", "2")
        group = self.load(server, vectors=2, timeout=120)
        group("join 2")
        group("settle 1")
        group("pause 0 0")
        group("join 400")
        group("settle 401")
        group("leave 2 101")
        group("settle 301")
        group("resume 0 0")
        group("settle 301")

    def test_silent_from_the_start(self):
        server = self.server()
        group = self.load(server, timeout=120)
        group("mute 3")
        group("join 600")
        group("settle 602")
        group("resume 0 2")
        group("settle 602")

    # R-SRV-6
    def test_ids_reused_behind_its_back(self):
        server = self.server()
        group = self.load(server, "--keep", timeout=120)
        group("join 2")
        group("settle 1")
        group("pause 0 0")
        for _ in range(5):
            crowd = self.load(server, timeout=120)
            crowd("join 300")
            crowd("settle 301")
            crowd.stop()
        group("join 4")
        group("settle 5")
        group("resume 0 0")
        # On its way it knows five for a moment; what is lost stays lost.
        limit = support.Deadline()
        while group("settle 5") and group.ask("verify") != "ok rings=30":
            self.assertFalse(limit.expired(), "a ring got lost, or came out elsewhere")


class LargeRegions(ServerTest):
    """S5"""

    def test_sizes_in_64_bits(self):
        for text, size in (("2G", 2 * GIB), ("4G", 4 * GIB), ("8G", 8 * GIB), ("1T", 1024 * GIB),
                           ("8589934592", 8 * GIB), ("64m", 64 * MIB), ("4096", 4096)):
            with self.subTest(text):
                server = self.server("-l", text)
                group = self.load(server)
                group("join 1")
                group("settle 0")
                self.assertEqual(int(group("memory 0")["size"]), size)
                group.stop()
                self.assertEqual(server.stop(), 0)

    # R-SRV-17
    def test_wrong_sizes(self):
        for text, reason in (("5G", "next one is 8G"), ("3M", "next one is 4M"),
                             ("4X", "'X', which is no unit"), ("", "not a size"),
                             ("-4M", "not a size"), ("4MB", "'MB', which is no unit"),
                             ("0x1000", "no unit"), ("1024", "too small"),
                             ("99999999999999999999", "not a size"), ("65536P", "64 bits"),
                             ("0", "too small")):
            with self.subTest(text):
                error = self.fails("-F", "-S", self.path("s"), "-l", text)
                self.assertIn("-l", error)
                self.assertIn(reason, error)
                self.assertFalse(os.path.exists(self.path("s")))


class StaleSocket(ServerTest):
    """S6"""

    # R-SRV-19
    def test_socket_of_a_killed_server_is_replaced(self):
        first = self.server()
        first.signal(signal.SIGKILL)
        self.assertEqual(first.wait(), -signal.SIGKILL)
        self.assertTrue(os.path.exists(first.socket))
        second = self.server(socket_path=first.socket)
        second.err.wait_for("replaced the socket .*, which a dead server left")
        group = self.load(second)
        group("join 2")
        group("settle 1")

    # R-SRV-19
    def test_other_things_in_the_way_are_left_alone(self):
        file, link = self.path("file"), self.path("link")
        with open(file, "w", encoding="ascii") as out:
            out.write("precious")
        os.symlink(self.path("elsewhere"), link)
        for path in (file, link, self.dir):
            error = self.fails("-F", "-S", path)
            self.assertIn("exists and is not a socket", error)
            self.assertIn(path, error)
        with open(file, encoding="ascii") as data:
            self.assertEqual(data.read(), "precious")
        self.assertTrue(os.path.islink(link))

    def test_no_directory(self):
        error = self.fails("-F", "-S", self.path("none/socket"))
        self.assertIn("No such file or directory", error)


class CleanUp(ServerTest):
    """S7"""

    # R-SRV-20
    def test_orderly_stop_removes_everything(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            pid_file = self.path("pid")
            server = self.server("-p", pid_file)
            group = self.load(server)
            group("join 2")
            group("settle 1")
            with open(pid_file, encoding="ascii") as data:
                self.assertEqual(data.read(), "%d\n" % server.pid)
            self.assertTrue(os.path.exists(self.shm_file(server)))
            server.signal(number)
            self.assertEqual(server.wait(), 0)
            for path in (pid_file, server.socket, self.shm_file(server)):
                self.assertFalse(os.path.exists(path), path)
            group("closed 0 1")

    # R-SRV-21
    def test_after_a_crash_the_next_one_finds_and_removes_it(self):
        first = self.server()
        path = self.shm_file(first)
        with open(path, "r+b") as memory:
            memory.write(b"precious")
        first.signal(signal.SIGKILL)
        first.wait()
        second = self.server("-M", first.shm_name, socket_path=first.socket)
        second.err.wait_for("found with its contents")
        with open(path, "rb") as memory:
            self.assertEqual(memory.read(8), b"precious")
        self.assertEqual(second.stop(), 0)
        self.assertFalse(os.path.exists(path))


class Daemon(ServerTest):
    """S11"""

    def daemon(self, *options):
        """Start in the background; returns status and stderr of the command."""
        argv = [support.program("server"), "-S", self.path("s"), "-p", self.path("pid")]
        if "-m" not in options:
            argv += ["-m", self.dir]
        process = self.start(support.Process(argv + list(options)))
        return process.wait(), process.err.text

    def pid(self):
        with open(self.path("pid"), encoding="ascii") as data:
            return int(data.read())

    def test_start_and_stop(self):
        status, error = self.daemon()
        self.assertEqual(status, 0, error)
        pid = self.pid()
        watch = os.pidfd_open(pid)
        self.addCleanup(os.close, watch)
        group = self.start(Load(self.path("s")))
        group("join 2")
        group("settle 1")
        self.assertEqual(os.readlink("/proc/%d/cwd" % pid), "/")
        self.assertEqual({os.readlink("/proc/%d/fd/%d" % (pid, fd)) for fd in range(3)},
                         {"/dev/null"})
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        os.kill(pid, signal.SIGTERM)
        self.assertTrue(support.select.select([watch], [], [], 20 * support.SCALE)[0])
        self.assertEqual(os.listdir(self.dir), [])

    def test_failure_shows_in_the_status(self):
        for options in (["-l", "3M"], ["-S", self.path("none/s")], ["-m", self.path("none")],
                        ["-p", self.path("none/pid")], ["-M", "a/b"]):
            with self.subTest(options):
                status, error = self.daemon(*options)
                self.assertEqual(status, 1)
                self.assertRegex(error, "^ivshmem-server: .+\n$")
                self.assertEqual(os.listdir(self.dir), [])

    def test_pid_file_of_a_running_server(self):
        status, error = self.daemon()
        self.assertEqual(status, 0, error)
        pid = self.pid()
        self.addCleanup(os.kill, pid, signal.SIGTERM)
        status, error = self.daemon("-S", self.path("other"))
        self.assertEqual(status, 1)
        self.assertIn("another server that is running (pid %d)" % pid, error)
        self.assertEqual(self.pid(), pid)
        self.assertFalse(os.path.exists(self.path("other")))

    def test_stale_pid_file(self):
        with open(self.path("pid"), "w", encoding="ascii") as out:
            out.write("1\n")
        status, error = self.daemon()
        self.assertEqual(status, 0, error)
        self.assertNotEqual(self.pid(), 1)
        os.kill(self.pid(), signal.SIGTERM)

    def test_log_goes_to_syslog(self):
        """A /dev of our own, in a mount namespace, so that /dev/log is ours."""
        dev = self.path("dev")
        os.mkdir(dev)
        os.mkdir(dev + "/shm")
        for name in ("null", "urandom"):
            open(os.path.join(dev, name), "w", encoding="ascii").close()
        log = support.socket.socket(support.socket.AF_UNIX, support.socket.SOCK_DGRAM)
        self.addCleanup(log.close)
        log.bind(dev + "/log")
        script = ("set -e; for n in null urandom shm; do mount --bind /dev/$n $1/$n; done; "
                  "mount --rbind $1 /dev; shift; exec \"$@\"")
        run = ["unshare", "--mount", "sh", "-c", script, "sh", dev]
        if subprocess.run(run + ["true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode:
            self.skipTest("may not mount: run as root")
        process = self.start(support.Process(run + [
            support.program("server"), "-S", self.path("s"), "-p", self.path("pid"),
            "-m", self.dir]))
        self.assertEqual(process.wait(), 0, process.err.text)
        pid = self.pid()
        self.addCleanup(os.kill, pid, signal.SIGTERM)
        group = self.start(Load(self.path("s")))
        group("join 1")
        group("settle 0")
        group("leave 0 0")
        wanted = [b"region default: 4M in", b"client 0 (pid %d): joined with 1 vector" % group.pid,
                  b"client 0 (pid %d): left" % group.pid]
        log.settimeout(20 * support.SCALE)
        for text in wanted:
            line = b""
            while text not in line:         # other lines may stand between
                line = log.recv(4096)
                self.assertIn(b"ivshmem-server[%d]" % pid, line)


class InFlightDescriptors(ServerTest):
    """S14: what clients that do not read hold is everybody's, without privileges."""

    def unprivileged_server(self, limit, *options):
        if os.geteuid() != 0:
            self.skipTest("needs root, to give up its privileges")
        os.chown(self.dir, 65534, 65534)

        def preexec():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return self.server("--socket-mode=0666", *options, preexec=preexec)

    def test_forty_clients_that_do_not_read(self):
        server = self.unprivileged_server(1024)
        quiet = self.load(server)
        quiet("mute 40")
        group = self.load(server, timeout=60)
        group("join 300")
        group("settle 339")
        quiet("resume 0 39")
        quiet("settle 339")

    def test_too_many_of_them_make_others_wait_but_lose_nothing(self):
        server = self.unprivileged_server(256)
        quiet = self.load(server)
        quiet("mute 40")
        group = self.load(server, timeout=60)
        group("join 40")
        server.err.wait_for("cannot be told at the moment: Too many references")
        limit = support.Deadline()
        states = []
        while "waiting for the system" not in states:   # between one try and the next
            self.assertFalse(limit.expired(), states)
            status = fault.ask(server.socket + ".ctl", "status")
            states = [client["state"] for client in status["regions"][0]["clients"]]
        self.assertGreater(status["counters"]["waits"], 0)
        quiet("resume 0 39")
        group("settle 79")
        quiet("settle 79")

    def test_the_end_of_those_who_do_not_read_ends_the_wait(self):
        server = self.unprivileged_server(256)
        quiet = self.load(server)
        quiet("mute 40")
        group = self.load(server, timeout=60)
        group("join 40")
        server.err.wait_for("cannot be told at the moment: Too many references")
        quiet.signal(signal.SIGKILL)
        group("settle 39")


class SecondServer(ServerTest):
    """S15"""

    def test_same_paths(self):
        first = self.server()
        group = self.load(first)
        group("join 2")
        frames = group("settle 1")["frames"]
        inode = os.stat(self.shm_file(first)).st_ino
        error = self.fails("-F", "-S", first.socket, "-M", first.shm_name)
        self.assertIn("another server is running on " + first.socket, error)
        self.assertEqual(os.stat(self.shm_file(first)).st_ino, inode)
        self.assertTrue(stat.S_ISSOCK(os.stat(first.socket).st_mode))
        # The attempt was not even noticed inside.
        self.assertEqual(group("settle 1")["frames"], frames)
        group("join 1")
        group("settle 2")

    def test_many_at_once(self):
        """Over the socket of a dead server, where they might all think themselves alone."""
        dead = self.server()
        dead.signal(signal.SIGKILL)
        dead.wait()
        argv = [support.program("server"), "-F", "-S", dead.socket, "-m", self.dir]
        rivals = [self.start(support.Process(argv)) for _ in range(8)]
        deadline = support.Deadline()
        while sum(rival.status is None for rival in rivals) > 1:
            self.assertFalse(deadline.expired())
            support.select.select([], [], [], 0.01)
        winner = [rival for rival in rivals if rival.status is None]
        self.assertEqual(len(winner), 1)
        for rival in rivals:
            if rival not in winner:
                self.assertEqual(rival.wait(), 1)
                self.assertIn("another server is running", rival.err.text)
        winner[0].err.wait_for("region default")
        group = self.start(Load(dead.socket))
        group("join 1")
        group("settle 0")


class NeverReads(ServerTest):
    """S16"""

    # R-SRV-8
    def test_queue_limit(self):
        server = self.server("--queue-limit=100")
        group = self.load(server)
        group("mute 2")
        group("join 400")
        server.err.wait_for("client 0 .*disconnected: does not read: 10[1-9]|1[1-9][0-9] messages")
        group("closed 0 1")
        group.stop()

    # R-SRV-9
    def test_the_others_do_not_notice(self):
        server = self.server("--queue-limit=50")
        quiet = self.load(server)
        quiet("mute 1")
        group = self.load(server, "--keep")
        group("join 8")
        group("settle 8")
        crowd = self.load(server)
        for size in range(10, 310, 10):
            crowd("join 10")
            crowd("settle %d" % (8 + size))
        crowd("join 30")
        server.err.wait_for("client 0 .*disconnected: does not read")
        quiet("closed 0 0")
        crowd("settle 337")
        group("settle 337")
        # Not all at once: departures count towards the limit, too.
        crowd("leave 0 164")
        group("settle 172")
        crowd.stop()
        group("settle 7")
        self.assertEqual(group("verify"), {"rings": "56"})

    def test_stall_timeout(self):
        server = self.server("--stall-timeout=3")
        group = self.load(server)
        group("mute 1")
        group("join 400")
        group("settle 400")
        server.err.wait_for("client 0 .*has not read for 3 s")
        group("closed 0 0")
        group("leave 0 0")
        group("settle 399")

    def test_a_reader_is_not_taken_for_stalled(self):
        server = self.server("--stall-timeout=8")
        reader = self.load(server)
        reader("join 1")
        reader("settle 0")
        quiet = self.load(server)
        quiet("mute 1")
        reader("join 400")
        reader("settle 401")                            # well within that time
        server.err.wait_for("has not read for 8 s")
        reader("settle 400")
