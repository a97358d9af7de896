# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server under a service manager: a small one of our own that speaks systemd's protocols."""
import glob
import os
import re
import shutil
import signal
import socket
import stat
import sys
import threading
import unittest
import unittest.mock

import support
from server_load import Load
from test_server_faults import ServerTest

# Moves the descriptors it was given to 3, 4, ... as the manager does, and becomes the server.
LAUNCHER = """
import fcntl, os, sys
count = int(sys.argv[1])
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 3 + count) for fd in sys.argv[2:2 + count]]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number, inheritable=True)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Manager:
    """Collects notifications, and keeps descriptors by name."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.lines = []
        self.store = {}
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def _receive(self):
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 1)
            except OSError:
                return
            text = data.decode().splitlines()
            if text == ["END"]:
                return
            name = dict(line.split("=", 1) for line in text if "=" in line).get("FDNAME")
            with self.changed:
                if "FDSTORE=1" in text:
                    self.keep(name, fds[0])
                elif "FDSTOREREMOVE=1" in text:
                    self.drop(name)
                else:
                    self.lines += text
                self.changed.notify_all()

    def keep(self, name, fd):
        """A file that is kept already stays so, under its old name alone."""
        status = os.fstat(fd)
        for kept in self.store.values():
            if stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.fstat(kept)):
                os.close(fd)
                return
        self.drop(name)
        self.store[name] = fd

    def drop(self, name):
        if name in self.store:
            os.close(self.store.pop(name))

    def wait_for(self, pattern):
        limit = support.Deadline()
        with self.changed:
            while True:
                for number, line in enumerate(self.lines):
                    if re.search(pattern, line):
                        return self.lines.pop(number)
                if not self.changed.wait(limit.left()) and limit.expired():
                    raise support.TimeoutExpired("no %r in %s" % (pattern, self.lines))

    def flush(self):
        """Wait until everything that was sent so far has been read."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"FLUSHED=1", self.path)
        self.wait_for("FLUSHED=1")

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"END", self.path)
        self.thread.join()
        self.socket.close()
        for name in list(self.store):
            self.drop(name)


class ManagedTest(ServerTest):
    TEXT = "[region r]\nsize=1M\nsocket=DIR/r\n[client r/x]\nsocket=DIR/x\nid=5\n"

    def setUp(self):
        super().setUp()
        self.manager = Manager(self.path("notify"))
        self.addCleanup(self.manager.close)

    def spawn(self, *options, fds=(), watchdog=None, preexec=None):
        """fds: (name, descriptor) pairs, passed as the manager passes them."""
        config = self.path("server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(self.TEXT.replace("DIR", self.dir))
        env = dict(os.environ, NOTIFY_SOCKET=self.manager.path, LISTEN_FDS=str(len(fds)),
                   LISTEN_FDNAMES=":".join(name for name, _ in fds))
        if watchdog:
            env["WATCHDOG_USEC"] = str(watchdog)
        numbers = [fd for _, fd in fds]
        return self.start(support.Process(
            [sys.executable, "-c", LAUNCHER, len(fds)] + numbers +
            [support.program("server"), "-F", "--config", config] + list(options),
            name="ivshmem-server", pass_fds=tuple(numbers), env=env, preexec=preexec))

    def launch(self, *options, **kwargs):
        server = self.spawn(*options, **kwargs)
        self.manager.wait_for("READY=1")
        return server

    def kept(self):
        """What the manager passes at the next start."""
        self.manager.flush()
        return sorted(self.manager.store.items())

    def stop(self, server, number=signal.SIGTERM):
        server.signal(number)
        server.wait()
        return self.kept()

    def restart(self, server, number=signal.SIGTERM):
        return self.launch("--fdstore", fds=self.stop(server, number))

    def client(self, name, *options):
        client = self.start(Load(self.path(name), *options))
        client("join 1")
        return client


class Notify(ManagedTest):
    def test_ready_status_reload_stop(self):
        server = self.launch()
        self.assertEqual(self.manager.wait_for("MAINPID="), "MAINPID=%d" % server.pid)
        client = self.client("r")
        client("settle 0")
        self.manager.wait_for("STATUS=1 clients in 1 regions")
        server.signal(signal.SIGHUP)
        self.manager.wait_for("RELOADING=1")
        self.manager.wait_for("MONOTONIC_USEC=[0-9]+")
        self.manager.wait_for("READY=1")
        server.signal(signal.SIGTERM)
        self.manager.wait_for("STOPPING=1")
        self.assertEqual(server.wait(), 0, server.err.text)

    def test_watchdog(self):
        self.launch(watchdog=200000)
        for _ in range(3):
            self.manager.wait_for("WATCHDOG=1")

    def test_environment_of_somebody_else(self):
        with unittest.mock.patch.dict(os.environ, LISTEN_PID="1", LISTEN_FDS="3"):
            server = self.server()
        group = self.load(server)
        group("join 1")
        group("settle 0")


class Activation(ManagedTest):
    def test_sockets_of_the_manager(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path("r"))
        listener.listen(8)
        early = self.client("r")        # before there is a server
        server = self.launch(fds=[("ivshmem-server.socket", listener.fileno())])
        early("settle 0")
        fixed = self.client("x")
        early("settle 1")
        fixed("settle 1")
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0, server.err.text)
        # What the manager has made is the manager's to remove.
        self.assertTrue(os.path.exists(self.path("r")))
        self.assertFalse(os.path.exists(self.path("x")))


class Store(ManagedTest):
    def test_restart_that_nobody_notices(self):
        server = self.launch("--fdstore")
        clients = [self.client("r", "--keep") for _ in range(3)] + [self.client("x", "--keep")]
        group = self.start(Load(self.path("r"), "--keep"))
        group("join 3")
        for client in clients:
            client("settle 6")
        frames = group("settle 6")["frames"]
        inode = group("memory 0")["inode"]
        for _ in range(3):
            server = self.restart(server)
        self.assertEqual(group("settle 6")["frames"], frames)
        self.assertEqual(group("verify"), {"rings": "6"})
        newcomer = self.client("r")
        newcomer("settle 7")
        self.assertEqual(newcomer("memory 0")["inode"], inode)
        clients[3]("leave 0 0")
        group("settle 6")
        # The manager keeps the memory only, or those who leave would stay half alive.
        self.manager.flush()
        self.assertEqual(list(self.manager.store), ["ivshmem-memory-r"])

    def test_memory_survives_a_crash_without_any_client(self):
        server = self.launch("--fdstore")
        client = self.client("r")
        client("settle 0")
        inode = client("memory 0")["inode"]
        client.stop()
        server = self.restart(server, signal.SIGKILL)
        client = self.client("r")
        client("settle 0")
        self.assertEqual(client("memory 0")["inode"], inode)
        self.assertEqual(client("tamper 0")["shrink"], "no")
        server.signal(signal.SIGTERM)
        server.wait()

    def test_memory_survives_a_start_that_fails(self):
        server = self.launch("--fdstore")
        client = self.client("r")
        client("settle 0")
        inode = client("memory 0")["inode"]
        client.stop()
        kept = self.stop(server, signal.SIGKILL)
        server = self.spawn("--fdstore", "-p", self.path("none/pid"), fds=kept)
        self.assertEqual(server.wait(), 1, server.err.text)
        self.launch("--fdstore", fds=self.kept())
        client = self.client("r")
        client("settle 0")
        self.assertEqual(client("memory 0")["inode"], inode)


def call_sets():
    """systemd's groups of system calls: {"@name": the names in it}."""
    process = support.Process(["systemd-analyze", "syscall-filter"])
    process.wait()
    sets, lines = {}, process.out.text.splitlines()
    process.stop()
    for line in lines:
        name = line.strip()
        if line.startswith("@"):
            group = sets.setdefault(name, set())
        elif line.startswith("#"):
            group = set()       # belongs to no set
        elif name and not name.startswith("#"):
            group.add(name)
    return sets


class Units(unittest.TestCase):
    UNITS = os.path.join(support.TOP, "contrib", "ivshmem-server", "systemd")
    NAMES = ("ivshmem-server.service", "ivshmem-server@.service")

    def setUp(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze: apt-get install systemd")

    def unit(self, name):
        with open(os.path.join(self.UNITS, name + ".in"), encoding="ascii") as text:
            return text.read()

    def code(self):
        text = ""
        for folder in ("contrib/ivshmem-server", "subprojects/libivshmem"):
            for name in glob.glob(os.path.join(support.TOP, folder, "*.c")):
                with open(name, encoding="ascii") as code:
                    text += code.read()
        return text

    def called(self, sets):
        """The names of functions that are system calls, and what the code calls by number."""
        if not shutil.which("nm"):
            self.skipTest("no nm: apt-get install binutils")
        process = support.Process(["nm", "-D", "--undefined-only", support.program("server")])
        if process.wait() != 0:
            self.skipTest("not a program but a wrapper: " + process.err.text)
        calls = set(re.findall(r" U (\w+)", process.out.text)) & set().union(*sets.values())
        process.stop()
        return calls | set(re.findall(r"\bSYS_(\w+)", self.code()))

    def test_system_calls(self):
        """Whatever the server calls, its sandbox allows: anything else would kill it."""
        sets = call_sets()

        def expand(word):
            if word.startswith("@"):
                return set().union(*map(expand, sets[word]))
            return {word}

        calls = self.called(sets)
        self.assertIn("pidfd_getfd", calls)
        # --user is not for units; syscall() and syslog() of libc are something else.
        calls -= {"setuid", "setgroups", "syscall", "syslog"}
        for name in self.NAMES:
            allowed = set()
            for sign, words in re.findall(r"^SystemCallFilter=(~?)(.*)", self.unit(name), re.M):
                names = set().union(*map(expand, words.split()))
                allowed = allowed - names if sign else allowed | names
            self.assertEqual(calls - allowed, set(), name)

    def test_profile(self):
        """AppArmor's."""
        with open(os.path.join(support.TOP, "data", "apparmor", "ivshmem-server"),
                  encoding="ascii") as text:
            profile = text.read()
        # pidfd_getfd() of a client's memory after a crash counts as tracing it.
        self.assertRegex(profile, r"(?m)^  ptrace \(.*\btrace\b.*\),$")
        # notify(3) of libsystemd takes a datagram socket, all others are our own.
        kinds = set(re.findall(r"\bSOCK_(STREAM|DGRAM|SEQPACKET)\b", self.code()))
        self.assertIn("SEQPACKET", kinds)
        for kind in kinds | {"DGRAM"}:
            self.assertIn("  network unix %s,\n" % kind.lower(), profile)

    def test_sandbox(self):
        directory = support.temporary_directory()
        self.addCleanup(shutil.rmtree, directory)
        for name in self.NAMES:
            unit = os.path.join(directory, name.replace("@", "@x"))
            with open(unit, "w", encoding="ascii") as out:
                out.write(self.unit(name).replace("@bindir@/ivshmem-server", "/bin/true"))
            process = support.Process(["systemd-analyze", "security", "--offline=true",
                                       "--threshold=40", unit])
            status = process.wait()
            self.assertEqual(status, 0, process.out.text[-600:] + process.err.text)
            self.assertRegex(process.out.text, "exposure level .*: [0-3]\\.[0-9] OK")
            process.stop()
