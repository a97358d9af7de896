# SPDX-License-Identifier: GPL-2.0-or-later
"""
The packages on every Debian they are for: built from the source package without a network,
checked by lintian, installed in a scratch root, run there, and removed.
"""
import os
import re
import shutil
import subprocess
import unittest

import roots
import support
from roots import run

TOOLS = ("ivshmem-client", "ivshmem-guest", "ivshmem-server")
INSTALLED = ("ivshmem-tools", "ivshmem-guest")
# Where a file system differs after a package has come and gone.
RESIDUE = re.compile(r"\./(var/(lib/(dpkg|apt|systemd)|log|cache)|etc/(passwd|group|g?shadow)-?$"
                     r"|tmp|packages|run|root|dev|proc)")

COMPLETIONS = r"""
. /usr/share/bash-completion/bash_completion
. /usr/share/bash-completion/completions/%(tool)s
complete -p %(tool)s >/dev/null
COMP_WORDS=(%(tool)s -) COMP_CWORD=1 COMP_LINE='%(tool)s -' COMP_POINT=${#COMP_LINE}
_%(function)s %(tool)s - %(tool)s || :
printf '%%s\n' "${COMPREPLY[@]}"
"""


class DebianTest:
    """For one release of Debian; the tests run in the order of their names."""

    RELEASE = None

    @classmethod
    def setUpClass(cls):
        cls.dir = support.temporary_directory()
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        os.chmod(cls.dir, 0o755)        # QEMU's user has to get to a socket in it
        cls.built = roots.build(cls.RELEASE)
        cls.tree = roots.root(cls.RELEASE, cls.dir, roots.RUN)
        cls.before = cls.files()
        roots.install(cls.tree, cls.built, INSTALLED)

    @classmethod
    def files(cls):
        return set(filter(lambda name: not RESIDUE.match(name),
                          run(cls.tree, "find . -xdev").splitlines()))

    @staticmethod
    def run_test_of_debian(tree, name):
        shutil.copy(os.path.join(support.TOP, "debian", "tests", name), os.path.join(tree, "tmp"))
        run(tree, "/tmp/" + name)

    def test_1_lintian(self):
        said = run(self.built, "lintian --fail-on error,warning --info /packages/*.changes 2>&1")
        self.assertNotRegex(said, "(?m)^[EW]:")

    def test_2_server_and_peers(self):
        """debian/tests/server: own user, default configuration, peers of the group kvm."""
        self.run_test_of_debian(self.tree, "server")

    def test_2_library(self):
        """debian/tests/library: the examples, against libivshmem-dev."""
        roots.install(self.built, self.built, ("libivshmem0", "libivshmem-dev"))
        self.run_test_of_debian(self.built, "library")

    def test_2_libraries_are_found(self):
        for tool in ("ivshmem-client", "ivshmem-server"):
            self.assertNotIn("not found", run(self.tree, "ldd /usr/bin/" + tool))
        self.assertIn("not a dynamic", run(self.tree, "ldd /usr/bin/ivshmem-guest 2>&1 || :"))

    def test_2_manual_pages(self):
        for tool in TOOLS:
            text = run(self.tree, "man --warnings -P cat %s 2>&1" % tool)
            self.assertRegex(text, r"NAME\s+%s - " % tool)
            for option in self.options(tool):
                self.assertIn(option, text, tool)

    def options(self, tool):
        text = run(self.tree, tool + " --help")
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        self.assertIn("--help", options)
        return options

    def test_2_completions(self):
        for tool in TOOLS:
            script = COMPLETIONS % {"tool": tool, "function": tool.replace("-", "_")}
            roots.put(self.tree, "tmp/complete", script)
            offered = {word.rstrip("=") for word in run(self.tree, "bash /tmp/complete").split()}
            options = self.options(tool)
            self.assertEqual(options - offered, set(), "bash: " + tool)
            loaded = run(self.tree, "zsh -fc 'autoload -U compinit && compinit -u -D && "
                         "echo $_comps[%s] && autoload +X -U _%s && functions _%s'"
                         % (tool, tool, tool))
            self.assertRegex(loaded, "^_" + tool)
            for option in options:
                self.assertIn(option, loaded, "zsh: " + tool)

    def test_2_stock_qemu_of_the_group_kvm(self):
        """The distribution's QEMU as a member of kvm, at the socket in the root."""
        qemu = support.program("stock")
        socket = os.path.join(self.tree, "tmp", "server-run", "default.sock")
        server = support.Process(
            ["chroot", self.tree, "sh", "-ec", SERVER], name="ivshmem-server")
        self.addCleanup(server.stop)
        server.err.wait_for("region default: .*clients")
        kvm = int(run(self.tree, "getent group kvm").split(":")[2])
        for group, expected in ((kvm, None), (65534, "Permission denied")):
            process = support.Process(
                [qemu, "-nodefaults", "-display", "none", "-machine", "q35,accel=tcg", "-S",
                 "-chardev", "socket,id=server,path=" + socket,
                 "-device", "ivshmem-doorbell,chardev=server"],
                preexec=lambda group=group: (os.setgroups([]), os.setgid(group),
                                             os.setuid(65534)))
            self.addCleanup(process.stop)
            if expected:
                self.assertEqual(process.wait(60), 1)
                self.assertIn(expected, process.err.text)
            else:
                server.err.wait_for("client 0 .*joined", 60)

    def test_3_removed_without_a_trace(self):
        run(self.tree, "apt-get purge -y " + " ".join(INSTALLED))
        self.assertEqual(self.files() - self.before, set())


# The configuration as installed, but for where the socket can be seen from outside.
SERVER = r"""
install -d -o ivshmem -g ivshmem /tmp/server-run
sed 's,/run/ivshmem/,/tmp/server-run/,' /etc/ivshmem/server.conf >/tmp/server-run/server.conf
exec setpriv --reuid=ivshmem --regid=ivshmem --init-groups --bounding-set=-all \
    ivshmem-server --foreground --config=/tmp/server-run/server.conf
"""


class Debian12(DebianTest, unittest.TestCase):
    RELEASE = "bookworm"


class Debian13(DebianTest, unittest.TestCase):
    RELEASE = "trixie"


class Source(unittest.TestCase):
    def test_clone_stays_clean(self):
        """Building writes nothing outside build/."""
        if not os.path.exists(os.path.join(support.TOP, ".git")) or not shutil.which("git"):
            self.skipTest("not a clone")
        git = ["git", "-c", "safe.directory=*", "-C", support.TOP, "status", "--porcelain"]
        before = subprocess.check_output(git)
        source = roots.source()
        self.assertEqual(subprocess.check_output(git), before)
        listed = subprocess.check_output(["tar", "-tf", source.replace(".dsc", ".tar.xz")],
                                         text=True).splitlines()
        names = {name.split("/", 1)[1] for name in listed if "/" in name}
        self.assertIn("debian/control", names)
        self.assertEqual({name for name in names if re.match(r"build/.|\.git/", name)}, set())
