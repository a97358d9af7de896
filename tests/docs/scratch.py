# SPDX-License-Identifier: GPL-2.0-or-later
"""A place where commands with fixed paths touch nothing of this machine.

A mount and PID namespace: /tmp, /run and /dev/shm are empty there, changes to /etc, /usr and /var
are lost with it, users and groups that the documents name exist, and whatever is started ends.
"""
import os
import shutil
import subprocess
import sys

COVERED = ("/tmp", "/run", "/dev/shm", "/dev/hugepages")
PROGRAMS = "/run/programs"
OVERLAID = ("/etc", "/usr", "/var")
USERS = {"alice": 60001, "libvirt-qemu": 60002}
GROUPS = {"kvm": 60003}


def inside(arguments):
    """argv that runs a command in namespaces of its own."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "--propagation", "private", *arguments]


def missing():
    """Why there can be no such place, or None."""
    if os.getuid() != 0:
        return "only root has mount namespaces of its own: run the test as root"
    if not shutil.which("unshare"):
        return "unshare is missing: apt-get install util-linux"
    result = subprocess.run(inside([sys.executable, os.path.abspath(__file__)]),
                            capture_output=True, text=True)
    return "no mounts allowed here: " + result.stderr.strip()[-300:] if result.returncode else None


def _mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def _cover():
    for path in filter(os.path.isdir, COVERED):
        _mount("-t", "tmpfs", "-o", "mode=1777", "ivshmem-docs", path)
    for path in filter(os.path.isdir, OVERLAID):
        upper, work = "/tmp/.upper" + path, "/tmp/.work" + path
        os.makedirs(upper)
        os.makedirs(work)
        _mount("-t", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % (path, upper, work),
               "overlay", path)


def _add_accounts(path, names, form):
    with open(path, "r+", encoding="utf-8") as file:
        known = {line.split(":")[0] for line in file}
        for name, number in names.items():
            if name not in known:
                file.write(form.format(name, number))


def enter(keep, programs):
    """Cover the fixed paths; folders in keep stay where they are, and programs are in PATH."""
    covered = [path for path in dict.fromkeys(map(os.path.realpath, keep))
               if os.path.isdir(path) and path.startswith(tuple(c + "/" for c in COVERED))]
    kept = {path: os.open(path, os.O_PATH) for path in covered}
    _cover()
    for path, handle in kept.items():
        os.makedirs(path, exist_ok=True)
        _mount("--no-canonicalize", "--bind", "/proc/%d/fd/%d" % (os.getpid(), handle), path)
        os.close(handle)
    _add_accounts("/etc/passwd", USERS, "{0}:x:{1}:{1}::/:/bin/false\n")
    _add_accounts("/etc/group", GROUPS, "{0}:x:{1}:\n")
    os.makedirs(PROGRAMS)
    for name, target in programs.items():
        os.symlink(target, os.path.join(PROGRAMS, name))
    os.environ["PATH"] = PROGRAMS + ":/usr/sbin:/usr/bin:/sbin:/bin"


if __name__ == "__main__":
    _cover()
