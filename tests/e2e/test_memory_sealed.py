# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether others can shrink the memory under a guest: prevented, or at least told of (D20)."""
import os

import tiny
from server_load import ConfigServer, Load
from tiny import BAR2

PATHS = (tiny.Path("tcg"), tiny.Path("kvm"))
SIZE = 1 << 20
UNSEALED = "ivshmem_memory_unsealed"


@tiny.each_path(PATHS)
class Sealed:
    def watched(self, *args):
        guest = self.guest(*args, "-trace", UNSEALED)
        self.assertEqual(guest.scan(), 1)
        guest.use()
        return guest

    def plain(self, backend):
        return self.watched("-object", backend + ",id=m,size=1M",
                            "-device", "ivshmem-plain,id=shm,memdev=m")

    def client(self, sock):
        return self.watched("-chardev", "socket,id=c,path=" + sock,
                            "-device", "ivshmem-doorbell,id=shm,chardev=c")

    def region(self, more=""):
        path = os.path.join(self.dir, "server.conf")
        with open(path, "w", encoding="ascii") as out:
            out.write("[region r]\nsize=1M\nsocket=%s/r\n%s" % (self.dir, more))
        self.start(ConfigServer("--config", path))
        return os.path.join(self.dir, "r")

    def assert_state(self, guest, kind, sealed):
        """query-ivshmem, info ivshmem and the trace agree."""
        memory = guest.qmp.cmd("query-ivshmem")[0]["memory"]
        self.assertEqual((memory["kind"], memory["sealed"]), (kind, sealed))
        self.assertEqual("can shrink (not sealed)" in guest.qmp.hmp("info ivshmem"), not sealed)
        self.assertEqual(guest.quit(), 0)
        self.assertEqual(UNSEALED in guest.err.text, not sealed)

    def test_backends(self):
        shm = "/dev/shm/ivshmem-test-" + os.path.basename(self.dir)
        self.addCleanup(lambda: os.path.exists(shm) and os.unlink(shm))
        path = os.path.join(self.dir, "file")
        for backend, kind, sealed in (
                ("memory-backend-memfd", "memfd", True),
                ("memory-backend-memfd,seal=off", "memfd", False),
                ("memory-backend-shm", "shm", False),
                ("memory-backend-file,share=on,mem-path=" + shm, "shm", False),
                ("memory-backend-file,share=on,mem-path=" + path, "file", False),
                ("memory-backend-ram,share=on", None, None)):
            with self.subTest(backend=backend):
                guest = self.plain(backend)
                if kind:
                    self.assert_state(guest, kind, sealed)
                else:           # newer QEMUs make it a memfd where they can
                    memory = guest.qmp.cmd("query-ivshmem")[0]["memory"]
                    self.assertIn(memory["kind"], ("anonymous", "memfd"))

    def test_servers(self):
        self.assert_state(self.client(self.server().socket), "shm", False)
        self.assert_state(self.client(self.region()), "memfd", True)

    # D20
    def test_no_client_can_shrink_it(self):
        sock = self.region()
        guest = self.client(sock)
        other = self.start(Load(sock))
        other("join 1")
        other("settle 1")
        self.assertEqual(other("tamper 0")["shrink"], "no")
        for offset in (0, SIZE // 2, SIZE - 4):
            guest.w32(BAR2, offset, 0xD20)
            self.assertEqual(guest.r32(BAR2, offset), 0xD20)
        self.assert_state(guest, "memfd", True)

    def test_what_can_be_shrunk_says_so(self):
        """Before it happens, that is; whoever grows it again in time does no harm."""
        server = self.server()
        guest = self.client(server.socket)
        guest.err.wait_for(UNSEALED)
        self.assertFalse(guest.qmp.cmd("query-ivshmem")[0]["memory"]["sealed"])
        os.truncate("/dev/shm/" + server.shm_name, 4096)
        guest.w32(BAR2, 0, 0xD20)
        self.assertEqual(guest.r32(BAR2, 0), 0xD20)
        os.truncate("/dev/shm/" + server.shm_name, SIZE)
        guest.w32(BAR2, SIZE - 4, 0xD21)
        self.assert_state(guest, "shm", False)
