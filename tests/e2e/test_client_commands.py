# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-client: what each command does, answers, and says when it is wrong."""
import json
import os
import re
import subprocess
import unittest

import support
from support import Client, program

MIB = 1 << 20


class ClientTest(support.TestCase):
    def client(self, sock, *options, **kwargs):
        return self.start(Client(sock, *options, **kwargs))

    def ok(self, result):
        self.assertEqual(result.status, 0, result)
        self.assertEqual(result.err, "", result)
        return result

    def text(self, sock, *commands, status=0):
        """Run commands for people; returns what they printed."""
        result = Client.run(sock, *commands, json_output=False)
        self.assertEqual(result.status, status, result)
        return result.text if status == 0 else result.err

    def piped(self, sock, data, *options, status=0):
        done = subprocess.run([program("client"), "-S", sock, *options], input=data.encode(),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=support.DEFAULT_WAIT * support.SCALE)
        self.assertEqual(done.returncode, status, done)
        return done.stdout.decode()


class Peers(ClientTest):
    def test_who_is_who(self):
        server = self.server("-l", "1M", "-n", "3")
        self.assertEqual(self.ok(Client.run(server.socket, "id")).answers,
                         [{"command": "id", "ok": True, "id": 0}])
        first = self.client(server.socket)
        own = first.command("id")["id"]
        second = self.client(server.socket)
        other = second.command("id")["id"]
        self.assertNotEqual(own, other)
        self.assertEqual(second.command("dump")["peers"], [{"id": own, "vectors": 3}])
        self.assertEqual(first.command("wait-peer %d 10s 3" % other),
                         {"command": "wait-peer", "ok": True, "peer": other, "vectors": 3})
        info = first.command("info")
        self.assertEqual({key: info[key] for key in ("connected", "server", "id", "vectors",
                                                     "size", "writable", "npeers")},
                         {"connected": True, "server": server.socket, "id": own, "vectors": 3,
                          "size": MIB, "writable": True, "npeers": 1})

    def test_dump_for_people(self):
        server = self.server("-l", "1M", "-n", "2")
        other = self.client(server.socket)
        peer = other.command("id")["id"]
        text = self.text(server.socket, "dump")
        self.assertRegex(text, r"(?m)^server +%s \(connected\)$" % server.socket)
        self.assertRegex(text, r"(?m)^id +\d+$")
        self.assertRegex(text, r"(?m)^vectors +2$")
        self.assertRegex(text, r"(?m)^memory +1.0.MiB \(1048576 bytes\), read-write, ")
        self.assertRegex(text, r"(?m)^peer %d: 2 vectors$" % peer)

    def test_they_come_and_go(self):
        server = self.server()
        watcher = self.client(server.socket)
        watcher.command("id")
        others = [self.client(server.socket) for _ in range(3)]
        ids = [other.command("id")["id"] for other in others]
        self.assertEqual(watcher.command("wait-peers 3 10s")["npeers"], 3)
        others[1].write("quit\n")
        self.assertTrue(watcher.command("wait-gone %d 10s" % ids[1])["ok"])
        self.assertEqual([peer["id"] for peer in watcher.command("dump")["peers"]],
                         sorted((ids[0], ids[2])))
        others[0].signal(9)
        others[2].close_stdin()
        self.assertEqual(others[2].wait(), 0)
        self.assertTrue(watcher.command("wait-peers 0 10s")["ok"])

    def test_waiting_for_peers_ends(self):
        server = self.server()
        for command in ("wait-peer 5 50ms", "wait-peers 2 50ms", "wait 50ms"):
            result = Client.run(server.socket, command)
            self.assertEqual(result.status, 1, result)
            self.assertEqual(result.answers[0]["ok"], False)
            self.assertEqual(result.answers[0]["timeout"], True)
            self.assertIn("50 ms passed before", result.err)
        self.ok(Client.run(server.socket, "wait-gone 5 50ms", "wait-peers 0 50ms"))


class Rings(ClientTest):
    def setUp(self):
        super().setUp()
        self.group = self.server("-n", "4")
        self.rung = self.client(self.group.socket)
        self.peer = self.rung.command("id")["id"]

    def expect(self, command, *rings):
        self.ok(Client.run(self.group.socket, command))
        for vector, count in rings:
            answer = self.rung.command("wait 10s %d %d" % (vector, count))
            self.assertEqual((answer["vector"], answer["count"]), (vector, count))
        self.assertTrue(self.rung.command("wait 0")["timeout"])

    def test_one(self):
        self.expect("int %d 2" % self.peer, (2, 1))

    def test_without_vector(self):
        self.expect("ring %d" % self.peer, (0, 1))

    def test_many(self):
        self.expect("ring %d 3 1000" % self.peer, (3, 1000))

    def test_all_vectors(self):
        self.expect("int %d all" % self.peer, *[(vector, 1) for vector in range(4)])

    def test_all_peers(self):
        self.expect("int all", *[(vector, 1) for vector in range(4)])

    def test_ourselves(self):
        self.assertTrue(self.rung.command("int %d 1" % self.peer)["ok"])
        self.assertEqual(self.rung.command("wait 10s")["vector"], 1)

    def test_any_vector(self):
        self.ok(Client.run(self.group.socket, "int %d 3" % self.peer))
        answer = self.rung.command("wait 10s")
        self.assertEqual((answer["vector"], answer["count"]), (3, 1))

    def test_for_people(self):
        other = self.client(self.group.socket)
        peer = other.command("id")["id"]
        self.assertEqual(self.text(self.group.socket, "int %d 1" % peer), "sent 1 ring\n")
        self.assertEqual(self.text(self.group.socket, "int %d 1 2" % peer), "sent 2 rings\n")

    def test_nobody_there(self):
        for command, why in (("int 4711", "no peer 4711 is connected"),
                             ("int %d 4" % self.peer, "has no vector 4: it has 0 to 3"),
                             ("int 65536", "peer id 65536 is more than 65535"),
                             ("int %d 65536" % self.peer, "vector 65536 is more than 65535"),
                             ("int 99999999999999999999", "is more than"),
                             ("int x", 'peer id "x" is not a number'),
                             ("int -1", 'peer id "-1" is not a number'),
                             ("int", "usage: int PEER"), ("int 1 2 3 4", "usage: int PEER")):
            with self.subTest(command):
                self.assertIn(why, self.text(self.group.socket, command, status=1))
        self.assertTrue(self.rung.command("wait 0")["timeout"])

    def test_nobody_at_all(self):
        self.rung.write("quit\n")
        self.rung.wait()
        self.assertEqual(self.text(self.group.socket, "int all"), "sent 0 rings\n")

    def test_round_trips(self):
        pinger = self.client(self.group.socket)
        own = pinger.command("id")["id"]
        self.assertTrue(self.rung.command("wait-peer %d 10s" % own)["ok"])
        self.rung.write("pong %d 200\n" % own)
        answer = pinger.command("ping %d 200 10s" % self.peer)
        self.assertEqual((answer["ok"], answer["count"]), (True, 200), answer)
        times = [answer[key] for key in ("min_ns", "median_ns", "p99_ns", "max_ns")]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[0], 0)
        self.assertEqual(json.loads(self.rung.out.wait_for(r"^.*\n").group())["answered"], 200)

    def test_ping_without_answer(self):
        result = Client.run(self.group.socket, "ping %d 3 50ms" % self.peer)
        self.assertEqual(result.status, 1)
        self.assertRegex(result.err, r"before peer %d answered ring 1 \(.*pong \d+" % self.peer)
        self.assertIn("count must be", self.text(self.group.socket, "ping 0 0", status=1))
        self.assertIn("cannot ring peer 99", self.text(self.group.socket, "ping 99", status=1))


class Memory(ClientTest):
    def setUp(self):
        super().setUp()
        self.group = self.server("-l", "1M")

    def test_poke_and_peek(self):
        writer = self.client(self.group.socket)
        for command, hexa in (("poke 4096 deadBEEF", "deadbeef"), ("poke 4096 de ad", "dead"),
                              ('poke 0x1000 "hello"', b"hello".hex()),
                              (r'poke 4K "a\n\"\\\000\101b c" ff', "610a225c00416220" + "63ff"),
                              ("poke 1048575 7f", None)):
            with self.subTest(command):
                answer = writer.command(command)
                self.assertTrue(answer["ok"], answer)
                if hexa:
                    self.assertEqual(answer["length"], len(hexa) // 2)
                    result = self.ok(Client.run(self.group.socket,
                                                "peek 4096 %d" % answer["length"]))
                    self.assertEqual(result.answers[0]["hex"], hexa)
        self.assertEqual(writer.command("peek 1048575 1")["hex"], "7f")

    def test_peek_for_people(self):
        text = self.text(self.group.socket, 'poke 8 "0123456789abcdefXY"', "peek 8 18")
        self.assertEqual(text, "wrote 18 bytes\n"
                         "00000008  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  "
                         "|0123456789abcdef|\n"
                         "00000018  58 59                                            |XY|\n")
        self.assertEqual(self.text(self.group.socket, "peek 0").count("\n"), 4)

    def test_fill_and_cat(self):
        self.ok(Client.run(self.group.socket, "fill 0 1M 0xa5", "fill 16 16 0"))
        self.assertEqual(
            subprocess.run([program("client"), "-S", self.group.socket, "-c", "cat 15 18"],
                           stdout=subprocess.PIPE, check=True).stdout,
            b"\xa5" + bytes(16) + b"\xa5")
        whole = subprocess.run([program("client"), "-S", self.group.socket, "-c", "cat"],
                               stdout=subprocess.PIPE, check=True).stdout
        self.assertEqual(whole, b"\xa5" * 16 + bytes(16) + b"\xa5" * (MIB - 32))

    def test_bounds(self):
        past = "reach past the end of the memory, which has 1048576"
        for command, why in (
                ("peek 1M 1", past), ("peek 0 1048577", past), ("peek 1048576", past),
                ("peek 0xffffffffffffffff 2", past), ("fill 0xffffffffffffffff 2 0", past),
                ("fill 1 1M 0", past), ("fill 2 0xffffffffffffffff 0", past),
                ('poke 1048574 "abc"', past), ("cat 1 1M", past),
                ("cat 0x100001", "is more than 1048576"), ("peek 0 1G", "is more than"),
                ("fill 0 1 256", "byte 256 is more than 255"),
                ("peek 16777216T", "is more than 18446744073709551615"),
                ("peek 1.5", "is not a number"), ("peek 1Q", "is not a number"),
                ("peek 0x", "is not a number"), ("peek", "usage: peek"),
                ("poke 0", "usage: poke"), ("poke 0 abc", "pairs of hexadecimal digits"),
                ("poke 0 hello", "text goes in quotes"), ('poke 0 "abc', 'a " has no partner'),
                (r'poke 0 "abc\"', 'a " has no partner')):
            with self.subTest(command):
                self.assertIn(why, self.text(self.group.socket, command, status=1))
        self.assertEqual(Client.run(self.group.socket, "peek 0 1M").answers[0]["hex"],
                         "00" * MIB)

    def test_bases(self):
        for command, offset in (("peek 010 1", 10), ("peek 0x10 1", 16), ("peek 08 1", 8),
                                ("peek 1K 1", 1024)):
            with self.subTest(command):
                text = self.text(self.group.socket, command)
                self.assertEqual(text.split()[0], "%08x" % offset)

    def test_ends_that_fit(self):
        self.ok(Client.run(self.group.socket, "peek 1M 0", "fill 1M 0 1", "fill 1048575 1 1",
                           'poke 1M ""'))
        self.assertEqual(self.text(self.group.socket, "cat 1M"), "")


class Scripts(ClientTest):
    def test_every_command_has_one_answer(self):
        server = self.server()
        commands = ["help", "help wait", "id", "info", "dump", "nonsense", "int", "wait 0",
                    "wait x", "peek 0 0", "cat", "int all", "wait-peers 0 1s", "help nonsense",
                    'poke 0 "', "ping 0 1 0", "quit"]
        result = Client.run(server.socket, *commands)
        self.assertEqual(result.status, 1)
        lines = result.text.splitlines()
        self.assertEqual(len(lines), len(commands), result)
        for command, line in zip(commands, lines):
            answer = json.loads(line)
            self.assertIs(type(answer["ok"]), bool, line)
            self.assertEqual("error" in answer, not answer["ok"], line)
            self.assertTrue(answer["command"].startswith(command.split()[0]), line)
        self.assertEqual(result.err.count("\n"), sum('"ok":false' in line for line in lines))

    def test_help_names_every_command(self):
        server = self.server()
        answer = Client.run(server.socket, "help").answers[0]
        names = [command["name"] for command in answer["commands"]]
        for name in ("help", "dump", "int", "quit", "wait", "peek", "poke", "ping"):
            self.assertIn(name, names)
        text = self.text(server.socket, "help")
        for name in names:
            self.assertRegex(text, r"(?m)^%s " % name)
        self.assertEqual(max(map(len, text.splitlines())) <= 80, True, text)

    def test_the_manual_page_is_complete(self):
        server = self.server()
        with open(os.path.join(support.TOP, "docs/tools/ivshmem-client.rst"),
                  encoding="utf-8") as file:
            page = file.read()
        for command in Client.run(server.socket, "help").answers[0]["commands"]:
            self.assertRegex(page, r"(?m)^``%s``|``%s`` is another name"
                             % ((command["name"],) * 2))
        usage = self.piped(server.socket, "", "--help")
        for option in re.findall(r"--[a-z-]+", usage):
            self.assertRegex(page, r"(?m)^.. option:: .*%s\b" % option)
        other = self.client(server.socket)
        peer = other.command("id")["id"]
        for command in ("id", "dump", "int %d" % peer, "wait 0", "wait-peer %d" % peer,
                        "wait-gone 99", "wait-peers 1", "peek 0 1", "poke 0 00", "fill 0 1 1"):
            answer = Client.run(server.socket, command).answers[0]
            self.assertEqual(answer["ok"], command != "wait 0", answer)
            for member in set(answer) - {"command", "ok"}:
                self.assertIn("``%s``" % member, page, answer)

    def test_pipe(self):
        server = self.server()
        out = self.piped(server.socket, "\n  # a comment\nid\r\n\tint 0 0\nwait 10s")
        self.assertEqual(out, "id 0\nsent 1 ring\nrung: vector 0, count 1\n")

    def test_pipe_goes_on_after_an_error(self):
        server = self.server()
        out = self.piped(server.socket, "nonsense\nid\n", status=1)
        self.assertEqual(out, "id 0\n")

    def test_quit_ends(self):
        server = self.server()
        self.assertEqual(self.piped(server.socket, "quit\nid\n"), "")
        self.assertEqual(self.ok(Client.run(server.socket, "quit", "id")).answers,
                         [{"command": "quit", "ok": True}])

    def test_end_of_input(self):
        """C1"""
        server = self.server()
        self.assertEqual(self.piped(server.socket, ""), "")

    def test_endless_line(self):
        server = self.server()
        self.assertEqual(self.piped(server.socket, "x" * (2 << 20), status=1), "")

    def test_long_line(self):
        server = self.server("-l", "1M")
        out = self.piped(server.socket, "poke 0 %s\npeek 262140 4\n" % ("5a" * 262144))
        self.assertEqual(out.splitlines()[0], "wrote 262144 bytes")
        self.assertIn("5a 5a 5a 5a", out)

    def test_events(self):
        server = self.server("-n", "2")
        watcher = self.client(server.socket, "--events")
        own = int(watcher.out.wait_for(r'^{"event":"connected","id":(\d+)}\n').group(1))
        other = self.client(server.socket)
        peer = other.command("id")["id"]
        watcher.out.wait_for(r'^{"event":"joined","peer":%d}\n' % peer)
        self.assertTrue(other.command("int %d 1 3" % own)["ok"])
        watcher.out.wait_for(r'^{"event":"rung","vector":1,"count":[123]}\n')
        other.write("quit\n")
        watcher.out.wait_for(r'^{"event":"left","peer":%d}\n' % peer)
        server.stop()
        watcher.out.wait_for(r'^{"event":"disconnected","error":".+"}\n')
        self.assertEqual(watcher.wait(), 3)

    def test_times(self):
        server = self.server()
        for text in ("x", "1h", "-1", "2 s", "1e99", "nan", "inf", "s", ""):
            with self.subTest(text):
                self.text(server.socket, 'wait "%s"' % text, status=1)
        for text in ("0", "0s", "1ms", "0.001s", "0.001", "0m"):
            with self.subTest(text):
                self.assertIn("passed before a ring came",
                              self.text(server.socket, "wait " + text, status=1))

    def test_nobody_reads_the_answers(self):
        server = self.server()
        reader, writer = os.pipe()
        os.close(reader)
        try:
            child = subprocess.Popen([program("client"), "-S", server.socket, "-c", "help"],
                                     stdout=writer, stderr=subprocess.PIPE)
        finally:
            os.close(writer)
        err = child.communicate(timeout=support.DEFAULT_WAIT * support.SCALE)[1]
        self.assertIn(child.returncode, (1, -13), err)


class Options(support.TestCase):
    def run_client(self, *options, status):
        done = subprocess.run([program("client"), *options], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              text=True, timeout=support.DEFAULT_WAIT * support.SCALE)
        self.assertEqual(done.returncode, status, done)
        return done.stdout if status == 0 else done.stderr

    def test_help_and_version(self):
        for option in ("-h", "--help"):
            text = self.run_client(option, status=0)
            for name in ("-S", "-c", "-v", "--json", "--events", "--timeout", "--fd"):
                self.assertIn(name, text)
        self.assertRegex(self.run_client("--version", status=0), r"^ivshmem-client \d+\.\d+")

    def test_wrong_usage(self):
        for options, why in ((["--nonsense"], "Unknown option"), (["id"], "commands follow -c"),
                             (["--timeout", "x"], "is not a time"), (["-S"], "-S")):
            with self.subTest(options):
                self.assertIn(why, self.run_client(*options, status=2))

    def test_verbose(self):
        server = self.server("-n", "2")
        result = Client.run(server.socket, "id", options=["-v"])
        self.assertEqual(result.status, 0)
        self.assertIn("has vector 1", result.err)
        self.assertEqual(result.answers[0]["id"], 0)

    def test_default_socket(self):
        if os.path.exists("/tmp/ivshmem_socket"):
            self.skipTest("somebody uses /tmp/ivshmem_socket")
        self.assertIn("/tmp/ivshmem_socket: No such file", self.run_client(status=3))


if __name__ == "__main__":
    unittest.main()
