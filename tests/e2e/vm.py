# SPDX-License-Identifier: GPL-2.0-or-later
"""
Linux guests that do what they are told.

    vm = LinuxVM(directory, *doorbell(server.socket))     starts to boot
    vm.ready()                                            waits for userspace
    vm.run("ivshmem-guest list")     -> Answer(status, text)
    vm.check("...")                  -> text, AssertionError unless the status is 0
    job = vm.begin("..."); job.wait_for("regex"); job.finish() -> Answer
One command runs at a time; use "&" in the shell for more.  Commands travel over the second serial
port: a line in, output and "\\x1e<status>" out.
LinuxTestCase has guests that all tests of a class share: boot() starts them, cls.machine() makes one.
accelerator() says KVM or TCG: KVM only where a Linux guest really boots under it, which is tried
once with a time limit and remembered in build/.  IVSHMEM_ACCEL=tcg|kvm decides by hand.
"""
import collections
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import unittest

import crossguest
import linuximage
import support

BOOT_SECONDS = 60
PROBE_SECONDS = 12
COMMAND_LINE = ("console=ttyS0 quiet panic=-1 intel_iommu=on random.trust_cpu=on mitigations=off "
                "no_timer_check tsc=reliable nokaslr")

Answer = collections.namedtuple("Answer", "status text")


def doorbell(sock, vectors=1, device_id="ivshmem", options=""):
    """Arguments for an ivshmem-doorbell at a server's socket."""
    return ("-chardev", "socket,id=%s-server,path=%s" % (device_id, sock),
            "-device", "ivshmem-doorbell,id=%s,chardev=%s-server,vectors=%d%s"
            % (device_id, device_id, vectors, options))


def plain(path, size="1M", device_id="ivshmem", options=""):
    """Arguments for an ivshmem-plain on a file that several VMs open."""
    return ("-object", "memory-backend-file,id=%s-mem,share=on,mem-path=%s,size=%s"
            % (device_id, path, size),
            "-device", "ivshmem-plain,id=%s,memdev=%s-mem%s" % (device_id, device_id, options))


class Job:
    """A command under way in a guest."""

    def __init__(self, vm, command):
        self.vm = vm
        self.command = command
        self.start = vm.port.mark
        vm.send(command)

    def wait_for(self, pattern, seconds=support.DEFAULT_WAIT):
        """Wait for a text in the output (lines end in \\n); fails when the command ends first."""
        regex = re.compile((pattern + r"|\x1e\d+\n").encode(), re.M)
        match = self.vm.port.wait_until(regex.search, seconds,
                                        "%r of %r" % (pattern, self.command))
        if match.group().startswith(b"\x1e"):
            raise AssertionError("%s: %r ended before it said %r:\n%s"
                                 % (self.vm.name, self.command, pattern, self.finish().text))
        self.vm.port.mark += match.end()
        return match.group().decode("utf-8", "replace")

    def finish(self, seconds=support.DEFAULT_WAIT):
        """Wait for the end: exit status and the whole output."""
        match = self.vm.port.wait_until(re.compile(rb"\x1e(\d+)\n").search, seconds,
                                        "the end of %r" % self.command)
        end = self.vm.port.mark + match.start()
        text = bytes(self.vm.port.data[self.start:end]).decode("utf-8", "replace")
        self.vm.port.mark += match.end()
        self.vm.job = None
        return Answer(int(match.group(1)), text)


class LinuxVM(support.Qemu):
    """A q35 with a virtual IOMMU, one serial port for the console and one for commands."""

    arch = linuximage.NATIVE
    program = "qemu"
    command_line = COMMAND_LINE

    def __init__(self, directory, *devices, name="vm", exe=None, accel=None, memory="256M",
                 files=(), extra_kernel="", guest_program=True, image=None):
        exe = exe or support.program(self.program)
        self.accel = accel or self.accelerator(exe)
        self.job = None
        initrd = image or os.path.join(directory, "initramfs-" + secrets.token_hex(3))
        if image is None:
            linuximage.initramfs(initrd, self.guest_program() if guest_program else None, files,
                                 arch=self.arch)
        path = os.path.join(directory, "cmd-" + secrets.token_hex(3))
        self.console = os.path.join(directory, "console-" + secrets.token_hex(3))
        listener = support.listen(path)
        try:
            super().__init__(
                directory, *self.platform(), "-m", memory, "-smp", "1", "-no-reboot",
                "-kernel", os.path.join(linuximage.kernel(self.arch), "vmlinuz"),
                "-initrd", initrd, "-append", self.command_line + extra_kernel,
                "-chardev", "file,id=console,path=" + self.console, "-serial", "chardev:console",
                "-chardev", "socket,id=cmd,path=" + path, "-serial", "chardev:cmd",
                *devices, exe=exe, name=name)
            try:
                self.sock = support.accept(listener, self)
            except BaseException:
                self.stop()
                raise
        finally:
            listener.close()
            os.unlink(path)
        self.port = support.Stream(self.sock.makefile("rb", buffering=0), name)

    def accelerator(self, exe):
        return accelerator(exe)[0]

    def platform(self):
        """Machine, processor and IOMMU, as QEMU's arguments."""
        return (*accel_options(self.accel), "-device", "intel-iommu,intremap=on")

    def guest_program(self):
        return support.program("guest")

    def ready(self, seconds=BOOT_SECONDS):
        """Wait until the guest takes commands."""
        try:
            self.port.wait_for(r"^READY (\S+)\n", seconds)
        except support.TimeoutExpired as error:
            raise support.TimeoutExpired("%s\n%s\nconsole:\n%s" % (
                error, self.err.text, self.console_text()[-1500:])) from None
        return self

    def console_text(self):
        with open(self.console, encoding="utf-8", errors="replace") as file:
            return file.read()

    def send(self, command):
        if "\n" in command:
            raise ValueError("one line per command")
        self.sock.sendall(command.encode() + b"\n")

    def begin(self, command):
        if self.job:
            raise AssertionError("%s is still busy with %r" % (self.name, self.job.command))
        self.job = Job(self, command)
        return self.job

    def run(self, command, seconds=support.DEFAULT_WAIT):
        return self.begin(command).finish(seconds)

    def check(self, command, seconds=support.DEFAULT_WAIT):
        answer = self.run(command, seconds)
        if answer.status:
            raise AssertionError("%s: %r gave status %d:\n%s"
                                 % (self.name, command, answer.status, answer.text))
        return answer.text

    def stop(self, seconds=5):
        status = super().stop(seconds)
        if hasattr(self, "port"):
            self.port.close()
            self.sock.close()
        return status


def accel_options(accel):
    if accel == "kvm":
        return ("-machine", "q35,kernel-irqchip=split", "-accel", "kvm")
    return ("-machine", "q35", "-accel", "tcg,thread=single")


def _probe_key(exe):
    version = subprocess.run([exe, "--version"], capture_output=True, text=True).stdout
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    return " / ".join([version.splitlines()[0] if version else exe, linuximage.identity(),
                       platform.release(), model.group(1) if model else platform.machine()])


def _boots_under_kvm(exe):
    directory = support.temporary_directory()
    try:
        vm = LinuxVM(directory, exe=exe, accel="kvm", guest_program=False, name="kvm-probe")
    except (AssertionError, ConnectionError):
        return False
    try:
        vm.ready(PROBE_SECONDS)
        return vm.run("true").status == 0
    except (AssertionError, OSError):
        return False
    finally:
        vm.stop(1)
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def accelerator(exe=None):
    """("kvm" or "tcg", why)"""
    exe = exe or support.program("qemu")
    forced = os.environ.get("IVSHMEM_ACCEL")
    if forced in ("kvm", "tcg"):
        return forced, "set by IVSHMEM_ACCEL"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm is missing or not accessible"
    path = os.path.join(linuximage.STORE, "accelerator.json")
    key, known = _probe_key(exe), {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    if key not in known:
        known[key] = _boots_under_kvm(exe)
        linuximage.write_file(path, json.dumps(known, indent=1).encode())
    if known[key]:
        return "kvm", "a Linux guest boots under it"
    return "tcg", "/dev/kvm is there, but a Linux guest does not boot under it"


class ArmVM(LinuxVM):
    """An aarch64 virt with an SMMU; gic: the machine's options for interrupts."""

    arch = "arm64"
    program = "qemu-aarch64"
    command_line = "console=ttyAMA0 COMMANDS=ttyAMA1 quiet panic=-1 random.trust_cpu=on nokaslr"

    def __init__(self, directory, *devices, gic, **options):
        self.gic = gic
        super().__init__(directory, *devices, **options)

    def accelerator(self, exe):
        return "tcg"

    def platform(self):
        return ("-machine", "virt,iommu=smmuv3," + self.gic, "-cpu", "cortex-a57",
                "-accel", "tcg,thread=single")

    def guest_program(self):
        return crossguest.build("aarch64")

    def ready(self, seconds=2 * BOOT_SECONDS):
        """VFIO has to be told to trust interrupts that nothing remaps."""
        super().ready(seconds)
        self.check("echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
        return self


class LinuxTestCase(unittest.TestCase):
    """Guests shared by the tests of a class.  Commands in tests have timeouts of their own."""

    maxDiff = None
    kind = LinuxVM

    @classmethod
    def boot(cls):
        raise NotImplementedError

    @classmethod
    def setUpClass(cls):
        cls.dir = support.temporary_directory()
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.machines = []
        cls.boot()
        for machine in cls.machines:
            machine.ready()

    @classmethod
    def start(cls, process):
        cls.addClassCleanup(process.stop)
        return process

    @classmethod
    def machine(cls, *devices, **options):
        vm = cls.start(cls.kind(cls.dir, *devices, **options))
        cls.machines.append(vm)
        return vm

    def setUp(self):
        for machine in self.machines:
            if machine.job:         # left behind by a test that failed
                machine.job.finish(60)

    def fails(self, machine, command, *texts, status=1):
        """The command must fail and say each of these."""
        answer = machine.run(command)
        self.assertEqual(answer.status, status, answer.text)
        for text in texts:
            self.assertIn(text, answer.text)
        return answer.text

    def answer(self, machine, command, seconds=support.DEFAULT_WAIT):
        """The JSON that a command prints."""
        return json.loads(machine.check(command, seconds))

    def both(self, first, second, seconds=60):
        """Runs (machine, command) pairs at once; both must succeed.  Returns the two outputs."""
        jobs = [machine.begin(command) for machine, command in (first, second)]
        answers = [job.finish(seconds) for job in jobs]
        for answer, job in zip(answers, jobs):
            self.assertEqual(answer.status, 0, "%s: %s\n%s"
                             % (job.vm.name, job.command, [other.text for other in answers]))
        return [answer.text for answer in answers]
