# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server's configuration file: regions, clients with sockets of their own, rights."""
import os
import unittest

import support
from server_load import ConfigServer, Load
from test_server_faults import ServerTest


class ConfigTest(ServerTest):
    def write(self, text):
        """The file with DIR replaced; returns its path."""
        path = self.path("server.conf")
        with open(path, "w", encoding="utf-8") as out:
            out.write(text.replace("DIR", self.dir))
        return path

    def config_server(self, text, *options, **kwargs):
        return self.start(ConfigServer("--config", self.write(text), *options, **kwargs))

    def connect(self, name, *options, vectors=1, **kwargs):
        return self.start(Load(self.path(name), *options, vectors=vectors, **kwargs))

    def refused(self, name, reason, server, vectors=1):
        group = self.connect(name, vectors=vectors)
        group("join 1")
        server.err.wait_for("refused: .*" + reason)
        group("closed 0 0")
        group.stop()


TWO_REGIONS = """
[region a]
size=1M
vectors=2
socket=DIR/a

[region b]
size=2M
memory=shm:NAME
socket=DIR/b
"""

CAMERA = """
[region scratch]
size=1M
vectors=2
socket=DIR/all
first-id=1

[client scratch/camera]
socket=DIR/camera
id=1
access=read-only

[client scratch/disk]
socket=DIR/disk
id=7
second=replace
"""


class Regions(ConfigTest):
    def test_two_regions_have_nothing_to_do_with_each_other(self):
        name = os.path.basename(self.dir)
        server = self.config_server(TWO_REGIONS.replace("NAME", name))
        a, b = self.connect("a", "--keep", vectors=2), self.connect("b", "--keep")
        a("join 3")
        b("join 2")
        a("settle 2")
        b("settle 1")
        self.assertEqual(a("verify"), {"rings": "12"})
        self.assertEqual(b("verify"), {"rings": "2"})
        self.assertEqual((a("memory 0")["size"], b("memory 0")["size"]),
                         (str(1 << 20), str(2 << 20)))
        self.assertEqual(int(b("memory 1")["inode"]), os.stat("/dev/shm/" + name).st_ino)
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists("/dev/shm/" + name))
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_persistent_memory(self):
        text = "[region r]\nsize=1M\nsocket=DIR/r\nmemory=file:DIR/memory\n"
        server = self.config_server(text)
        with open(self.path("memory"), "r+b") as memory:
            memory.write(b"precious")
        self.assertEqual(server.stop(), 0)
        server = self.config_server(text)
        group = self.connect("r")
        group("join 1")
        group("settle 0")
        self.assertEqual(int(group("memory 0")["inode"]), os.stat(self.path("memory")).st_ino)
        server.stop()
        with open(self.path("memory"), "rb") as memory:
            self.assertEqual(memory.read(8), b"precious")
        self.config_server("[region r]\npersistent=no\nsize=1M\nsocket=DIR/r\n"
                           "memory=file:DIR/memory\n").stop()
        self.assertFalse(os.path.exists(self.path("memory")))

    def test_prealloc_and_numa_node(self):
        self.config_server("[region r]\nsize=1M\nsocket=DIR/r\nmemory=file:DIR/memory\n"
                           "prealloc=yes\nnuma-node=0\n")
        self.assertGreaterEqual(os.stat(self.path("memory")).st_blocks * 512, 1 << 20)


class SealedMemory(ConfigTest):
    def test_nobody_can_shrink_it(self):
        """D20: the others would be killed by SIGBUS."""
        self.config_server("[region r]\nsize=1M\nsocket=DIR/r\n")
        group = self.connect("r")
        group("join 2")
        group("settle 1")
        answer = group("tamper 0")
        self.assertEqual((answer["shrink"], answer["map"], answer["write"]), ("no", "yes", "yes"))
        self.assertEqual(group("memory 1")["size"], str(1 << 20))

    def test_other_memory_is_announced(self):
        server = self.server()
        server.err.wait_for("cannot be sealed")


class Clients(ConfigTest):
    # R-SRV-23
    def test_fixed_ids(self):
        self.config_server(CAMERA)
        group = self.connect("all", vectors=2)
        group("join 7")
        group("settle 6")
        self.assertEqual(group("ids"), {"ids": "2,3,4,5,6,8,9"})
        disk = self.connect("disk", vectors=2)
        disk("join 1")
        disk("settle 7")
        self.assertEqual(disk("ids"), {"ids": "7"})
        camera = self.connect("camera", vectors=2)
        camera("join 1")
        camera("settle 8")
        self.assertEqual(camera("ids"), {"ids": "1"})

    # R-SRV-23
    def test_second_connection_is_refused(self):
        server = self.config_server(CAMERA)
        first = self.connect("camera", vectors=2)
        first("join 1")
        first("settle 0")
        self.refused("camera", "its id is in use", server, vectors=2)
        first("settle 0")
        first.stop()
        server.err.wait_for("left")
        again = self.connect("camera", vectors=2)
        again("join 1")
        again("settle 0")

    # R-SRV-23
    def test_second_connection_replaces_the_first(self):
        server = self.config_server(CAMERA)
        other = self.connect("all", "--keep", vectors=2)
        other("join 1")
        first = self.connect("disk", vectors=2)
        first("join 1")
        first("settle 1")
        second = self.connect("disk", vectors=2)
        second("join 1")
        server.err.wait_for("client 7 .*disconnected: replaced by a new connection")
        first("closed 0 0")
        second("settle 1")
        other("settle 1")
        self.assertEqual(second("ids"), {"ids": "7"})

    def test_vectors_of_one_client(self):
        self.config_server("[region r]\nsocket=DIR/r\nvectors=2\n"
                           "[client r/big]\nsocket=DIR/big\nvectors=5\n")
        big = self.connect("big", vectors=5)
        big("join 1")
        big("settle 0")

    def test_allowed_users(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to be two users")
        server = self.config_server("[region r]\nsocket=DIR/r\nsocket-mode=0666\n"
                                    "allow-users=nobody;65533\n")
        os.chmod(self.dir, 0o755)
        self.refused("r", "user 0 is not in allow-users", server)
        allowed = self.connect("r", preexec=lambda: os.setuid(65534))
        allowed("join 1")
        allowed("settle 0")


class ReadOnly(ConfigTest):
    NOTHING = {"map": "no", "mprotect": "no", "write": "no", "reopen": "no",
               "reopen-mode": "no", "shrink": "no", "read": "yes"}

    def camera(self, **kwargs):
        camera = self.connect("camera", vectors=2, **kwargs)
        camera("join 1")
        return camera

    # R-SRV-24
    def test_trying_hard(self):
        self.config_server(CAMERA)
        writer = self.connect("all", vectors=2)
        writer("join 1")
        writer("settle 0")
        camera = self.camera()
        camera("settle 1")
        self.assertEqual(camera("tamper 0"), self.NOTHING)
        # Who joined before, and who joins after, can write.
        self.assertEqual(writer("tamper 0")["map"], "yes")
        writer("join 1")
        writer("settle 2")
        answer = writer("tamper 1")
        self.assertEqual((answer["map"], answer["write"]), ("yes", "yes"))

    def unprivileged(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to be two users")
        os.chown(self.dir, 65534, 65534)
        os.chmod(self.dir, 0o755)
        text = CAMERA.replace("id=1\n", "id=1\nsocket-mode=0666\n")

        def preexec():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return self.config_server(text, preexec=preexec)

    def test_unprivileged_server_and_another_user(self):
        self.unprivileged()
        camera = self.camera(preexec=lambda: os.setuid(65533))
        camera("settle 0")
        self.assertEqual(camera("tamper 0"), self.NOTHING)

    # R-SRV-24
    def test_not_granted_where_it_could_be_undone(self):
        server = self.unprivileged()
        camera = self.camera(preexec=lambda: os.setuid(65534))
        server.err.wait_for("refused: user 65534 could open the memory again for writing")
        camera("closed 0 0")


class Privileges(ConfigTest):
    def test_dropped_once_everything_is_open(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to give its privileges up")
        os.chown(self.dir, 65534, 65534)
        os.chmod(self.dir, 0o755)
        config = self.write(CAMERA)
        server = self.start(ConfigServer("--config", config, "--user=nobody",
                                         "--group=nogroup"))
        with open("/proc/%d/status" % server.pid, encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        self.assertEqual(status["Uid"].split(), ["65534"] * 4)
        self.assertEqual(status["Gid"].split(), ["65534"] * 4)
        self.assertEqual(status["Groups"].split(), ["65534"])
        self.assertEqual(int(status["CapEff"], 16), 0)
        # Made while it was root: even root cannot write through a read-only descriptor.
        camera = self.connect("camera", vectors=2)
        camera("join 1")
        camera("settle 0")
        self.assertEqual(camera("tamper 0"), ReadOnly.NOTHING)
        self.assertEqual(server.stop(), 0, server.err)
        self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_only_root_can(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to be somebody else first")
        os.chown(self.dir, 65534, 65534)
        process = self.start(support.Process(
            [support.program("server"), "-F", "-S", self.path("s"), "-m", self.dir,
             "--user=daemon"], preexec=lambda: os.setuid(65534)))
        self.assertEqual(process.wait(), 1)
        self.assertIn("only root can", process.err.text)
        self.assertEqual(os.listdir(self.dir), [])


class Mistakes(ConfigTest):
    def check(self, text):
        process = self.start(support.Process([support.program("server"), "--config",
                                              self.write(text), "--check-config"]))
        return process.wait(), process.out.text, process.err.text

    def test_a_right_file(self):
        for text in (CAMERA, TWO_REGIONS.replace("NAME", "x"),
                     "[server]\nqueue-limit=7\nstall-timeout=3\n" + CAMERA,
                     "[region  a]\nsocket=DIR/a\n[client  a/x]\nsocket=DIR/x\n",
                     "[region a]\nsocket=DIR/a\nnuma-node=63\n"):
            status, out, err = self.check(text)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("right", out)
            self.assertEqual(os.listdir(self.dir), ["server.conf"])

    def test_all_mistakes_at_once(self):
        status, out, err = self.check("""
[server]
queue-limit=0
[region a]
size=3M
vectors=4096
memory=floppy
socket=relative
colour=red
[region b]
socket=DIR/same
socket-mode=rwx
allow-users=nobody;no-such-user
persistent=yes
[region c]
memory=shm:x
prealloc=perhaps
numa-node=64
[client c/one]
socket=DIR/same
id=70000
access=execute
second=maybe
[client c/two]
socket=DIR/two
id=3
access=read-only
[client c/three]
id=3
[client nowhere/one]
[nonsense]
""")
        self.assertEqual((status, out), (1, ""))
        for wrong in ("[server] queue-limit: '0'", "[region a] size: '3M'", "next one is 4M",
                      "[region a] vectors: '4096'", "[region a] memory: 'floppy'",
                      "[region a] socket: 'relative'", "[region a] colour: there is no such key",
                      "[region b] socket-mode: 'rwx'", "no user 'no-such-user'",
                      "[region b]: persistent=yes needs", "[region c] prealloc: 'perhaps'",
                      "[region c] numa-node: '64'",
                      "same belongs to [region b] already", "[client c/one] id: '70000'",
                      "[client c/one] access: 'execute'", "[client c/one] second: 'maybe'",
                      "[client c/two]: access=read-only needs",
                      "id 3 of region c belongs to [client c/two] already",
                      "client c/three: socket= is missing", "client nowhere/one: write [client",
                      "nonsense: there is no such section"):
            self.assertIn(wrong, err)
        for line in err.splitlines():
            self.assertIn("server.conf", line)

    def test_not_a_key_file(self):
        for text, wrong in (("what is this", "what is this"), ("", "there is no [region NAME]"),
                            ("[region a]\nsocket=DIR/a\nxyz\n", "xyz")):
            status, _, err = self.check(text)
            self.assertEqual(status, 1)
            self.assertIn(wrong, err)

    def test_no_file(self):
        error = self.fails("-F", "--config", self.path("none"))
        self.assertIn("No such file", error)

    def test_options_that_belong_into_the_file(self):
        for options in (["-S", "/tmp/x"], ["-n", "3"], ["-l", "1M"], ["-M", "x"], ["-m", "/tmp"]):
            error = self.fails("-F", "--config", self.write(CAMERA), *options)
            self.assertIn(options[0] + " and --config exclude each other", error)
