# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: what it is, what its floor is, and the CPU time of processes."""
import datetime
import json
import os
import platform
import re
import subprocess

import support
from figures import Taken

FLOOR = "Floor of the machine"
SECONDS = 30            # enough for each call of a helper program


def program(name):
    """A program of tests/bench's own, or SkipTest."""
    path = os.path.join(support.BUILD, "tests/bench/bench-" + name)
    if not os.access(path, os.X_OK):
        raise support.unittest.SkipTest("%s is not built: ./run build" % path)
    return path


def call(*argv, seconds=SECONDS, directory=None):
    """The JSON that a program prints; it ends with the benchmark, whatever happens."""
    env = dict(os.environ, TMPDIR=directory) if directory else None
    process = support.Process(argv, env=env)
    try:
        if process.wait(seconds):
            raise AssertionError("%s: status %s: %s" % (process.name, process.status,
                                                        process.err.text.strip()))
        return json.loads(process.out.text)
    finally:
        process.stop()


def cpu_seconds(*pids):
    """CPU time so far, of all threads."""
    total = 0
    for pid in pids:
        for task in os.listdir("/proc/%d/task" % pid):
            try:
                with open("/proc/%d/task/%s/schedstat" % (pid, task), encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass                    # a thread that has ended meanwhile
    return total / 1e9


def cpus():
    return sorted(os.sched_getaffinity(0))


def first_line(*argv):
    try:
        out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             timeout=SECONDS, check=False).stdout
    except OSError as error:
        return str(error)
    return out.splitlines()[0] if out else ""


def find(path, pattern):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.search(pattern, file.read(), re.M)
    except OSError:
        return None
    return match.group(1).strip() if match else None


def commit():
    text = first_line("git", "-C", support.TOP, "describe", "--always", "--dirty", "--abbrev=12")
    return text if re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|.*-g[0-9a-f]+(-dirty)?", text) else None


def environment(sides, accelerators, pinning):
    """What somebody needs to know who compares with another machine."""
    info = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": find("/proc/cpuinfo", r"^model name\s*: (.*)") or platform.machine(),
        "CPUs usable": len(cpus()),
        "CPU governor": find("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "(.*)")
                        or "not shown by this machine",
        "memory": find("/proc/meminfo", r"^MemTotal:\s*(.*)"),
        "kernel": platform.release(),
        "virtual machine itself": "yes" if find("/proc/cpuinfo", r"^flags.*\b(hypervisor)\b")
                                  else "no",
        "load, 1, 5, 15 minutes": "%.1f %.1f %.1f" % os.getloadavg(),
        "descriptors": os.sysconf("SC_OPEN_MAX"),
        "pinning": pinning,
        "ours": commit() or "not from a git checkout",
    }
    for side in sides:
        info["%s: %s" % (side.key, side.name)] = first_line(side.qemu, "--version")
    info.update(accelerators)
    return info


def floor(book, count):
    """Round trips of two pinned processes, writes and copies, without anything of ours."""
    book.say("floor of the machine")
    exe, ids = program("floor"), cpus()

    def trips(how, here, there, row, name, note):
        ns = call(exe, how, str(here), str(there), str(count))["ns"]
        book.value(Taken(row, FLOOR, name, "us", [n / 1000 for n in ns], histogram=True,
                         note=note))
    for _ in range(book.rounds):
        if len(ids) > 1:
            trips("eventfd", ids[0], ids[1], "floor/eventfd", "eventfd round trip, two CPUs",
                  "two processes, each pinned to a CPU, ring each other")
            trips("polling", ids[0], ids[1], "floor/polling", "shared memory round trip, polling",
                  "the same two, each looking at a word of memory all the time")
        trips("eventfd", ids[0], ids[0], "floor/eventfd-same", "eventfd round trip, one CPU",
              "both on the same CPU: no wake-up of another one")
        book.value(Taken("floor/write", FLOOR, "write to an eventfd", "us",
                         [n / 1000 for n in call(exe, "write", str(count * 10))["ns"]],
                         note="the system call that a ring is at least, outside a guest"))
        for size, name in ((1 << 15, "32 KiB"), (1 << 24, "16 MiB")):
            book.value(Taken("floor/memcpy-%d" % size, FLOOR, "memcpy, %s" % name, "MB/s",
                             [call(exe, "memcpy", str(size))["mb_s"]], better="higher"))
    if len(ids) < 2:
        book.skip("round trips of two CPUs", "this machine has one CPU")
