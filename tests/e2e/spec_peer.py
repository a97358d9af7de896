# SPDX-License-Identifier: GPL-2.0-or-later
"""
A client and a server written from docs/specs/ivshmem-spec.rst alone, as the second implementation
that it is meant to be enough for.  Names are the specification's.  Not for use: no limits, one
region, one thread.
"""
import fcntl
import mmap
import os
import select
import socket
import struct

VERSION, MEMORY = 0, -1
RING = struct.pack("=Q", 1)


class Broken(Exception):
    """The connection has ended, and why."""


class Client:
    """Rows of "The client's state"; peers are {ID: [eventfd, ...]}, and so are own vectors."""

    def __init__(self, sock, limit=2048):
        self.sock, self.limit = sock, limit
        self.state, self.id, self.memory = "VERSION", None, None
        self.peers, self.excess = {}, {}

    @classmethod
    def connect(cls, path, **options):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        return cls(sock, **options)

    def frame(self):
        """(value, descriptor or None): R-CLI-2 to R-CLI-4."""
        data, fds = b"", []
        while len(data) < 8:
            part, more, flags, _ = socket.recv_fds(self.sock, 8 - len(data), 2)
            fds += more
            if not part or flags & socket.MSG_CTRUNC or len(fds) > 1:
                self.breaks(fds, "end of stream" if not part else "descriptors")
            data += part
        for fd in fds:
            os.set_blocking(fd, False)      # R-CLI-13
        return struct.unpack("<q", data)[0], fds[0] if fds else None

    def breaks(self, fds, why):
        for fd in fds:
            os.close(fd)
        self.state = "BROKEN"
        self.sock.close()
        raise Broken(why)

    def step(self):
        """Take one frame; returns its name."""
        value, fd = self.frame()
        fds = [] if fd is None else [fd]
        if self.state == "VERSION":
            if value != VERSION or fds:
                self.breaks(fds, "version" if not fds else "descriptor")
            self.state = "ID"
            return "VERSION"
        if self.state == "ID":
            if not 0 <= value <= 65535 or fds:
                self.breaks(fds, "range" if not fds else "descriptor")
            self.id, self.state = value, "RUN"
            return "ID"
        if value == MEMORY:
            if self.memory is not None or not fds:
                self.breaks(fds, "memory")
            writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
            self.memory = mmap.mmap(fd, os.fstat(fd).st_size, access=mmap.ACCESS_WRITE if writable
                                    else mmap.ACCESS_READ)
            os.close(fd)
            return "MEMORY"
        if not 0 <= value <= 65535 or (value == self.id and not fds):
            self.breaks(fds, "range or own departure")
        return self.vector(value, fd) if fds else self.gone(value)

    def vector(self, peer, fd):
        vectors = self.peers.setdefault(peer, [])
        if len(vectors) == self.limit:      # excess
            os.close(fd)
        else:
            vectors.append(fd)
        return "VECTOR"

    def gone(self, peer):
        for fd in self.peers.pop(peer, []):
            os.close(fd)
        return "GONE"

    def until(self, condition, seconds=20):
        """Take frames until condition(self) holds."""
        while not condition(self):
            if not select.select([self.sock], [], [], seconds)[0]:
                raise Broken("nothing came for %s s" % seconds)
            self.step()

    def ready(self):
        """All that were there have been listed when the first own vector has come."""
        self.until(lambda client: client.memory and client.peers.get(client.id))

    def ring(self, peer, vector):
        try:
            os.write(self.peers[peer][vector], RING)
        except BlockingIOError:
            pass                            # it is rung already

    def wait(self, vector, seconds=20):
        """How many rings of an own vector merged."""
        fd = self.peers[self.id][vector]
        if not select.select([fd], [], [], seconds)[0]:
            raise Broken("not rung within %s s" % seconds)
        return struct.unpack("=Q", os.read(fd, 8))[0]

    def close(self):
        for peer in list(self.peers):
            self.gone(peer)
        self.sock.close()


class Server:
    """"The server's part", for clients that read: sockets block rather than queue."""

    def __init__(self, path, size, vectors):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen()
        self.vectors, self.next_id = vectors, 0
        self.memory = os.memfd_create("spec", os.MFD_CLOEXEC)
        os.truncate(self.memory, size)
        self.clients = {}                   # ID: (socket, [eventfd, ...])

    @staticmethod
    def send(sock, value, fd=None):
        """R-SRV-1: one message, one frame, at most one descriptor."""
        try:
            socket.send_fds(sock, [struct.pack("<q", value)], [] if fd is None else [fd])
        except OSError:
            pass                            # it has left, which serve() will see

    def accept(self):
        sock, own, eventfds = self.listener.accept()[0], self.next_id, []
        self.next_id += 1
        for _ in range(self.vectors):
            eventfds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.send(sock, VERSION)
        self.send(sock, own)
        self.send(sock, MEMORY, self.memory)
        for peer, (other, vectors) in self.clients.items():
            for fd in eventfds:
                self.send(other, own, fd)
            for fd in vectors:
                self.send(sock, peer, fd)
        for fd in eventfds:
            self.send(sock, own, fd)
        self.clients[own] = (sock, eventfds)

    def leave(self, peer):
        sock, eventfds = self.clients.pop(peer)
        sock.close()
        for fd in eventfds:
            os.close(fd)
        for other, _ in self.clients.values():
            self.send(other, peer)

    def serve(self, stop):
        """Until the descriptor stop is readable; what clients say is thrown away (R-SRV-12)."""
        while True:
            sockets = {sock: peer for peer, (sock, _) in self.clients.items()}
            ready = select.select([stop, self.listener, *sockets], [], [])[0]
            if stop in ready:
                return
            for sock in ready:
                if sock is self.listener:
                    self.accept()
                elif not self.listen(sock):
                    self.leave(sockets[sock])

    @staticmethod
    def listen(sock):
        try:
            return sock.recv(4096)
        except OSError:
            return b""

    def close(self):
        for peer in list(self.clients):
            self.leave(peer)
        self.listener.close()
        os.close(self.memory)
