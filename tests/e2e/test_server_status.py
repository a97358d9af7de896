# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server --status, and the control socket it asks."""
import json
import os
import re
import shutil
import socket
import stat

import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


def names(answer):
    """Of all members, however deep."""
    if isinstance(answer, list):
        return set().union(*map(names, answer))
    if isinstance(answer, dict):
        return set(answer).union(*map(names, answer.values()))
    return set()


class Status(ServerTest):
    def ask(self, server, *options):
        process = self.start(support.Process([support.program("server"), "-S", server.socket] +
                                             list(options)))
        self.assertEqual(process.wait(), 0, process.err.text)
        return process.out.text

    def talk(self, server, data):
        """What the control socket answers to data."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(20 * support.SCALE)
            sock.connect(server.socket + ".ctl")
            sock.sendall(data)
            answer = b""
            while True:
                part = sock.recv(65536)
                if not part:
                    return answer
                answer += part

    def test_json(self):
        server = self.server("-n", "2", "--queue-limit=77", "-l", "1M")
        group = self.load(server, vectors=2)
        group("join 3")
        group("settle 2")
        group("leave 1 1")
        group("settle 1")
        status = json.loads(self.ask(server, "--status", "--json"))
        self.assertEqual(status["pid"], server.pid)
        self.assertEqual(status["limits"]["queue"], 77)
        self.assertEqual(status["limits"]["descriptors"],
                         support.os.sysconf("SC_OPEN_MAX"))
        self.assertEqual(status["counters"]["joins"], 3)
        self.assertEqual(status["counters"]["leaves"], 1)
        self.assertEqual(len(status["regions"]), 1)
        region = status["regions"][0]
        self.assertEqual(region["memory"]["size"], 1 << 20)
        self.assertIn(server.shm_name, region["memory"]["kind"])
        self.assertIs(region["memory"]["sealed"], False)
        self.assertEqual(region["sockets"], [server.socket])
        self.assertGreater(region["more_clients"], 10)
        self.assertEqual([client["id"] for client in region["clients"]], [0, 2])
        for client in region["clients"]:
            self.assertEqual((client["pid"], client["uid"], client["executable"],
                              client["vectors"], client["access"], client["queued"],
                              client["state"]),
                             (group.pid, os.getuid(), "server-load", 2, "read-write", 0, "ready"))
            self.assertGreaterEqual(client["connected_since"], status["started"])

    def test_a_client_that_does_not_read(self):
        server = self.server()
        group = self.load(server)
        group("mute 1")
        group("join 400")
        group("settle 400")
        client = json.loads(self.ask(server, "--json"))["regions"][0]["clients"][0]
        self.assertEqual(client["state"], "does not read")
        self.assertGreater(client["queued"], 100)
        self.assertIn("does not read", self.ask(server, "--status"))

    def test_refusals_are_counted_by_reason(self):
        server = self.server("--first-id=65535")
        group = self.load(server)
        group("join 2")
        group("closed 1 1")
        status = json.loads(self.ask(server, "--json"))
        self.assertEqual(status["counters"]["refused"]["id"], 1)

    def test_text(self):
        server = self.server()
        group = self.load(server)
        group("join 2")
        group("settle 1")
        text = self.ask(server, "--status")
        self.assertIn("pid %d" % server.pid, text)
        self.assertRegex(text, r"region default: 4M in POSIX .*, 2 clients, room for")
        self.assertRegex(text, r"(?m)^ +1 +%d +%d +1 read-write .* ready +server-load$"
                         % (group.pid, os.getuid()))

    def test_metrics(self):
        server = self.server()
        group = self.load(server)
        group("join 2")
        group("settle 1")
        text = self.ask(server, "--metrics")
        self.assertIn('ivshmem_clients{region="default"} 2\n', text)
        self.assertIn("ivshmem_joins_total 2\n", text)
        self.assertIn('ivshmem_refused_total{reason="descriptors"} 0\n', text)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) ivshmem_\w+ .+|'
                                   r'ivshmem_\w+(\{\w+="[^"]*"\})? [0-9]+)$')
        types = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
        self.assertEqual(types["ivshmem_clients"], "gauge")
        self.assertEqual(types["ivshmem_frames_total"], "counter")

    def test_the_manual_page_has_every_name(self):
        page = os.path.join(support.TOP, "docs/tools/ivshmem-server.rst")
        with open(page, encoding="utf-8") as file:
            section = file.read().split("\nStatus\n------\n")[1].split("\n------")[0]
        told = set(re.findall(r"``([a-z_]+)``", section))
        metrics = {name for name in told if name.startswith("ivshmem_")}
        server = self.server()
        self.load(server)("join 1")
        self.assertEqual(set(re.findall(r"# TYPE (\S+)", self.ask(server, "--metrics"))), metrics)
        self.assertEqual(names(json.loads(self.ask(server, "--json"))), told - metrics)

    # A newline cannot be in the name of a section.
    def test_strange_names_of_regions(self):
        config = self.path("server.conf")
        with open(config, "w", encoding="utf-8") as out:
            out.write('[region b\u00fcro "a\\b"]\nsocket=%s\n' % self.path("s"))
        self.start(ConfigServer("--config", config))
        process = self.start(support.Process([support.program("server"), "--config", config,
                                              "--metrics"]))
        self.assertEqual(process.wait(), 0, process.err.text)
        self.assertIn('ivshmem_clients{region="b\u00fcro \\"a\\\\b\\""} 0\n', process.out.text)

    def test_strange_name_of_a_program(self):
        server = self.server()
        path = self.path("x\n\x1b[2Jpwn")
        shutil.copy(support.program("client"), path)
        client = self.start(support.Client(server.socket, exe=path))
        client.command("id")
        self.assertRegex(self.ask(server, "--status"), r"(?m)^ +0 .* x\?\?\[2Jpwn$")
        self.assertEqual(json.loads(self.ask(server, "--json"))["regions"][0]["clients"][0]
                         ["executable"], "x??[2Jpwn")

    def test_watch(self):
        server = self.server()
        watch = self.start(support.Process([support.program("server"), "-S", server.socket,
                                            "--watch"]))
        watch.out.wait_for("0 clients")
        group = self.load(server)
        group("join 1")
        watch.out.wait_for("1 clients")

    def test_no_server(self):
        error = self.fails("--status", "-S", self.path("none"))
        self.assertIn("no server answers", error)

    def test_strange_requests(self):
        server = self.server()
        self.assertIn(b"unknown request", self.talk(server, b"hello\n"))
        self.assertEqual(self.talk(server, b"x" * 31), b"")
        # Many who say nothing keep nobody from asking.
        silent = []
        for _ in range(40):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.addCleanup(sock.close)
            sock.connect(server.socket + ".ctl")
            silent.append(sock)
        self.assertTrue(self.talk(server, b"status\n").startswith(b"{"))
        # And one who does not read the answer harms nobody.
        group = self.load(server)
        group("join 600")
        group("settle 599")
        silent[-1].sendall(b"status\n")
        group("join 1")
        group("settle 600")
        self.assertEqual(len(json.loads(self.talk(server, b"status\n"))["regions"][0]["clients"]),
                         601)

    def test_the_longest_silent_one_has_to_go(self):
        server = self.server()
        silent = []
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.addCleanup(sock.close)
            sock.settimeout(20 * support.SCALE)
            sock.connect(server.socket + ".ctl")
            silent.append(sock)
        for sock in silent[:4]:                     # there is room for 16
            self.assertEqual(sock.recv(1), b"")
        for sock in silent[4:]:
            sock.setblocking(False)
            with self.assertRaises(BlockingIOError):
                sock.recv(1)

    def test_server_without_one(self):
        """A control socket that cannot be had, where nobody asked for one, keeps nobody out."""
        name = self.path("x" * (107 - len(self.path(""))))
        server = self.start(ConfigServer("-S", name, "-m", self.dir))
        server.err.wait_for("no --status and no --replace: .*File name too long")
        group = self.start(Load(name))
        group("join 2")
        group("settle 1")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), [])
        error = self.fails("-F", "-S", self.path("s"), "-m", self.dir,
                           "--control-socket=" + self.path("none/ctl"))
        self.assertIn("none/ctl", error)
        self.assertEqual(os.listdir(self.dir), [])

    def test_socket_of_its_own(self):
        config = self.path("server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write("[server]\ncontrol-socket=DIR/control\ncontrol-mode=0666\n"
                      '[region a"b]\nsocket=DIR/a\n'.replace("DIR", self.dir))
        self.start(ConfigServer("--config", config))
        self.assertEqual(stat.S_IMODE(os.stat(self.path("control")).st_mode), 0o666)
        group = self.start(Load(self.path("a")))
        group("join 1")
        group("settle 0")
        process = self.start(support.Process([support.program("server"), "--config", config,
                                              "--json"]))
        self.assertEqual(process.wait(), 0, process.err.text)
        self.assertEqual(json.loads(process.out.text)["regions"][0]["name"], 'a"b')
