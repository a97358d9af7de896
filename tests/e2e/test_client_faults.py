# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-client: servers that misbehave, go away and come back; limits; a terminal."""
import errno
import os
import pty
import resource
import select
import socket
import struct
import subprocess
import termios
import unittest

import support
from support import Client, Process, Stream, program

SIZE = 8192
NO_SERVER = 3


def frame(value):
    return struct.pack("<q", value)


def memory(size=SIZE):
    fd = os.memfd_create("ivshmem-test")
    os.ftruncate(fd, size)
    return fd


class Script:
    """A server's end of a connection, frame by frame."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(support.DEFAULT_WAIT * support.SCALE)

    def send(self, value, fd=None, cut=8):
        if fd is None:
            self.sock.sendall(frame(value)[:cut])
        else:
            socket.send_fds(self.sock, [frame(value)[:cut]], [fd])

    def vectors(self, peer, count):
        eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            for _ in range(count):
                self.send(peer, eventfd)
        finally:
            os.close(eventfd)

    def greet(self, own, shm):
        self.send(0)
        self.send(own)
        self.send(-1, shm)

    def handshake(self, own=3, shm=None):
        fd = memory() if shm is None else shm
        try:
            self.greet(own, fd)
        finally:
            if shm is None:
                os.close(fd)
        self.vectors(5, 2)
        self.vectors(own, 2)

    def close(self):
        self.sock.close()


class Listener:
    """A scripted server at a path, which counts its visitors."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "script")
        self.sock = support.listen(self.path)
        self.sock.settimeout(support.DEFAULT_WAIT * support.SCALE)

    def accept(self):
        return Script(self.sock.accept()[0])

    def visitor(self):
        """Whether somebody waits to be accepted at this moment."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def close(self):
        self.sock.close()


class FaultTest(support.TestCase):
    def attached(self, *commands, stdin=False, **kwargs):
        """A client on an inherited socket, and the other end."""
        ours, theirs = socket.socketpair()
        argv = [program("client"), "--fd=%d" % theirs.fileno()]
        for command in commands:
            argv += ["-c", command]
        with theirs:
            process = self.start(Process(argv, name="ivshmem-client", stdin=stdin,
                                         pass_fds=(theirs.fileno(),), **kwargs))
        script = Script(ours)
        self.addCleanup(script.close)
        return script, process

    def listener(self):
        listener = Listener(self.dir)
        self.addCleanup(listener.close)
        return listener

    def ends(self, process, status, why):
        self.assertEqual(process.wait(), status, process.err.text)
        self.assertRegex(process.err.text, why)
        self.assertLess(len(process.err.text), 2000)


class Handshake(FaultTest):
    # R-CLI-6
    def test_end_at_every_byte(self):
        """Each cut in the handshake ends the client with a message, never with a signal."""
        shm, eventfd = memory(), os.eventfd(0)
        self.addCleanup(os.close, shm)
        self.addCleanup(os.close, eventfd)
        frames = [(0, None), (3, None), (-1, shm), (5, eventfd), (3, eventfd)]
        for cut in range(len(frames) * 8):
            with self.subTest(cut=cut):
                script, process = self.attached("id")
                for value, fd in frames[:cut // 8]:
                    script.send(value, fd)
                if cut % 8:
                    script.send(*frames[cut // 8], cut=cut % 8)
                script.close()
                self.ends(process, NO_SERVER, "in the middle of a message" if cut % 8
                          else "closed the connection")

    def test_wrong_frames(self):
        shm, eventfd, pipe = memory(), os.eventfd(0), os.pipe()
        for fd in (shm, eventfd, *pipe):
            self.addCleanup(os.close, fd)
        for frames, why in (
                ([(1, None)], "another protocol version"),
                ([(0, None), (-1, shm)], "neither -1 nor a peer id"),
                ([(0, None), (65536, None)], "neither -1 nor a peer id"),
                ([(0, None), (3, None), (-1, None)], "lacks its descriptor"),
                ([(0, None), (3, None), (-1, shm), (-1, shm)], "shared memory twice"),
                ([(0, None), (3, None), (-1, shm), (3, None)], "our own departure"),
                ([(0, None), (3, None), (-1, shm), (3, pipe[0])], "not an eventfd"),
                ([(0, None), (3, None), (-1, shm), (5, pipe[1])], "not an eventfd"),
                ([(0, None), (3, None), (-1, shm), (5, shm)], "not an eventfd")):
            with self.subTest(why):
                script, process = self.attached("id")
                for value, fd in frames:
                    script.send(value, fd)
                self.ends(process, NO_SERVER, why)

    # R-CLI-7
    def test_silence(self):
        listener = self.listener()
        result = Client.run(listener.path, "id", options=["--timeout", "100ms"])
        self.assertEqual(result.status, NO_SERVER)
        self.assertIn("nothing arrived in time; is it an ivshmem server, and alive?", result.err)

    def test_no_vectors(self):
        """Memory and peers without a vector of our own: still good for something."""
        listener = self.listener()
        client = self.start(Client(listener.path, "--timeout", "200ms"))
        script = listener.accept()
        self.addCleanup(script.close)
        fd = memory()
        script.greet(0, fd)
        os.close(fd)
        script.vectors(5, 1)
        self.assertTrue(client.command("int 5 0")["ok"])
        self.assertEqual(client.command("peek 0 2")["hex"], "0000")
        client.err.wait_for("nobody can ring us")

    def test_not_a_socket(self):
        script_path = os.path.join(self.dir, "file")
        with open(script_path, "w", encoding="ascii"):
            pass
        for path, why in ((script_path, "Connection refused"), (self.dir + "/none", "No such file"),
                          (self.dir + "/" + "x" * 200, "at most 107 bytes")):
            result = Client.run(path, "id")
            self.assertEqual(result.status, NO_SERVER)
            self.assertIn(why, result.err)

    def test_not_a_descriptor(self):
        for option in ("--fd=99", "--fd=1"):
            result = Client.run("unused", "id", options=[option])
            self.assertEqual(result.status, NO_SERVER)
            self.assertRegex(result.err, "cannot connect to the inherited socket: "
                                         "(Bad file descriptor|Socket operation on non-socket)")


class Memory(FaultTest):
    def run_with(self, shm, *commands):
        script, process = self.attached(*commands)
        script.handshake(shm=shm)
        status = process.wait()
        self.assertGreaterEqual(status, 0, process.err.text)
        return status, process

    # R-CLI-11
    def test_cannot_be_mapped(self):
        pipe, eventfd, empty, folder = os.pipe(), os.eventfd(0), memory(0), os.open("/", os.O_RDONLY)
        for fd in (*pipe, eventfd, empty, folder):
            self.addCleanup(os.close, fd)
        for fd, size in ((pipe[0], 0), (eventfd, 0), (empty, 0), (folder, None)):
            status, process = self.run_with(fd, "int 5 1", "info", "peek 0 1", "poke 0 00")
            self.assertEqual(status, 1)
            self.assertIn("sent 1 ring\n", process.out.text)
            self.assertRegex(process.err.text, "peek: (1 bytes at 0 reach past the end of the "
                             "memory, which has 0|cannot map)" if size == 0 else "peek: cannot map")

    def test_read_only(self):
        fd = memory()
        reader = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
        os.pwrite(fd, b"hello", 0)
        self.addCleanup(os.close, reader)
        os.close(fd)
        status, process = self.run_with(reader, "peek 0 5", "info", "poke 0 00", "fill 0 1 1")
        self.assertEqual(status, 1)
        self.assertIn("|hello|", process.out.text)
        self.assertIn("read-only", process.out.text)
        self.assertEqual(process.err.text.count("the server lets us read only"), 2)

    def test_shrunk(self):
        fd = memory()
        self.addCleanup(os.close, fd)
        script, process = self.attached(stdin=True)
        script.handshake(shm=fd)
        process.write("peek %d 1\n" % (SIZE - 1))
        process.out.wait_for(r"^00001fff  00 .*\n")
        os.ftruncate(fd, 4096)
        process.write("peek %d 1\npoke %d 00\npeek 4095 1\n" % (SIZE - 1, SIZE - 1))
        process.out.wait_for(r"^00000fff  00 .*\n")
        process.close_stdin()
        self.ends(process, 1, "(?s)peek: another peer has shrunk.*poke: another peer has shrunk")

    def test_file_system_is_full(self):
        full = os.path.join(self.dir, "full")
        os.mkdir(full)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4096", "none", full], check=False,
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("may not mount: run as root")
        self.addCleanup(subprocess.run, ["umount", "-l", full], check=True)
        fd = os.open(os.path.join(full, "memory"), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        os.truncate(fd, SIZE)
        status, process = self.run_with(fd, "fill 0 %d 1" % SIZE)
        self.assertEqual(status, 1)
        self.assertIn("its file system is full", process.err.text)


class ServerGone(FaultTest):
    def test_while_waiting(self):
        script, process = self.attached("wait 60s", "id")
        script.handshake()
        script.close()
        self.ends(process, NO_SERVER, "lost the connection to the inherited socket")
        self.assertEqual(process.out.text, "")

    def test_while_idle(self):
        script, process = self.attached(stdin=True)
        script.handshake()
        process.write("id\n")
        process.out.wait_for("^id 3\n")
        script.close()
        self.ends(process, NO_SERVER, "lost the connection")

    def test_nonsense_while_idle(self):
        script, process = self.attached(stdin=True)
        script.handshake()
        process.write("id\n")
        process.out.wait_for("^id 3\n")
        script.send(-7)
        self.ends(process, NO_SERVER, "neither -1 nor a peer id")

    def test_one_visit_only(self):
        """Without --reconnect, no second attempt."""
        listener = self.listener()
        client = self.start(Client(listener.path))
        script = listener.accept()
        script.handshake()
        self.assertEqual(client.command("id")["id"], 3)
        script.close()
        self.ends(client, NO_SERVER, "lost the connection")
        self.assertFalse(listener.visitor())

    def test_reconnect(self):
        listener = self.listener()
        shm = memory()
        self.addCleanup(os.close, shm)
        client = self.start(Client(listener.path, "--reconnect", "--events"))
        script = listener.accept()
        script.handshake(shm=shm)
        client.out.wait_for(r'^{"event":"connected","id":3}\n')
        script.close()
        client.out.wait_for(r'^{"event":"disconnected"')
        client.err.wait_for(r"trying again in 1 s")
        # What is known stays good meanwhile.
        client.write("int 5 1\npoke 0 42\n")
        client.out.wait_for(r'^{"command":"int","ok":true,"rung":1}\n')
        client.out.wait_for(r'^{"command":"poke","ok":true')
        script = listener.accept()
        self.addCleanup(script.close)
        script.greet(4, shm)
        script.vectors(9, 1)
        script.vectors(4, 1)
        client.out.wait_for(r'^{"event":"joined","peer":9}\n')
        client.out.wait_for(r'^{"event":"left","peer":5}\n')
        client.out.wait_for(r'^{"event":"connected","id":4}\n')
        client.write("quit\n")
        self.assertEqual(client.wait(), 0)
        self.assertEqual(os.pread(shm, 1, 0), b"\x42")

    # R-CLI-14
    def test_reconnect_to_another_memory(self):
        listener = self.listener()
        client = self.start(Client(listener.path, "--reconnect"))
        script = listener.accept()
        script.handshake()
        self.assertTrue(client.command("id")["ok"])
        script.close()
        script = listener.accept()
        self.addCleanup(script.close)
        other = memory()
        script.greet(3, other)
        os.close(other)
        client.err.wait_for("different shared memory; start ivshmem-client again")
        self.assertEqual(client.command("info")["connected"], False)

    # R-CLI-18
    def test_pauses_grow(self):
        """C3: a server that closes at once is asked again later and later."""
        listener = self.listener()
        client = self.start(Client(listener.path, "--reconnect"))
        script = listener.accept()
        script.handshake()
        self.assertTrue(client.command("id")["ok"])
        script.close()
        client.err.wait_for("trying again in 1 s")
        listener.accept().close()
        client.err.wait_for("trying again in 2 s")
        self.assertFalse(listener.visitor())
        listener.accept().close()
        client.err.wait_for("trying again in 4 s")
        self.assertEqual(client.err.text.count("trying again"), 3)


class Limits(FaultTest):
    def test_more_than_1024_descriptors(self):
        """C2"""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard < 4096:
            self.skipTest("RLIMIT_NOFILE is %d, 4096 are needed: ulimit -n" % hard)
        soft = (1024, hard)
        script, process = self.attached(
            stdin=True, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, soft))
        shm = memory()
        script.greet(0, shm)
        os.close(shm)
        for peer in range(1, 41):
            script.vectors(peer, 64)
        own = os.eventfd(0)
        self.addCleanup(os.close, own)
        script.send(0, own)
        process.write("info\nint 40 63\nint all\n")
        process.out.wait_for(r"^peers +40\n")
        process.out.wait_for(r"^sent 1 ring\nsent 2560 rings\n")
        self.assertGreater(support.fd_count(process.pid), 2560)
        os.eventfd_write(own, 5)
        process.write("wait 10s\n")
        process.out.wait_for(r"^rung: vector 0, count 5\n")
        process.close_stdin()
        self.assertEqual(process.wait(), 0)

    # R-CLI-12
    def test_out_of_descriptors(self):
        """C3: says so and ends; no second visit."""
        listener = self.listener()
        limit = (40, 40)
        process = self.start(Process(
            [program("client"), "-S", listener.path, "-c", "wait 60s"], name="ivshmem-client",
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)))
        script = listener.accept()
        self.addCleanup(script.close)
        shm = memory()
        script.greet(0, shm)
        os.close(shm)
        try:
            script.vectors(1, 64)
            script.vectors(0, 1)
        except OSError as error:
            self.assertIn(error.errno, (errno.EPIPE, errno.ECONNRESET))
        self.ends(process, NO_SERVER, "out of file descriptors; raise the limit with ulimit -n")
        self.assertFalse(listener.visitor())

    def busy(self):
        """A socket that can take in nobody at the moment, its path, and who waits there."""
        path = os.path.join(self.dir, "busy")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(0)
        crowd = []
        for _ in range(10):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            self.addCleanup(sock.close)
            try:
                sock.connect(path)
            except BlockingIOError:
                return listener, path, crowd
            crowd.append(sock)
        raise unittest.SkipTest("this kernel's backlog does not fill up")

    def comes_in(self, client, listener, crowd):
        """It does, when there is room."""
        while True:
            sock = listener.accept()[0]
            if not crowd:
                break
            sock.close()
            crowd.pop().close()
        script = Script(sock)
        self.addCleanup(script.close)
        script.handshake()
        self.assertEqual(client.command("id")["id"], 3)

    def test_busy_server(self):
        """A full backlog is waited for, up to the time limit."""
        listener, path, crowd = self.busy()
        result = Client.run(path, "id", options=["--timeout", "100ms"])
        self.assertEqual(result.status, NO_SERVER)
        self.assertIn("too many clients wait to be accepted", result.err)
        self.comes_in(self.start(Client(path)), listener, crowd)

    def test_busy_server_is_waited_for_forever(self):
        listener, path, crowd = self.busy()
        client = self.start(Client(path, "--timeout=forever"))
        limit = support.Deadline()
        while self.pauses(client) < 20:         # it has tried again and again
            self.assertIsNone(client.status, client.err.text)
            self.assertFalse(limit.expired())
        self.comes_in(client, listener, crowd)

    def pauses(self, process):
        with open("/proc/%d/status" % process.pid, encoding="ascii") as status:
            return next((int(line.split()[1]) for line in status
                         if line.startswith("voluntary_ctxt_switches")), 0)


class Terminal(FaultTest):
    """Interactive use."""

    def terminal(self, sock):
        master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.child = subprocess.Popen([program("client"), "-S", sock], stdin=slave, stdout=slave,
                                      stderr=slave, start_new_session=True)
        os.close(slave)
        self.file = os.fdopen(master, "r+b", buffering=0)
        self.screen = Stream(self.file, "ivshmem-client")
        self.addCleanup(self.end)

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.screen.thread.join(5)
        self.file.close()

    def type(self, text, *expected):
        self.file.write(text.encode())
        for pattern in expected:
            self.screen.wait_for(pattern)

    def test_conversation(self):
        server = self.server("-n", "2")
        self.terminal(server.socket)
        self.screen.wait_for(r"connected as peer 0, with 0 others\r\n")
        self.screen.wait_for(r"ivshmem> ")
        other = self.start(Client(server.socket))
        self.screen.wait_for(r"peer 1 has joined\r\n")
        self.assertTrue(other.command("int 0 1")["ok"])
        self.screen.wait_for(r"rung: vector 1, count 1\r\n")
        self.type("dump\n", r"peer 1: 2 vectors\r\n", "ivshmem> ")
        self.type("int 1 0\n", r"sent 1 ring\r\n", "ivshmem> ")
        self.assertEqual(other.command("wait 10s")["vector"], 0)
        self.type("nonsense\n", "no such command: nonsense; try help", "ivshmem> ")
        self.type("help\n", r"\r\nquit ", "ivshmem> ")
        other.write("quit\n")
        self.screen.wait_for(r"peer 1 has left\r\n")
        self.type("quit\n")
        self.assertEqual(self.child.wait(support.DEFAULT_WAIT * support.SCALE), 0)

    def test_end_of_file(self):
        server = self.server()
        self.terminal(server.socket)
        self.screen.wait_for("ivshmem> ")
        self.type("\x04")
        self.assertEqual(self.child.wait(support.DEFAULT_WAIT * support.SCALE), 0)

    def test_server_comes_back(self):
        listener = self.listener()
        shm = memory()
        self.addCleanup(os.close, shm)
        self.terminal(listener.path)
        script = listener.accept()
        script.handshake(shm=shm)
        self.screen.wait_for("ivshmem> ")
        script.close()
        self.screen.wait_for("lost the connection to .*")
        self.screen.wait_for("trying again in 1 s")
        self.type("dump\n", r"\(not connected\)")
        script = listener.accept()
        self.addCleanup(script.close)
        script.handshake(shm=shm)
        self.screen.wait_for("connected as peer 3, with 1 other\r\n")
        self.type("quit\n")
        self.assertEqual(self.child.wait(support.DEFAULT_WAIT * support.SCALE), 0)


if __name__ == "__main__":
    unittest.main()
