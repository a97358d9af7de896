/*
 * Sockets that carry descriptors, and eventfds: all system calls of the
 * library's core users.
 *
 * Not responsible for what the bytes mean, and logs nothing.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-io-pack.h"

/*
 * Linux passes at most 253 descriptors with one message (SCM_MAX_FD).  Room
 * for two shows a sender who breaks the rule; the kernel closes the rest and
 * says so with MSG_CTRUNC.
 */
#define IVSHMEM_IO_MAX_FDS 2

int ivshmem_io_set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return -errno;
    }
    return 0;
}

/* Collects the descriptors of @msg in @fds; returns how many. */
static int io_take_fds(struct msghdr *msg, int *fds)
{
    struct cmsghdr *cmsg;
    int n = 0;

    for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        size_t len;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        len = cmsg->cmsg_len - CMSG_LEN(0);
        memcpy(fds, CMSG_DATA(cmsg), len);
        n = (int)(len / sizeof(int));
    }
    return n;
}

ssize_t ivshmem_io_recv(int sock, void *data, size_t len, int *fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(IVSHMEM_IO_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = data, .iov_len = len };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    int fds[IVSHMEM_IO_MAX_FDS] = { -1, -1 };
    ssize_t got;
    int n;

    *fd = -1;
    do {
        got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return -errno;
    }

    n = io_take_fds(&msg, fds);
    if (n > 1 || (msg.msg_flags & MSG_CTRUNC)) {
        ivshmem_fd_close(&fds[0]);
        ivshmem_fd_close(&fds[1]);
        return n > 1 ? -EBADMSG : -EMFILE;
    }
    if (n == 1) {
        /* Shared with all holders, one of whom may have cleared it. */
        int ret = ivshmem_io_set_nonblock(fds[0]);

        if (ret < 0) {
            ivshmem_fd_close(&fds[0]);
            return ret;
        }
        *fd = ivshmem_fd_steal(&fds[0]);
    }
    return got;
}

typedef struct IoMessage {
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    struct iovec iov;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
} IoMessage;

static void io_fill(struct msghdr *msg, IoMessage *m, const IvshmemFrame *frame)
{
    ivshmem_wire_encode(m->bytes, frame->value);
    m->iov = (struct iovec) { m->bytes, IVSHMEM_FRAME_SIZE };
    *msg = (struct msghdr) { .msg_iov = &m->iov, .msg_iovlen = 1 };
    if (frame->fd >= 0) {
        memset(&m->control, 0, sizeof(m->control));
        m->control.header.cmsg_level = SOL_SOCKET;
        m->control.header.cmsg_type = SCM_RIGHTS;
        m->control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&m->control.header), &frame->fd, sizeof(int));
        msg->msg_control = &m->control;
        msg->msg_controllen = sizeof(m->control);
    }
}

ssize_t ivshmem_io_send(int sock, const IvshmemFrame *frames, size_t n)
{
    struct mmsghdr msgs[IVSHMEM_IO_BATCH];
    IoMessage messages[IVSHMEM_IO_BATCH];
    int sent;

    if (n > IVSHMEM_IO_BATCH) {
        n = IVSHMEM_IO_BATCH;
    }
    for (size_t i = 0; i < n; i++) {
        io_fill(&msgs[i].msg_hdr, &messages[i], &frames[i]);
        msgs[i].msg_len = 0;
    }
    do {
        sent = sendmmsg(sock, msgs, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return -errno;
    }
    /*
     * Linux queues 8 bytes as one buffer, or not at all.  Should a kernel
     * ever split them, the stream is lost.
     */
    for (int i = 0; i < sent; i++) {
        if (msgs[i].msg_len != IVSHMEM_FRAME_SIZE) {
            return -EPROTO;
        }
    }
    return sent;
}

int ivshmem_io_pack_send(int sock, const int *fds, size_t n)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(IVSHMEM_IO_PACK_MAX * sizeof(int))];
    } control = {
        .header = {
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(n * sizeof(int)),
        },
    };
    struct iovec iov = { (void *)fds, n * sizeof(int) };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_SPACE(n * sizeof(int)),
    };
    ssize_t sent;

    if (n == 0 || n > IVSHMEM_IO_PACK_MAX) {
        return -EINVAL;
    }
    memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
    do {
        sent = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int ivshmem_io_pack_rewind(int sock)
{
    const int start = 0;

    return setsockopt(sock, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start)) < 0
        ? -errno : 0;
}

/* Others may have made them wait. */
static int io_pack_adopt(int *fds, int n, int ret)
{
    for (int i = 0; i < n && ret >= 0; i++) {
        int failed = ivshmem_io_set_nonblock(fds[i]);

        ret = failed < 0 ? failed : ret;
    }
    for (int i = 0; i < n && ret < 0; i++) {
        ivshmem_fd_close(&fds[i]);
    }
    return ret;
}

int ivshmem_io_pack_peek(int sock, int numbers[IVSHMEM_IO_PACK_MAX],
                         int fds[IVSHMEM_IO_PACK_MAX])
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(IVSHMEM_IO_PACK_MAX * sizeof(int))];
    } control;
    struct iovec iov = { numbers, IVSHMEM_IO_PACK_MAX * sizeof(int) };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t got;
    int n, ret;

    do {
        got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_PEEK);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return got == 0 || errno == EAGAIN ? 0 : -errno;
    }
    n = io_take_fds(&msg, fds);
    if (msg.msg_flags & MSG_CTRUNC) {
        ret = -EMFILE;
    } else {
        ret = (size_t)got == (size_t)n * sizeof(int) ? n : -EBADMSG;
    }
    return io_pack_adopt(fds, n, ret);
}

static int io_address(struct sockaddr_un *address, const char *path)
{
    size_t len = strlen(path);

    if (len == 0) {
        return -ENOENT;         /* Linux would make an abstract address of it */
    }
    if (len >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    *address = (struct sockaddr_un) { .sun_family = AF_UNIX };
    memcpy(address->sun_path, path, len + 1);
    return 0;
}

static int io_socket(void)
{
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return sock < 0 ? -errno : sock;
}

int ivshmem_io_connect(const char *path)
{
    struct sockaddr_un address;
    IVSHMEM_FD_AUTO int sock = -1;
    int ret = io_address(&address, path);

    if (ret < 0) {
        return ret;
    }
    sock = io_socket();
    if (sock < 0) {
        return ivshmem_fd_steal(&sock);
    }
    do {
        ret = connect(sock, (struct sockaddr *)&address, sizeof(address));
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ivshmem_fd_steal(&sock);
}

int ivshmem_io_listen(const char *path, mode_t mode)
{
    struct sockaddr_un address;
    IVSHMEM_FD_AUTO int sock = -1;
    int ret = io_address(&address, path);

    if (ret < 0) {
        return ret;
    }
    sock = io_socket();
    if (sock < 0) {
        return ivshmem_fd_steal(&sock);
    }
    if (bind(sock, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return -errno;
    }
    /* Nobody can connect before listen(), so there is no moment too early. */
    if ((mode && chmod(path, mode) < 0) || listen(sock, SOMAXCONN) < 0) {
        ret = -errno;
        unlink(path);
        return ret;
    }
    return ivshmem_fd_steal(&sock);
}

int ivshmem_io_accept(int listener)
{
    int sock;

    do {
        sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (sock < 0 && (errno == EINTR || errno == ECONNABORTED));
    return sock < 0 ? -errno : sock;
}

int ivshmem_io_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

int ivshmem_io_ring(int eventfd)
{
    const uint64_t one = 1;
    ssize_t ret;

    do {
        ret = write(eventfd, &one, sizeof(one));
    } while (ret < 0 && errno == EINTR);
    return ret < 0 && errno != EAGAIN ? -errno : 0;
}

/* Only a write to a full counter can wait; it has no RWF_NOWAIT. */
int ivshmem_io_ring_nowait(int eventfd)
{
    int flags = fcntl(eventfd, F_GETFL);

    if (flags < 0 || (!(flags & O_NONBLOCK) &&
                      fcntl(eventfd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        return -errno;
    }
    return ivshmem_io_ring(eventfd);
}

/*
 * O_NONBLOCK belongs to all who hold the eventfd, and stock QEMU clears it on
 * every descriptor that it receives: a plain read() would wait for ever when
 * another holder has been faster.  (RWF_NOWAIT on an eventfd: Linux 5.8.)
 */
int ivshmem_io_drain(int eventfd, uint64_t *count)
{
    uint64_t n = 0;
    struct iovec iov = { .iov_base = &n, .iov_len = sizeof(n) };
    ssize_t ret;

    do {
        ret = preadv2(eventfd, &iov, 1, -1, RWF_NOWAIT);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0) {
        return -errno;
    }
    if (ret != sizeof(n)) {
        return -EBADMSG;
    }
    if (count) {
        *count = n;
    }
    return 0;
}

/* Whether a write of @len bytes from nowhere fails as it does on an eventfd. */
static bool io_refuses(int fd, size_t len, int error)
{
    const void *volatile nowhere = NULL;    /* hidden from warnings */

    return write(fd, nowhere, len) < 0 && errno == error;
}

/*
 * Without /proc behaviour tells, and writing nothing must not wake anybody: an
 * eventfd wants 8 bytes before it looks at them, which only groups of fanotify
 * have in common with it.  Those cannot be written to at all times, and know no
 * number 0, which an eventfd takes even when it is full.
 */
static int io_acts_as_eventfd(int fd)
{
    const uint64_t zero = 0;
    struct pollfd pfd = { .fd = fd, .events = POLLOUT };
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return -errno;
    }
    return fs.f_type == ANON_INODE_FS_MAGIC &&
        io_refuses(fd, sizeof(zero) / 2, EINVAL) &&
        io_refuses(fd, sizeof(zero), EFAULT) &&
        ((poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLOUT)) ||
         write(fd, &zero, sizeof(zero)) == sizeof(zero));
}

int ivshmem_io_is_eventfd(int fd)
{
    static const char want[] = "anon_inode:[eventfd]";
    char link[sizeof("/proc/self/fd/") + 3 * sizeof(fd)];
    char target[sizeof(want)];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, target, sizeof(target));
    if (len < 0) {
        return io_acts_as_eventfd(fd);
    }
    return (size_t)len == strlen(want) && memcmp(target, want, len) == 0;
}
