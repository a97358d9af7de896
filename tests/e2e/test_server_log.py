# SPDX-License-Identifier: GPL-2.0-or-later
"""What ivshmem-server logs: a line for each event, not too many, and fields for the journal."""
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

import support
from server_load import Load
from test_server_faults import ServerTest

# In a mount namespace of its own: becomes the server, whose stderr leads to a journal that prints
# every entry as one line of KEY=VALUE, with tabs between.
JOURNAL = """
import ctypes, os, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.makedirs("/run/systemd/journal")
entries = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
entries.bind("/run/systemd/journal/socket")
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/systemd/journal/stdout")
listener.listen()
if os.fork() == 0:
    ctypes.CDLL(None).prctl(1, 9)                       # PR_SET_PDEATHSIG, SIGKILL
    while True:
        print("\\t".join(entries.recv(65536).decode().splitlines()), flush=True)
stderr = socket.socket(socket.AF_UNIX)
stderr.connect("/run/systemd/journal/stdout")
os.dup2(stderr.fileno(), 2, inheritable=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
# Of one kind: a burst, and then as many in a second.
BURST, PER_SECOND = 1000, 10


class Lines(ServerTest):
    def test_one_line_for_each_event(self):
        server = self.server("--socket-mode=0600", "--first-id=65534")
        group = self.load(server)
        group("join 2")
        group("settle 1")
        third = self.load(server)                       # for whom there is no id
        third("join 1")
        third("closed 0 0")
        group("leave 0 0")
        group("settle 0")
        who = r"region default: client %s\(pid " + str(group.pid) + r"\): "
        for line in (who % "65534 " + r"joined with 1 vector \(user %d\)" % os.getuid(),
                     who % "65535 " + r"joined with 1 vector \(user %d\)" % os.getuid(),
                     r"region default: client \(pid %d\): refused: .*id" % third.pid,
                     who % "65534 " + r"left: closed the connection"):
            server.err.wait_for(line)
            self.assertEqual(len(re.findall(line, server.err.text)), 1, server.err.text)
        for line in server.err.text.splitlines():
            self.assertRegex(line, r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{3} "
                                   r"ivshmem-server: \S")

    def test_a_flood_is_cut(self):
        server = self.server("--first-id=65535")
        group = self.load(server)
        group("join 1")
        group("settle 0")
        begin = time.monotonic()
        refused = self.load(server)
        refused("churn %d" % (3 * BURST))       # for one reason or another
        server.err.wait_for("refused: ")
        limit = support.Deadline()
        while not re.search(r"refused: .*\([0-9]+ more lines like this left out\)", server.err.text):
            self.assertFalse(limit.expired(), "no line, or none that tells of those left out")
            refused("churn 1")
        lines = server.err.text.count("refused: ")
        self.assertLessEqual(lines, BURST + PER_SECOND * (time.monotonic() - begin) + 1)
        self.assertGreaterEqual(lines, BURST)
        # Other kinds of lines have budgets of their own.
        group("leave 0 0")
        server.err.wait_for("client 65535 .*left: closed")


class Journal(ServerTest):
    def journal_server(self):
        probe = shutil.which("unshare") and subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/run"], stderr=subprocess.DEVNULL)
        if not probe or probe.returncode:
            self.skipTest("no mount namespace for a journal of our own: needs unshare, and root")
        server = self.start(support.Process(
            ["unshare", "-m", sys.executable, "-c", JOURNAL, support.program("server"), "-F",
             "-S", self.path("s"), "-m", self.dir, "-p", self.path("pid")], name="journal"))
        server.out.wait_for("MESSAGE=region default: 4M")
        return server

    def test_fields(self):
        server = self.journal_server()
        client = self.start(Load(self.path("s")))
        client("join 1")
        client("settle 0")
        client("leave 0 0")
        for text, priority in (("joined with", 6), ("left: closed the connection", 6)):
            entry = server.out.wait_for("MESSAGE=[^\n]*" + text + "[^\n]*\n").group().decode()
            fields = dict(field.split("=", 1) for field in entry.strip().split("\t"))
            self.assertEqual(
                [fields.get(key) for key in ("PRIORITY", "SYSLOG_IDENTIFIER", "IVSHMEM_REGION",
                                             "IVSHMEM_CLIENT_ID", "IVSHMEM_CLIENT_PID")],
                [str(priority), "ivshmem-server", "default", "0", str(client.pid)])
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
