# SPDX-License-Identifier: GPL-2.0-or-later
"""server-load: many raw clients of one server, in one process, told what to do line by line."""
import os
import unittest

import support


def load_program():
    """The path of server-load, which is built beside the server; skips when it is not there."""
    path = os.environ.get("IVSHMEM_SERVER_LOAD") or os.path.join(
        os.path.dirname(support.program("server")), "server-load")
    if not os.access(path, os.X_OK):
        raise unittest.SkipTest("%s is not built: build it, or set IVSHMEM_SERVER_LOAD" % path)
    return path


class Load(support.Process):
    """load("join 10"), load("settle 9"): answers as a dict, errors as AssertionError."""

    def __init__(self, sock, *options, vectors=1, timeout=30, **kwargs):
        super().__init__([load_program(), "-S", sock, "-n", str(vectors),
                          "--timeout", str(timeout * support.SCALE)] + list(options),
                         name="server-load", stdin=True, **kwargs)
        self.timeout = timeout

    def ask(self, command):
        """The answer as it is: "ok ..." or "error ..."."""
        self.write(command + "\n")
        return self.out.wait_for(r"^(ok|error).*\n", self.timeout + 30).group().decode().strip()

    def __call__(self, command):
        answer = self.ask(command)
        if not answer.startswith("ok"):
            raise AssertionError("server-load: %s: %s" % (command, answer))
        return dict(word.split("=", 1) for word in answer.split()[1:])


class ConfigServer(support.Server):
    """ivshmem-server in the foreground with nothing but the options given."""

    def __init__(self, *options, **kwargs):
        self.socket, self.shm_name = None, "none"
        ready, ready_end = os.pipe()
        try:
            support.Process.__init__(
                self, [support.program("server"), "-F", "--ready-fd=%d" % ready_end] +
                list(options), name="ivshmem-server",
                pass_fds=(ready_end,) + tuple(kwargs.pop("pass_fds", ())), **kwargs)
        finally:
            os.close(ready_end)
        try:
            self._wait_ready(ready)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(ready)
