# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools built with glib alone, without json-glib and libsystemd."""
import os
import shutil
import subprocess
import unittest

import support
from test_server_faults import ServerTest

TOOLS = ("ivshmem-server", "ivshmem-client")
# Some seconds each; a busy machine may take longer.
BUILD_SECONDS = 300


def meson():
    """The project's own, as the distribution's may be too old."""
    for path in (os.path.join(support.TOP, "build", "venv", "bin", "meson"),
                 shutil.which("meson")):
        if path and os.access(path, os.X_OK):
            return path
    raise unittest.SkipTest("no meson: run scripts/build-tools, or apt-get install meson")


class PlainBuild(ServerTest):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("ninja"):
            raise unittest.SkipTest("no ninja: apt-get install ninja-build")
        cls.build = support.temporary_directory()
        cls.addClassCleanup(shutil.rmtree, cls.build)
        for argv in ([meson(), "setup", cls.build, support.TOP, "-Djson_glib=disabled",
                      "-Dlibsystemd=disabled", "-Dlibivshmem:tests=false"],
                     ["ninja", "-C", cls.build] +
                     ["contrib/%s/%s" % (tool, tool) for tool in TOOLS]):
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=BUILD_SECONDS * support.SCALE)
            if done.returncode:
                raise AssertionError("%s: %s" % (argv[0], done.stdout))

    def tool(self, name, *argv, **kwargs):
        return self.start(support.Process(
            [os.path.join(self.build, "contrib", name, name)] + list(argv), name=name, **kwargs))

    def ended(self, name, *argv):
        process = self.tool(name, *argv)
        return process.wait(), process.out.text, process.err.text

    def serve(self, **kwargs):
        ready, ready_end = os.pipe()
        server = self.tool("ivshmem-server", "-F", "-S", self.path("s"), "-m", self.dir,
                           "-p", self.path("pid"), "--ready-fd=%d" % ready_end,
                           pass_fds=(ready_end,), **kwargs)
        os.close(ready_end)
        with open(ready, "rb") as file:
            self.assertEqual(file.read(), b"\n", server.err.text)
        return server

    def test_no_library_but_glib(self):
        for name in TOOLS:
            linked = subprocess.run(["ldd", os.path.join(self.build, "contrib", name, name)],
                                    check=True, stdout=subprocess.PIPE, text=True).stdout
            self.assertIn("libglib", linked)
            self.assertNotRegex(linked, "json|systemd|gobject")

    def test_everything_but_json(self):
        self.serve()
        status, out, err = self.ended("ivshmem-client", "-S", self.path("s"), "-c", "dump")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("id       0", out)
        for option in ("--status", "--metrics"):
            status, out, err = self.ended("ivshmem-server", "-S", self.path("s"), option)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("clients", out)

    def test_json_is_refused_with_the_reason(self):
        self.serve()
        for tool, code, more in (("ivshmem-client", 2, ("-c", "id")),
                                 ("ivshmem-server", 1, ("--status",))):
            status, out, err = self.ended(tool, "-S", self.path("s"), "--json", *more)
            self.assertEqual((status, out), (code, ""))
            self.assertIn("built without json-glib", err)

    def test_service_manager_is_not_forgotten_silently(self):
        server = self.serve(env=dict(os.environ, NOTIFY_SOCKET=self.path("notify")))
        server.err.wait_for("built without libsystemd")


if __name__ == "__main__":
    unittest.main()
