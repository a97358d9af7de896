# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a Linux guest boots: the distribution's kernel package, fetched once and unpacked (never
installed), and an initramfs of busybox, the guest program and the modules that VFIO needs.
"""
import functools
import hashlib
import io
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

import support

# The cloud flavour boots fastest and is the smallest download; the general one will do.
KERNEL_PACKAGES = ("linux-image-cloud-%s", "linux-image-%s")
NATIVE = "amd64"
MODULES = ("vfio-pci", "vfio_iommu_type1", "uio_pci_generic")
STORE = os.path.join(support.BUILD, "linux-guest")
CACHE = os.path.join(
    os.environ.get("IVSHMEM_CACHE")
    or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ivshmem"),
    "linux-guest")

INIT = r"""#!/bin/busybox sh
export PATH=/bin HOME=/ PS1=
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp
for module in $(cat /modules/order); do insmod /modules/$module; done
: "${COMMANDS:=ttyS1}"      # the kernel's command line may name another one
exec </dev/$COMMANDS >/dev/$COMMANDS 2>&1
stty raw -echo
printf 'READY %s\n' "$(uname -r)"
while read -r line; do
    (eval "$line") </dev/null
    printf '\036%d\n' $?
done
poweroff -f
"""


class FetchError(Exception):
    """The kernel package cannot be had; the text says why and what to do."""


def _apt(arguments, options, directory):
    return subprocess.run([arguments[0], *options, *arguments[1:]], cwd=directory, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, LC_ALL="C"))


def _private_lists(options, arch):
    """apt options for package lists of our own: the system's may be empty or outdated."""
    state = os.path.join(STORE, "apt" if arch == NATIVE else "apt-" + arch)
    for part in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(state, part), exist_ok=True)
    private = [*options, "-o", "Dir::State::lists=" + os.path.join(state, "lists"),
               "-o", "Dir::Cache=" + os.path.join(state, "cache")]
    result = _apt(["apt-get", "update", "-q"], private, state)
    if result.returncode:
        raise FetchError("apt-get update failed: %s" % result.stdout.strip()[-300:])
    return private


def _download(package, options, directory):
    """Fetch the .deb of a package, or of the one kernel image that it depends on."""
    depends = _apt(["apt-cache", "depends", package], options, directory).stdout
    real = re.search(r"Depends: (linux-image-\d\S*)", depends)
    result = _apt(["apt-get", "download", "-q", real.group(1) if real else package],
                  options, directory)
    debs = [name for name in os.listdir(directory) if name.endswith(".deb")]
    if result.returncode or not debs:
        raise FetchError("apt-get download %s: %s" % (package, result.stdout.strip()[-300:]))
    return debs[0]


def _fetch(packages, arch=NATIVE):
    """The cached .deb of the first of these packages that can be had."""
    foreign = [] if arch == NATIVE else ["-o", "APT::Architecture=" + arch,
                                         "-o", "APT::Architectures::=" + arch]
    stamp = os.path.join(CACHE, packages[0] + ("-" + arch if foreign else "") + ".name")
    if os.path.exists(stamp):
        with open(stamp, encoding="ascii") as file:
            path = os.path.join(CACHE, file.read())
        if os.path.exists(path):
            return path
    print("fetching the package %s (once) ..." % packages[0], file=sys.stderr, flush=True)
    os.makedirs(CACHE, exist_ok=True)
    os.makedirs(STORE, exist_ok=True)
    options, reason = ["-o", "APT::Sandbox::User=root", *foreign], None
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        for private in (True,) if foreign else (False, True):
            if private:
                options = _private_lists(options, arch)
            for package in packages:
                try:
                    deb = _download(package, options, directory)
                except FetchError as error:
                    reason = reason or error
                    continue
                path = os.path.join(CACHE, deb)
                os.rename(os.path.join(directory, deb), path)
                write_file(stamp, deb.encode())
                return path
    raise FetchError("%s; check the network and apt's sources (apt-get update), "
                     "or set LINUX_GUEST_DEB to a kernel package" % reason)


def write_file(path, data):
    """All or nothing, also when two runs do it at once."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o644)
    os.rename(temporary, path)


def _find(tree, pattern):
    for folder, _, names in os.walk(tree):
        for name in names:
            if re.fullmatch(pattern, name):
                return os.path.join(folder, name)
    return None


def _module_bytes(path):
    with open(path, "rb") as file:
        data = file.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def _collect_modules(tree, names):
    """Modules with what they depend on, in the order of loading: [(name, bytes)]."""
    result = []

    def add(name):
        if any(name == known for known, _ in result):
            return
        path = _find(tree, re.escape(name).replace("_", "[_-]").replace(r"\-", "[_-]")
                     + r"\.ko(\.xz)?")
        if path is None:
            return      # built in
        data = _module_bytes(path)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in filter(None, (depends.group(1) if depends else b"").decode().split(",")):
            add(needed)
        result.append((name, data))

    for name in names:
        add(name)
    return result


def _unpack(deb):
    """Kernel and modules of a .deb in a folder of STORE; the rest of the package is dropped."""
    target = os.path.join(STORE, os.path.basename(deb)[:-4].replace("%3a", "-"))
    if os.path.isdir(target):
        return target
    os.makedirs(STORE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORE) as scratch:
        tree, new = os.path.join(scratch, "tree"), os.path.join(scratch, "new")
        subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
        os.makedirs(os.path.join(new, "modules"))
        kernel = _find(tree, "vmlinuz-.*")
        if kernel is None:
            raise FetchError("%s has no kernel in it" % deb)
        shutil.copy(kernel, os.path.join(new, "vmlinuz"))
        modules = _collect_modules(tree, MODULES)
        for name, data in modules:
            write_file(os.path.join(new, "modules", name + ".ko"), data)
        write_file(os.path.join(new, "modules", "order"),
               "".join(name + ".ko\n" for name, _ in modules).encode())
        os.chmod(new, 0o755)
        try:
            os.rename(new, target)
        except OSError:
            if not os.path.isdir(target):       # else another run was quicker
                raise
    return target


@functools.lru_cache(maxsize=None)
def kernel(arch=NATIVE):
    """The folder with vmlinuz and modules/; skips the test when there is no way to get it."""
    own = os.environ.get("LINUX_GUEST_DEB") if arch == NATIVE else None
    try:
        return _unpack(own or _fetch([name % arch for name in KERNEL_PACKAGES], arch))
    except (FetchError, OSError, subprocess.CalledProcessError) as error:
        raise unittest.SkipTest("no kernel for a Linux guest: %s" % error) from error


@functools.lru_cache(maxsize=None)
def busybox(arch=NATIVE):
    """A statically linked busybox: the installed one, or the package's, unpacked."""
    path = os.path.join(STORE, "busybox" + ("" if arch == NATIVE else "-" + arch))
    for known in (shutil.which("busybox") if arch == NATIVE else None, path):
        if known and os.path.exists(known):
            with open(known, "rb") as file:
                if b"/lib64/ld-linux" not in file.read(4096):
                    return known
    try:
        deb = _fetch(("busybox-static",), arch)
        with tempfile.TemporaryDirectory(dir=STORE) as scratch:
            subprocess.run(["dpkg-deb", "-x", deb, scratch], check=True)
            found = [os.path.join(scratch, place, "busybox") for place in ("bin", "usr/bin")]
            os.rename(next(filter(os.path.isfile, found)), path)
    except (FetchError, OSError, StopIteration, subprocess.CalledProcessError) as error:
        raise unittest.SkipTest("no static busybox for a Linux guest: %s; "
                                "apt-get install busybox-static" % error) from error
    return path


class Cpio:
    """An archive in the "newc" format that the kernel reads."""

    def __init__(self):
        self.out = io.BytesIO()
        self.inode = 0

    def add(self, name, mode, data=b""):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        self.out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + raw)
        self._pad()
        self.out.write(data)
        self._pad()

    def _pad(self):
        self.out.write(b"\0" * (-self.out.tell() % 4))

    def file(self, name, data, mode=0o755):
        self.add(name, stat.S_IFREG | mode, data)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return self.out.getvalue()


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def initramfs(path, guest_program=None, files=(), init=INIT, arch=NATIVE):
    """Write the initramfs; files are further (name, bytes) pairs."""
    folder, archive = kernel(arch), Cpio()
    for name in ("bin", "dev", "proc", "sys", "modules", "tmp"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.file("init", init.encode())
    archive.file("bin/busybox", _read(busybox(arch)))
    applets = subprocess.run([busybox(), "--list"], check=True, capture_output=True, text=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            archive.add("bin/" + applet, stat.S_IFLNK | 0o777, b"busybox")
    if guest_program:
        archive.file("bin/ivshmem-guest", _read(guest_program))
    modules = os.path.join(folder, "modules")
    for name in sorted(os.listdir(modules)):
        archive.file("modules/" + name, _read(os.path.join(modules, name)), 0o644)
    for name, data in files:
        archive.file(name, data)
    write_file(path, archive.finish())


def identity():
    """Names kernel and modules in a key of what was found out about them."""
    return hashlib.sha256(os.path.basename(kernel()).encode()).hexdigest()[:16]
