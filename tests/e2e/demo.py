#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Two Linux virtual machines share memory and ring each other; a third party on the host joins in.
Ends with status 0 only if every message arrived intact.
"""
import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import linuximage   # noqa: E402
import support      # noqa: E402
import vm           # noqa: E402

ROUND_TRIPS = 10000
HOST_OFFSET = 65536             # behind the guests' channel
CONVERSATION = (
    ("Hello B, this is A. I wrote this into our shared memory and rang you.",
     "Hello A, B here: your doorbell woke me by MSI-X, and there it was."),
    ("No network, no disk, no copy by the host. How do you get at the device?",
     "Stock Linux, VFIO behind a virtual IOMMU, and one static program."),
    ("Umlauts: äöü, snow: ☃. Do all bytes arrive as they left?",
     "Every one; each message has a checksum. Goodbye, A!"),
)
PLAIN_CONVERSATION = (
    ("Hello B, A again. No server and no doorbell this time.",
     "Hello A. I looked into the memory until your words appeared."),
    ("Polling is the fastest way as long as somebody looks.",
     "And it costs a CPU. Goodbye, A!"),
)


class Demo:
    def __init__(self, options):
        self.options = options
        self.begin = time.monotonic()
        self.directory = support.temporary_directory()
        self.processes = []
        self.intact = 0
        self.color = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def paint(self, code, text):
        return "\033[%sm%s\033[0m" % (code, text) if self.color else text

    def title(self, text):
        print("\n" + self.paint("1", text), flush=True)

    def say(self, text):
        print("   " + text, flush=True)

    def line(self, who, text):
        code = {"A": "36", "B": "33"}.get(who, "35")
        if text.startswith("  ["):
            text = self.paint("2", text.strip())
        print("   %s %s" % (self.paint(code, "%-4s |" % who), text), flush=True)

    def start(self, process):
        self.processes.append(process)
        if self.options.verbose:
            self.say(self.paint("2", "$ " + " ".join(process.argv)))
        return process

    def expect(self, condition, text):
        if not condition:
            raise AssertionError(text)

    def boot(self, *devices):
        """Two VMs, A and B."""
        start = time.monotonic()
        pair = [self.start(vm.LinuxVM(self.directory, *args, name=name, exe=self.options.qemu))
                for name, args in zip("AB", devices)]
        for machine in pair:
            machine.ready()
        self.say("A and B are up after %.1f s" % (time.monotonic() - start))
        return pair

    def info(self, machine):
        return json.loads(machine.check("ivshmem-guest info --json"))

    def converse(self, pair, peers, turns):
        """A leads, B replies; shows who did what in the order in which it must have happened."""
        outputs = []
        jobs = []
        for index, (machine, option) in enumerate(zip(pair, ("--lead", "--reply"))):
            lines = "\\n".join(turn[index] for turn in turns)
            jobs.append(machine.begin(
                "printf '%s\\n' | ivshmem-guest chat %d -v %s --expect %d --timeout 60 2>&1"
                % (lines, peers[index], option, len(turns))))
        for machine, job in zip(pair, jobs):
            answer = job.finish(90)
            self.expect(answer.status == 0, "chat in %s failed:\n%s" % (machine.name, answer.text))
            outputs.append([line for line in answer.text.splitlines() if " is here" not in line])
        self.show(outputs)
        for index in (0, 1):
            got = [line for line in outputs[index] if line.startswith("peer ")]
            want = ["peer %d: %s" % (peers[index], turn[1 - index]) for turn in turns]
            self.expect(got == want, "%s received %r instead of %r"
                        % (pair[index].name, got, want))
            self.intact += len(got)

    def show(self, outputs):
        sent, received = [0, 0], [0, 0]
        queues = [list(lines) for lines in outputs]
        who = 0
        while queues[0] or queues[1]:
            queue = queues[who]
            arrival = queue and (queue[0].startswith("peer ") or "woken" in queue[0])
            if not queue or (arrival and queues[1 - who] and received[who] >= sent[1 - who]):
                who = 1 - who
                continue
            text = queue.pop(0)
            sent[who] += "[wrote" in text
            received[who] += text.startswith("peer ")
            self.line("AB"[who], text)

    def round_trips(self, pair, peers, count):
        job = pair[1].begin("ivshmem-guest ping %d --answer --timeout 120" % peers[1])
        answer = json.loads(pair[0].check("ivshmem-guest ping %d --count %d --json --timeout 20"
                                          % (peers[0], count), 150))
        self.expect(job.finish().status == 0, "the answering side failed")
        self.expect(answer["round_trips"] == count, "round trips are missing: %r" % answer)
        self.intact += 2 * count
        self.say("%s round trips A-B-A by %s, none lost: median %.1f us, p99 %.1f us"
                 % (format(count, ","), answer["how"], answer["median_us"], answer["p99_us"]))
        return answer

    def doorbell(self):
        self.title("1. ivshmem-server hands out 1 MiB of memory and a doorbell for everybody")
        server = self.start(support.Server(self.directory, "-l", "1M", "-n", "1"))
        self.say("ready at %s" % server.socket)
        self.title("2. Two VMs boot with -device ivshmem-doorbell")
        pair = self.boot(*[vm.doorbell(server.socket)] * 2)
        for machine in pair:
            self.say("%s: %s" % (machine.name, machine.check("ivshmem-guest bind").strip()))
        ids = [self.info(machine)["id"] for machine in pair]
        self.expect(len(set(ids)) == 2, "both VMs have the same ID")
        self.say("A is peer %d, B is peer %d" % tuple(ids))
        peers = (ids[1], ids[0])
        self.title("3. They talk: a message into the memory, a ring, an interrupt over there")
        self.converse(pair, peers, CONVERSATION)
        self.title("4. They play ping-pong: ring, interrupt, ring back, interrupt")
        answer = self.round_trips(pair, peers, self.options.count)
        self.expect(answer["wakeups"] >= self.options.count, "fewer interrupts than round trips")
        self.title("5. A third party: ivshmem-client on the host")
        self.third_party(server, pair, ids)
        self.stop()

    def third_party(self, server, pair, ids):
        text = "Greetings from the host to both of you"
        for machine in pair:    # goodbyes that came when nobody listened any more
            machine.run("ivshmem-guest wait --timeout 50ms --count 1000")
        jobs = [machine.begin("ivshmem-guest wait --verbose --timeout 30 2>&1 && "
                              "ivshmem-guest cat %d %d" % (HOST_OFFSET, len(text)))
                for machine in pair]
        for job in jobs:
            job.wait_for(r"^waiting on .*\n")
        commands = ['poke %d "%s"' % (HOST_OFFSET, text)] + ["int %d 0" % peer for peer in ids]
        result = support.Client.run(server.socket, *commands)
        self.expect(result.status == 0, "ivshmem-client failed: %r" % result)
        for command in commands:
            self.line("host", command)
        for machine, job in zip(pair, jobs):
            answer = job.finish(40)
            self.expect(answer.status == 0, "%s was not woken:\n%s" % (machine.name, answer.text))
            lines = answer.text.splitlines()[1:]
            self.expect(lines == ["vector 0: 1 interrupt", text],
                        "%s got %r from the host" % (machine.name, lines))
            self.line(machine.name, "  [woken by MSI-X: %s]" % lines[0])
            self.line(machine.name, lines[1])
            self.intact += 1

    def plain(self):
        self.title("6. The same with -device ivshmem-plain: one memory backend, no server")
        path = os.path.join(self.directory, "memory")
        pair = self.boot(*[vm.plain(path)] * 2)
        peers = (1, 0)
        self.converse(pair, peers, PLAIN_CONVERSATION)
        self.round_trips(pair, peers, self.options.count)
        self.stop()

    def stop(self):
        while self.processes:
            self.processes.pop().stop()

    def run(self):
        accel, reason = vm.accelerator(self.options.qemu)
        kernel = re.sub("_.*", "", os.path.basename(linuximage.kernel()))
        print(self.paint("1", "ivshmem: two virtual machines, one memory, and a doorbell"))
        self.say("guests: %s, 1 CPU, 256 MiB, under %s (%s)" % (kernel, accel.upper(), reason))
        self.say("host:   %s, %d CPUs" % (platform.platform(), os.cpu_count()))
        self.doorbell()
        self.plain()
        print("\n%s %s messages, every one arrived intact, in %.0f s"
              % (self.paint("1;32", "Done:"), format(self.intact, ","),
                 time.monotonic() - self.begin))

    def close(self):
        self.stop()
        if self.options.keep:
            self.say("kept: " + self.directory)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=ROUND_TRIPS, metavar="N",
                        help="round trips (default %d)" % ROUND_TRIPS)
    parser.add_argument("--qemu", metavar="PATH", help="another qemu-system-x86_64")
    parser.add_argument("--keep", action="store_true", help="keep consoles and sockets")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the command lines")
    options = parser.parse_args()
    if options.count < 1:
        parser.error("--count must be 1 or more")
    sys.stdout.reconfigure(errors="replace")
    support.end_on_sigterm()
    demo = Demo(options)
    try:
        demo.run()
        return 0
    except unittest.SkipTest as error:
        print("demo: cannot run: %s" % error, file=sys.stderr)
    except (AssertionError, ConnectionError, OSError) as error:
        print("\ndemo: FAILED: %s" % error, file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
    finally:
        demo.close()
    return 1


if __name__ == "__main__":
    sys.exit(main())
