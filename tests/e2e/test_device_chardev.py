# SPDX-License-Identifier: GPL-2.0-or-later
"""The device and its chardev: servers that come late or speak out of turn, and what is left."""
import concurrent.futures
import errno
import os
import select
import signal
import socket
import time

import spec_peer
import support
import tiny
from spec_peer import MEMORY, VERSION

DEVICE = "/machine/peripheral/shm"
RECONNECT_MS = 10
DEATHS = 20


class Listening(support.TestCase):
    """QEMU without a guest, and a server that says what the test says."""

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.dir, "server")
        self.listener, self.accepted = None, []
        self.memory = self.file()
        self.vm = self.qemu("-machine", "pc", "-accel", "qtest")

    def file(self):
        memory = os.memfd_create("server", os.MFD_CLOEXEC)
        self.addCleanup(os.close, memory)
        os.truncate(memory, 1 << 20)
        return memory

    def listen(self, path, backlog=16):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.settimeout(20 * support.SCALE)
        listener.bind(path)
        listener.listen(backlog)
        return listener

    def chardev(self, name="c", path=None, reconnect=RECONNECT_MS):
        self.vm.qmp.cmd("chardev-add", id=name, backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path or self.path}}, "server": False,
            "reconnect-ms": reconnect}})

    def accept(self):
        sock = self.listener.accept()[0]
        self.addCleanup(sock.close)
        self.accepted.append(sock)
        return sock

    @staticmethod
    def say(sock, *frames):
        """Frames: a value, or a value and a descriptor; "ring" stands for a new eventfd."""
        for frame in frames:
            value, fd = frame if isinstance(frame, tuple) else (frame, None)
            if fd == "ring":
                fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                spec_peer.Server.send(sock, value, fd)
                os.close(fd)
            else:
                spec_peer.Server.send(sock, value, fd)

    def turn_away(self):
        """Everybody who is there."""
        if select.select([self.listener], [], [], 0.02)[0]:
            self.accept()
        while self.accepted:
            self.accepted.pop().close()

    def hello(self, own, *peers, vectors=1):
        sock = self.accept()
        self.say(sock, VERSION, own, (MEMORY, self.memory), *[(peer, "ring") for peer in peers],
                 *[(own, "ring")] * vectors)
        return sock

    def plug(self, vectors=1):
        self.vm.qmp.cmd("device_add", driver="ivshmem-doorbell", chardev="c", id="shm",
                        vectors=vectors)

    def plugged(self, vectors=1):
        """The first connection, as client 0."""
        self.listener = self.listen(self.path)
        self.chardev()
        sock = self.hello(0, vectors=vectors)
        self.plug(vectors)
        return sock

    def unplug(self):
        self.vm.qmp.cmd("device_del", id="shm")
        self.vm.qmp.cmd("system_reset")         # nobody is there to eject it
        self.vm.qmp.wait_event("DEVICE_DELETED",
                               test=lambda event: event["data"].get("device") == "shm")

    def info(self):
        return self.vm.qmp.cmd("query-ivshmem")[0]

    def events(self, *names):
        return [event["event"] for event in self.vm.qmp.events if event["event"] in names]


class Plugging(Listening):
    def test_server_comes_after_the_chardev(self):
        """A timer of the chardev's is about to wait for a minute: nobody else does."""
        self.chardev(reconnect=60000)
        self.vm.err.wait_for("Unable to connect character device c")
        self.listener = self.listen(self.path)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            plugged = pool.submit(self.plug)
            self.hello(3)
            plugged.result()
        self.assertEqual(self.info()["id"], 3)

    def test_server_turns_everybody_away(self):
        self.listener = self.listen(self.path)
        self.chardev()
        self.accept()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            plugged = pool.submit(self.vm.qmp.cmd, "device_add", driver="ivshmem-doorbell",
                                  chardev="c", handshake_timeout=500)
            while not plugged.done():
                self.turn_away()
            with self.assertRaisesRegex(support.Qmp.Error, "the server closed the connection "
                                        "during the handshake, each time within 500 ms"):
                plugged.result()

    def time_passes(self, milliseconds):
        """Another QEMU waits in vain for so long."""
        path = os.path.join(self.dir, "silent")
        self.listen(path)
        other = self.qemu("-machine", "pc", "-accel", "qtest",
                          "-chardev", "socket,id=c,path=" + path)
        with self.assertRaisesRegex(support.Qmp.Error, "did not complete the handshake"):
            other.qmp.cmd("device_add", driver="ivshmem-doorbell", chardev="c",
                          handshake_timeout=milliseconds)

    # R-DEV-28
    def test_stopped_in_the_handshake(self):
        """Time in which QEMU did not run is not the server's."""
        timeout = int(3000 * support.SCALE)
        self.vm.qmp.cmd("trace-event-set-state", name="ivshmem_link_up", enable=True)
        self.listener = self.listen(self.path)
        self.chardev()
        first = self.accept()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            plugged = pool.submit(self.vm.qmp.cmd, "device_add", driver="ivshmem-doorbell",
                                  chardev="c", handshake_timeout=timeout)
            self.vm.err.wait_for("ivshmem_link_up")
            self.vm.signal(signal.SIGSTOP)
            try:
                first.close()
                self.time_passes(timeout)
            finally:
                self.vm.signal(signal.SIGCONT)
            self.hello(3)
            plugged.result()
        self.assertEqual(self.info()["id"], 3)

    def test_attempt_that_ends_after_device_add(self):
        """The server's queue was full; a client that nobody wants is not left in it."""
        self.listener = self.listen(self.path, 0)
        self.chardev()
        first, waiting = self.accept(), []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            self.addCleanup(sock.close)
            sock.setblocking(False)
            try:
                sock.connect(self.path)
            except BlockingIOError:
                break
            waiting.append(sock)
        first.close()
        with self.assertRaises(support.Qmp.Error):
            self.vm.qmp.cmd("device_add", driver="ivshmem-doorbell", chardev="c",
                            handshake_timeout=300)
        for _ in waiting:
            self.accept()
        late = self.accept()
        late.settimeout(20 * support.SCALE)
        self.assertEqual(late.recv(1), b"")

    # R-DEV-30
    def test_after_unplug_it_stays_away(self):
        self.plugged()
        self.unplug()
        path = os.path.join(self.dir, "other")
        other = self.listen(path)
        self.chardev("other", path)
        for _ in range(20):                     # each takes as long as one of ours would
            other.accept()[0].close()
        self.listener.setblocking(False)
        with self.assertRaises(BlockingIOError) as caught:
            self.listener.accept()
        self.assertEqual(caught.exception.errno, errno.EAGAIN)
        self.listener.settimeout(20 * support.SCALE)

    # R-DEV-30
    def test_after_unplug_another_device_may_have_it(self):
        sock = self.plugged()
        sock.settimeout(20 * support.SCALE)
        self.unplug()
        self.assertEqual(sock.recv(1), b"")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            plugged = pool.submit(self.plug)
            self.hello(1)
            plugged.result()
        self.assertEqual(self.info()["id"], 1)

    def test_reset_after_it_was_unrealized(self):
        self.plugged()
        self.vm.qmp.cmd("qom-set", path=DEVICE, property="realized", value=False)
        self.vm.qmp.cmd("system_reset")
        self.assertEqual(self.vm.qmp.cmd("query-ivshmem"), [])


class Resuming(Listening):
    """Later connections, whatever the order in which the server says things."""

    # R-DEV-32, R-CLI-5
    def test_own_vector_before_the_memory(self):
        self.plugged().close()
        sock = self.accept()
        self.say(sock, VERSION, 5, (5, "ring"))
        self.assertFalse(self.info()["connected"])
        self.say(sock, (MEMORY, self.memory))
        connected = self.vm.qmp.wait_event("IVSHMEM_CONNECTED")
        self.assertEqual((connected["data"]["id"], connected["data"]["previous-id"]), (5, 0))
        self.assertEqual(self.vm.qmp.qom_get(DEVICE, "peer-id"), 5)

    def test_peer_with_our_former_id(self):
        self.plugged().close()
        self.hello(5, 0)
        self.vm.qmp.wait_event("IVSHMEM_PEER_JOINED", test=lambda event: event["data"]["id"] == 0)
        self.vm.qmp.wait_event("IVSHMEM_CONNECTED")
        self.assertEqual([peer["id"] for peer in self.info()["peers"]], [0])

    # R-CLI-14
    def test_other_memory_is_told_of_once(self):
        self.plugged().close()
        ours, self.memory = self.memory, self.file()
        for _ in range(5):
            self.hello(5)
        sock = self.accept()
        self.assertFalse(self.info()["connected"])
        self.say(sock, VERSION, 5, (MEMORY, ours), (5, "ring"))
        self.vm.qmp.wait_event("IVSHMEM_CONNECTED")
        self.assertEqual(self.events("IVSHMEM_DISCONNECTED"), ["IVSHMEM_DISCONNECTED"])
        self.assertEqual(self.vm.err.text.count("another memory object"), 1)

    def test_server_that_dies_again_and_again(self):
        """Descriptors stay bounded, and so does the log."""
        sock, descriptors = self.plugged(vectors=4), []
        for _ in range(DEATHS):
            sock.close()
            self.vm.qmp.wait_event("IVSHMEM_DISCONNECTED")
            sock = self.hello(0, vectors=4)
            self.vm.qmp.wait_event("IVSHMEM_CONNECTED")
            limit = support.Deadline()
            while [v["connected"] for v in self.info()["vectors"]] != [True] * 4:
                self.assertFalse(limit.expired())
            descriptors.append(support.fd_count(self.vm.pid))
        self.assertLess(max(descriptors[5:]) - max(descriptors[:5]), 16, descriptors)
        self.assertLess(self.vm.err.text.count("the server closed the connection"), DEATHS // 2)


    def eventfds(self, number):
        fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(number)]
        for fd in fds:
            self.addCleanup(os.close, fd)
        return fds

    def until(self, condition, seconds=20):
        limit = support.Deadline(seconds)
        while not condition():
            self.assertFalse(limit.expired(), self.info())

    # R-CLI-13: QEMU's sockets make blocking what they receive
    def test_descriptors_do_not_block(self):
        sock, fds = self.plugged(), self.eventfds(3)
        for peer, fd in enumerate(fds[:2], 1):
            self.say(sock, (peer, fd))
            self.until(lambda known=peer: len(self.info()["peers"]) == known)
        self.say(sock, (2, fds[2]))             # past the limit of one vector
        self.say(sock, (3, "ring"))
        self.until(lambda: len(self.info()["peers"]) == 3)
        self.assertEqual([os.get_blocking(fd) for fd in fds], [False] * 3)

    # R-DEV-33, R-CLI-16, R-CLI-17
    def test_what_is_former_goes_after_30_seconds(self):
        """Our eventfds of two connections, a peer that is not back, and vectors it has no more."""
        sock, own, begin = self.plugged(vectors=4), [], []
        for connection in range(4):
            sock.close()
            self.vm.qmp.wait_event("IVSHMEM_DISCONNECTED")
            sock = self.accept()
            own.append(self.eventfds(4))
            begin.append(time.monotonic())
            self.say(sock, VERSION, 0, (MEMORY, self.memory),
                     *[(peer, "ring") for peer in (7, 7, 7, 8) if connection == 2],
                     *[(0, fd) for fd in own[-1]])
            self.vm.qmp.wait_event("IVSHMEM_CONNECTED")
        self.say(sock, (7, "ring"))
        self.until(lambda: self.info()["peers"] == [{"id": 7, "vectors": 1}])
        descriptors = support.fd_count(self.vm.pid)
        for connection in range(3):
            os.eventfd_write(own[connection][connection], 1)
        self.until(lambda: self.pending() == [False, True, True, False])
        self.until(lambda: support.fd_count(self.vm.pid) < descriptors, 60)
        self.assertGreater(time.monotonic() - begin[2], 29)
        self.until(lambda: support.fd_count(self.vm.pid) == descriptors - 2 * 4 - 2 - 1)
        self.assertGreater(time.monotonic() - begin[3], 29)
        self.assertLess(time.monotonic() - begin[3], 40 * support.SCALE)
        os.eventfd_write(own[2][3], 1)
        self.assertEqual(self.pending(), [False, True, True, False])
        self.assertEqual(self.info()["peers"], [{"id": 7, "vectors": 1}])

    def pending(self):
        return [vector["pending"] for vector in self.info()["vectors"]]


class Threads(tiny.TinyCase):
    def test_not_bound_to_the_cpu_of_a_vcpu(self):
        """Threads that a vCPU would make are bound as it is; ours have the whole machine."""
        cpus = os.sched_getaffinity(0)
        if len(cpus) < 2:
            self.skipTest("needs two CPUs")
        server = self.server()
        guest = self.doorbell(server, 1, "-name", "debug-threads=on")
        for vcpu in guest.qmp.cmd("query-cpus-fast"):
            os.sched_setaffinity(vcpu["thread-id"], {min(cpus)})
        guest.id = guest.setup()
        guest.ring(guest.id, 0)
        guest.wait_count(tiny.ivec(0), 1)
        names = {}
        for thread in os.listdir("/proc/%d/task" % guest.pid):
            with open("/proc/%d/task/%s/comm" % (guest.pid, thread), encoding="ascii") as comm:
                names[comm.read().strip()] = os.sched_getaffinity(int(thread))
        ours = {name: bound for name, bound in names.items() if "ivshmem" in name}
        self.assertEqual(len(ours), 2, names)
        for name, bound in ours.items():
            self.assertEqual(bound, cpus, name)
