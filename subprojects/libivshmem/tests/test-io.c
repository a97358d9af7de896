/*
 * Descriptors over real sockets: what is received, refused and never leaked.
 * Listening, connecting and eventfds are test-io-misc.c's part.
 *
 * The tests misbehave on purpose, and so have a sendmsg() of their own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "test-util.h"

typedef struct Pair {
    int a, b;
} Pair;

static Pair pair_new(void)
{
    int socks[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks),
                    ==, 0);
    return (Pair) { socks[0], socks[1] };
}

static void pair_close(Pair *pair)
{
    ivshmem_fd_close(&pair->a);
    ivshmem_fd_close(&pair->b);
}

/* Sends @len bytes with any number of copies of @fd, legal or not. */
static void send_raw(int sock, const void *data, size_t len, int fd,
                     unsigned n_fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(253 * sizeof(int))];
    } control = { .space = { 0 } };
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    g_assert_cmpuint(n_fds, <=, 253);
    if (n_fds) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (unsigned i = 0; i < n_fds; i++) {
            memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd,
                   sizeof(int));
        }
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    g_assert_cmpint(sendmsg(sock, &msg, MSG_NOSIGNAL), ==, (ssize_t)len);
}

static void assert_flags(int fd)
{
    g_assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    g_assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* Whether @a and @b are one eventfd; leaves it empty. */
static bool same_eventfd(int a, int b)
{
    uint64_t count = 0;

    g_assert_cmpint(ivshmem_io_ring(a), ==, 0);
    if (ivshmem_io_drain(b, &count) < 0) {
        g_assert_cmpint(ivshmem_io_drain(a, NULL), ==, 0);
        return false;
    }
    return count == 1;
}

/* A whole frame in as few pieces as it takes. */
static void recv_frame(int sock, IvshmemFrame *frame)
{
    IvshmemFramer framer;
    int ret = 0;

    ivshmem_framer_init(&framer);
    while (ret == 0) {
        uint8_t bytes[IVSHMEM_FRAME_SIZE];
        int fd;
        ssize_t got = ivshmem_io_recv(sock, bytes,
                                      ivshmem_framer_want(&framer), &fd);

        g_assert_cmpint(got, >, 0);
        ret = ivshmem_framer_push(&framer, bytes, got, fd, frame);
    }
    g_assert_cmpint(ret, ==, 1);
}

/* Every fd arrives with the frame it was sent with, fit for use. */
/* R-SRV-1 */
static void test_fd_travels(void)
{
    Pair pair = pair_new();
    IvshmemFrame frames[5] = {
        { 0, -1 }, { 65535, -1 }, { -1, -1 }, { 5, -1 }, { INT64_MIN, -1 },
    };

    for (unsigned i = 2; i < 5; i++) {
        /* Blocking: the receiver must not depend on the sender's manners. */
        frames[i].fd = eventfd(0, 0);
        g_assert_cmpint(frames[i].fd, >=, 0);
    }
    g_assert_cmpint(ivshmem_io_send(pair.a, frames, 5), ==, 5);
    for (unsigned i = 0; i < 5; i++) {
        IvshmemFrame frame;

        recv_frame(pair.b, &frame);
        g_assert_cmpint(frame.value, ==, frames[i].value);
        g_assert_cmpint(frame.fd >= 0, ==, frames[i].fd >= 0);
        if (frame.fd >= 0) {
            assert_flags(frame.fd);
            g_assert_cmpint(frame.fd, !=, frames[i].fd);
            g_assert_true(same_eventfd(frames[i].fd, frame.fd));
            ivshmem_fd_close(&frame.fd);
            ivshmem_fd_close(&frames[i].fd);
        }
    }
    pair_close(&pair);
}

/* The sender's fds are still the sender's. */
static void test_send_borrows(void)
{
    Pair pair = pair_new();
    int fd = ivshmem_io_eventfd();
    const IvshmemFrame frame = { 3, fd };

    g_assert_cmpint(ivshmem_io_send(pair.a, &frame, 1), ==, 1);
    g_assert_cmpint(fcntl(fd, F_GETFD), >=, 0);
    ivshmem_fd_close(&fd);
    pair_close(&pair);          /* with a descriptor in flight */
}

static void test_nothing_and_eof(void)
{
    Pair pair = pair_new();
    const IvshmemFrame frame = { 1, -1 };
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    int fd = 99;

    /* A blocking socket, and yet it does not block. */
    g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd), ==,
                    -EAGAIN);
    g_assert_cmpint(fd, ==, -1);

    send_raw(pair.a, "abc", 3, -1, 0);
    ivshmem_fd_close(&pair.a);
    fd = 99;
    g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd), ==, 3);
    g_assert_cmpint(fd, ==, -1);
    g_assert_cmpmem(bytes, 3, "abc", 3);
    g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd), ==, 0);
    g_assert_cmpint(fd, ==, -1);

    /* No SIGPIPE either. */
    g_assert_cmpint(ivshmem_io_send(pair.b, &frame, 1), ==, -EPIPE);
    g_assert_cmpint(ivshmem_io_recv(-1, bytes, sizeof(bytes), &fd), ==,
                    -EBADF);
    g_assert_cmpint(ivshmem_io_send(-1, &frame, 1), ==, -EBADF);
    pair_close(&pair);
}

/* A frame in two pieces: the fd comes with the first byte of its own. */
/* R-CLI-3 */
static void test_pieces(void)
{
    int event = ivshmem_io_eventfd();
    uint8_t sent[IVSHMEM_FRAME_SIZE] = { 7 };

    for (size_t cut = 1; cut < IVSHMEM_FRAME_SIZE; cut++) {
        for (unsigned later = 0; later < 2; later++) {
            Pair pair = pair_new();
            IvshmemFrame frame;

            send_raw(pair.a, sent, cut, event, !later);
            send_raw(pair.a, sent + cut, sizeof(sent) - cut, event, later);
            recv_frame(pair.b, &frame);
            g_assert_cmpint(frame.value, ==, 7);
            g_assert_true(same_eventfd(event, frame.fd));
            ivshmem_fd_close(&frame.fd);
            pair_close(&pair);
        }
    }
    ivshmem_fd_close(&event);
}

/* R-CLI-4 */
static void test_many_fds(void)
{
    static const unsigned numbers[] = { 2, 3, 4, 253 };
    int event = ivshmem_io_eventfd();

    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        Pair pair = pair_new();
        uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };
        int fd = 99;

        send_raw(pair.a, bytes, sizeof(bytes), event, numbers[i]);
        g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd),
                        ==, -EBADMSG);
        g_assert_cmpint(fd, ==, -1);
        pair_close(&pair);
    }
    ivshmem_fd_close(&event);
}

/* Leaves this process room for @room descriptors; returns the old limit. */
static struct rlimit fds_limit(unsigned room)
{
    struct rlimit old, tight;
    int next = dup(STDERR_FILENO);

    /* Descriptors are dense up to here, or this dup would have been lower. */
    g_assert_cmpint(next, >=, 0);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    tight = (struct rlimit) { (rlim_t)next + room, old.rlim_max };
    ivshmem_fd_close(&next);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &tight), ==, 0);
    return old;
}

/* Out of descriptors: the loss is noticed, nothing is leaked. */
/* R-CLI-4, R-CLI-12 */
static void test_ctrunc(void)
{
    int event;

    if (test_skip_without_fd_limit()) {
        return;
    }
    event = ivshmem_io_eventfd();
    for (unsigned room = 0; room < 2; room++) {
        Pair pair = pair_new();
        uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };
        struct rlimit old;
        int fd = 99;

        send_raw(pair.a, bytes, sizeof(bytes), event, 1 + room);
        send_raw(pair.a, bytes, sizeof(bytes), event, 1);
        old = fds_limit(room);
        g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd),
                        ==, -EMFILE);
        g_assert_cmpint(fd, ==, -1);
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);

        /* The next one finds room again. */
        g_assert_cmpint(ivshmem_io_recv(pair.b, bytes, sizeof(bytes), &fd),
                        ==, sizeof(bytes));
        g_assert_true(same_eventfd(event, fd));
        ivshmem_fd_close(&fd);
        pair_close(&pair);
    }
    ivshmem_fd_close(&event);
}

/* Sends numbered frames, every third with @event, until the socket is full. */
static int send_until_full(int sock, int event, int next, int total)
{
    while (next < total) {
        IvshmemFrame frames[IVSHMEM_IO_BATCH + 10];
        int n = MIN((int)G_N_ELEMENTS(frames), total - next);
        ssize_t ret;

        for (int i = 0; i < n; i++) {
            frames[i] = (IvshmemFrame) {
                next + i, (next + i) % 3 ? -1 : event,
            };
        }
        ret = ivshmem_io_send(sock, frames, n);
        if (ret == -EAGAIN) {
            break;
        }
        g_assert_cmpint(ret, >=, 1);
        g_assert_cmpint(ret, <=, MIN(n, IVSHMEM_IO_BATCH));
        next += (int)ret;
    }
    return next;
}

/* A socket that takes few frames at a time: none is lost, none is doubled. */
static void test_partial_sends(void)
{
    Pair pair = pair_new();
    const int tiny = 1, total = 3000;
    int event = ivshmem_io_eventfd(), sent = 0, seen = 0;
    unsigned full = 0;

    g_assert_cmpint(setsockopt(pair.a, SOL_SOCKET, SO_SNDBUF, &tiny,
                               sizeof(tiny)), ==, 0);
    while (seen < total) {
        sent = send_until_full(pair.a, event, sent, total);
        full += sent < total;
        g_assert_cmpint(seen, <, sent);
        for (int n = MIN(sent - seen, 4); n > 0; n--) {
            IvshmemFrame frame;

            recv_frame(pair.b, &frame);
            g_assert_cmpint(frame.value, ==, seen);
            g_assert_cmpint(frame.fd >= 0, ==, seen % 3 == 0);
            ivshmem_fd_close(&frame.fd);
            seen++;
        }
    }
    g_assert_cmpuint(full, >, 100);
    g_assert_cmpint(sent, ==, total);
    ivshmem_fd_close(&event);
    pair_close(&pair);
}

/* With room for everything a batch goes out whole, and no more than that. */
static void test_batch(void)
{
    Pair pair = pair_new();
    IvshmemFrame frames[IVSHMEM_IO_BATCH + 1], frame;

    for (int i = 0; i <= IVSHMEM_IO_BATCH; i++) {
        frames[i] = (IvshmemFrame) { i, -1 };
    }
    g_assert_cmpint(ivshmem_io_send(pair.a, frames, IVSHMEM_IO_BATCH + 1), ==,
                    IVSHMEM_IO_BATCH);
    for (int i = 0; i < IVSHMEM_IO_BATCH; i++) {
        recv_frame(pair.b, &frame);
        g_assert_cmpint(frame.value, ==, i);
        g_assert_cmpint(frame.fd, ==, -1);
    }
    pair_close(&pair);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/io/fd-travels", test_fd_travels);
    fd_leak_add("/io/send-borrows", test_send_borrows);
    fd_leak_add("/io/nothing-and-eof", test_nothing_and_eof);
    fd_leak_add("/io/pieces", test_pieces);
    fd_leak_add("/io/many-fds", test_many_fds);
    fd_leak_add("/io/ctrunc", test_ctrunc);
    fd_leak_add("/io/batch", test_batch);
    fd_leak_add("/io/partial-sends", test_partial_sends);
    return g_test_run();
}
