# SPDX-License-Identifier: GPL-2.0-or-later
"""A system that is short of something, for a while: others go on, and service resumes by itself."""
import errno
import os
import time
import unittest

import fault
import support
from test_server_faults import ServerTest

# The server tries again after 5 ms at the soonest, and soon more seldom, for each of 5 clients.
TRIES_PER_SECOND = 5 * 200


class Shortage(ServerTest):
    VECTORS = 2

    def begin(self):
        """A server, and three clients that know each other."""
        self.control = fault.Control(self.dir)
        self.addCleanup(self.control.close)
        self.server_process = self.server("-n", str(self.VECTORS), env=self.control.env)
        self.group = fault.Group(self.server_process.socket, self.VECTORS)
        self.addCleanup(self.group.close)
        self.group.join(3)
        self.group.settle()
        self.group.ring_all()

    def shortage(self, call, error):
        self.control.arm(fault.Fault(call, 1, error, lasts=True))

    def wait_for_tries(self, n):
        """The server tries again, but does not spin."""
        begin, first = time.monotonic(), self.control.hits
        limit = support.Deadline()
        while self.control.hits < first + n:
            self.assertFalse(limit.expired(), "no new try: %s" % self.server_process.err.text)
            support.select.select([], [], [], 0.001)
        seconds = time.monotonic() - begin
        self.assertLessEqual(self.control.hits - first, n + 10 + seconds * TRIES_PER_SECOND)

    def logged_once(self, text):
        self.assertEqual(self.server_process.err.text.count(text), 1,
                         self.server_process.err.text)

    # R-SRV-10
    def test_newcomers_wait_where_nobody_can_be_accepted(self):
        for error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            with self.subTest(errno.errorcode[error]):
                self.begin()
                self.shortage("accept4", error)
                self.group.join()
                self.server_process.err.wait_for("newcomers have to wait.*" + os.strerror(error))
                self.wait_for_tries(3)
                self.logged_once("newcomers have to wait")
                self.group.leave(0)     # the others hear of it all the same
                newcomer = self.group.members.pop()
                self.group.settle()
                self.group.ring_all()
                self.control.off()
                self.group.members.append(newcomer)
                self.group.settle()     # without having to connect again
                self.server_process.err.wait_for("newcomers need not wait any more")
                self.group.ring_all()

    # R-SRV-10
    def test_newcomers_are_refused_where_they_cannot_be_served(self):
        for call, error in (("eventfd", errno.EMFILE), ("eventfd", errno.ENFILE),
                            ("eventfd", errno.ENOMEM), ("epoll_ctl", errno.ENOMEM),
                            ("epoll_ctl", errno.ENOSPC)):
            with self.subTest("%s: %s" % (call, errno.errorcode[error])):
                self.begin()
                descriptors = support.fd_count(self.server_process.pid)
                self.shortage(call, error)
                for _ in range(3):
                    newcomer = fault.Member(self.server_process.socket)
                    self.wait_until_refused(newcomer)
                    newcomer.close()
                self.server_process.err.wait_for("refused: .*(descriptors|%s)"
                                                 % os.strerror(error))
                self.assertEqual(support.fd_count(self.server_process.pid), descriptors)
                self.group.settle()
                self.group.ring_all()
                self.control.off()
                self.group.join()
                self.group.settle()
                self.group.ring_all()

    def wait_until_refused(self, newcomer):
        limit = support.Deadline()
        while not newcomer.lost:
            support.select.select([newcomer.sock], [], [], limit.left())
            newcomer.read()
            self.assertFalse(limit.expired(), "not refused")
        self.assertEqual(newcomer.frames, 0)

    # R-SRV-10, R-SRV-11
    def test_news_wait_where_they_cannot_be_sent(self):
        for error in (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EMFILE,
                      errno.ENFILE):
            with self.subTest(errno.errorcode[error]):
                self.begin()
                self.shortage("sendmmsg", error)
                self.group.join(2)
                self.server_process.err.wait_for("cannot be told at the moment.*" +
                                                 os.strerror(error))
                self.group.leave(1)
                self.wait_for_tries(6)
                self.logged_once("cannot be told at the moment")
                self.control.off()
                self.group.settle()     # nobody was lost, nor anything that was to be told
                self.group.ring_all()

    def test_state_is_written_once_there_is_room(self):
        """Not only when somebody else joins or leaves, which may be never."""
        def clients():
            with open(self.server_process.socket + ".state", encoding="ascii") as file:
                return {int(line.split()[1]) for line in file if line.startswith("client")}

        self.begin()
        self.shortage("write", errno.ENOSPC)
        self.group.join(2)
        self.group.settle()
        self.server_process.err.wait_for("cannot write .*state: " + os.strerror(errno.ENOSPC))
        self.group.leave(1)
        self.group.settle()
        self.wait_for_tries(1)
        self.logged_once("cannot write")
        self.control.off()
        self.server_process.err.wait_for("the state file could be written again")
        self.assertEqual(clients(), {member.id for member in self.group.members})


if __name__ == "__main__":
    unittest.main()
