# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every system call of ivshmem-server fails in turn: it says what it could not do, and goes on with
the rest, or ends with status 1 if it cannot start.
"""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import fault
import support
from server_load import ConfigServer

VECTORS = 2
TEXT = """[server]
control-socket=DIR/ctl
[region a]
size=64K
vectors=2
socket=DIR/a
numa-node=0
[client a/reader]
socket=DIR/reader
access=read-only
socket-mode=0600
socket-group=0
[region named]
size=64K
memory=shm:NAME
prealloc=yes
socket=DIR/named
"""
MORE = """[client a/more]
socket=DIR/more
[region b]
size=64K
socket=DIR/b
"""
CRASH_TEXT = """[region a]
size=64K
vectors=2
socket=DIR/a
"""
# Functions that the server takes from the C library and that are no system calls, or such that
# cannot fail in a way that matters: an allocation that fails ends the program, as everywhere in
# GLib.  A new one goes here or into the shim.
HARMLESS = set("""
__cxa_finalize __errno_location __isoc99_sscanf __libc_start_main _exit close closedir dirfd exit
fflush fprintf fputs fwrite geteuid getpid gettid isatty memchr memcmp memcpy memset munmap openlog
printf puts readdir64 setlocale signal sigaction snprintf strchr strcmp strcspn strerror strlen
strncmp strrchr strspn strstr strtol strtoul sysconf syslog clock_gettime __stack_chk_fail
free getgrnam getpwnam getpwuid localtime_r setvbuf strftime kill waitpid
getegid lseek shutdown
""".split())


class FaultServer(ConfigServer):
    """ready: whether it came so far."""
    ready = False

    def _wait_ready(self, ready):
        if not support.select.select([ready], [], [], 20 * support.SCALE)[0]:
            raise support.TimeoutExpired("neither ready nor ended: " + self.err.text)
        self.ready = bool(os.read(ready, 1))
        if not self.ready:
            try:
                self.wait(1)
            except support.TimeoutExpired:
                pass            # it could not tell, and serves

    @property
    def failed(self):
        return not self.ready and self.status is not None


class Run:
    """One life with one fault, in a directory of its own."""

    def __init__(self, what, text=TEXT):
        self.fault = what
        self.dir = support.temporary_directory()
        self.control = fault.Control(self.dir)
        self.group = fault.Group(os.path.join(self.dir, "a"), VECTORS)
        self.processes = []
        self.manager = support.socket.socket(support.socket.AF_UNIX, support.socket.SOCK_DGRAM)
        self.manager.bind(self.path("notify"))
        self.control.env["NOTIFY_SOCKET"] = self.path("notify")
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        self.config(text)

    def listen(self):
        """As the service manager does; what it is told is not the matter here."""
        while self.manager.recv(65536):
            pass

    def path(self, name):
        return os.path.join(self.dir, name)

    def config(self, text):
        with open(self.path("server.conf"), "w", encoding="ascii") as out:
            out.write(text.replace("DIR", self.dir).replace("NAME", os.path.basename(self.dir)))

    def serve(self, *options, clean=False):
        server = FaultServer("--config", self.path("server.conf"), *options,
                             env=None if clean else self.control.env)
        self.processes.append(server)
        return server

    def arm(self):
        self.control.arm(self.fault)

    def explained(self, *servers):
        fault.explained(self.fault, *servers)

    def settle(self, server):
        """All know all; one client may have been turned away, if the log says why."""
        if self.group.settle(retries=1):
            self.explained(server)
        self.group.ring_all()
        self.alive(server)

    def alive(self, server):
        if server.status is not None:
            raise AssertionError("it ended with status %d: %s" % (server.wait(), server.err.text))

    def ended(self, server, *statuses):
        status = server.wait(20)
        if status not in statuses:
            raise AssertionError("it ended with status %d: %s" % (status, server.err.text))
        return status

    def start_clean(self):
        """What it left behind is in nobody's way."""
        server = self.serve(clean=True)
        if not server.ready:
            raise AssertionError("nor does the next one start: " + server.err.text)
        self.group.join(2)
        self.settle(server)
        self.group.close()
        server.stop()

    def descriptors(self, server, most=None):
        """How many the server has; waits until there are not more."""
        limit = support.Deadline(3)
        while True:
            now = support.fd_count(server.pid)
            if most is None or now <= most or limit.expired():
                return now
            support.select.select([], [], [], 0.01)

    def close(self):
        self.group.close()
        for process in reversed(self.processes):
            process.stop()
        self.manager.shutdown(support.socket.SHUT_RDWR)
        self.listener.join(10)
        self.manager.close()
        self.control.close()
        name = "/dev/shm/" + os.path.basename(self.dir)
        if os.path.exists(name):
            os.unlink(name)
        shutil.rmtree(self.dir, ignore_errors=True)


class Lives(support.TestCase):
    most = None                 # descriptors without a fault

    def fail_each(self, live, *args):
        """live(Run) without a fault, to count; then with each."""
        def run(what):
            life = Run(what, *args)
            try:
                live(life)
                return life.control.counts
            finally:
                life.close()
        counts = run(fault.NONE)
        faults = list(fault.plan(counts))
        self.assertGreater(len(faults), 10)
        tried = fault.each(run, faults)
        print("     %d calls of %d functions" % (sum(counts.values()), len(counts)), flush=True)
        self.assertEqual(tried, len(faults))

    @staticmethod
    def symbols(name, *options):
        return subprocess.run(["nm", *options, support.program(name)], check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def test_the_shim_knows_every_system_call(self):
        if not shutil.which("nm"):
            self.skipTest("no nm: apt-get install binutils")
        for name in ("server", "client"):
            if "__gcov_" in self.symbols(name):
                self.skipTest("built to count coverage, which makes calls of its own")
            listed = self.symbols(name, "-D", "--undefined-only")
            taken = set(re.findall(r" U (\w+)@GLIBC", listed))
            plain = {call.replace("v64v2", "v2").replace("64", "") for call in taken}
            self.assertEqual(plain - {call.replace("64", "") for call in HARMLESS} -
                             set(fault.numbers()), set(), "%s: neither failed nor known as harmless" % name)

    def test_start_serve_reload_stop(self):
        self.fail_each(self.serve_and_stop)

    def serve_and_stop(self, life):
        life.arm()
        server = life.serve()
        if not server.ready:
            life.explained(server)
        if server.failed:
            self.ended_at_start(life, server)
            return
        life.group.join(3)
        life.settle(server)
        life.group.leave(1)
        life.settle(server)
        if not fault.ask(life.path("ctl"), "status"):
            life.explained(server)
            if not os.path.exists(life.path("ctl")):
                raise AssertionError("no control socket, but it was asked for")
            self.assertEqual(len(fault.ask(life.path("ctl"), "status")["regions"]), 2)
        self.reload(life, server)
        life.settle(server)
        if life.fault == fault.NONE:
            self.most = life.descriptors(server)
        self.assertLessEqual(life.descriptors(server, self.most), self.most, "descriptors")
        server.signal(signal.SIGTERM)
        life.ended(server, 0)
        life.control.off()
        life.group.close()
        life.start_clean()

    def ended_at_start(self, life, server):
        life.ended(server, 1)
        life.control.off()
        life.start_clean()

    def reload(self, life, server):
        life.config(TEXT + MORE)
        server.signal(signal.SIGHUP)
        said = server.err.wait_for("SIGHUP: (read|nothing changed)", 10)
        if said.group(1) != b"read" or not self.reachable(life):
            life.explained(server)
            server.signal(signal.SIGHUP)
            server.err.wait_for("SIGHUP: read", 10)
            self.assertTrue(self.reachable(life), "nor are they after a second SIGHUP\n" +
                            server.err.text)

    def reachable(self, life):
        """The sockets that the new configuration brings."""
        for name in ("more", "b"):
            if not os.path.exists(life.path(name)):
                return False
            other = fault.Group(life.path(name), 1)
            try:
                other.join()
                limit = support.Deadline(5)
                while other.members[0].id is None and not limit.expired():
                    support.select.select([other.members[0].sock], [], [], 0.1)
                    other.members[0].read()
                    if other.members[0].lost:
                        return False
                if other.members[0].id is None:
                    raise AssertionError("socket %s is there, but nobody answers" % name)
            except ConnectionError:
                return False
            finally:
                other.close()
        return True

    def test_handing_over(self):
        self.fail_each(self.hand_over)

    def hand_over(self, life):
        server = life.serve()
        life.group.join(3)
        life.settle(server)
        life.arm()
        successor = life.serve("--replace", clean=True)
        if successor.ready:
            life.ended(server, 0)
            server = successor
        else:
            life.ended(successor, 1)
            life.explained(server, successor)
        life.settle(server)
        life.group.join(1)
        life.settle(server)
        life.control.off()
        server.signal(signal.SIGTERM)
        life.ended(server, 0)

    def test_taking_over(self):
        self.fail_each(self.take_over)

    def take_over(self, life):
        former = life.serve(clean=True)
        life.group.join(3)
        life.settle(former)
        life.arm()
        server = life.serve("--replace")
        life.control.off()
        if not server.ready:
            life.explained(server, former)
        if server.failed:
            life.ended(server, 1)
            server = former
        else:
            life.ended(former, 0)
        life.settle(server)
        life.group.join(1)
        life.settle(server)
        server.signal(signal.SIGTERM)
        life.ended(server, 0)

    def test_coming_back_after_a_crash(self):
        self.fail_each(self.come_back, CRASH_TEXT)

    def come_back(self, life):
        former = life.serve(clean=True)
        life.group.join(2)
        life.settle(former)
        former.signal(signal.SIGKILL)
        former.wait()
        lost, life.group.members = life.group.members, []
        life.arm()
        server = life.serve()
        if not server.ready:
            life.explained(server)
        if server.failed:
            self.ended_at_start(life, server)
            return
        life.group.join(2)
        life.settle(server)
        if (os.fstat(life.group.members[0].memory) != os.fstat(lost[0].memory) or
                {member.id for member in life.group.members} != {0, 1}):
            life.explained(server)
        for member in lost:
            member.close()
        life.control.off()
        server.signal(signal.SIGTERM)
        life.ended(server, 0)

    def test_going_to_the_background(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to become another user")
        self.fail_each(self.go_to_the_background, CRASH_TEXT)

    @staticmethod
    def use_and_end(life, pid_file, ready):
        with open(pid_file, encoding="ascii") as file:
            watch = os.pidfd_open(int(file.read()))
        try:
            if ready:
                life.group.join(2)
                life.group.settle(retries=1)
                life.group.ring_all()
            signal.pidfd_send_signal(watch, signal.SIGTERM)
            if not support.select.select([watch], [], [], 10 * support.SCALE)[0]:
                raise support.TimeoutExpired("the server in the background does not end")
        finally:
            os.close(watch)

    def go_to_the_background(self, life):
        """Its log is elsewhere then, so only what happens until then must be explained."""
        pid_file = life.path("pid")
        life.arm()
        starter = support.Process(
            [support.program("server"), "--config", life.path("server.conf"), "-p", pid_file,
             "--user", "65534"], env=life.control.env)
        life.processes.append(starter)
        # Not .wait(): the other one may have kept our end of its stderr.
        status = starter.child.wait(20 * support.SCALE)
        self.assertIn(status, (0, 1), starter.err.text)
        try:
            self.use_and_end(life, pid_file, status == 0)
        except (FileNotFoundError, ProcessLookupError):
            pass                # it has ended as well
        if status and life.fault.call != "write":   # to the parent, who is all that it could tell
            life.explained(starter)
        life.control.off()
        life.group.close()
        life.start_clean()

    def test_asking_for_the_status(self):
        self.fail_each(self.ask_for_the_status, CRASH_TEXT)

    def ask_for_the_status(self, life):
        server = life.serve(clean=True)
        life.group.join(2)
        life.settle(server)
        life.arm()
        asking = support.Process([support.program("server"), "--config", life.path("server.conf"),
                                  "--status", "--json"], env=life.control.env)
        life.processes.append(asking)
        if life.ended(asking, 0, 1):
            life.explained(asking)
        else:
            self.assertEqual(len(fault.json.loads(asking.out.text)["regions"]), 1)
        life.settle(server)


class Shortage(support.TestCase):
    """What fails does so for a while: nobody inside notices, and the server does not spin."""
    CALLS = ("accept4", "eventfd", "epoll_ctl", "sendmmsg", "open", "fstat", "getsockopt", "rename",
             "write", "send")

    def test_newcomers_wait_or_are_refused(self):
        def run(what):
            life = Run(what)
            try:
                self.live(life)
            finally:
                life.close()
        fault.each(run, [fault.Fault(call, 1, error, True) for call in self.CALLS
                         for error in fault.ERRORS.get(call, fault.ERRORS[""])
                         if error not in (fault.errno.EINTR, fault.errno.EAGAIN,
                                          fault.errno.EPIPE, fault.errno.ECONNABORTED)])

    def live(self, life):
        server = life.serve()
        life.group.join(3)
        life.settle(server)
        inside = list(life.group.members)
        life.arm()
        begin, used = time.monotonic(), cpu_seconds(server.pid)
        life.group.join(1)
        newcomer = life.group.members[-1]
        support.select.select([newcomer.sock], [], [], 0.3)
        with support.socket.socket(support.socket.AF_UNIX) as sock:
            sock.connect(life.path("ctl"))
            with contextlib.suppress(BrokenPipeError):      # refused already
                sock.sendall(b"status\n")
            support.select.select([sock], [], [], 0.2)
        used = cpu_seconds(server.pid) - used
        self.assertLess(used, 0.05 + 0.3 * (time.monotonic() - begin), "seconds of CPU")
        life.control.off()
        life.group.settle(retries=2)
        life.group.ring_all()
        self.assertEqual(inside, life.group.members[:3], "somebody inside lost his connection")
        self.assertTrue(fault.ask(life.path("ctl"), "status"))
        server.signal(signal.SIGTERM)
        life.ended(server, 0)


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
