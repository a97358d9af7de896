# SPDX-License-Identifier: GPL-2.0-or-later
"""
The units of the package under a real systemd: a scratch root with the package in it, booted in
QEMU.  What the server's half of each protocol does in detail: tests/e2e/test_server_systemd.py.
"""
import json
import os
import shutil
import unittest

import linuximage
import roots
import support
import vm

BOOT_SECONDS = 300
SECONDS = 180       # systemctl takes some seconds where a processor is emulated
UNIT = "ivshmem-server"
SOCKET = "/run/ivshmem/default.sock"

# Shell functions in the guest: peers of the group kvm, each with its commands in a fifo.
PEERS = r"""
peer() { # NAME [OPTION...]
    name=$1
    shift
    mkfifo /tmp/$name.in /tmp/$name.out
    setsid setpriv --reuid=nobody --regid=kvm --clear-groups \
        ivshmem-client -S /run/ivshmem/default.sock --json "$@" \
        <>/tmp/$name.in 1<>/tmp/$name.out 2>/tmp/$name.err &
    echo $! >/tmp/$name.pid
}
gone() { # NAME: ends that peer
    kill "$(cat /tmp/$1.pid)" 2>/dev/null || :
    timeout 100 tail --pid="$(cat /tmp/$1.pid)" -f /dev/null
    rm /tmp/$1.*
}
ask() { # NAME COMMAND: prints the answer
    echo "$2" >/tmp/$1.in
    read -r -t 150 answer </tmp/$1.out && echo "$answer"
}
once() { # COMMAND...: one peer, for these commands alone
    for command do
        set -- "$@" -c "$command"
        shift
    done
    setpriv --reuid=nobody --regid=kvm --clear-groups \
        ivshmem-client -S /run/ivshmem/default.sock --timeout=100 "$@"
}
until_another() { # PID: waits for the server to be another process
    timeout 150 sh -c 'until systemctl -q is-active ivshmem-server &&
        [ "$(systemctl show -P MainPID ivshmem-server)" != '"$1"' ]; do :; done'
}
"""


class SystemdTest:
    """One boot, and one life of a server: the tests run in the order of their names."""

    RELEASE = None

    @classmethod
    def setUpClass(cls):
        cls.dir = support.temporary_directory()
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        qemu = support.program("stock")
        linuximage.kernel()
        built = roots.build(cls.RELEASE)
        tree = roots.root(cls.RELEASE, cls.dir, roots.RUN)
        roots.install(tree, built, ["ivshmem-tools"])
        image = os.path.join(cls.dir, "image")
        roots.boot_image(tree, image, PEERS)
        shutil.rmtree(tree)
        cls.vm = vm.LinuxVM(cls.dir, name=cls.RELEASE, exe=qemu, memory="1G", image=image)
        cls.addClassCleanup(cls.vm.stop)
        cls.vm.ready(BOOT_SECONDS)

    def check(self, command):
        return self.vm.check(command, SECONDS).strip()

    def ask(self, name, command):
        answer = json.loads(self.check("ask %s '%s'" % (name, command)))
        self.assertTrue(answer["ok"], answer)
        return answer

    def server(self):
        """The server's process."""
        self.assertEqual(self.check("systemctl is-active " + UNIT), "active")
        return int(self.check("systemctl show -P MainPID " + UNIT))

    def test_1_start(self):
        self.check("systemctl start %s || { journalctl --no-pager -u %s; false; }" % (UNIT, UNIT))
        self.assertGreater(self.server(), 1)
        self.assertEqual(self.check("stat -c '%%U %%G %%a' %s" % SOCKET), "ivshmem kvm 660")

    def test_2_confined(self):
        self.assertEqual(self.check("cat /proc/%d/attr/current" % self.server()),
                         "ivshmem-server (enforce)")
        status = self.check("cat /proc/%d/status" % self.server())
        self.assertRegex(status, r"CapBnd:\s+0+\n")
        self.assertRegex(status, r"Seccomp:\s+2")
        self.assertRegex(self.check("systemd-analyze security --no-pager --threshold=40 %s | "
                                    "tail -n 1" % UNIT), r"exposure level .*: [0-3]\.[0-9] OK")

    def test_3_group_kvm_is_served(self):
        self.check("peer first; peer second --reconnect")
        self.assertEqual(self.ask("first", "wait-peers 1 100s")["npeers"], 1)
        self.ask("second", "wait-peers 1 100s")
        self.ask("first", 'poke 0 "hello"')
        self.ask("first", "int all")
        self.assertEqual(self.ask("second", "wait 100s")["count"], 1)
        self.assertIn("Status: \"2 clients in 1 regions\"",
                      self.check("systemctl status --no-pager " + UNIT))
        answer = self.vm.run("setpriv --reuid=nobody --regid=nogroup --clear-groups "
                             "ivshmem-client -S %s -c id 2>&1" % SOCKET, SECONDS)
        self.assertEqual(answer.status, 3)
        self.assertIn("Permission denied", answer.text)

    def stay(self):
        """The two peers have kept session, memory, IDs and each other's eventfds."""
        first, second = self.ask("first", "dump"), self.ask("second", "dump")
        self.assertTrue(first["connected"] and second["connected"])
        self.assertEqual([peer["id"] for peer in first["peers"]], [second["id"]])
        self.ask("second", "int all")
        self.assertEqual(self.ask("first", "wait 100s")["count"], 1)
        self.assertEqual(self.ask("second", "peek 0 5")["hex"].replace(" ", ""), b"hello".hex())

    def test_4_restart_is_not_noticed(self):
        for action in ("restart", "restart"):
            before = self.server()
            self.check("systemctl %s %s || { journalctl --no-pager -u %s; false; }"
                       % (action, UNIT, UNIT))
            self.assertNotEqual(self.server(), before)
            # "first" ends when it loses the server.
            self.stay()
        self.assertEqual(self.check("once 'peek 0 5' id | tail -n 1"), "id 2")

    def test_5_mistake_is_mended_in_time(self):
        """A reload and a restart with a wrong configuration, which is then put right."""
        before = self.server()
        self.check("cp /etc/ivshmem/server.conf /tmp; "
                   "echo size=wrong >>/etc/ivshmem/server.conf")
        self.assertEqual(self.vm.run("systemctl reload " + UNIT, SECONDS).status, 1)
        self.assertEqual(self.server(), before)
        self.assertEqual(self.vm.run("systemctl restart " + UNIT, SECONDS).status, 1)
        self.assertIn("server.conf", self.check("journalctl --no-pager -u " + UNIT))
        self.check("cp /tmp/server.conf /etc/ivshmem; until_another %d" % before)
        self.stay()

    def test_5_reload(self):
        before = self.server()
        self.check(r"printf '[region more]\nsize=1M\nsocket=/run/ivshmem/more.sock\n"
                   r"socket-group=kvm\n' >>/etc/ivshmem/server.conf")
        self.check("systemctl reload " + UNIT)
        self.check("timeout 100 sh -c 'until test -S /run/ivshmem/more.sock; do :; done'")
        self.assertEqual(self.server(), before)
        self.assertEqual(self.check("stat -c '%U %G %a' /run/ivshmem/more.sock"),
                         "ivshmem kvm 660")
        self.stay()

    def test_6_upgrade_is_not_noticed(self):
        before = self.server()
        self.check("dpkg --no-triggers --force-confold -i /packages/ivshmem-tools_*.deb")
        self.assertNotEqual(self.server(), before)
        self.stay()

    def test_7_killed(self):
        before = self.server()
        ids = self.ask("second", "id")["id"]
        self.check("systemctl kill -s KILL %s; until_another %d" % (UNIT, before))
        # The other peer has ended with its server; the new one is in its place.
        self.check("gone first; peer first")
        self.ask("first", "wait-peer %d 100s" % ids)
        self.ask("second", "wait-peers 1 100s")
        self.assertEqual(self.ask("second", "id")["id"], ids)
        self.stay()

    def test_8_hung(self):
        """The watchdog finds a server that does nothing."""
        self.check("mkdir -p /run/systemd/system/ivshmem-server.service.d && printf "
                   r"'[Service]\nWatchdogSec=20\nTimeoutAbortSec=1\n' "
                   ">/run/systemd/system/ivshmem-server.service.d/soon.conf && "
                   "systemctl daemon-reload && systemctl restart " + UNIT)
        before = self.server()
        self.stay()
        self.check("kill -STOP %d; until_another %d" % (before, before))
        self.assertIn("Watchdog timeout", self.check("journalctl --no-pager -u " + UNIT))

    def test_8_socket_activation(self):
        self.check("gone first; gone second; systemctl stop " + UNIT)
        self.assertEqual(self.vm.run("once id", SECONDS).status, 3)
        self.check("systemctl start ivshmem-server.socket")
        for _ in range(2):
            self.assertEqual(self.vm.run("systemctl is-active " + UNIT).text.strip(), "inactive")
            self.assertEqual(self.check("stat -c '%%G %%a' %s" % SOCKET), "kvm 660")
            self.assertEqual(self.check("once id"), "id 0")
            self.server()
            # The socket stays systemd's when the server goes.
            self.check("systemctl stop %s 2>&1" % UNIT)

    def test_9_no_rule_was_broken(self):
        denied = self.vm.run("dmesg | grep 'DENIED.*ivshmem-server'", SECONDS)
        self.assertEqual(denied.status, 1, denied.text)
        said = self.check("journalctl --no-pager -o cat -p warning -t ivshmem-server")
        self.assertNotRegex(said, "ivshmem-server: |cannot|somebody holds")

    def test_9_removed(self):
        self.check("systemctl start " + UNIT)
        self.check("dpkg --no-triggers -P ivshmem-tools")
        self.assertEqual(self.check("cat /proc/[0-9]*/comm | grep -c '^ivshmem-server' || :"),
                         "0")
        self.assertEqual(self.check("ls -d /run/ivshmem /etc/ivshmem 2>/dev/null || :"), "")
        self.assertEqual(self.check("systemctl list-units --all --no-legend 'ivshmem*'"), "")


class Debian12(SystemdTest, unittest.TestCase):
    RELEASE = "bookworm"


class Debian13(SystemdTest, unittest.TestCase):
    RELEASE = "trixie"
