# SPDX-License-Identifier: GPL-2.0-or-later
"""ivshmem-server where memory of the same name exists already."""
import os
import signal
import unittest

from test_server_faults import MIB, ServerTest


class ExistingMemory(ServerTest):
    """S8"""

    def make(self, size, contents=b"precious"):
        name = "ivshmem-test-%s" % os.path.basename(self.dir)
        path = os.path.join("/dev/shm", name)
        with open(path, "wb") as memory:
            memory.write(contents)
            memory.truncate(size)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return name, path

    # R-SRV-18
    def test_other_sizes_are_refused_and_kept(self):
        for size in (8 * MIB, 1 * MIB, 4 * MIB + 1):
            name, path = self.make(size)
            error = self.fails("-F", "-S", self.path("s"), "-M", name, "-l", "4M")
            self.assertIn("not 4M", error)
            self.assertIn(name, error)
            self.assertEqual(os.stat(path).st_size, size)
            self.assertFalse(os.path.exists(self.path("s")))

    # R-SRV-18
    def test_the_right_size_is_used_and_stays(self):
        name, path = self.make(4 * MIB)
        server = self.server("-M", name)
        group = self.load(server)
        group("join 1")
        group("settle 0")
        self.assertEqual(int(group("memory 0")["inode"]), os.stat(path).st_ino)
        self.assertEqual(server.stop(), 0)
        with open(path, "rb") as memory:
            self.assertEqual(memory.read(8), b"precious")

    # R-SRV-18
    def test_an_empty_one_gets_its_size(self):
        name, path = self.make(0, b"")
        server = self.server("-M", name, "-l", "4M")
        self.assertEqual(os.stat(path).st_size, 4 * MIB)
        self.assertEqual(server.stop(), 0)
        self.assertEqual(os.stat(path).st_size, 4 * MIB)

    # R-SRV-18
    def test_that_of_another_user_is_refused_and_kept(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can give files away")
        name, path = self.make(4 * MIB)
        os.chown(path, 65534, -1)
        self.assertIn("belongs to user 65534", self.fails("-F", "-S", self.path("s"), "-M", name))
        with open(path, "rb") as memory:
            self.assertEqual(memory.read(8), b"precious")

    def test_symbolic_link(self):
        name, path = self.make(4 * MIB)
        link = path + "-link"
        os.symlink(path, link)
        self.addCleanup(os.unlink, link)
        error = self.fails("-F", "-S", self.path("s"), "-M", name + "-link")
        self.assertIn("symbolic link", error)

    # R-SRV-20
    def test_two_servers_with_one_object(self):
        """The one that ends last removes it."""
        first = self.server()
        second = self.server("-M", first.shm_name)
        path = self.shm_file(first)
        self.assertEqual(self.end(first), 0)
        self.assertTrue(os.path.exists(path))
        group = self.load(second)
        group("join 1")
        group("settle 0")
        self.assertEqual(self.end(second), 0)
        self.assertFalse(os.path.exists(path))

    @staticmethod
    def end(server):
        """Without the tidying up of server.stop()."""
        server.signal(signal.SIGTERM)
        return server.wait()
