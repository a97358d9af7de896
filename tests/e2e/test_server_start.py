# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server started without the descriptors that every program is entitled to."""
import os
import select
import signal

import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


def close_standard_fds():
    for fd in range(3):
        os.close(fd)


class NoStandardFds(ServerTest):
    """Whatever the server opens must not become its log: memory, say, or a client's socket."""

    def check(self, pid):
        for fd in range(3):
            self.assertEqual(os.readlink("/proc/%d/fd/%d" % (pid, fd)), "/dev/null")
        group = self.start(Load(self.path("s"), "--keep"))
        group("join 3")
        group("settle 2")
        self.assertEqual(group("verify"), {"rings": "6"})
        group("leave 0 0")
        group("settle 1")
        with open(self.path("memory"), "rb") as memory:
            self.assertEqual(memory.read().strip(b"\0"), b"")

    def config(self):
        with open(self.path("conf"), "w", encoding="ascii") as out:
            out.write("[region r]\nsize=1M\nsocket=%s\nmemory=file:%s\n"
                      % (self.path("s"), self.path("memory")))
        return self.path("conf")

    def test_foreground(self):
        server = self.start(ConfigServer("-v", "--config", self.config(),
                                         preexec=close_standard_fds))
        self.check(server.pid)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)

    def test_daemon(self):
        pid_file = self.path("pid")
        process = self.start(support.Process(
            [support.program("server"), "-v", "--config", self.config(), "-p", pid_file],
            preexec=close_standard_fds))
        self.assertEqual(process.wait(), 0)
        with open(pid_file, encoding="ascii") as data:
            pid = int(data.read())
        watch = os.pidfd_open(pid)
        self.addCleanup(os.close, watch)
        try:
            self.check(pid)
            signal.pidfd_send_signal(watch, signal.SIGTERM)
            self.assertTrue(select.select([watch], [], [], support.Deadline().left())[0],
                            "it does not end on SIGTERM")
        finally:
            if not select.select([watch], [], [], 0)[0]:
                signal.pidfd_send_signal(watch, signal.SIGKILL)
