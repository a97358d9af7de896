# SPDX-License-Identifier: GPL-2.0-or-later
"""The table: what of the documents is run together, in which order, and what cannot be run.

A scene begins in an empty place (scratch.py).  Steps that name a document and the first words
of a block or command there are cases; do() steps only prepare or check.
"""
import glob
import os
import shutil

import support
from extract import MANUAL, PERFORMANCE, README, SPEC, TOOLS, TOP

SERVER, CLIENT, GUEST = TOOLS["server"], TOOLS["client"], TOOLS["guest"]


class Step:
    def __init__(self, kind, document, first, until=None, background=False, status=0, similar=False,
                 words=None, path=None, command=None, before="", after="", needs=(), folder=None):
        self.kind, self.document, self.first = kind, document, first
        self.until = until              # a command to try until it succeeds
        self.background = background    # does not end by itself
        self.status = status
        self.similar = similar          # numbers may differ; "lines": and lines be left out
        self.words = words or {}        # what stands for placeholders
        self.path, self.command, self.before, self.after = path, command, before, after
        self.folder = folder            # other than the scene's
        self.needs = needs              # programs without which it is skipped


class Scene:
    def __init__(self, name, *steps, folder="/tmp", stock=False, seconds=30, only=None):
        self.name, self.steps, self.folder, self.stock = name, steps, folder, stock
        self.seconds, self.only = seconds, only

    def skip(self):
        """Why the scene cannot be played here, or None."""
        if self.stock and not shutil.which("qemu-system-x86_64"):
            return "no stock qemu-system-x86_64: apt-get install qemu-system-x86"
        return self.only() if self.only else None


def do(command, **options):
    return Step("do", None, command, **options)


def run(document, first, **options):
    return Step("run", document, first, **options)


def printed(document, first, **options):
    return Step("printed", document, first, **options)


def file(document, first, path, command, **options):
    return Step("file", document, first, path=path, command=command, **options)


def guest(document, first, **options):
    return Step("guest", document, first, **options)


def monitor(document, first, **options):
    return Step("monitor", document, first, **options)


def default_build():
    """What the tools are built into when the documents' command builds them."""
    if os.environ.get("IVSHMEM_BUILD", TOP + "/build") != TOP + "/build":
        return "the tools under test are not those of scripts/build-tools"
    return None


HEADERS = max(glob.glob("/usr/src/linux-headers-*[0-9]-*amd64"), default="")


def kernel_headers():
    return None if HEADERS else "no kernel headers: apt-get install linux-headers-amd64"


DEMO = "tests/e2e/demo.py"
SOCKET = "/tmp/ivshmem_socket"
CONFIG = "/etc/ivshmem/server.conf"
CONTROL = "/run/ivshmem/control.sock"
CLIENTS = "ivshmem-client -S %s -c 'wait-peers %d 10s'"
# The same without taking an ID from the one that is waited for.
FIRST_CLIENT = "ivshmem-server --status | grep ready"
DOORBELL_VM = ("-chardev socket,path=%s,id=server -device ivshmem-doorbell,id=shm0,"
               "chardev=server,vectors=2")
DOMAIN = """<domain type='kvm'><name>vm</name><memory unit='MiB'>512</memory>
<os><type arch='x86_64'>hvm</type></os>
"""
XMLNS = " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
COMPILE = "cc -std=gnu11 -O2 -Wall -Wextra -Werror "

SCENES = [
    Scene("readme-demo",
          do(DEMO + (" --count 1000" if support.SCALE > 1 else "")),
          printed(README, "1. ivshmem-server hands out", similar="lines"),
          folder=TOP, seconds=240),
    Scene("readme-tools",
          run(README, "scripts/build-tools", until="test ! -e %s -a ! -e /tmp/vm.pid" % SOCKET),
          run(README, "./run help"),
          folder=TOP, stock=True, seconds=240, only=default_build),
    Scene("readme-install",
          run(README, "meson setup DIR", words={"DIR": "/tmp/build"}),
          do("/usr/local/bin/ivshmem-server -n 2 -p /tmp/ivshmem.pid"),
          do("ivshmem-client -c 'wait forever 1' -c 'cat 0 5' >/tmp/said", background=True,
             until=FIRST_CLIENT),
          file(MANUAL, "#include <ivshmem-peer.h>", "/tmp/hello.c", COMPILE + "-c /tmp/hello.c "
               "-o /tmp/hello.o $(pkg-config --cflags ivshmem)"),
          run(MANUAL, "$ cc -o hello hello.c", folder="/tmp", until="grep hello /tmp/said"),
          file(MANUAL, "[region video]", CONFIG,
               "ivshmem-server --config=%s --check-config" % CONFIG),
          do("systemd-analyze verify --man=no ivshmem-server.service", needs=["systemd-analyze"]),
          # Huge pages are not everywhere.
          do("mkdir /run/ivshmem && sed -i s/hugetlb:2M/memfd/ " + CONFIG),
          do("ivshmem-server --config=%s -p /tmp/video.pid" % CONFIG),
          run(MANUAL, "# ivshmem-server --config=/etc/ivshmem/server.conf --status"),
          folder=TOP, seconds=240, only=default_build),

    Scene("manual-first-run",
          run(MANUAL, "$ ivshmem-server -S /tmp/ivshmem_socket -l 1M"),
          printed(MANUAL, "server   /tmp/ivshmem_socket (connected)"),
          run(MANUAL, "kill $(cat /tmp/vm.pid",
              until="test ! -e /tmp/vm.pid -a ! -e /tmp/ivshmem.pid -a ! -e %s "
                    "-a ! -e /dev/shm/ivshmem" % SOCKET)),
    Scene("manual-plain",
          run(MANUAL, "qemu-system-x86_64 \\\n    -object memory-backend-file", background=True,
              until="test $(stat -c %s /dev/shm/camera) = 4194304")),
    Scene("manual-doorbell",
          do("ivshmem-server -n 2 -p /tmp/pid"),
          run(MANUAL, "qemu-system-x86_64 \\\n    -chardev socket", background=True,
              until=CLIENTS % (SOCKET, 1))),
    Scene("manual-server",
          do("sh -c 'ulimit -n 20000; ivshmem-server -F -l 1M -n 2 -p /tmp/pid 2>/tmp/log &'",
             background=True, until="grep 'allow for' /tmp/log"),
          do("sed 's/^.*ivshmem-server:/ivshmem-server:/; q' /tmp/log | fold -s -w 88"),
          printed(MANUAL, "ivshmem-server: region default: 1M in", similar=True),
          run(MANUAL, "ulimit -Hn"),
          do("kill $(cat /tmp/pid)", until="test ! -e " + SOCKET),
          run(MANUAL, "$ truncate -s 4M /dev/shm/ivshmem"),
          do("kill $(pidof ivshmem-server)", until="test ! -e " + SOCKET),
          do("test -e /dev/shm/ivshmem")),
    Scene("manual-configuration",
          do("mkdir -p /run/ivshmem /etc/ivshmem"),
          file(MANUAL, "[region scratch]", CONFIG,
               "ivshmem-server --config=%s --check-config" % CONFIG),
          run(MANUAL, "ivshmem-server --config=FILE --check-config",
              words={"FILE": CONFIG}),
          do("ivshmem-server --config=" + CONFIG + " "
             "-p /tmp/ivshmem.pid", until=CLIENTS % ("/run/ivshmem/images-viewer.sock", 0)),
          do("echo '[region more]\nsocket=/run/ivshmem/more.sock' >> " + CONFIG),
          run(MANUAL, "kill -HUP $(cat /tmp/ivshmem.pid)",
              until="test -e /run/ivshmem/more.sock")),
    Scene("manual-client",
          do("ivshmem-server -n 2 -p /tmp/ivshmem.pid"),
          do("ivshmem-client -c 'wait forever' -c 'wait forever' -c 'wait forever'",
             background=True, until=FIRST_CLIENT),
          run(MANUAL, "$ ivshmem-client -S /tmp/ivshmem_socket --json", status=1),
          run(MANUAL, "ivshmem-client -S PATH -c dump", words={"PATH": SOCKET}),
          run(MANUAL, "ivshmem-client -c 'int ID VECTOR'", words={"ID": "0", "VECTOR": "0"}),
          run(MANUAL, "ivshmem-client -c info"),
          run(MANUAL, "ivshmem-server --metrics"),
          run(MANUAL, "ivshmem-server --replace")),
    Scene("manual-no-server",
          do("qemu-system-x86_64 -display none -chardev socket,path=/tmp/none,id=server,"
             "reconnect-ms=1000 -device ivshmem-doorbell,chardev=server || true"),
          printed(MANUAL, "qemu-system-x86_64: -device ivshmem-doorbell,chardev=server: chardev",
                  similar="lines")),
    Scene("manual-driver",
          do("echo 'obj-m := fast.o' >Makefile"),
          file(MANUAL, "#include <linux/io.h>", "fast.c", "make -s -C %s M=$PWD modules && "
               "test -e fast.ko" % HEADERS, before="/* SPDX-License-Identifier: GPL-2.0 */\n"),
          seconds=120, only=kernel_headers),
    Scene("manual-zephyr",
          run(MANUAL, "ivshmem-server -n 2 -l 4096", until=CLIENTS % (SOCKET, 0))),
    Scene("manual-libvirt",
          file(MANUAL, "<shmem name='camera'>", "/tmp/domain.xml",
               "virt-xml-validate domain.xml domain", needs=["virt-xml-validate"],
               before=DOMAIN + "<devices>", after="</devices></domain>\n"),
          file(MANUAL, "<qemu:commandline>", "/tmp/more.xml",
               "virt-xml-validate more.xml domain", needs=["virt-xml-validate"],
               before=DOMAIN.replace(" type", XMLNS + " type", 1), after="</domain>\n"),
          run(MANUAL, "# mkdir -p /run/ivshmem",
              until="test $(stat -c %%G %s) = kvm" % CONTROL)),
    Scene("manual-guest",
          do("ivshmem-server -l 1M -n 2 -p /tmp/ivshmem.pid"),
          do("ivshmem-client -c 'poke 0 \"hello from the host\"'"),
          Step("vm", None, DOORBELL_VM % SOCKET),
          guest(MANUAL, "# ivshmem-guest list"),
          do("ivshmem-client -c 'wait-peer 1 10s' -c 'int 1 1'"),
          guest(MANUAL, "ivshmem-guest dump"),
          guest(MANUAL, "# ivshmem-guest bind"),
          do("ivshmem-client -c 'wait-peer 1 10s' -c 'int 1 1'"),
          guest(MANUAL, "ivshmem-guest wait"),
          guest(MANUAL, "ivshmem-guest --help"),
          guest(MANUAL, "ivshmem-guest bench"),
          guest(GUEST, "# ivshmem-guest ring 0 1"),
          Step("guest_do", None, "ivshmem-guest unbind"),
          do("ivshmem-client -c 'wait-peer 1 10s' -c 'int 1 1'"),
          guest(GUEST, "# ivshmem-guest list"),
          guest(PERFORMANCE, "ivshmem-guest bench")),
    Scene("manual-bare-metal",
          file(MANUAL, "#include <stdint.h>", "/tmp/bare.c",
               COMPILE + "-m32 -ffreestanding -c bare.c")),
    Scene("manual-monitor",
          do("ivshmem-server -l 1M -n 1 -p /tmp/ivshmem.pid"),
          Step("monitored", None, ("-trace ivshmem_* " + DOORBELL_VM % SOCKET)
               .replace("vectors=2", "vectors=1")),
          monitor(MANUAL, "(qemu) info ivshmem"),
          do("ivshmem-client -c 'wait-peers 1 5s'"),
          Step("traced", MANUAL, "ivshmem_link_up shm0: connected"),
          Step("refused", MANUAL, "device 'shm0' (ivshmem-doorbell) is in peer mode",
               path="migrate")),
    Scene("manual-qmp",
          do("ivshmem-server -l 1M -n 2 -p /tmp/ivshmem.pid"),
          Step("monitored", None, DOORBELL_VM % SOCKET),
          do("ivshmem-client -c 'wait-peers 0 60s'", background=True),
          Step("event", None, "IVSHMEM_PEER_JOINED"),
          Step("qmp", MANUAL, '-> {"execute": "qom-get"')),
    Scene("server",
          run(SERVER, "ivshmem-server -S /tmp/ivshmem_socket -M my-memory", background=True,
              until=CLIENTS % (SOCKET, 1)),
          run(SERVER, "ivshmem-server --status")),
    Scene("server-replace",
          do("ivshmem-server"),
          do("pidof ivshmem-server >/tmp/old"),
          run(SERVER, "ivshmem-server --replace"),
          do("test $(pidof ivshmem-server) != $(cat /tmp/old)")),
    Scene("server-configuration",
          file(SERVER, "[region scratch]", "/tmp/server.conf",
               "ivshmem-server --config=/tmp/server.conf --check-config")),
    Scene("client",
          do("ivshmem-server -n 2 -p /tmp/ivshmem.pid"),
          do("ivshmem-client -c 'wait 20s 1' -c 'int 1 0' -c 'wait 20s 1' -c 'int 2 0' "
             "-c 'wait 20s'", background=True, until=FIRST_CLIENT),
          Step("session", CLIENT, "$ ivshmem-client -S /tmp/ivshmem_socket\n"),
          run(CLIENT, "$ ivshmem-client -S /tmp/ivshmem_socket -c 'int 0 1'")),
]

# "text": not a command.  "elsewhere": the test that runs it.  "skip": why it cannot be run.
NOT_RUN = {
    (README, "./run demo"): "elsewhere: tests/docs/check-commands",
    (README, "./run guest-image"): "elsewhere: tests/e2e/test_guest_image.py",
    (README, "./run test"): "elsewhere: scripts/test",
    (README, "./run packages"): "elsewhere: tests/packages/test_packages.py",
    (README, "apt-get install ./build/packages"): "elsewhere: tests/packages/test_packages.py",
    (README, "systemctl start"): "elsewhere: tests/packages/test_systemd.py",
    (README, "N passed, N failed"): "text: the form of the last line",
    (MANUAL, "-> {\"execute\": \"query-ivshmem\"}"): "elsewhere: tests/e2e/test_device_transcript.py",
    (MANUAL, "CONFIG_PCIE=y"): "skip: needs a Zephyr tree and its tool chain",
    (MANUAL, "# echo 32"): "skip: changes the machine, and needs systemd as init",
    (MANUAL, "systemctl "): "elsewhere: tests/packages/test_systemd.py",
    (MANUAL, "ivshmem-guest ping"): "elsewhere: tests/e2e/test_linux_doorbell.py",
    (MANUAL, "virsh "): "skip: needs a running libvirt daemon",
    (MANUAL, "ivshmem-guest bind --no-iommu"): "skip: Debian's kernels lack no-IOMMU mode",
    (MANUAL, "ulimit -"): "text: the name of a limit",
    (SPEC, ""): "text: a diagram",
    (PERFORMANCE, ":language: none"): "text: a file that is included",
    (PERFORMANCE, "./run bench"): "elsewhere: tests/e2e/test_bench.py",
    (PERFORMANCE, "tests/bench/run.py --again"): "elsewhere: tests/e2e/test_bench.py",
    (PERFORMANCE, "ulimit -Hn"): "text: the name of a limit",
    (PERFORMANCE, "ivshmem-guest ping"): "elsewhere: tests/e2e/test_linux_doorbell.py",
    (SERVER, "systemctl "): "elsewhere: tests/packages/test_systemd.py",
    (CLIENT, "{\"command\":\"int\""): "text: the form of an answer",
    (CLIENT, "{\"event\":\"connected\""): "text: the form of an event",
}
