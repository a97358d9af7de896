# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux guests that ring each other over VFIO: two of ours, and one of ours with the stock device."""
import json
import re

import support
import vm

VECTORS = 4


class PairTests:
    """Two guests in one group; which QEMU runs each is what the classes below differ in."""

    programs = ("qemu", "qemu")

    @classmethod
    def boot(cls):
        programs = [support.program(name) for name in cls.programs]
        cls.server = cls.start(support.Server(cls.dir, "-l", "1M", "-n", str(VECTORS)))
        cls.a, cls.b = [cls.machine(*vm.doorbell(cls.server.socket, VECTORS), name=name, exe=exe)
                        for name, exe in zip(("A", "B"), programs)]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for machine in cls.machines:
            machine.check("ivshmem-guest bind")
            machine.id = json.loads(machine.check("ivshmem-guest info --json"))["id"]

    def begin_wait(self, machine, arguments):
        """A wait that is known to have begun, with nothing left over from before."""
        machine.run("ivshmem-guest wait --timeout 50ms --count 1000")
        job = machine.begin("ivshmem-guest wait -v --timeout 20 %s 2>&1" % arguments)
        job.wait_for(r"^waiting on .*\n")
        return job

    def finish_wait(self, job):
        answer = job.finish(30)
        self.assertEqual(answer.status, 0, answer.text)
        return answer.text.splitlines()[1:]

    def test_ids_differ(self):
        self.assertEqual(sorted((self.a.id, self.b.id)), [0, 1])

    def test_ring_each_vector_both_ways(self):
        for sender, receiver in ((self.a, self.b), (self.b, self.a)):
            for vector in range(VECTORS):
                with self.subTest(sender=sender.name, vector=vector):
                    job = self.begin_wait(receiver, "")
                    sender.check("ivshmem-guest ring %d %d" % (receiver.id, vector))
                    self.assertEqual(self.finish_wait(job), ["vector %d: 1 interrupt" % vector])

    def test_wait_for_one_vector_leaves_others_out(self):
        job = self.begin_wait(self.b, "2 --json")
        self.a.check("ivshmem-guest ring %d 1; ivshmem-guest ring %d 2"
                     % (self.b.id, self.b.id))
        self.assertEqual([json.loads(line) for line in self.finish_wait(job)],
                         [{"vector": 2, "count": 1}])

    def test_ring_of_nobody_is_ignored(self):
        self.b.run("ivshmem-guest wait --timeout 50ms --count 1000")
        self.a.check("ivshmem-guest ring 77 0; ivshmem-guest ring %d 999; "
                     "ivshmem-guest ring 65535 65535" % self.b.id)
        answer = self.b.run("ivshmem-guest wait --timeout 200ms")
        self.assertEqual(answer.status, 1, answer.text)
        self.assertIn("no interrupt within 0.2 s (1 more expected)", answer.text)

    def test_ring_itself(self):
        text = self.a.check(
            "ivshmem-guest wait --timeout 50ms --count 1000 >/dev/null 2>&1; "
            ": >/tmp/self; (ivshmem-guest wait 1 -v --timeout 10; echo status $?) >/tmp/self 2>&1 & "
            "until grep -q . /tmp/self; do :; done; ivshmem-guest ring %d 1; wait; cat /tmp/self"
            % self.a.id)
        self.assertEqual(text.splitlines()[1:], ["vector 1: 1 interrupt", "status 0"])

    def test_message_both_ways(self):
        text = "The quick brown fox; äöü; " + "0123456789" * 60
        for first, second in ((self.a, self.b), (self.b, self.a)):
            out = self.both(
                (first, "echo '%s' | ivshmem-guest chat %d --expect 1 -t 30 2>/dev/null"
                 % (text, second.id)),
                (second, "echo '%s' | ivshmem-guest chat %d --reply -t 30 2>/dev/null"
                 % (text[::-1], first.id)))
            self.assertEqual(out, ["peer %d: %s\n" % (second.id, text[::-1]),
                                   "peer %d: %s\n" % (first.id, text)])

    def test_crowd_of_messages(self):
        script = "seq 1 500 | ivshmem-guest chat %d --expect 500 -t 60 2>/dev/null"
        out = self.both((self.a, script % self.b.id), (self.b, script % self.a.id), 90)
        for text, peer in zip(out, (self.b.id, self.a.id)):
            self.assertEqual(text, "".join("peer %d: %d\n" % (peer, n) for n in range(1, 501)))

    def test_ping(self):
        for asks, answers in ((self.a, self.b), (self.b, self.a)):
            out = self.both(
                (asks, "ivshmem-guest ping %d -c 500 --vector 3 --json" % answers.id),
                (answers, "ivshmem-guest ping %d --answer -t 60" % asks.id))
            answer = json.loads(out[0])
            self.assertEqual(answer["round_trips"], 500)
            self.assertGreaterEqual(answer["wakeups"], 500)
            self.assertLessEqual(answer["median_us"], answer["p99_us"])
            self.assertIn("answered 500 pings of peer %d" % asks.id, out[1])

    def test_chat_answers_ping(self):
        # A FIFO opened for both ends: input that never comes and never ends.
        out = self.both(
            (self.a, "ivshmem-guest ping %d -c 3" % self.b.id),
            (self.b, "mkfifo /tmp/fifo; ivshmem-guest chat %d -t 30 <>/tmp/fifo 2>/dev/null"
             % self.a.id))
        self.assertEqual(len(re.findall(r"reply from peer \d: seq=\d time=", out[0])), 3)
        self.assertEqual(out[1], "")

    def test_other_place_in_memory(self):
        self.both(
            (self.a, "ivshmem-guest ping %d -c 3 --offset 512K" % self.b.id),
            (self.b, "ivshmem-guest ping %d --answer --offset 512K -t 30" % self.a.id))
        self.assertEqual(self.b.check("ivshmem-guest cat 512K 4"), "IVVM")

    def test_third_party_on_the_host(self):
        text = "from the host"
        jobs = [self.begin_wait(machine, "") for machine in (self.a, self.b)]
        result = support.Client.run(self.server.socket, 'poke 131072 "%s"' % text,
                                    "int %d 1" % self.a.id, "int %d 2" % self.b.id)
        self.assertEqual(result.status, 0, result)
        self.assertEqual([self.finish_wait(job) for job in jobs],
                         [["vector 1: 1 interrupt"], ["vector 2: 1 interrupt"]])
        for machine in (self.a, self.b):
            self.assertEqual(machine.check("ivshmem-guest cat 131072 %d" % len(text)), text)

    def test_guest_rings_the_host(self):
        client = support.Client(self.server.socket)
        self.addCleanup(client.stop)
        own = client.command("id")["id"]
        self.a.check("ivshmem-guest write 200000 'to the host'; ivshmem-guest ring %d 3" % own)
        rung = client.command("wait 20s")
        self.assertEqual((rung["ok"], rung["vector"], rung["count"]), (True, 3, 1))
        self.assertEqual(bytes.fromhex(client.command("peek 200000 11")["hex"]), b"to the host")

    def test_memory_is_the_same(self):
        self.a.check("cat /bin/busybox | head -c 300000 | ivshmem-guest write 300000 -")
        want = self.a.check("head -c 300000 /bin/busybox | md5sum")
        self.assertEqual(self.b.check("ivshmem-guest cat 300000 300000 | md5sum"), want)
        self.assertEqual(self.b.check("ivshmem-guest cat 300000 300000 --via vfio | md5sum"), want)

    def test_no_answer(self):
        self.fails(self.a, "ivshmem-guest ping %d -t 200ms" % self.b.id, "did not answer in time",
                   "is ivshmem-guest running there")
        self.fails(self.a, "ivshmem-guest ping %d" % self.a.id, "is this guest itself")


class Ours(PairTests, vm.LinuxTestCase):
    """Two guests under our QEMU."""

    def test_departure_of_a_host_peer(self):
        """A peer joins, is rung, leaves; its ID then rings nobody, and the guests go on."""
        before = support.fd_count(self.a.pid)
        client = support.Client(self.server.socket)
        own = client.command("id")["id"]
        self.a.check("ivshmem-guest ring %d 0" % own)
        self.assertTrue(client.command("wait 20s")["ok"])
        client.close_stdin()
        self.assertEqual(client.wait(), 0)
        client.stop()
        self.a.check("ivshmem-guest ring %d 0" % own)
        self.test_ping()
        self.assertEqual(support.fd_count(self.a.pid), before)


class OursWithStock(PairTests, vm.LinuxTestCase):
    """One guest under our QEMU, one under the distribution's, with our server."""

    programs = ("qemu", "stock")
