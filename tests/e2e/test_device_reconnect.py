# SPDX-License-Identifier: GPL-2.0-or-later
"""The server dies and comes back, with guests that ring each other all the while."""
import os
import secrets
import signal
import time

import support
import tiny
from tiny import BAR2, ivec

# IVSHMEM_TEST_SECONDS=600 makes it a test of endurance.
RESTARTS = 10
SECONDS = int(os.environ.get("IVSHMEM_TEST_SECONDS", "0"))
ROUND_TRIPS = 2000

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
DEVICE = "/machine/peripheral/shm"


class Reconnecting:
    """Guests whose chardevs reconnect; for use with tiny.TinyCase."""
    vectors = 3

    def setUp(self):
        super().setUp()
        self.memory = "ivshmem-test-" + secrets.token_hex(6)
        self.addCleanup(self.remove_memory)
        self.socket = os.path.join(self.dir, "server")
        self.served = None

    def remove_memory(self):
        path = os.path.join("/dev/shm", self.memory)
        if os.path.exists(path):
            os.unlink(path)

    def serve(self, *options):
        self.served = self.start(support.Server(
            self.dir, "-M", self.memory, "-n", str(self.vectors), "-l", "1M", *options,
            socket_path=self.socket))
        return self.served

    def kill_server(self):
        self.served.signal(signal.SIGKILL)
        self.served.wait()

    def reconnecting(self, timeout=20000):
        return self.guest("-chardev", "socket,id=c,reconnect-ms=50,path=" + self.socket,
                          "-device", "ivshmem-doorbell,id=shm,chardev=c,vectors=%d,"
                          "handshake-timeout=%d,ioeventfd=%s"
                          % (self.vectors, timeout, "on" if self.path.ioeventfd else "off"))

    def ready_reconnecting(self):
        guest = self.reconnecting()
        guest.id = guest.setup()
        return guest

    def two(self):
        a, b = self.ready_reconnecting(), self.ready_reconnecting()
        self.introduce(a, b)
        return a, b

    def wait_back(self, *guests):
        for guest in guests:
            guest.qmp.wait_event("IVSHMEM_CONNECTED")
            guest.id = guest.position()
        self.introduce(*guests)

    def info(self, guest):
        return guest.qmp.cmd("query-ivshmem")[0]


@tiny.each_path(PATHS)
class Reconnect(Reconnecting):
    # R-DEV-31, R-DEV-32, R-CLI-15, R-SRV-21
    def test_server_dies_and_comes_back(self):
        self.serve()
        a, b = self.two()
        a.w32(BAR2, 0x40, 0x12345678)
        self.kill_server()
        for guest in (a, b):
            guest.qmp.wait_event("IVSHMEM_DISCONNECTED")
            self.assertFalse(self.info(guest)["connected"])
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        b.ring(a.id, 1)
        a.wait_count(ivec(1), 1)
        self.serve()
        self.wait_back(a, b)
        self.assertTrue(self.info(a)["connected"])
        self.assertEqual(b.r32(BAR2, 0x40), 0x12345678)
        a.clear()
        b.clear()
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        b.ring(a.id, 1)
        a.wait_count(ivec(1), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=2)
        self.assert_counts(a, b, {ivec(1): 1}, fence=2)

    def test_pending_interrupt_survives(self):
        self.serve()
        a, b = self.two()
        b.mask(0)
        a.ring(b.id, 0)
        self.kill_server()
        self.serve()
        self.wait_back(a, b)
        self.assertEqual(b.count(ivec(0)), 0)
        b.mask(0, False)
        b.wait_count(ivec(0), 1)
        self.assert_counts(b, a, {ivec(0): 1}, fence=2)

    # R-DEV-33, R-CLI-16, R-CLI-17
    def test_ring_while_only_one_is_back(self):
        """A peer that has yet to come back is rung on the descriptors of before."""
        self.serve()
        a, b = self.two()
        self.kill_server()
        for guest in (a, b):
            guest.qmp.wait_event("IVSHMEM_DISCONNECTED")
        before = b.id
        b.signal(signal.SIGSTOP)
        try:
            self.serve()
            a.qmp.wait_event("IVSHMEM_CONNECTED")
            a.qmp.wait_event("IVSHMEM_PEER_LEFT", test=lambda event: event["data"]["id"] == before)
            self.assertEqual(self.peers(a), {})
            a.ring(before, 0)
        finally:
            b.signal(signal.SIGCONT)
        b.wait_count(ivec(0), 1)
        self.wait_back(b)
        b.ring(a.position(), 1)
        a.wait_count(ivec(1), 1)

    # R-CLI-14
    def test_other_memory_is_refused(self):
        self.serve()
        a, b = self.two()
        self.kill_server()
        self.remove_memory()
        self.serve()
        a.err.wait_for("another memory object")
        self.assertEqual(self.info(a)["memory"]["size"], 1 << 20)
        a.ring(b.id, 0)
        b.wait_count(ivec(0), 1)
        a.w32(BAR2, 8, 0xabcd)
        self.assertEqual(b.r32(BAR2, 8), 0xabcd)

    def test_server_that_is_not_there_yet(self):
        starting = self.start(support.Process(
            [support.program("qemu"), "-nodefaults", "-display", "none", "-machine", "pc",
             "-accel", self.path.accel, "-S", "-monitor", "stdio",
             "-chardev", "socket,id=c,reconnect-ms=50,path=" + self.socket,
             "-device", "ivshmem-doorbell,id=shm,chardev=c,handshake-timeout=60000"],
            stdin=True))
        starting.err.wait_for("Unable to connect|Failed to connect")
        self.serve()
        starting.out.wait_for("QEMU 1")
        self.served.err.wait_for("joined")
        starting.write("info ivshmem\n")
        starting.out.wait_for("server: connected, peer ID 0")

    # R-DEV-28
    def test_no_server_is_an_error_in_time(self):
        end = self.start(support.Process(
            [support.program("qemu"), "-nodefaults", "-display", "none", "-machine", "pc",
             "-accel", self.path.accel, "-S",
             "-chardev", "socket,id=c,reconnect-ms=50,path=" + self.socket,
             "-device", "ivshmem-doorbell,id=shm,chardev=c,handshake-timeout=300"]))
        self.assertNotEqual(end.wait(), 0)
        self.assertIn("within 300 ms", end.err.text)

    def test_ping_pong_while_the_server_dies_again_and_again(self):
        """Each ring waits for the answer to the one before: one lost wake-up would end it."""
        self.serve()
        a, b = self.two()
        ids = a.id, b.id
        b.echo(ivec(0), a.id, 0)
        end = time.monotonic() + SECONDS
        restarts = 0
        while restarts < RESTARTS or time.monotonic() < end:
            restarts += 1
            what = a.send("pingpong", ivec(0), tiny.bell(b.id, 0), ROUND_TRIPS, tiny.NO_OFFSET, 0)
            self.kill_server()
            self.serve()
            for guest in (a, b):
                back = guest.qmp.wait_event("IVSHMEM_CONNECTED")["data"]
                self.assertNotIn("previous-id", back)
            self.assertEqual(a.answer(what, 60)[0], ROUND_TRIPS)
        self.assertEqual((a.position(), b.position()), ids)
        self.served.stop()
        self.assertEqual((a.quit(), b.quit()), (0, 0), a.err.text + b.err.text)
        print("     %d round trips, each answered, and %d server kills"
              % (restarts * ROUND_TRIPS, restarts), flush=True)

    def test_many_restarts_with_rings_all_the_while(self):
        self.serve()
        a, b = self.two()
        open_before = None
        for _ in range(10):
            a.clear()
            b.clear()
            self.kill_server()
            a.ring(b.id, 0)
            self.serve()
            b.wait_count(ivec(0), 1)
            self.wait_back(a, b)
            b.ring(a.id, 0)
            a.wait_count(ivec(0), 1)
            open_before = open_before or support.fd_count(a.pid)
        # Former descriptors linger for a while: those of each restart, no more.
        per_restart = 2 * self.vectors
        self.assertLessEqual(support.fd_count(a.pid), open_before + 9 * per_restart)
