#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Everything at once, for long: soak.py [SECONDS]; the default is an hour.

Two VMs ring each other all the while.  Around them clients come and go by the hundred, stop
reading or stop altogether; the server is killed, stopped, replaced and told to read its
configuration again; a third VM has its device plugged and unplugged, a fourth is migrated.
At the end of each round all must know all, every ring must have come out, and open descriptors and
memory of server and VMs are taken down.  Exit status 0: no message was lost, and both are constant.
"""
import os
import random
import signal
import sys
import time

import fault
import migration
import support
import tiny
from server_load import ConfigServer, Load
from tiny import ivec

HOUR = 3600
ROUND_TRIPS = 5000
VECTORS = 4
OTHERS = 3 + 2 + 2 - 1          # clients here, VMs, slow clients: as one of them sees it
KIB_PER_ID = 32 / 1024          # the server's note of when an ID was last in use
# What an allocator may keep: of the server's, of a VM's, in KiB.
SLACK = {"server": 1024, "vm": 8192}
# Reconnecting VMs keep descriptors of before for so long (docs/specs/ivshmem-spec.rst).
LINGER_SECONDS = 30


def resident(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def is_sanitized(pid):
    """Then it keeps what was freed for a while, and its memory says little."""
    with open("/proc/%d/maps" % pid, encoding="utf-8") as maps:
        return "libasan" in maps.read()


class Series:
    """One process's descriptors and memory, once a round."""

    def __init__(self, name, slack):
        self.name = name
        self.slack = slack
        self.fds = []
        self.memory = []

    def add(self, pid):
        self.fds.append(support.fd_count(pid))
        self.memory.append(resident(pid))
        self.sanitized = is_sanitized(pid)

    def grown(self):
        """KiB by which the last third lies above what it was until then."""
        third = max(1, len(self.memory) // 3)
        return max(self.memory[-third:]) - max(self.memory[:-third] or self.memory)

    def verdict(self, first_fds, last_fds):
        wrong = []
        if first_fds != last_fds:
            wrong.append("%s: %d descriptors at first, %d at the end"
                         % (self.name, first_fds, last_fds))
        if self.grown() > self.slack and not self.sanitized:
            wrong.append("%s: memory has grown by %d KiB" % (self.name, self.grown()))
        return wrong


class Soak(tiny.HotPlugging, migration.Migrating, tiny.TinyCase):
    """soak(seconds, say) does it all; returns what is wrong."""
    path = migration.Route("kvm")
    vectors = VECTORS

    # ---- the parties ----

    def prepare(self, seed):
        self.choose = random.Random(seed)
        self.counted = {}
        self.lost = 0
        with open(os.path.join(self.dir, "server.conf"), "w", encoding="ascii") as out:
            out.write("[region r]\nsize=1M\nvectors=%d\nsocket=%s/r\n" % (VECTORS, self.dir))
        self.serve()
        self.group = fault.Group(os.path.join(self.dir, "r"), VECTORS)
        self.addCleanup(self.group.close)
        self.group.join(3)
        self.memory = None
        self.pair_of_guests = self.talker(), self.talker()
        self.introduce(*self.pair_of_guests)
        a, b = self.pair_of_guests
        b.echo(ivec(0), a.id, 0)
        self.plugged = self.guest()
        self.slow = self.start(self.crowd(2))
        self.series = {"server": Series("server", SLACK["server"]),
                       "VM 1": Series("VM 1", SLACK["vm"]), "VM 2": Series("VM 2", SLACK["vm"]),
                       "VM 3, hot-plugged": Series("VM 3, hot-plugged", SLACK["vm"])}
        self.settle_all()

    def talker(self):
        guest = self.guest("-chardev", "socket,id=c,reconnect-ms=50,path=%s/r" % self.dir,
                           "-device", "ivshmem-doorbell,id=shm,chardev=c,vectors=%d,ioeventfd=%s"
                           % (VECTORS, "on" if self.path.ioeventfd else "off"))
        guest.id = guest.setup()
        return guest

    def serve(self, *options):
        self.served = self.start(ConfigServer(
            "--config", os.path.join(self.dir, "server.conf"), *options))

    @property
    def socket(self):
        return os.path.join(self.dir, "r")

    def crowd(self, count=0):
        load = Load(self.socket, vectors=VECTORS, timeout=120)
        if count:
            load("join %d" % count)
        return load

    def done(self, what, count=1):
        self.counted[what] = self.counted.get(what, 0) + count

    # ---- what happens to them ----

    def kill_server(self):
        self.served.signal(signal.SIGKILL)
        self.served.stop()
        self.serve()
        self.slow("rejoin 0 1")
        for guest in self.pair_of_guests:
            if "previous-id" in guest.qmp.wait_event("IVSHMEM_CONNECTED", 60)["data"]:
                raise AssertionError("a VM came back with another ID")
        self.settle_all()
        self.done("server kills")

    def replace_server(self):
        former = self.served
        self.serve("--replace")
        self.assertEqual(former.wait(), 0, former.err.text)
        former.stop()
        self.done("replacements")

    def reload_server(self):
        self.served.signal(signal.SIGHUP)
        self.served.err.wait_for("SIGHUP: read")
        self.done("reloads")

    def stop_server(self):
        """It stops for a while; who comes meanwhile waits."""
        self.served.signal(signal.SIGSTOP)
        crowd = self.start(self.crowd(10))
        self.served.signal(signal.SIGCONT)
        self.settle_crowd(crowd, 10)
        crowd.stop()
        self.done("joins", 10)

    def come_and_go(self):
        crowd = self.start(self.crowd())
        crowd("churn %d" % self.choose.randrange(50, 300))
        count = self.choose.randrange(1, 40)
        crowd("join %d" % count)
        self.settle_crowd(crowd, count)
        crowd.stop()
        self.done("joins", count)

    def slow_client(self):
        self.slow("pause 0 1")
        self.come_and_go()
        self.slow("resume 0 1")
        self.done("slow clients", 2)

    def stopped_client(self):
        self.slow.signal(signal.SIGSTOP)
        self.come_and_go()
        self.slow.signal(signal.SIGCONT)
        self.done("stopped clients", 2)

    def hot_plug(self):
        for _ in range(3):
            self.plug(self.plugged, self, VECTORS)
            first = self.group.members[0]
            self.wait_peer(self.plugged, first.id, VECTORS)
            self.plugged.ring(first.id, 1)
            os.set_blocking(first.own[1], True)
            self.lost += os.eventfd_read(first.own[1]) != 1
            self.unplug(self.plugged)
            self.done("hot-plugs")

    def migrate_one(self):
        """From one server to another, with a ring of a masked vector that travels along."""
        homes = [self.server(VECTORS), self.server(VECTORS)]
        source, peer = self.source(homes[0])
        source.mask(1)
        peer.ring(source.id, 1)
        peer.ring(source.id, 0)
        source.wait_count(ivec(0), 1)
        target, other = self.target(homes[1])
        self.migrate(source, target)
        self.settle(target, other)
        target.mask(1, False)
        try:
            target.wait_count(ivec(1), 1)
            self.assert_counts(target, other, {ivec(0): 1, ivec(1): 1}, self.FENCE)
        except AssertionError:
            self.lost += 1
            raise
        for process in [source, target, peer, other] + homes:
            process.stop()
        self.done("migrations")

    ACTIONS = (kill_server, kill_server, replace_server, reload_server, stop_server, come_and_go,
               come_and_go, slow_client, stopped_client, hot_plug, migrate_one)

    # ---- what must come of it ----

    def settle_crowd(self, crowd, count):
        crowd("settle %d" % (count + OTHERS))

    def settle_all(self):
        """All know all; every ring of every client comes out once."""
        self.introduce(*self.pair_of_guests)
        self.group.others = None
        self.done("clients' reconnections", self.group.settle(retries=3, seconds=60))
        self.slow("settle %d" % OTHERS)
        self.group.others = {int(number): VECTORS for number in self.slow("ids")["ids"].split(",")}
        self.group.others.update({guest.id: VECTORS for guest in self.pair_of_guests})
        self.group.settle(seconds=60)
        self.group.ring_all()
        self.done("rings", 6 * VECTORS)
        inode = os.fstat(self.group.members[0].memory)[1:3]
        self.memory = self.memory or inode
        self.assertEqual(inode, self.memory, "the memory is another")

    def round(self):
        a, b = self.pair_of_guests
        what = a.send("pingpong", ivec(0), tiny.bell(b.id, 0), ROUND_TRIPS, tiny.NO_OFFSET, 0)
        for action in self.choose.sample(self.ACTIONS, 3):
            action(self)
        came = a.answer(what, 120)[0]
        self.lost += ROUND_TRIPS - came
        self.done("round trips between the VMs", came)
        self.settle_all()
        self.take_down()
        self.done("rounds")

    def processes(self):
        a, b = self.pair_of_guests
        return {"server": self.served.pid, "VM 1": a.pid, "VM 2": b.pid,
                "VM 3, hot-plugged": self.plugged.pid}

    def take_down(self):
        for name, pid in self.processes().items():
            self.series[name].add(pid)
        # A restarted server starts anew; IDs cost one that goes on a little each.
        self.series["server"].slack = SLACK["server"] + min(
            self.counted.get("joins", 0), 65536) * KIB_PER_ID

    def descriptors(self):
        return {name: support.fd_count(pid) for name, pid in self.processes().items()}

    def descriptors_at_rest(self, quiet, wanted=None):
        """When they are those wanted, or have not changed for so many seconds."""
        now, since = self.descriptors(), time.monotonic()
        while now != wanted and time.monotonic() < since + quiet:
            support.select.select([], [], [], 0.1)
            before, now = now, self.descriptors()
            if now != before:
                since = time.monotonic()
        return now

    def soak(self, seconds, say, seed=None):
        seed = seed or random.randrange(1 << 32)
        say("seed %d, %s; %d s" % (seed, self.path.name, seconds))
        self.prepare(seed)
        self.hot_plug()
        first = self.descriptors_at_rest(1)
        begin = told = time.monotonic()
        while time.monotonic() < begin + seconds:
            self.round()
            if time.monotonic() > told + min(60, seconds / 3):
                told = time.monotonic()
                say("%5.1f min: %s" % ((told - begin) / 60, self.progress()))
        last = self.descriptors_at_rest(LINGER_SECONDS + 5, first)
        return self.summary(say, first, last)

    def progress(self):
        return "; ".join(["%d rounds, lost %d" % (self.counted.get("rounds", 0), self.lost)] + [
            "%s %d fds %.1f MiB" % (name, series.fds[-1], series.memory[-1] / 1024)
            for name, series in self.series.items() if series.fds])

    def summary(self, say, first, last):
        wrong = ["%d messages were lost" % self.lost] if self.lost else []
        say(", ".join("%d %s" % (count, what) for what, count in self.counted.items()))
        say("lost messages: %d" % self.lost)
        for name, series in self.series.items():
            wrong += series.verdict(first[name], last[name])
            say("%-18s descriptors %d -> %d, memory %.1f -> %.1f MiB (at most %.1f)" % (
                name, first[name], last[name], series.memory[0] / 1024, series.memory[-1] / 1024,
                max(series.memory) / 1024))
        return wrong


def best_path():
    """KVM where a tiny guest runs there."""
    return migration.Route("tcg" if tiny.why_not("kvm") else "kvm")


def main():
    try:
        seconds = float(sys.argv[1]) if len(sys.argv) > 1 else HOUR
    except ValueError:
        sys.exit("usage: soak.py [SECONDS], where SECONDS is a number; \"%s\" is none"
                 % sys.argv[1])
    support.end_on_sigterm()
    case = Soak("soak")
    case.path = best_path()
    begin = time.monotonic()

    def say(text):
        print("%7.1f s  %s" % (time.monotonic() - begin, text), flush=True)

    try:
        case.setUp()
        wrong = case.soak(seconds, say)
    except support.unittest.SkipTest as reason:
        sys.exit("soak: cannot run: %s" % reason)
    except KeyboardInterrupt:
        wrong = ["interrupted"]
    except (AssertionError, OSError) as error:
        wrong = ["%s: %s" % (type(error).__name__, error)]
        say(", ".join("%d %s" % (count, what) for what, count in case.counted.items()))
    finally:
        case.doCleanups()
    for line in wrong:
        print("soak: " + line, flush=True)
    print("soak: %s" % ("FAILED" if wrong else "passed"), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
