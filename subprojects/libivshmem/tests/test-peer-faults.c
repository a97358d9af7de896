/*
 * The peer API against servers that misbehave, and without one.
 *
 * Every error ends the connection, says what it was, and leaves no descriptor
 * behind; what was there before stays usable.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "peer-script.h"
#include "test-util.h"

/* Frames of a handshake, by the letter of their descriptor. */
static const struct {
    int64_t value;
    char fd;
} handshake[] = {
    { 0 }, { 3 }, { -1, 'm' }, { 5, 'e' }, { 5, 'e' }, { 3, 'e' }, { 3, 'e' },
    { 8, 'e' }, { 8 },
};

/* Sends @frames whole frames, and @bytes of the next. */
static void send_cut(int sock, size_t frames, size_t bytes, int shm)
{
    for (size_t i = 0; i < frames + (bytes > 0); i++) {
        IVSHMEM_FD_AUTO int eventfd = handshake[i].fd == 'e'
            ? script_eventfd() : -1;

        script_send_part(sock, handshake[i].value,
                         handshake[i].fd == 'm' ? shm : eventfd,
                         i < frames ? IVSHMEM_FRAME_SIZE : bytes);
    }
}

/* R-CLI-6 */
static void test_eof_at_every_byte(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();

    for (size_t n = 0; n <= G_N_ELEMENTS(handshake) * 8; n++) {
        IvshmemPeer *peer;
        int sock = script_new(&peer);
        int error = n % 8 ? IVSHMEM_E_TRUNCATED : IVSHMEM_E_EOF;
        IvshmemPeerEvent event;
        int ret;

        send_cut(sock, n / 8, n % 8, shm);
        ivshmem_fd_close(&sock);
        ret = ivshmem_peer_wait_ready(peer, SCRIPT_MS);
        g_assert_cmpint(ret, ==, n < 6 * 8 ? error : 0);
        do {
            g_assert_cmpint(ivshmem_peer_wait(peer, SCRIPT_MS, &event), ==, 1);
        } while (event.type != IVSHMEM_PEER_CLOSED);
        g_assert_cmpint(event.error, ==, error);
        script_expect_none(peer);
        g_assert_cmpint(ivshmem_peer_wait_ready(peer, SCRIPT_MS), ==, error);
        g_assert_cmpint(ivshmem_peer_wait(peer, 0, &event), ==,
                        IVSHMEM_E_TIMEOUT);

        /* Memory and peers stay. */
        g_assert_cmpint(ivshmem_peer_map(peer, true, NULL, NULL), ==,
                        n < 3 * 8 ? IVSHMEM_E_NO_SHM : 0);
        g_assert_cmpint(ivshmem_peer_ring(peer, 5, 0), ==,
                        n < 4 * 8 ? IVSHMEM_E_NO_PEER : 0);
        ivshmem_peer_free(peer);
    }
}

/* Freeing at every byte, the server still there. */
static void test_free_at_every_byte(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();

    for (size_t n = 0; n <= G_N_ELEMENTS(handshake) * 8; n++) {
        IvshmemPeer *peer;
        IVSHMEM_FD_AUTO int sock = script_new(&peer);
        IvshmemPeerEvent event;

        send_cut(sock, n / 8, n % 8, shm);
        if (n & 1) {
            /* Once with events taken, the next time with events queued. */
            while (ivshmem_peer_next(peer, &event) == 1) {
                g_assert_cmpint(event.type, !=, IVSHMEM_PEER_CLOSED);
            }
        } else {
            g_assert_cmpint(ivshmem_peer_wait_ready(peer, n ? 1 : 0), <=, 0);
        }
        ivshmem_peer_free(peer);
    }
}

/* A frame that is wrong at this place, after @frames good ones. */
/* R-CLI-5, R-CLI-6 */
static void test_wrong_frames(void)
{
    static const struct {
        size_t frames;
        int64_t value;
        char fd;
        int error;
    } rows[] = {
        { 0, 1, 0, IVSHMEM_E_VERSION },
        { 0, 0, 'e', IVSHMEM_E_FD },
        { 1, -1, 0, IVSHMEM_E_RANGE },
        { 1, 65536, 0, IVSHMEM_E_RANGE },
        { 1, 3, 'e', IVSHMEM_E_FD },
        { 2, -1, 0, IVSHMEM_E_FD },
        { 2, 3, 0, IVSHMEM_E_SELF_GONE },
        { 3, -1, 'm', IVSHMEM_E_DUP_SHM },
        { 3, -2, 'e', IVSHMEM_E_RANGE },
        { 7, INT64_MAX, 'e', IVSHMEM_E_RANGE },
        { 7, INT64_MIN, 0, IVSHMEM_E_RANGE },
        { 7, 3, 0, IVSHMEM_E_SELF_GONE },
    };
    IVSHMEM_FD_AUTO int shm = script_memory();

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        IvshmemPeer *peer;
        IVSHMEM_FD_AUTO int sock = script_new(&peer);
        IVSHMEM_FD_AUTO int eventfd = script_eventfd();
        IvshmemPeerEvent event;

        send_cut(sock, rows[i].frames, 0, shm);
        script_send(sock, rows[i].value, rows[i].fd == 'e' ? eventfd :
                    rows[i].fd == 'm' ? shm : -1);
        do {
            g_assert_cmpint(ivshmem_peer_wait(peer, SCRIPT_MS, &event), ==, 1);
        } while (event.type != IVSHMEM_PEER_CLOSED);
        g_assert_cmpint(event.error, ==, rows[i].error);
        ivshmem_peer_free(peer);
    }
}

/* Descriptors of the wrong kind; the caller closes them. */
static int wrong_fd(int kind)
{
    int fds[2];

    switch (kind) {
    case 0:
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
        break;
    case 1:
        g_assert_cmpint(pipe(fds), ==, 0);
        break;
    case 2:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    default:
        return open("/", O_RDONLY | O_CLOEXEC);
    }
    ivshmem_fd_close(&fds[0]);
    return fds[1];
}
#define WRONG_FDS 4

/* R-CLI-10 */
static void test_not_eventfds(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();

    for (int i = 0; i < WRONG_FDS + 1; i++) {
        for (int64_t id = 3; id <= 5; id += 2) {
            IvshmemPeer *peer;
            IVSHMEM_FD_AUTO int sock = script_new(&peer);

            script_greet(sock, 3, shm);
            script_give(sock, id, i < WRONG_FDS ? wrong_fd(i)
                                                : script_memory());
            script_expect_closed(peer, IVSHMEM_E_NOT_EVENTFD);
            g_assert_cmpuint(ivshmem_peer_vectors_of(peer, (uint16_t)id), ==,
                             0);
            ivshmem_peer_free(peer);
        }
    }
}

/* Memory that cannot be mapped is no reason not to ring. */
/* R-CLI-11 */
static void test_not_memory(void)
{
    for (int i = 0; i < WRONG_FDS + 2; i++) {
        IVSHMEM_FD_AUTO int shm = i < WRONG_FDS ? wrong_fd(i)
            : i == WRONG_FDS ? script_eventfd() : script_memory();
        IvshmemPeer *peer;
        IVSHMEM_FD_AUTO int sock = script_new(&peer);
        void *address = NULL;

        if (i > WRONG_FDS) {
            g_assert_cmpint(ftruncate(shm, 0), ==, 0);
        }
        script_handshake(sock, 3, shm);
        script_expect_ready(peer, 3);
        for (int writable = 0; writable < 2; writable++) {
            int ret = ivshmem_peer_map(peer, writable, &address, NULL);

            g_assert_cmpint(ret, <, 0);
            g_assert_nonnull(ivshmem_strerror(ret));
            g_assert_null(address);
        }
        g_assert_cmpint(ivshmem_peer_ring(peer, 5, 0), ==, 0);
        ivshmem_peer_free(peer);
    }
}

/* The limit is found in the middle of the handshake. */
/* R-CLI-12 */
static void test_out_of_descriptors(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    IVSHMEM_FD_AUTO int probe = script_eventfd();
    struct rlimit limit, low;
    IvshmemPeerEvent event;

    if (test_skip_without_fd_limit()) {
        ivshmem_peer_free(peer);
        return;
    }
    script_handshake(sock, 3, shm);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    low = limit;
    low.rlim_cur = (rlim_t)probe + 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &low), ==, 0);
    do {
        g_assert_cmpint(ivshmem_peer_wait(peer, SCRIPT_MS, &event), ==, 1);
    } while (event.type != IVSHMEM_PEER_CLOSED);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_cmpint(event.error, ==, -EMFILE);
    ivshmem_peer_free(peer);
}

/* R-CLI-22: a peer has filled its counter, and made the eventfd block. */
static void test_full_counter(void)
{
    const uint64_t full = UINT64_MAX - 1;
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    int fds[1], own[1];

    script_greet(sock, 3, shm);
    script_vectors(sock, 5, 1, fds);
    script_vectors(sock, 3, 1, own);
    script_expect_ready(peer, 3);
    g_assert_cmpint(write(fds[0], &full, sizeof(full)), ==, sizeof(full));
    g_assert_cmpint(fcntl(fds[0], F_SETFL, 0), ==, 0);
    g_assert_cmpint(ivshmem_peer_ring(peer, 5, 0), ==, 0);

    g_assert_cmpint(write(own[0], &full, sizeof(full)), ==, sizeof(full));
    g_assert_cmpint(fcntl(own[0], F_SETFL, 0), ==, 0);
    g_assert_cmpint(ivshmem_peer_ring(peer, 3, 0), ==, 0);
    g_assert_cmpuint(script_expect(peer, IVSHMEM_PEER_RUNG).count, ==, full);
    script_expect_none(peer);
    ivshmem_fd_close(&fds[0]);
    ivshmem_fd_close(&own[0]);
    ivshmem_peer_free(peer);
}

/* Frames without an event do not keep the caller for ever. */
static void test_flood(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    struct pollfd pollfd = { .fd = ivshmem_peer_fd(peer), .events = POLLIN };
    IvshmemFrame frame = { .value = 4711, .fd = -1 };
    int rounds = 0;

    script_handshake(sock, 3, shm);
    script_expect_ready(peer, 3);
    script_expect_vector(peer, 3, 1);
    for (int i = 0; i < 100000 && ivshmem_io_send(sock, &frame, 1) == 1; i++) {
        rounds = i;
    }
    g_assert_cmpint(rounds, >, 256);
    script_expect_none(peer);
    g_assert_cmpint(poll(&pollfd, 1, 0), ==, 1);
    for (int i = 0; i < rounds && poll(&pollfd, 1, 0) == 1; i++) {
        script_expect_none(peer);
    }
    g_assert_cmpint(poll(&pollfd, 1, 0), ==, 0);
    ivshmem_peer_free(peer);
}

/* Any bytes, any descriptors: no crash, and no descriptor left behind. */
static void test_random(void)
{
    g_autoptr(GRand) rand = test_rand_new();

    for (int round = 0; round < 500; round++) {
        IVSHMEM_FD_AUTO int shm = script_memory();
        IvshmemPeer *peer;
        IVSHMEM_FD_AUTO int sock = script_new(&peer);
        IvshmemPeerEvent event;

        send_cut(sock, (size_t)g_rand_int_range(rand, 0, 8), 0, shm);
        for (int i = 0; i < 20; i++) {
            int kind = g_rand_int_range(rand, -8, WRONG_FDS + 4);
            int fd = kind < 0 ? -1 : kind < WRONG_FDS ? wrong_fd(kind)
                                                      : script_eventfd();

            script_send(sock, g_rand_int_range(rand, -1, 6), fd);
            ivshmem_fd_close(&fd);
        }
        while (ivshmem_peer_next(peer, &event) == 1) {
            g_assert_cmpint(event.type, !=, IVSHMEM_PEER_NONE);
            if (event.type != IVSHMEM_PEER_RUNG) {
                ivshmem_peer_ring(peer, 5, 0);  /* which may be ourselves */
            }
        }
        ivshmem_peer_free(peer);
    }
}

static void test_not_a_socket(void)
{
    IVSHMEM_FD_AUTO int eventfd = script_eventfd();
    IvshmemPeer *peer = NULL;
    int fds[2];

    g_assert_cmpint(ivshmem_peer_attach(-1, &peer), ==, -EBADF);
    g_assert_cmpint(ivshmem_peer_attach(eventfd, &peer), ==, -ENOTSOCK);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), ==, 0);
    g_assert_cmpint(ivshmem_peer_attach(fds[0], &peer), ==, -EPROTOTYPE);
    g_assert_null(peer);
    ivshmem_fd_close(&fds[0]);
    ivshmem_fd_close(&fds[1]);
}

static void test_no_server(void)
{
    g_autofree char *dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "sock", NULL);
    g_autofree char *longest = g_strnfill(200, 'x');
    IvshmemPeer *peer = NULL;
    int listener;

    g_assert_cmpint(ivshmem_peer_connect(path, &peer), ==, -ENOENT);
    g_assert_cmpint(ivshmem_peer_connect(longest, &peer), ==, -ENAMETOOLONG);
    listener = ivshmem_io_listen(path, 0600);
    g_assert_cmpint(listener, >=, 0);
    ivshmem_fd_close(&listener);
    g_assert_cmpint(ivshmem_peer_connect(path, &peer), ==, -ECONNREFUSED);
    g_assert_null(peer);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/peer/faults/eof-at-every-byte", test_eof_at_every_byte);
    fd_leak_add("/peer/faults/free-at-every-byte", test_free_at_every_byte);
    fd_leak_add("/peer/faults/wrong-frames", test_wrong_frames);
    fd_leak_add("/peer/faults/not-eventfds", test_not_eventfds);
    fd_leak_add("/peer/faults/not-memory", test_not_memory);
    fd_leak_add("/peer/faults/out-of-descriptors", test_out_of_descriptors);
    fd_leak_add("/peer/faults/full-counter", test_full_counter);
    fd_leak_add("/peer/faults/flood", test_flood);
    fd_leak_add("/peer/faults/random", test_random);
    fd_leak_add("/peer/faults/not-a-socket", test_not_a_socket);
    fd_leak_add("/peer/faults/no-server", test_no_server);
    return g_test_run();
}
