# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every system call of libivshmem's peers, and of ivshmem-client, fails in turn: with an error and a
message, without a leak, and nobody else notices.
"""
import os
import shutil
import subprocess

import fault
import support
from server_load import ConfigServer

TEXT = """[region r]
size=64K
vectors=2
socket=DIR/r
[client r/door]
socket=DIR/door
id=1
second=replace
"""


class LibraryCase(support.TestCase):
    def serve(self, directory):
        config = os.path.join(directory, "server.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(TEXT.replace("DIR", directory))
        return self.start(ConfigServer("--config", config))


class Peer(LibraryCase):
    def run_peer(self, directory, *arguments):
        said = subprocess.run(
            [fault.built("fault-peer"), os.path.join(directory, "r"),
             os.path.join(directory, "door"), *map(str, arguments)], check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300 * support.SCALE)
        self.assertEqual(said.returncode, 0, said.stderr)
        return said.stdout

    # R-CLI-22
    def test_every_system_call(self):
        self.serve(self.dir)
        counted = (line.split() for line in self.run_peer(self.dir).splitlines())
        calls = {name: int(count) for name, count in counted if count != "0"}
        calls.pop("faults", None)
        self.assertGreater(len(calls), 10)
        tried = 0
        for name in calls:
            errors = fault.ERRORS.get(name, fault.ERRORS[""])
            tried += int(self.run_peer(self.dir, name, *errors).split()[-1])
        self.assertGreaterEqual(tried, sum(calls.values()))
        print("     %d faults of %d functions" % (tried, len(calls)), flush=True)


class Client(LibraryCase):
    """Exit status 0, or another and a message that names the cause."""
    # 0 and 2 are those here; 1 is the door's.
    COMMANDS = ("wait-peers 2 5s", "id", "dump", "int 0 1", "poke 0 01020304", "peek 0 4",
                "int 3 0", "wait 5s 0")

    def test_every_system_call(self):
        counts = self.life(fault.NONE)
        tried = fault.each(self.life, list(fault.plan(counts)))
        self.assertGreater(tried, 50)
        print("     %d faults of %d functions" % (tried, len(counts)), flush=True)

    def life(self, what):
        directory = support.temporary_directory()
        server = self.serve(directory)
        group = fault.Group(os.path.join(directory, "r"), 2)
        control = fault.Control(directory)
        try:
            group.join(2)
            group.settle()
            self.run_client(what, control, group)
            group.settle()              # and they have not lost their connections
            group.ring_all()
            return control.counts
        finally:
            group.close()
            control.close()
            server.stop()
            shutil.rmtree(directory)

    def run_client(self, what, control, group):
        arguments = [word for command in self.COMMANDS for word in ("-c", command)]
        control.arm(what)
        client = support.Process([support.program("client"), "-S", group.path] + arguments,
                                 env=control.env)
        try:
            status = client.wait()
            if status:
                fault.explained(what, client)
            self.assertIn(status, (0, 1, 3), client.err.text)
            if not status or what == fault.NONE:
                self.assertIn("01 02 03 04", client.out.text)
                for member in group.members[:1]:
                    os.set_blocking(member.own[1], False)
                    self.assertEqual(os.eventfd_read(member.own[1]), 1)
        finally:
            client.stop()
            self.empty(group)

    def empty(self, group):
        for member in group.members:
            for fd in member.own:
                os.set_blocking(fd, False)
                try:
                    os.eventfd_read(fd)
                except BlockingIOError:
                    pass
