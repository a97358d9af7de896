/*
 * Packs: descriptors that wait in a socket.
 *
 * The tests misbehave on purpose, and so have a send() of their own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io-pack.h"
#include "test-util.h"

#define EVENTS 300

typedef struct Pack {
    int socks[2];               /* from the first to the second */
    int events[EVENTS];         /* number i counts i + 1 */
} Pack;

static void pack_init(Pack *pack)
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                               pack->socks), ==, 0);
    for (int i = 0; i < EVENTS; i++) {
        pack->events[i] = eventfd((unsigned)i + 1, EFD_CLOEXEC);
        g_assert_cmpint(pack->events[i], >=, 0);
    }
}

static void pack_clear(Pack *pack)
{
    ivshmem_fd_close(&pack->socks[0]);
    ivshmem_fd_close(&pack->socks[1]);
    for (int i = 0; i < EVENTS; i++) {
        ivshmem_fd_close(&pack->events[i]);
    }
}

static void pack_send_all(const Pack *pack)
{
    g_assert_cmpint(ivshmem_io_pack_send(pack->socks[0], pack->events,
                                         IVSHMEM_IO_PACK_MAX), ==, 0);
    g_assert_cmpint(ivshmem_io_pack_send(pack->socks[0], pack->events +
                                         IVSHMEM_IO_PACK_MAX,
                                         EVENTS - IVSHMEM_IO_PACK_MAX), ==, 0);
}

/* Events from @first on are next in the pack. */
static void pack_expect(const Pack *pack, int first, int n)
{
    int numbers[IVSHMEM_IO_PACK_MAX], fds[IVSHMEM_IO_PACK_MAX];

    g_assert_cmpint(ivshmem_io_pack_peek(pack->socks[1], numbers, fds), ==, n);
    for (int i = 0; i < n; i++) {
        uint64_t count = 0;

        g_assert_cmpint(numbers[i], ==, pack->events[first + i]);
        g_assert_cmpint(fds[i], !=, numbers[i]);
        g_assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        g_assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
        g_assert_cmpint(ivshmem_io_drain(fds[i], &count), ==, 0);
        g_assert_cmpuint(count, ==, (uint64_t)(first + i) + 1);
        for (uint64_t c = 0; c < count; c++) {
            g_assert_cmpint(ivshmem_io_ring(fds[i]), ==, 0);
        }
        ivshmem_fd_close(&fds[i]);
    }
}

/* What was looked at is still there, and others may look, too. */
static void test_look_again(void)
{
    Pack pack;

    pack_init(&pack);
    pack_send_all(&pack);
    ivshmem_fd_close(&pack.socks[0]);
    for (int round = 0; round < 3; round++) {
        g_assert_cmpint(ivshmem_io_pack_rewind(pack.socks[1]), ==, 0);
        pack_expect(&pack, 0, IVSHMEM_IO_PACK_MAX);
        pack_expect(&pack, IVSHMEM_IO_PACK_MAX, EVENTS - IVSHMEM_IO_PACK_MAX);
        pack_expect(&pack, 0, 0);
    }
    pack_clear(&pack);
}

static void test_refused(void)
{
    int numbers[IVSHMEM_IO_PACK_MAX] = { 0 }, fds[IVSHMEM_IO_PACK_MAX];
    Pack pack;

    pack_init(&pack);
    g_assert_cmpint(ivshmem_io_pack_send(pack.socks[0], pack.events, 0), ==,
                    -EINVAL);
    g_assert_cmpint(ivshmem_io_pack_send(pack.socks[0], pack.events,
                                         IVSHMEM_IO_PACK_MAX + 1), ==, -EINVAL);
    g_assert_cmpint(ivshmem_io_pack_rewind(pack.socks[1]), ==, 0);
    g_assert_cmpint(ivshmem_io_pack_peek(pack.socks[1], numbers, fds), ==, 0);
    g_assert_cmpint(send(pack.socks[0], numbers, 8, 0), ==, 8);
    g_assert_cmpint(ivshmem_io_pack_peek(pack.socks[1], numbers, fds), ==,
                    -EBADMSG);
    pack_clear(&pack);
}

/* A process without room for all gets none, and nothing is lost. */
static void test_no_room(void)
{
    int numbers[IVSHMEM_IO_PACK_MAX], fds[IVSHMEM_IO_PACK_MAX];
    struct rlimit old, low;
    Pack pack;

    if (test_skip_without_fd_limit()) {
        return;
    }
    pack_init(&pack);
    pack_send_all(&pack);
    g_assert_cmpint(ivshmem_io_pack_rewind(pack.socks[1]), ==, 0);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    low = old;
    low.rlim_cur = (rlim_t)pack.events[EVENTS - 1] + 10;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &low), ==, 0);
    g_assert_cmpint(ivshmem_io_pack_peek(pack.socks[1], numbers, fds), ==,
                    -EMFILE);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    g_assert_cmpint(ivshmem_io_pack_rewind(pack.socks[1]), ==, 0);
    pack_expect(&pack, 0, IVSHMEM_IO_PACK_MAX);
    pack_clear(&pack);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/io-pack/look-again", test_look_again);
    fd_leak_add("/io-pack/refused", test_refused);
    fd_leak_add("/io-pack/no-room", test_no_room);
    return g_test_run();
}
