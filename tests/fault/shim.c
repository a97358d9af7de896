/*
 * Makes the N-th call of a system call's wrapper fail with a chosen errno, and
 * counts all calls: preloaded into a program (IVSHMEM_FAULT names the control
 * file), or linked into it.
 *
 * Only the main thread's calls count, so that N means the same in every run.
 * GLib's own wake-up descriptors do not: without them it ends the program, by
 * design.  Nor do close(), munmap() and the like, which cannot fail in a way
 * that matters.  Not responsible for which call is to fail, and for what has to
 * come of it (tests/e2e/fault.py, peer.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#undef _FILE_OFFSET_BITS        /* here open() and open64() are two functions */
#define _LARGEFILE64_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "fault.h"
#include "ivshmem-fd.h"

#define FAULT_CALLS(call) \
    call(accept4) call(bind) call(chdir) call(chmod) call(connect) call(dup) \
    call(dup2) call(epoll_create1) call(epoll_ctl) call(epoll_wait) \
    call(eventfd) call(fallocate) call(fchmod) call(fcntl) call(flock) \
    call(fork) call(fstat) call(fstatat) call(fstatfs) call(fsync) \
    call(ftruncate) call(getrlimit) call(getsockname) call(getsockopt) \
    call(initgroups) call(ioctl) call(lchown) call(listen) call(lstat) \
    call(memfd_create) call(mmap) call(open) call(openat) call(opendir) \
    call(pipe2) call(poll) call(ppoll) call(pread) call(preadv2) call(read) \
    call(readlink) call(recv) call(recvmsg) call(rename) call(send) \
    call(sendmmsg) call(sendmsg) call(setgid) call(setgroups) call(setrlimit) \
    call(setsid) call(setsockopt) call(setuid) call(shm_open) call(shm_unlink) \
    call(socket) call(socketpair) call(stat) call(syscall) call(unlink) \
    call(write)

#define FAULT_NUMBER(word) FAULT_##word,
#define FAULT_NAME(word) { .name = #word },

enum { FAULT_CALLS(FAULT_NUMBER) FAULT_COUNT };

static FaultControl fault_own = {
    .calls = FAULT_COUNT,
    .call = { FAULT_CALLS(FAULT_NAME) },
};

FaultControl *fault_control = &fault_own;

__attribute__((constructor)) static void fault_init(void)
{
    const char *path = getenv("IVSHMEM_FAULT");
    FaultControl *shared;
    int fd;

    if (!path) {
        return;
    }
    fd = open(path, O_RDWR | O_CLOEXEC);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED,
                  fd, 0);
    if (shared == MAP_FAILED) {
        fprintf(stderr, "fault shim: %s: %s\n", path, strerror(errno));
        _exit(EXIT_FAILURE);
    }
    ivshmem_fd_close(&fd);
    memcpy(shared->call, fault_own.call, sizeof(shared->call));
    shared->calls = FAULT_COUNT;
    fault_control = shared;
}

static bool fault_is_glib(const void *caller)
{
    Dl_info info;

    return dladdr(caller, &info) && strstr(info.dli_fname, "libglib");
}

/* Whether this call is to fail; errno is set then.  Error 0: it waits. */
static bool fault_strikes(uint32_t number, const void *caller)
{
    FaultControl *control = fault_control;
    uint32_t n;

    if (!control->on || gettid() != getpid() ||
        ((number == FAULT_eventfd || number == FAULT_write) &&
         fault_is_glib(caller))) {
        return false;
    }
    n = ++control->call[number].count;
    if (number != control->which || control->nth == 0 ||
        (control->from ? n < control->nth : n != control->nth)) {
        return false;
    }
    control->hits++;
    if (!control->error) {
        raise(SIGSTOP);
        return false;
    }
    errno = control->error;
    return true;
}

/* A function @name that counts as @counted. */
#define FAULT_WRAP_AS(type, failure, name, counted, parameters, arguments)   \
    type name parameters                                                     \
    {                                                                        \
        static type (*next) parameters;                                      \
                                                                             \
        if (fault_strikes(FAULT_##counted, __builtin_return_address(0))) {   \
            return failure;                                                  \
        }                                                                    \
        if (!next) {                                                         \
            next = (type (*) parameters)dlsym(RTLD_NEXT, #name);             \
        }                                                                    \
        return next arguments;                                               \
    }

#define FAULT_WRAP(type, name, parameters, arguments) \
    FAULT_WRAP_AS(type, -1, name, name, parameters, arguments)

#define FAULT_WRAP_BOTH(type, name, parameters, parameters64, arguments) \
    FAULT_WRAP_AS(type, -1, name, name, parameters, arguments)           \
    FAULT_WRAP_AS(type, -1, name##64, name, parameters64, arguments)

FAULT_WRAP(int, accept4, (int fd, struct sockaddr *to, socklen_t *len,
           int flags), (fd, to, len, flags))
FAULT_WRAP(int, bind, (int fd, const struct sockaddr *to, socklen_t len),
           (fd, to, len))
FAULT_WRAP(int, chdir, (const char *path), (path))
FAULT_WRAP(int, chmod, (const char *path, mode_t mode), (path, mode))
FAULT_WRAP(int, connect, (int fd, const struct sockaddr *to, socklen_t len),
           (fd, to, len))
FAULT_WRAP(int, dup, (int fd), (fd))
FAULT_WRAP(int, dup2, (int fd, int to), (fd, to))
FAULT_WRAP(int, epoll_create1, (int flags), (flags))
FAULT_WRAP(int, epoll_ctl, (int epoll, int operation, int fd,
           struct epoll_event *event), (epoll, operation, fd, event))
FAULT_WRAP(int, epoll_wait, (int epoll, struct epoll_event *events, int max,
           int timeout), (epoll, events, max, timeout))
FAULT_WRAP(int, eventfd, (unsigned count, int flags), (count, flags))
FAULT_WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
FAULT_WRAP(int, flock, (int fd, int operation), (fd, operation))
FAULT_WRAP(pid_t, fork, (void), ())
FAULT_WRAP(int, fsync, (int fd), (fd))
FAULT_WRAP(int, getsockname, (int fd, struct sockaddr *to, socklen_t *len),
           (fd, to, len))
FAULT_WRAP(int, getsockopt, (int fd, int level, int name, void *value,
           socklen_t *len), (fd, level, name, value, len))
FAULT_WRAP(int, initgroups, (const char *user, gid_t group), (user, group))
FAULT_WRAP(int, lchown, (const char *path, uid_t user, gid_t group),
           (path, user, group))
FAULT_WRAP(int, socketpair, (int domain, int type, int protocol, int fds[2]),
           (domain, type, protocol, fds))
FAULT_WRAP(int, listen, (int fd, int backlog), (fd, backlog))
FAULT_WRAP(int, memfd_create, (const char *name, unsigned flags),
           (name, flags))
FAULT_WRAP_AS(DIR *, NULL, opendir, opendir, (const char *path), (path))
FAULT_WRAP(int, pipe2, (int ends[2], int flags), (ends, flags))
FAULT_WRAP(int, poll, (struct pollfd *fds, nfds_t n, int timeout),
           (fds, n, timeout))
FAULT_WRAP(int, ppoll, (struct pollfd *fds, nfds_t n,
           const struct timespec *timeout, const sigset_t *mask),
           (fds, n, timeout, mask))
FAULT_WRAP(ssize_t, read, (int fd, void *data, size_t len), (fd, data, len))
FAULT_WRAP(ssize_t, readlink, (const char *restrict path, char *restrict data,
           size_t len), (path, data, len))
FAULT_WRAP(ssize_t, recv, (int fd, void *data, size_t len, int flags),
           (fd, data, len, flags))
FAULT_WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags),
           (fd, message, flags))
FAULT_WRAP(int, rename, (const char *from, const char *to), (from, to))
FAULT_WRAP(ssize_t, send, (int fd, const void *data, size_t len, int flags),
           (fd, data, len, flags))
FAULT_WRAP(int, sendmmsg, (int fd, struct mmsghdr *messages, unsigned n,
           int flags), (fd, messages, n, flags))
FAULT_WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags),
           (fd, message, flags))
FAULT_WRAP(int, setgid, (gid_t group), (group))
FAULT_WRAP(int, setgroups, (size_t n, const gid_t *groups), (n, groups))
FAULT_WRAP(pid_t, setsid, (void), ())
FAULT_WRAP(int, setsockopt, (int fd, int level, int name, const void *value,
           socklen_t len), (fd, level, name, value, len))
FAULT_WRAP(int, setuid, (uid_t user), (user))
FAULT_WRAP(int, shm_open, (const char *name, int flags, mode_t mode),
           (name, flags, mode))
FAULT_WRAP(int, shm_unlink, (const char *name), (name))
FAULT_WRAP(int, socket, (int domain, int type, int protocol),
           (domain, type, protocol))
FAULT_WRAP(int, unlink, (const char *path), (path))
FAULT_WRAP(ssize_t, write, (int fd, const void *data, size_t len),
           (fd, data, len))

FAULT_WRAP_BOTH(int, fallocate, (int fd, int mode, off_t from, off_t len),
                (int fd, int mode, off64_t from, off64_t len),
                (fd, mode, from, len))
FAULT_WRAP_BOTH(int, fstat, (int fd, struct stat *st),
                (int fd, struct stat64 *st), (fd, st))
FAULT_WRAP_BOTH(int, fstatat, (int dir, const char *restrict path,
                struct stat *restrict st, int flags),
                (int dir, const char *restrict path,
                struct stat64 *restrict st, int flags), (dir, path, st, flags))
FAULT_WRAP_BOTH(int, fstatfs, (int fd, struct statfs *st),
                (int fd, struct statfs64 *st), (fd, st))
FAULT_WRAP_BOTH(int, ftruncate, (int fd, off_t len), (int fd, off64_t len),
                (fd, len))
FAULT_WRAP_BOTH(int, getrlimit, (__rlimit_resource_t what, struct rlimit *l),
                (__rlimit_resource_t what, struct rlimit64 *l), (what, l))
FAULT_WRAP_BOTH(int, setrlimit,
                (__rlimit_resource_t what, const struct rlimit *l),
                (__rlimit_resource_t what, const struct rlimit64 *l), (what, l))
FAULT_WRAP_BOTH(int, lstat, (const char *restrict path,
                struct stat *restrict st), (const char *restrict path,
                struct stat64 *restrict st), (path, st))
FAULT_WRAP_BOTH(int, stat, (const char *restrict path,
                struct stat *restrict st), (const char *restrict path,
                struct stat64 *restrict st), (path, st))
FAULT_WRAP_BOTH(ssize_t, pread, (int fd, void *data, size_t len, off_t from),
                (int fd, void *data, size_t len, off64_t from),
                (fd, data, len, from))
FAULT_WRAP_AS(ssize_t, -1, preadv2, preadv2, (int fd, const struct iovec *iov,
              int n, off_t from, int flags), (fd, iov, n, from, flags))
FAULT_WRAP_AS(ssize_t, -1, preadv64v2, preadv2, (int fd,
              const struct iovec *iov, int n, off64_t from, int flags),
              (fd, iov, n, from, flags))
FAULT_WRAP_AS(void *, MAP_FAILED, mmap, mmap, (void *at, size_t len, int prot,
              int flags, int fd, off_t from), (at, len, prot, flags, fd, from))
FAULT_WRAP_AS(void *, MAP_FAILED, mmap64, mmap, (void *at, size_t len,
              int prot, int flags, int fd, off64_t from),
              (at, len, prot, flags, fd, from))

/* Those that take one more argument at times: all pass one, used or not. */
#define FAULT_WRAP_MORE(name, counted, parameters, type, last, arguments)    \
    int name parameters                                                      \
    {                                                                        \
        static int (*next) parameters;                                       \
        va_list ap;                                                          \
        type more;                                                           \
                                                                             \
        va_start(ap, last);                                                  \
        more = va_arg(ap, type);                                             \
        va_end(ap);                                                          \
        if (fault_strikes(FAULT_##counted, __builtin_return_address(0))) {   \
            return -1;                                                       \
        }                                                                    \
        if (!next) {                                                         \
            next = (int (*) parameters)dlsym(RTLD_NEXT, #name);              \
        }                                                                    \
        return next arguments;                                               \
    }

FAULT_WRAP_MORE(open, open, (const char *path, int flags, ...), unsigned,
                flags, (path, flags, more))
FAULT_WRAP_MORE(open64, open, (const char *path, int flags, ...), unsigned,
                flags, (path, flags, more))
FAULT_WRAP_MORE(openat, openat, (int dir, const char *path, int flags, ...),
                unsigned, flags, (dir, path, flags, more))
FAULT_WRAP_MORE(openat64, openat, (int dir, const char *path, int flags, ...),
                unsigned, flags, (dir, path, flags, more))
FAULT_WRAP_MORE(fcntl, fcntl, (int fd, int command, ...), void *, command,
                (fd, command, more))
FAULT_WRAP_MORE(fcntl64, fcntl, (int fd, int command, ...), void *, command,
                (fd, command, more))
FAULT_WRAP_MORE(ioctl, ioctl, (int fd, unsigned long request, ...), void *,
                request, (fd, request, more))

/* Those without a wrapper of their own that we use; GLib has futexes here. */
static bool fault_counts(long number)
{
    return number == SYS_pidfd_open || number == SYS_pidfd_getfd ||
        number == SYS_mbind;
}

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(ap, long);
    }
    va_end(ap);
    if (fault_counts(number) &&
        fault_strikes(FAULT_syscall, __builtin_return_address(0))) {
        return -1;
    }
    if (!next) {
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
