# SPDX-License-Identifier: GPL-2.0-or-later
"""
System calls that fail on demand (tests/fault/shim.c), and clients of whom nothing is hidden.

Control(dir)     one process's shim: .env for its start, arm(Fault) and off(), .counts, .hits
plan(counts)     the Faults to try: each call with every errno (IVSHMEM_TEST_FAULTS=some: with one)
explained(fault, process)   the process must have said on stderr what failed
each(run, faults)   run(Fault) for all of them, a few at a time; fails with all that went wrong
Member, Group    clients of a server in this process: what they know of each other, and their rings
"""
import concurrent.futures
import errno
import functools
import json
import mmap
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import unittest
from typing import NamedTuple

import support

# Under sanitizers, which are slower, less unless it is asked for.
EXHAUSTIVE = os.environ.get("IVSHMEM_TEST_FAULTS", "some" if support.SCALE > 1 else "all") == "all"
WORKERS = 4                     # they mostly wait for processes

FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EINTR)
SOCKETS = (errno.ENOBUFS, errno.ENOMEM, errno.EPERM)
DATA = (errno.EINTR, errno.EAGAIN, errno.EIO)
# What Linux may say; "" is for those not named.
ERRORS = {
    "": (errno.EPERM, errno.ENOMEM, errno.EIO),
    "accept4": (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ECONNABORTED),
    "bind": (errno.EACCES, errno.ENOSPC),
    "chmod": (errno.EPERM, errno.EROFS),
    "connect": (errno.EINTR, errno.EACCES, errno.ENOMEM, errno.ECONNREFUSED),
    "dup": (errno.EMFILE,),
    "epoll_create1": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "epoll_ctl": (errno.ENOMEM, errno.ENOSPC),
    "epoll_wait": (errno.EINTR,),
    "eventfd": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "fallocate": (errno.ENOSPC, errno.EINTR, errno.EOPNOTSUPP),
    "fcntl": (errno.EPERM, errno.EBADF),
    "flock": (errno.ENOLCK, errno.EWOULDBLOCK, errno.EINTR),
    "fstat": (errno.ENOMEM, errno.EIO),
    "ftruncate": (errno.ENOSPC, errno.EINTR, errno.EFBIG, errno.EPERM),
    "listen": (errno.EADDRINUSE, errno.ENOMEM),
    "memfd_create": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "mmap": (errno.ENOMEM, errno.EPERM, errno.EAGAIN),
    "open": FILES,
    "openat": FILES,
    "opendir": FILES,
    "pipe2": (errno.EMFILE, errno.ENFILE),
    "poll": (errno.EINTR, errno.ENOMEM),
    "pread": DATA,
    "preadv2": DATA,
    "read": DATA,
    "recv": DATA,
    "recvmsg": (errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.ECONNRESET),
    "rename": (errno.EACCES, errno.ENOSPC, errno.EIO),
    "send": (errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.EPIPE),
    "sendmmsg": (errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS,
                 errno.EPIPE),
    "sendmsg": (errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED),
    "setrlimit": (errno.EPERM,),
    "socketpair": (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "shm_open": FILES,
    "socket": (errno.EMFILE, errno.ENFILE) + SOCKETS,
    "unlink": (errno.EPERM, errno.EROFS),
    # Not EAGAIN: from an eventfd it says that it rings already.
    "write": (errno.EINTR, errno.ENOSPC, errno.EIO),
}


class Fault(NamedTuple):
    """
    The n-th call (from 1 on) of a function fails once with an errno, or all from it on; n = 0:
    none does.  With WAIT the program stops (SIGSTOP) before that call, which then does its work.
    """
    call: str
    nth: int
    error: int
    lasts: bool = False

    def __str__(self):
        return "%s number %d: %s" % (self.call, self.nth, errno.errorcode.get(self.error, "none"))

    @property
    def text(self):
        return os.strerror(self.error)


NONE = Fault("", 0, 0)
WAIT = 0


def plan(counts, calls=None, everything=EXHAUSTIVE):
    """Each call that was counted; errnos take turns if not all are tried."""
    for call, count in counts.items():
        errors = ERRORS.get(call, ERRORS[""])
        for nth in range(1, count + 1):
            if calls is None or call in calls:
                for error in errors if everything else (errors[nth % len(errors)],):
                    yield Fault(call, nth, error)


def each(run, faults, workers=WORKERS):
    """Returns how many were tried."""
    def one(fault):
        try:
            run(fault)
            return None
        except Exception as error:          # of any kind: it is shown with the others
            return "%s:\n    %s" % (fault, str(error).replace("\n", "\n    "))

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(one, faults))
    wrong = [result for result in results if result]
    if wrong:
        raise AssertionError("%d of %d faults:\n%s" % (len(wrong), len(results),
                                                       "\n".join(wrong[:20])))
    return len(results)


def built(name):
    path = os.path.join(support.BUILD, "tests", "fault", name)
    if not os.path.exists(path):
        raise unittest.SkipTest("%s is not built: scripts/build-tools" % path)
    return path


class Control:
    """As FaultControl in tests/fault/fault.h."""
    SIZE = 4096
    HEADER = struct.Struct("<8I")
    CALL = struct.Struct("<20sI")

    def __init__(self, directory):
        self.path = os.path.join(directory, "fault-control")
        shim = built("fault-shim.so")
        with open(self.path, "w+b") as file:
            file.truncate(self.SIZE)
            self.map = mmap.mmap(file.fileno(), self.SIZE)
        options = os.environ.get("ASAN_OPTIONS", "")
        self.env = dict(os.environ, LD_PRELOAD=shim, IVSHMEM_FAULT=self.path,
                        ASAN_OPTIONS=options + ":verify_asan_link_order=0")

    def _header(self):
        return list(self.HEADER.unpack_from(self.map))

    def _calls(self):
        for number in range(self._header()[0]):
            name, count = self.CALL.unpack_from(self.map, self.HEADER.size +
                                                number * self.CALL.size)
            yield number, name.rstrip(b"\0").decode(), count

    def arm(self, fault):
        """Count from 1 on, and let the fault happen."""
        number = numbers()[fault.call] if fault.nth else 0
        for entry, name, _ in self._calls():
            self.CALL.pack_into(self.map, self.HEADER.size + entry * self.CALL.size,
                                name.encode(), 0)
        self.HEADER.pack_into(self.map, 0, self._header()[0], 1, number, fault.nth,
                              fault.error, fault.lasts, 0, 0)

    def off(self):
        header = self._header()
        header[1] = 0
        self.HEADER.pack_into(self.map, 0, *header)

    @property
    def numbers(self):
        return {name: number for number, name, _ in self._calls()}

    @property
    def counts(self):
        return {name: count for _, name, count in self._calls() if count}

    @property
    def hits(self):
        return self._header()[6]

    def close(self):
        self.map.close()


@functools.lru_cache(maxsize=None)
def numbers():
    """{function: its number in the shim's table}"""
    directory = support.temporary_directory()
    control = Control(directory)
    subprocess.run([support.program("server"), "--version"], env=control.env, check=True,
                   stdout=subprocess.DEVNULL)
    try:
        return control.numbers
    finally:
        control.close()
        shutil.rmtree(directory)


class Member:
    """A client that keeps what it is told.  lost: the server ended the connection."""

    def __init__(self, path):
        self.lost = False
        self.id = self.memory = None
        self.own = []
        self.peers = {}
        self.frames = 0
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(support.DEFAULT_WAIT * support.SCALE)
        self.sock.connect(path)
        self.sock.setblocking(False)

    def read(self):
        """Take what is there."""
        while not self.lost:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, 8, 1)
            except BlockingIOError:
                return
            except ConnectionError:
                data, fds = b"", []
            if len(data) != 8:
                self.lost = True
                return
            self._frame(struct.unpack("<q", data)[0], fds[0] if fds else -1)

    def _frame(self, value, fd):
        self.frames += 1
        if self.frames == 1:
            if value or fd >= 0:
                raise AssertionError("protocol version %d, descriptor %d" % (value, fd))
        elif self.id is None:
            self.id = value
        elif value == -1:
            self.memory = fd
        elif value == self.id:
            self.own.append(fd)
        elif fd >= 0:
            self.peers.setdefault(value, []).append(fd)
        else:
            for old in self.peers.pop(value, []):
                os.close(old)

    def knows(self, vectors, others):
        return (self.memory is not None and len(self.own) == vectors and
                {peer: len(fds) for peer, fds in self.peers.items()} == others)

    def close(self):
        self.sock.close()
        held = self.own + sum(self.peers.values(), [])
        for fd in held + ([] if self.memory is None else [self.memory]):
            os.close(fd)
        self.own, self.peers, self.memory = [], {}, None


class Group:
    """Members of one region, each with the same number of vectors."""

    def __init__(self, path, vectors):
        self.path = path
        self.vectors = vectors
        self.members = []
        self.others = {}        # {ID: vectors} of those who are in the region as well; None: any

    def join(self, count=1):
        self.members += [Member(self.path) for _ in range(count)]

    def leave(self, number):
        self.members.pop(number).close()

    def settle(self, retries=0, seconds=10):
        """
        Until all know all, and nothing but that; who is turned away tries again, so many times
        in all.  Returns how many times that was.
        """
        limit = support.Deadline(seconds)
        again = 0
        while True:
            for number, member in enumerate(self.members):
                member.read()
                if member.lost:
                    again += 1
                    if again > retries:
                        raise AssertionError("member %s of %d lost its connection"
                                             % (member.id, len(self.members)))
                    member.close()
                    self.members[number] = Member(self.path)
            if self._complete():
                return again
            if limit.expired():
                raise AssertionError("no complete view within %.0f s: %s" % (seconds, [
                    (member.id, len(member.own), sorted(member.peers)) for member in self.members]))
            select.select([member.sock for member in self.members], [], [],
                          min(limit.left(), 0.5))

    def _complete(self):
        if self.others is None:
            return all(member.memory is not None for member in self.members)
        everybody = dict(self.others)
        everybody.update({member.id: self.vectors for member in self.members})
        return all(member.knows(self.vectors,
                                {peer: n for peer, n in everybody.items() if peer != member.id})
                   for member in self.members)

    def ring_all(self):
        """Every vector of every other member, and each ring arrives there, once."""
        for member in self.members:
            for other in self.members:
                for fd in member.peers.get(other.id, []):
                    os.eventfd_write(fd, 1)
        for member in self.members:
            for fd in member.own:
                os.set_blocking(fd, False)
                rings = os.eventfd_read(fd) if len(self.members) > 1 else 0
                if rings != len(self.members) - 1:
                    raise AssertionError("%d rings at member %d" % (rings, member.id))

    def close(self):
        while self.members:
            self.leave(0)


# Other words for an errno, and what the log says when it hits one client alone.
SAME = {"Too many open files": "out of (file )?descriptors",
        "Operation not permitted": "Permission denied",
        "Connection refused": "there is no server to replace",
        "Broken pipe": "left: |disconnected"}


def explained(fault, *processes):
    """Something went wrong: the reason must have been given, or must be soon."""
    words = re.compile("%s|%s" % (re.escape(fault.text), SAME.get(fault.text, "$^")))
    limit = support.Deadline(2)
    while not any(words.search(process.err.text) for process in processes):
        if limit.expired():
            raise AssertionError("it did not say \"%s\":\n%s" % (
                fault.text, "".join(process.err.text for process in processes)))
        processes[0].err.wait_change(min(limit.left(), 0.1))


def ask(path, request, seconds=10):
    """What the control socket answers; None: the connection ended, or there was none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds * support.SCALE)
        try:
            sock.connect(path)
            sock.sendall(request.encode() + b"\n")
            parts = iter(lambda: sock.recv(65536), b"")
            text = b"".join(parts)
        except ConnectionError:
            return None
    try:
        return json.loads(text)
    except ValueError:
        return None
