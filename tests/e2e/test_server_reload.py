# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server and SIGHUP: what changes, what stays, and what goes."""
import grp
import json
import os
import signal
import stat

import support
from server_load import ConfigServer
from test_server_config import ConfigTest


class ReloadTest(ConfigTest):
    def reload(self, server, text):
        self.write(text)
        server.signal(signal.SIGHUP)
        server.err.wait_for("SIGHUP: read ")

    def join(self, name, others, *options):
        """A client that knows so many others."""
        group = self.connect(name, *options)
        group("join 1")
        group("settle %d" % others)
        return group

    def memory(self, group):
        return group("memory 0")["inode"]


class Reload(ReloadTest):
    def test_new_and_removed(self):
        server = self.config_server("[region a]\nsocket=DIR/a\n"
                                    "[client a/x]\nsocket=DIR/x\nid=3\n"
                                    "[region b]\nsocket=DIR/b\n")
        a, b, x = self.connect("a", "--keep"), self.connect("b"), self.connect("x", "--keep")
        for group in (a, b, x):
            group("join 1")
        a("settle 1")
        b("settle 0")
        self.reload(server, "[region a]\nsocket=DIR/a\n[client a/y]\nsocket=DIR/y\nid=5\n"
                            "[region c]\nsocket=DIR/c\n")
        # Sessions stay, also those of sockets and regions that are gone.
        for name in ("b", "x"):
            self.assertFalse(os.path.exists(self.path(name)))
        y, c = self.connect("y"), self.connect("c")
        y("join 1")
        c("join 1")
        a("settle 2")
        x("settle 2")
        y("settle 2")
        c("settle 0")
        b("settle 0")
        self.assertEqual((x("ids"), y("ids")), ({"ids": "3"}, {"ids": "5"}))
        b.stop()
        server.err.wait_for("region b: removed")

    def test_changed_socket(self):
        server = self.config_server("[region a]\nsocket=DIR/a\nsocket-mode=0600\n")
        a = self.connect("a")
        a("join 1")
        a("settle 0")
        self.reload(server, "[region a]\nsocket=DIR/a\nsocket-mode=0666\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path("a")).st_mode), 0o666)
        again = self.connect("a")
        again("join 1")
        again("settle 1")

    def test_mistakes_change_nothing(self):
        server = self.config_server("[region a]\nsocket=DIR/a\n")
        a = self.connect("a")
        a("join 1")
        self.write("[region a]\nsocket=DIR/b\nsize=5M\n")
        server.signal(signal.SIGHUP)
        server.err.wait_for("nothing changed, since the configuration is wrong")
        a("join 1")
        a("settle 1")

    def test_memory_cannot_change(self):
        server = self.config_server("[region a]\nsocket=DIR/a\nsize=1M\n")
        self.reload(server, "[region a]\nsocket=DIR/a\nsize=2M\n")
        self.assertIn("its memory cannot change", server.err.text)
        a = self.connect("a")
        a("join 1")
        a("settle 0")
        self.assertEqual(a("memory 0")["size"], str(1 << 20))

    def test_without_a_file(self):
        server = self.server()
        server.signal(signal.SIGHUP)
        server.err.wait_for("no configuration file")
        group = self.load(server)
        group("join 1")
        group("settle 0")


class Memory(ReloadTest):
    def test_another_region_on_the_same_socket(self):
        """A name is a region: the new one gets neither memory nor ids of the old one."""
        server = self.config_server("[region a]\nsize=1M\nsocket=DIR/s\n")
        old = self.join("s", 0)
        self.reload(server, "[region b]\nsize=1M\nsocket=DIR/s\n")
        new = self.join("s", 0)
        self.assertNotEqual(self.memory(old), self.memory(new))
        self.assertEqual(new("ids"), {"ids": "0"})
        self.assertNotIn("may come back", server.err.text)
        old.stop()
        server.err.wait_for("region a: removed")
        self.assertIn("s.state", os.listdir(self.dir))
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_file_stays_when_its_line_goes(self):
        region = "[region a]\nsize=1M\nsocket=DIR/a\n"
        server = self.config_server(region + "memory=file:DIR/memory\n")
        self.reload(server, region)
        self.assertIn("its memory cannot change", server.err.text)
        self.assertEqual(server.stop(), 0)
        self.assertEqual(sorted(os.listdir(self.dir)), ["memory", "server.conf"])

    def test_whether_it_is_persistent_may_change(self):
        region = "[region a]\nsize=1M\nsocket=DIR/a\nmemory=file:DIR/memory\n"
        server = self.config_server(region)
        self.reload(server, region + "persistent=no\n")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    # R-SRV-24
    def test_what_has_a_name_is_not_read_only(self):
        name = os.path.basename(self.dir)
        region = "[region a]\nsize=1M\nsocket=DIR/a\n"
        server = self.config_server(region + "memory=shm:%s\n" % name)
        self.reload(server, region + "[client a/x]\nsocket=DIR/x\nsocket-mode=0666\n"
                                     "access=read-only\n")
        os.chmod(self.dir, 0o755)
        reader = self.connect("x", preexec=lambda: os.geteuid() or os.setuid(65534))
        reader("join 1")
        server.err.wait_for("refused: .*/%s has a name to be opened by" % name)
        reader("closed 0 0")


class Sockets(ReloadTest):
    def test_they_change_places(self):
        text = ("[region a]\nsize=1M\n[client a/x]\nsocket=DIR/%s\n"
                "[region b]\nsize=2M\n[client b/y]\nsocket=DIR/%s\n")
        server = self.config_server(text % (1, 2))
        self.reload(server, text % (2, 1))
        self.assertNotIn("another server", server.err.text)
        for name, size in (("1", 2 << 20), ("2", 1 << 20)):
            self.assertEqual(self.join(name, 0)("memory 0")["size"], str(size))

    # R-SRV-21, R-SRV-25
    def test_state_follows_the_first_one(self):
        text = "[region a]\nsize=1M\nsocket=DIR/%d\n"
        server = self.config_server(text % 1)
        self.reload(server, text % 2)
        first = self.join("2", 0, "--keep")
        second = self.join("2", 1, "--keep")
        inode = self.memory(first)
        files = os.listdir(self.dir)
        self.assertIn("2.state", files)
        self.assertNotIn("1.state", files)
        server.signal(signal.SIGKILL)
        server.wait()
        server = self.start(ConfigServer("--config", self.path("server.conf")))
        for group, number in ((second, "1"), (first, "0")):
            group("rejoin 0 0")
        for group, number in ((second, "1"), (first, "0")):
            group("settle 1")
            self.assertEqual((group("ids")["ids"], self.memory(group)), (number, inode))
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])


class Stalled(ReloadTest):
    TEXT = "[server]\nstall-timeout=%d\n[region a]\nsize=1M\nsocket=DIR/a\n"

    def stalled(self, timeout):
        server = self.config_server(self.TEXT % timeout)
        group = self.connect("a")
        group("mute 1")
        group("join 400")
        group("settle 400")
        return server

    def change(self, server, timeout):
        self.reload(server, self.TEXT % timeout)
        server.err.wait_for("has not read for %d s" % timeout)

    def test_from_never(self):
        self.change(self.stalled(0), 1)

    def test_sooner(self):
        self.change(self.stalled(3600), 1)

    def test_to_never(self):
        server = self.stalled(2)
        self.reload(server, self.TEXT % 0)
        with self.assertRaisesRegex(support.TimeoutExpired, "was silent"):
            server.err.wait_for("disconnected", 4 / support.SCALE)


class Control(ReloadTest):
    def ask(self, *options):
        process = self.start(support.Process(
            [support.program("server"), "--config", self.path("server.conf"), "--json"] +
            list(options)))
        self.assertEqual(process.wait(), 0, process.err.text)
        return [region["name"] for region in json.loads(process.out.text)["regions"]]

    def mode(self, name):
        return stat.S_IMODE(os.stat(self.path(name)).st_mode)

    def test_first_region_goes(self):
        region = "[region %s]\nsize=1M\nsocket=DIR/%s\n"
        server = self.config_server(region % ("a", "a") + region % ("b", "b"))
        group = self.join("b", 0)
        self.reload(server, region % ("b", "b"))
        self.assertEqual(self.ask(), ["b"])
        self.assertFalse(os.path.exists(self.path("a.ctl")))
        successor = self.start(ConfigServer("--config", self.path("server.conf"), "--replace"))
        self.assertEqual(server.wait(), 0, server.err.text)
        group("join 1")
        group("settle 1")
        self.assertEqual(successor.stop(), 0)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_path_mode_and_group(self):
        region = "[region a]\nsize=1M\nsocket=DIR/a\n"
        group = "control-group=%s\n" % grp.getgrgid(os.getgid()).gr_name
        server = self.config_server(region)
        self.assertEqual(self.mode("a.ctl"), 0o600)
        for keys, name, mode in (
                (group, "a.ctl", 0o660), ("control-mode=0666\n", "a.ctl", 0o666),
                ("", "a.ctl", 0o600), ("control-socket=DIR/other\n" + group, "other", 0o660),
                (group + "control-mode=0640\n", "a.ctl", 0o640)):
            with self.subTest(keys):
                self.reload(server, "[server]\n" + keys + region)
                self.assertEqual(self.ask(), ["a"])
                self.assertEqual(self.mode(name), mode)
                self.assertEqual(len([file for file in os.listdir(self.dir)
                                      if file in ("a.ctl", "other")]), 1)

    def test_place_that_cannot_be_had(self):
        region = "[region a]\nsize=1M\nsocket=DIR/a\n"
        server = self.config_server(region)
        self.reload(server, "[server]\ncontrol-socket=DIR/none/ctl\n" + region)
        self.assertRegex(server.err.text, "control socket: .*none/ctl.*; it stays where it was")
        self.assertEqual(self.ask("--control-socket", self.path("a.ctl")), ["a"])

    def test_option_stays(self):
        region = "[region %s]\nsize=1M\nsocket=DIR/%s\n"
        option = "--control-socket=" + self.path("ctl")
        server = self.config_server(region % ("a", "a"), option)
        self.reload(server, "[server]\ncontrol-socket=DIR/x\n" + region % ("b", "b"))
        self.assertEqual(self.ask(option), ["b"])
        self.assertFalse(os.path.exists(self.path("x")))
