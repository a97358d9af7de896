# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every system call that QEMU makes while a device is plugged fails in turn: device_add reports it or
goes on without, nothing of the attempt stays, and the next one succeeds.

Not what cannot be refused: QEMU and GLib end the program when small allocations fail, and QEMU
when it cannot start a thread.
"""
import os
import re

import fault
import support

VECTORS = 2
# The main loop and QMP make these for themselves.
MAIN_LOOP = {"poll", "ppoll", "read", "write", "epoll_wait", "sendmsg"}


class Plugging(support.TestCase):
    """What both devices have: .add() raises Qmp.Error, .remove() undoes it."""

    def begin(self, *options):
        self.control = fault.Control(self.dir)
        self.addCleanup(self.control.close)
        self.control.off()
        self.vm = self.qemu("-machine", "pc", "-accel", "qtest", *options, env=self.control.env)
        for _ in range(2):          # what comes once and stays, comes now
            self.add()
            self.remove()
        self.empty = self.at_rest()

    def at_rest(self):
        """What goes late, after an RCU grace period, has gone: nothing changes any more."""
        now, limit = None, support.Deadline(1)
        while not limit.expired():
            before, now = now, self.picture()
            if now != before:
                limit = support.Deadline(1)
            support.select.select([], [], [], 0.02)
        return now

    def picture(self):
        fds = []
        for name in os.listdir("/proc/%d/fd" % self.vm.pid):
            try:
                fds.append(os.readlink("/proc/%d/fd/%s" % (self.vm.pid, name)))
            except FileNotFoundError:
                pass            # closed since
        with open("/proc/%d/maps" % self.vm.pid, encoding="utf-8") as maps:
            shared = [line for line in maps if " rw-s " in line or " r--s " in line]
        return {"descriptors": sorted(fds), "shared mappings": len(shared),
                "devices": self.vm.qmp.hmp("info qtree"),
                "regions": re.sub("0x[0-9a-f]+", "", self.vm.qmp.hmp("info mtree")),
                "blocks": re.sub("0x[0-9a-f]+", "", self.vm.qmp.hmp("info ramblock"))}

    def check_empty(self, what):
        limit = support.Deadline(5)
        while True:
            now = self.picture()
            if now == self.empty:
                return
            if limit.expired():
                break
            support.select.select([], [], [], 0.02)
        for key, value in now.items():
            self.assertEqual(value, self.empty[key], "%s: %s" % (what, key))

    def attempt(self, what):
        """Returns the error, or None."""
        self.prepare()
        self.control.arm(what)
        try:
            self.plug()
            return None
        except support.Qmp.Error as error:
            return error.desc
        finally:
            self.control.off()

    def remove(self):
        self.vm.qmp.cmd("device_del", id="iv")
        self.vm.qmp.cmd("system_reset")     # there is no guest to eject it
        self.vm.qmp.wait_event("DEVICE_DELETED",
                               test=lambda event: event["data"].get("device") == "iv")
        self.tidy()

    def add(self):
        self.prepare()
        self.plug()
        self.works()

    def fail_each(self):
        self.assertIsNone(self.attempt(fault.NONE))
        counts = {call: count for call, count in self.control.counts.items()
                  if call not in MAIN_LOOP}
        self.remove()
        refused = tried = 0
        for what in fault.plan(counts, everything=True):
            with self.subTest(fault=str(what)):
                error = self.attempt(what)
                tried += 1
                if error is None:
                    self.remove()
                else:
                    refused += 1
                    self.said(what, error)
                    self.tidy()
                self.check_empty(what)
                self.add()
                self.remove()
                self.check_empty("%s, and then a device that works" % (what,))
        self.assertEqual(self.vm.quit(), 0, self.vm.err.text)
        print("     %d faults of %s: %d refused, %d gone on without"
              % (tried, ", ".join(sorted(counts)), refused, tried - refused), flush=True)
        return refused


class Doorbell(Plugging):
    # R-DEV-29
    def test_every_system_call(self):
        self.served = self.server("-n", str(VECTORS), "-l", "64K")
        self.begin()
        self.assertGreater(self.fail_each(), 0)
        self.served.err.wait_for("left")

    def prepare(self):
        self.vm.qmp.cmd("chardev-add", id="iv-c", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": self.served.socket}}, "server": False}})

    def plug(self):
        self.vm.qmp.cmd("device_add", driver="ivshmem-doorbell", id="iv", chardev="iv-c",
                        vectors=VECTORS, **{"handshake-timeout": 5000})

    def works(self):
        device = self.vm.qmp.cmd("query-ivshmem")[0]
        self.assertTrue(device["connected"])
        self.assertEqual(device["memory"]["size"], 64 << 10)

    def tidy(self):
        self.vm.qmp.cmd("chardev-remove", id="iv-c")

    def said(self, what, error):
        # QEMU's chardev takes any error of recvmsg() for the end of the connection.
        self.assertRegex(error, re.escape(what.text) + "|descriptors" +
                         ("|closed the connection" if what.call == "recvmsg" else ""))


class Plain(Plugging):
    # R-DEV-29
    def test_every_system_call(self):
        self.begin()
        self.fail_each()

    def prepare(self):
        self.vm.qmp.cmd("object-add", **{"qom-type": "memory-backend-memfd", "id": "iv-m",
                                         "size": 64 << 10, "share": True})

    def plug(self):
        self.vm.qmp.cmd("device_add", driver="ivshmem-plain", id="iv", memdev="iv-m")

    def works(self):
        self.assertEqual(self.vm.qmp.cmd("query-ivshmem")[0]["memory"]["size"], 64 << 10)

    def tidy(self):
        self.vm.qmp.cmd("object-del", id="iv-m")

    def said(self, what, error):
        self.assertIn(what.text, error)


class WithoutMsix(Doorbell):
    """A machine whose interrupt controller takes no messages: the first step fails."""

    def test_every_system_call(self):
        self.served = self.server("-n", str(VECTORS), "-l", "64K")
        self.vm = self.qemu("-machine", "pc", "-accel", "qtest", "-cpu", "qemu64,-apic")
        empty = self.at_rest()
        for _ in range(3):
            self.prepare()
            with self.assertRaisesRegex(support.Qmp.Error, "MSI-X"):
                self.plug()
            self.tidy()
            self.empty = empty
            self.check_empty("no MSI-X")
        self.assertEqual(self.vm.quit(), 0, self.vm.err.text)
