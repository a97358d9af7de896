# SPDX-License-Identifier: GPL-2.0-or-later
"""
Small Debians to build, install and boot the packages in.

    tree = root("bookworm", directory, RUN)     made by scripts/debian-root, or SkipTest
    run(tree, "shell commands", net=False)      in it, in namespaces of its own -> output
    boot_image(tree, path)                      an initramfs that boots into its systemd
"""
import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import support  # noqa: E402

PACKAGES = os.path.join(support.TOP, "build", "packages")

# What a host has, and what the packages depend on; tests install nothing else.
RUN = ("systemd", "systemd-sysv", "libglib2.0-0", "libjson-glib-1.0-0", "libsystemd0", "apparmor",
       "bash-completion", "zsh", "man-db", "cpio")

ENTER = r"""
root=$1
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -m 1777 "$root/run/shm"
mount --bind "$root/run/shm" "$root/dev/shm"
cd "$root"
exec chroot "$root" "$@"
"""

# Takes commands at the second serial port, see vm.py; all that is started by systemd.
AGENT = r"""
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
. /peers
printf 'READY %s\n' "$(uname -r)"
while read -r line; do
    (eval "$line") </dev/null
    printf '\036%d\n' $?
done
"""
UNITS = {
    "agent.service": """
[Service]
ExecStart=/bin/bash /agent
WorkingDirectory=/root
""",
    "default.target": """
[Unit]
Requires=basic.target agent.service
After=basic.target
"""}


class Failed(AssertionError):
    """A command failed; says what it printed."""


def build_depends():
    """What the packages need to be built, and checked."""
    with open(os.path.join(support.TOP, "debian", "control"), encoding="utf-8") as control:
        field = re.search(r"^Build-Depends:((?:.*\n )*.*)", control.read(), re.M).group(1)
    names = (re.match(r"[a-z0-9.+-]*", entry.strip()).group() for entry in field.split(","))
    return ("build-essential", "lintian", *filter(None, names))


def root(suite, directory, packages):
    """Unpacks a Debian with these packages in a new folder."""
    if os.geteuid():
        raise unittest.SkipTest("a scratch root takes root: repeat as root")
    for tool, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if not shutil.which(tool):
            raise unittest.SkipTest("no %s: apt-get install %s" % (tool, package))
    tree = os.path.join(directory, suite)
    done = subprocess.run([os.path.join(support.TOP, "scripts", "debian-root"), suite, tree,
                           *packages], check=False, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise unittest.SkipTest("no scratch root: " + done.stdout[-500:])
    return tree


def run(tree, script, net=False, seconds=600):
    """Runs a script there, without network unless it is asked for; returns its output."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child"] + ["--net"] * (not net)
    process = support.Process(
        argv + ["sh", "-ec", ENTER, "sh", tree, "sh", "-ec", script], name="chroot",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
             "DEBIAN_FRONTEND": "noninteractive"})
    try:
        if process.wait(seconds):
            raise Failed("%s\n%s" % (process.out.text[-6000:], process.err.text[-3000:]))
        return process.out.text
    finally:
        process.stop()


def source():
    """Writes the source package, and returns its path."""
    done = subprocess.run([os.path.join(support.TOP, "scripts", "packages"), "--source"],
                          check=False, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failed(done.stdout)
    return glob.glob(os.path.join(PACKAGES, "*.dsc"))[0]


@functools.lru_cache(maxsize=None)
def build(suite):
    """Builds the source package without a network; returns the root with it in /packages."""
    tree = root(suite, support.temporary_directory(), build_depends())
    packages = os.path.join(tree, "packages")
    source()
    shutil.copytree(PACKAGES, packages)
    run(tree, "cd /packages; dpkg-source -x *.dsc source; cd source; "
        "dpkg-buildpackage -us -uc; cd ..; rm -rf source", seconds=1800)
    return tree


def install(tree, built, names):
    """Installs packages that build() has made, as users do."""
    if tree != built:
        shutil.copytree(os.path.join(built, "packages"), os.path.join(tree, "packages"))
    return run(tree, "apt-get install -y --no-install-recommends "
               + " ".join("/packages/%s_*_*.deb" % name for name in names))


def put(tree, name, text):
    with open(os.path.join(tree, name), "w", encoding="utf-8") as file:
        file.write(text)


def boot_image(tree, path, script):
    """The whole tree as an initramfs; script is what the commands given to it may call."""
    put(tree, "agent", AGENT)
    put(tree, "peers", script)
    for name, text in UNITS.items():
        put(tree, "etc/systemd/system/" + name, text)
    os.symlink("sbin/init", os.path.join(tree, "init"))
    run(tree, "rm -f packages/*-dbgsym_* packages/*.xz; find . -xdev -path ./image -prune -o "
        "-path ./usr/share/doc -prune -o -path ./usr/share/locale -prune -o -print | "
        "cpio --quiet -o -H newc >image; chmod 644 image")
    os.rename(os.path.join(tree, "image"), path)
