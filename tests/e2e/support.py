# SPDX-License-Identifier: GPL-2.0-or-later
"""
Building blocks of the end-to-end tests: real processes, real sockets, no sleeps.

Programs      program("server"), program("client"), program("guest"), program("qemu"), program("stock")
              give a path or raise SkipTest; environment variables IVSHMEM_SERVER,
              IVSHMEM_CLIENT, IVSHMEM_GUEST, QEMU and STOCK_QEMU override the defaults in build/.
Waiting       Deadline(seconds); Process.out.wait_for(regex, seconds); Process.wait(seconds);
              Qmp.wait_event(name, seconds).  All raise TimeoutExpired, an AssertionError that
              shows what the process printed.  SCALE (env IVSHMEM_TEST_SCALE) multiplies all of them.
Processes     Process(argv)   .out (stdout) and .err (stderr) are Streams; .stop(); .wait(); .pid
              Server(dir, "-l", "1M", "-n", "2")     .socket  .shm_name   ready when the constructor returns
              Client.run(sock, "int 1 0", "wait 2s") -> Result(status, answers, text, err)
              Client(sock, ...)                      the same in the background, commands by .command()
              Qemu(dir, "-device", "...")            .qmp is a Qmp; QEMU connects to us: no race
Counting      fd_count(pid)
TestCase      self.dir, self.start(process), self.server(...), self.qemu(...): stopped in reverse
              order at the end of the test, whatever happens.

The Linux guests are in vm.py.
"""
import atexit
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("IVSHMEM_BUILD", os.path.join(TOP, "build"))
SCALE = float(os.environ.get("IVSHMEM_TEST_SCALE", "1"))
DEFAULT_WAIT = 20

_running = []       # processes not stopped yet
_directories = []

PROGRAMS = {
    "server": ("IVSHMEM_SERVER", "contrib/ivshmem-server/ivshmem-server"),
    "client": ("IVSHMEM_CLIENT", "contrib/ivshmem-client/ivshmem-client"),
    "guest": ("IVSHMEM_GUEST", "contrib/ivshmem-guest/ivshmem-guest"),
    "qemu": ("QEMU", "qemu/qemu-system-x86_64"),
    "qemu-aarch64": ("QEMU_AARCH64", "qemu-targets/qemu-system-aarch64"),
}


class TimeoutExpired(AssertionError):
    """Something awaited did not happen in time."""


def find_program(name):
    """The path of a program, or None."""
    if name == "stock":
        path = os.environ.get("STOCK_QEMU", "qemu-system-x86_64")
        return shutil.which(path)
    variable, default = PROGRAMS[name]
    path = os.environ.get(variable, os.path.join(BUILD, default))
    return path if os.access(path, os.X_OK) else None


def program(name):
    """The path of a program; skips the test when it is not there."""
    path = find_program(name)
    if path:
        return path
    if name == "stock":
        raise unittest.SkipTest("no stock qemu-system-x86_64 in PATH: "
                                "apt-get install qemu-system-x86, or set STOCK_QEMU")
    variable, default = PROGRAMS[name]
    raise unittest.SkipTest("%s is not built (%s): build it, or set %s"
                            % (os.path.basename(default),
                               os.environ.get(variable, os.path.join(BUILD, default)), variable))


class Deadline:
    """A point in time; left() never goes below zero."""

    def __init__(self, seconds=DEFAULT_WAIT):
        self.seconds = seconds * SCALE
        self.end = time.monotonic() + self.seconds

    def left(self):
        return max(0.0, self.end - time.monotonic())

    def expired(self):
        return time.monotonic() >= self.end


class Stream:
    """Everything that arrives on a descriptor, kept by a thread; one can wait for a text in it.

    Owns the file object.  wait_for() goes on behind the last match.
    """

    def __init__(self, file, name, tee=None):
        self.name = name
        self.file = file
        self.data = bytearray()
        self.mark = 0
        self.closed = False
        self.changed = threading.Condition()
        self.tee = tee
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            try:
                chunk = os.read(self.file.fileno(), 65536)
            except OSError:
                chunk = b""
            with self.changed:
                if chunk:
                    self.data += chunk
                else:
                    self.closed = True
                self.changed.notify_all()
            if chunk and self.tee:
                self.tee(chunk)
            if not chunk:
                return

    @property
    def text(self):
        with self.changed:
            return self.data.decode("utf-8", "replace")

    def wait_change(self, seconds):
        """Until there is more, or for so long."""
        with self.changed:
            self.changed.wait(seconds)

    def wait_until(self, test, seconds=DEFAULT_WAIT, what="output"):
        """Wait until test(bytes from the mark) gives a true value; returns that."""
        limit = Deadline(seconds)
        with self.changed:
            while True:
                found = test(bytes(self.data[self.mark:]))
                if found:
                    return found
                if self.closed:
                    reason = "ended"
                elif limit.expired():
                    reason = "was silent for %.0f s" % limit.seconds
                else:
                    self.changed.wait(limit.left())
                    continue
                tail = bytes(self.data[-2000:]).decode("utf-8", "replace")
                raise TimeoutExpired("%s %s while waiting for %s; it said:\n%s"
                                     % (self.name, reason, what, tail))

    def wait_for(self, pattern, seconds=DEFAULT_WAIT):
        """Wait for a regular expression; returns the match (of bytes)."""
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.M)
        match = self.wait_until(regex.search, seconds, repr(pattern))
        self.mark += match.end()
        return match

    def close(self):
        self.thread.join(5)
        self.file.close()


class Process:
    """A child with its output collected.  stdin is a pipe (write()) if asked for, else /dev/null."""

    def __init__(self, argv, name=None, stdin=False, pass_fds=(), env=None, tee=None, preexec=None):
        self.name = name or os.path.basename(argv[0])
        self.argv = [str(arg) for arg in argv]
        self.child = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, preexec_fn=preexec,
            pass_fds=pass_fds, env=env, start_new_session=True)
        self.pid = self.child.pid
        _running.append(self)
        self.out = Stream(self.child.stdout, self.name, tee)
        self.err = Stream(self.child.stderr, self.name + " (stderr)")

    def write(self, text):
        self.child.stdin.write(text.encode() if isinstance(text, str) else text)

    def close_stdin(self):
        self.child.stdin.close()

    @property
    def status(self):
        return self.child.poll()

    def wait(self, seconds=DEFAULT_WAIT):
        """Wait for the end; returns the exit status (negative: signal)."""
        if self.child.poll() is None:
            watch = os.pidfd_open(self.pid)
            try:
                if not select.select([watch], [], [], seconds * SCALE)[0]:
                    raise TimeoutExpired("%s did not end within %.0f s; it said:\n%s%s"
                                         % (self.name, seconds * SCALE,
                                            self.out.text[-1500:], self.err.text[-1500:]))
            finally:
                os.close(watch)
        status = self.child.wait()
        self.out.thread.join(5)
        self.err.thread.join(5)
        return status

    def signal(self, number):
        self.child.send_signal(number)

    def wait_stopped(self):
        """Until SIGSTOP has taken effect: a SIGCONT before that would be lost."""
        seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert seen.si_code == os.CLD_STOPPED, seen

    def stop(self, seconds=5):
        """SIGTERM, then SIGKILL if that does not help.  May be called again."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.wait(seconds)
            except TimeoutExpired:
                self.child.kill()
                self.wait(seconds)
        if self.child.stdin and not self.child.stdin.closed:
            self.child.stdin.close()
        if self in _running:
            _running.remove(self)
        self.out.close()
        self.err.close()
        return self.child.returncode


class Server(Process):
    """ivshmem-server in the foreground; its socket is in DIR, its memory under a name of its own."""

    def __init__(self, directory, *options, exe=None, memory=True, socket_path=None, **kwargs):
        self.socket = socket_path or os.path.join(directory, "sock-" + secrets.token_hex(3))
        self.shm_name = "ivshmem-test-" + secrets.token_hex(6)
        argv = [exe or program("server"), "-F", "-S", self.socket]
        if memory and not {"-M", "-m", "--config"} & set(options):
            argv += ["-M", self.shm_name]
        ready, ready_end = os.pipe()
        try:
            super().__init__(argv + ["--ready-fd=%d" % ready_end] + list(options),
                             name="ivshmem-server", pass_fds=(ready_end,), **kwargs)
        finally:
            os.close(ready_end)
        try:
            self._wait_ready(ready)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(ready)

    def _wait_ready(self, ready):
        if not select.select([ready], [], [], DEFAULT_WAIT * SCALE)[0]:
            raise TimeoutExpired("ivshmem-server is not ready: " + self.err.text)
        if not os.read(ready, 1):
            raise AssertionError("ivshmem-server ended at start (%s): %s"
                                 % (self.wait(), self.err.text))

    def stop(self, seconds=5):
        status = super().stop(seconds)
        try:
            os.unlink(os.path.join("/dev/shm", self.shm_name))
        except FileNotFoundError:
            pass
        return status


class Result:
    """What a finished ivshmem-client said: exit status, JSON answers (one per line), raw text."""

    def __init__(self, process):
        self.status = process.wait()
        self.text = process.out.text
        self.err = process.err.text
        self.answers = []
        for line in self.text.splitlines():
            try:
                self.answers.append(json.loads(line))
            except ValueError:
                pass

    def __repr__(self):
        return "status %s\n%s%s" % (self.status, self.text, self.err)


class Client(Process):
    """ivshmem-client in the background: commands on its standard input, one JSON answer per line."""

    def __init__(self, sock, *options, exe=None, **kwargs):
        super().__init__([exe or program("client"), "-S", sock, "--json"] + list(options),
                         name="ivshmem-client", stdin=True, **kwargs)

    def command(self, text, seconds=DEFAULT_WAIT):
        """Give a command and return its answer, decoded."""
        self.write(text + "\n")
        line = self.out.wait_for(r"^.*\S.*\n", seconds).group()
        return json.loads(line)

    @staticmethod
    def run(sock, *commands, json_output=True, options=(), seconds=DEFAULT_WAIT, exe=None):
        argv = [exe or program("client"), "-S", sock] + list(options)
        for command in commands:
            argv += ["-c", command]
        process = Process(argv + (["--json"] if json_output else []), name="ivshmem-client")
        try:
            process.wait(seconds)
            return Result(process)
        finally:
            process.stop()


class Qmp:
    """A QMP connection over a connected socket (owned from then on)."""

    class Error(Exception):
        def __init__(self, error):
            super().__init__(error["desc"])
            self.kind = error["class"]
            self.desc = error["desc"]

    def __init__(self, sock, seconds=DEFAULT_WAIT):
        self.sock = sock
        self.buffer = b""
        self.events = []
        self._message(Deadline(seconds), "the greeting")
        self.cmd("qmp_capabilities", seconds=seconds)

    def _message(self, limit, what):
        while b"\n" not in self.buffer:
            if not select.select([self.sock], [], [], limit.left())[0]:
                raise TimeoutExpired("QMP: no answer within %.0f s to %s" % (limit.seconds, what))
            chunk = self.sock.recv(65536)
            if not chunk:
                raise ConnectionError("QMP: QEMU closed the connection at %s" % what)
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def cmd(self, command, seconds=DEFAULT_WAIT, **arguments):
        """Run a command; Python's _ in argument names becomes -.  Raises Qmp.Error."""
        request = {"execute": command,
                   "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        return self.execute(request, seconds)

    def execute(self, request, seconds=DEFAULT_WAIT):
        """Send a request as it is; returns what is under "return"."""
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        limit = Deadline(seconds)
        while True:
            message = self._message(limit, request["execute"])
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise Qmp.Error(message["error"])
            else:
                return message.get("return")

    def wait_event(self, name, seconds=DEFAULT_WAIT, test=lambda event: True):
        """The first event of that name not yet taken for which test() holds."""
        limit = Deadline(seconds)
        seen = 0
        while True:
            while seen < len(self.events):
                event = self.events[seen]
                if event["event"] == name and test(event):
                    return self.events.pop(seen)
                seen += 1
            self.events.append(self._message(limit, "event " + name))

    def hmp(self, line, seconds=DEFAULT_WAIT):
        return self.execute({"execute": "human-monitor-command",
                             "arguments": {"command-line": line}}, seconds)

    def qom_get(self, path, name):
        return self.cmd("qom-get", path=path, property=name)

    def close(self):
        self.sock.close()


def listen(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(1)
    return sock


def accept(listener, process, seconds=DEFAULT_WAIT):
    """Accept one connection from a process; says what it printed if it dies instead."""
    watch = os.pidfd_open(process.pid)
    try:
        ready = select.select([listener, watch], [], [], seconds * SCALE)[0]
    finally:
        os.close(watch)
    if listener in ready:
        return listener.accept()[0]
    if ready:
        process.wait()
        raise AssertionError("%s ended with status %s at start:\n%s"
                             % (process.name, process.status, process.err.text))
    raise TimeoutExpired("%s did not connect within %.0f s:\n%s"
                         % (process.name, seconds * SCALE, process.err.text))


class Qemu(Process):
    """QEMU without defaults and with QMP.  Pass exe=program("stock") for the distribution's."""

    def __init__(self, directory, *args, exe=None, name="qemu", monitor=True, **kwargs):
        argv = [exe or program("qemu"), "-nodefaults", "-no-user-config", "-display", "none"]
        self.qmp = None
        if not monitor:
            super().__init__(argv + list(args), name=name, **kwargs)
            return
        path = os.path.join(directory, "qmp-" + secrets.token_hex(3))
        listener = listen(path)
        try:
            super().__init__(argv + ["-chardev", "socket,id=qmp-e2e,path=" + path,
                                     "-mon", "chardev=qmp-e2e,mode=control"] + list(args),
                             name=name, **kwargs)
            try:
                self.qmp = Qmp(accept(listener, self))
            except ConnectionError as error:
                self.wait()
                self.stop()
                raise AssertionError("%s ended with status %s at start:\n%s" % (
                    name, self.status, self.err.text)) from error
            except BaseException:
                self.stop()
                raise
        finally:
            listener.close()
            os.unlink(path)

    def quit(self, seconds=DEFAULT_WAIT):
        """Orderly end by QMP; returns the exit status."""
        try:
            self.qmp.cmd("quit")
        except ConnectionError:
            pass
        return self.wait(seconds)

    def stop(self, seconds=5):
        if self.qmp:
            self.qmp.close()
        return super().stop(seconds)


def fd_count(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def temporary_directory():
    """A short path: unix socket names may have 107 bytes.  Gone at exit at the latest."""
    _directories.append(tempfile.mkdtemp(prefix="ivshmem-"))
    return _directories[-1]


@atexit.register
def _clean_up():
    """What an interrupted run leaves; there is nothing left after a whole one."""
    while _running:
        _running[-1].stop(2)
    for directory in _directories:
        shutil.rmtree(directory, ignore_errors=True)


def end_on_sigterm():
    """Makes SIGTERM end the program as Ctrl-C does, cleaning up."""
    def interrupt(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)


class TestCase(unittest.TestCase):
    """A temporary directory, and processes that never outlive the test."""

    maxDiff = None

    def setUp(self):
        self.dir = temporary_directory()
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def start(self, process):
        self.addCleanup(process.stop)
        return process

    def server(self, *options, **kwargs):
        return self.start(Server(self.dir, *options, **kwargs))

    def qemu(self, *args, **kwargs):
        return self.start(Qemu(self.dir, *args, **kwargs))
