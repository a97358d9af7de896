/*
 * The peer API against a server that keeps to the protocol.
 *
 * Misbehaving servers are in test-peer-faults.c, and what happens when a server
 * comes back is in test-peer-reconnect.c.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry.h"
#include "peer-script.h"

static void test_handshake(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    char byte;

    g_assert_true(ivshmem_peer_connected(peer));
    g_assert_cmpint(ivshmem_peer_id(peer), ==, -1);
    g_assert_cmpuint(ivshmem_peer_size(peer), ==, 0);
    g_assert_cmpint(ivshmem_peer_shm_fd(peer), ==, -1);
    g_assert_cmpint(ivshmem_peer_map(peer, true, NULL, NULL), ==,
                    IVSHMEM_E_NO_SHM);
    script_expect_none(peer);

    script_handshake(sock, 7, shm);
    script_expect_peer(peer, IVSHMEM_PEER_JOINED, 5);
    script_expect_vector(peer, 5, 1);
    script_expect_peer(peer, IVSHMEM_PEER_JOINED, 9);
    script_expect_vector(peer, 9, 1);
    script_expect_vector(peer, 7, 0);
    script_expect_peer(peer, IVSHMEM_PEER_READY, 7);
    script_expect_vector(peer, 7, 1);
    script_expect_none(peer);

    g_assert_cmpint(ivshmem_peer_id(peer), ==, 7);
    g_assert_cmpuint(ivshmem_peer_size(peer), ==, SCRIPT_SHM_SIZE);
    g_assert_cmpuint(ivshmem_peer_vectors(peer), ==, 2);
    g_assert_cmpuint(ivshmem_peer_vectors_of(peer, 5), ==, 2);
    g_assert_cmpuint(ivshmem_peer_vectors_of(peer, 7), ==, 2);
    g_assert_cmpuint(ivshmem_peer_vectors_of(peer, 6), ==, 0);
    g_assert_cmpint(ivshmem_peer_next_id(peer, -1), ==, 5);
    g_assert_cmpint(ivshmem_peer_next_id(peer, 5), ==, 9);
    g_assert_cmpint(ivshmem_peer_next_id(peer, 9), ==, -1);
    g_assert_cmpint(ivshmem_peer_next_id(peer, 65535), ==, -1);

    /* R-CLI-1 */
    g_assert_cmpint(recv(sock, &byte, 1, MSG_DONTWAIT), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    ivshmem_peer_free(peer);
    ivshmem_peer_free(NULL);
}

/* Its events, and rings, are still there afterwards. */
/* R-CLI-7 */
static void test_wait_ready(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    int fds[1];

    g_assert_cmpint(ivshmem_peer_wait_ready(peer, 0), ==, IVSHMEM_E_TIMEOUT);
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, 1), ==, IVSHMEM_E_TIMEOUT);
    script_greet(sock, 3, shm);
    script_vectors(sock, 1, 1, NULL);
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, 1), ==, IVSHMEM_E_TIMEOUT);
    script_vectors(sock, 3, 1, fds);
    g_assert_cmpint(ivshmem_io_ring(fds[0]), ==, 0);
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, SCRIPT_MS), ==, 0);
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, SCRIPT_MS), ==, 0);

    script_expect_peer(peer, IVSHMEM_PEER_JOINED, 1);
    script_expect_vector(peer, 3, 0);
    script_expect_peer(peer, IVSHMEM_PEER_READY, 3);
    script_expect_rung(peer, 0, 1);
    script_expect_none(peer);
    ivshmem_fd_close(&fds[0]);
    ivshmem_peer_free(peer);
}

/*
 * Who did not get to run until the time was over still takes what has come, but
 * not for ever.
 */
static void test_wait_ready_late(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    int unread;

    script_handshake(sock, 7, shm);
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, 0), ==, 0);
    ivshmem_peer_free(peer);
    ivshmem_fd_close(&sock);

    sock = script_new(&peer);
    script_greet(sock, 7, shm);
    for (int i = 0; i < 256; i++) {
        script_send(sock, 1, -1);
    }
    g_assert_cmpint(ivshmem_peer_wait_ready(peer, 0), ==, IVSHMEM_E_TIMEOUT);
    g_assert_cmpint(ioctl(sock, TIOCOUTQ, &unread), ==, 0);
    g_assert_cmpint(unread, >, 0);
    ivshmem_peer_free(peer);
}

/* Own vectors before the memory, as the incumbent's device takes it too. */
/* R-CLI-5: MEMORY may come last */
static void test_memory_last(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);

    script_send(sock, IVSHMEM_PROTOCOL_VERSION, -1);
    script_send(sock, 0, -1);
    script_vectors(sock, 0, 1, NULL);
    script_expect_vector(peer, 0, 0);
    script_expect_none(peer);
    script_send(sock, IVSHMEM_VALUE_SHM, shm);
    script_expect_ready(peer, 0);
    ivshmem_peer_free(peer);
}

/* R-CLI-8 */
static void test_joins_and_leaves(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);

    script_handshake(sock, 0, shm);
    script_expect_ready(peer, 0);
    script_expect_vector(peer, 0, 1);

    script_send(sock, 5, -1);
    script_expect_peer(peer, IVSHMEM_PEER_LEFT, 5);
    script_send(sock, 5, -1);
    script_send(sock, 4711, -1);
    script_expect_none(peer);
    g_assert_cmpint(ivshmem_peer_ring(peer, 5, 0), ==, IVSHMEM_E_NO_PEER);

    script_vectors(sock, 5, 3, NULL);
    script_expect_peer(peer, IVSHMEM_PEER_JOINED, 5);
    script_expect_vector(peer, 5, 1);
    script_expect_vector(peer, 5, 2);
    g_assert_cmpuint(ivshmem_peer_vectors_of(peer, 5), ==, 3);
    script_send(sock, 5, -1);
    script_send(sock, 9, -1);
    script_expect_peer(peer, IVSHMEM_PEER_LEFT, 5);
    script_expect_peer(peer, IVSHMEM_PEER_LEFT, 9);
    g_assert_cmpint(ivshmem_peer_next_id(peer, -1), ==, -1);
    ivshmem_peer_free(peer);
}

/* R-CLI-20, R-CLI-21 */
static void test_ring(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    int other[3], own[2];
    uint64_t count;

    script_greet(sock, 1, shm);
    script_vectors(sock, 2, 3, other);
    script_vectors(sock, 1, 2, own);
    script_expect_ready(peer, 1);
    script_expect_vector(peer, 1, 1);

    g_assert_cmpint(ivshmem_peer_ring(peer, 2, 1), ==, 0);
    g_assert_cmpint(ivshmem_peer_ring(peer, 2, 1), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(other[0], &count), ==, -EAGAIN);
    g_assert_cmpint(ivshmem_io_drain(other[1], &count), ==, 0);
    g_assert_cmpuint(count, ==, 2);
    g_assert_cmpint(ivshmem_io_ring(ivshmem_peer_ring_fd(peer, 2, 2)), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(other[2], &count), ==, 0);

    g_assert_cmpint(ivshmem_peer_ring(peer, 2, 3), ==, IVSHMEM_E_NO_PEER);
    g_assert_cmpint(ivshmem_peer_ring(peer, 2, UINT32_MAX), ==,
                    IVSHMEM_E_NO_PEER);
    g_assert_cmpint(ivshmem_peer_ring(peer, 65535, 0), ==, IVSHMEM_E_NO_PEER);
    g_assert_cmpint(ivshmem_peer_ring_fd(peer, 3, 0), ==, IVSHMEM_E_NO_PEER);

    /* Ourselves. */
    g_assert_cmpint(ivshmem_peer_ring(peer, 1, 1), ==, 0);
    script_expect_rung(peer, 1, 1);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(ivshmem_io_ring(own[0]), ==, 0);
    }
    script_expect_rung(peer, 0, 3);
    script_expect_none(peer);
    for (int i = 0; i < 3; i++) {
        ivshmem_fd_close(&other[i]);
    }
    ivshmem_fd_close(&own[0]);
    ivshmem_fd_close(&own[1]);
    ivshmem_peer_free(peer);
}

/* Somebody who rings without pause does not hide the others, or the server. */
static void test_fairness(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    bool rung = false, left = false;
    int own[2];

    script_greet(sock, 1, shm);
    script_vectors(sock, 5, 1, NULL);
    script_vectors(sock, 1, 2, own);
    script_expect_ready(peer, 1);
    script_expect_vector(peer, 1, 1);

    g_assert_cmpint(ivshmem_io_ring(own[1]), ==, 0);
    script_send(sock, 5, -1);
    for (int i = 0; i < 10; i++) {
        IvshmemPeerEvent event;

        g_assert_cmpint(ivshmem_io_ring(own[0]), ==, 0);
        g_assert_cmpint(ivshmem_peer_next(peer, &event), ==, 1);
        rung |= event.type == IVSHMEM_PEER_RUNG && event.vector == 1;
        left |= event.type == IVSHMEM_PEER_LEFT;
    }
    g_assert_true(rung);
    g_assert_true(left);
    ivshmem_fd_close(&own[0]);
    ivshmem_fd_close(&own[1]);
    ivshmem_peer_free(peer);
}

static void test_take_vector(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    uint64_t count;
    int taken;

    script_handshake(sock, 1, shm);
    script_expect_ready(peer, 1);
    script_expect_vector(peer, 1, 1);

    taken = ivshmem_peer_take_vector(peer, 1);
    g_assert_cmpint(taken, >=, 0);
    g_assert_cmpint(ivshmem_peer_take_vector(peer, 1), ==, taken);
    g_assert_cmpint(ivshmem_peer_take_vector(peer, 2), ==, IVSHMEM_E_NO_PEER);
    g_assert_cmpint(ivshmem_peer_ring(peer, 1, 0), ==, 0);
    g_assert_cmpint(ivshmem_peer_ring(peer, 1, 1), ==, 0);
    script_expect_rung(peer, 0, 1);
    script_expect_none(peer);
    g_assert_cmpint(ivshmem_io_drain(taken, &count), ==, 0);
    g_assert_cmpuint(count, ==, 1);
    ivshmem_peer_free(peer);
}

static void test_map(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    void *rw, *ro, *again;
    uint64_t size;
    char byte = 'x';

    script_handshake(sock, 1, shm);
    script_expect_ready(peer, 1);
    g_assert_cmpint(ivshmem_peer_map(peer, false, &ro, &size), ==, 0);
    g_assert_cmpuint(size, ==, SCRIPT_SHM_SIZE);
    g_assert_cmpint(ivshmem_peer_map(peer, true, &rw, NULL), ==, 0);
    g_assert_cmpint(ivshmem_peer_map(peer, true, &again, NULL), ==, 0);
    g_assert_true(rw == again);

    g_assert_cmpint(pwrite(shm, &byte, 1, SCRIPT_SHM_SIZE - 1), ==, 1);
    g_assert_cmpint(((char *)rw)[SCRIPT_SHM_SIZE - 1], ==, 'x');
    ((char *)rw)[0] = 'y';
    g_assert_cmpint(*(char *)ro, ==, 'y');
    g_assert_cmpint(ivshmem_peer_shm_fd(peer), >=, 0);
    ivshmem_peer_free(peer);
}

/* A descriptor opened for reading only, and one sealed against writing. */
/* R-CLI-19 */
static void test_map_read_only(void)
{
    for (int sealed = 0; sealed < 2; sealed++) {
        IVSHMEM_FD_AUTO int shm = script_memory();
        g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", shm);
        IvshmemPeer *peer;
        IVSHMEM_FD_AUTO int sock = script_new(&peer);
        void *address = NULL;

        if (sealed) {
            g_assert_cmpint(fcntl(shm, F_ADD_SEALS, F_SEAL_WRITE), ==, 0);
            script_handshake(sock, 1, shm);
        } else {
            int reader = open(path, O_RDONLY | O_CLOEXEC);

            g_assert_cmpint(reader, >=, 0);
            script_handshake(sock, 1, reader);
            ivshmem_fd_close(&reader);
        }
        script_expect_ready(peer, 1);
        g_assert_cmpint(ivshmem_peer_map(peer, true, &address, NULL), ==,
                        -EACCES);
        g_assert_null(address);
        /* A sealed memfd refuses shared mappings before Linux 6.7. */
        if (!sealed) {
            g_assert_cmpint(ivshmem_peer_map(peer, false, &address, NULL), ==,
                            0);
            g_assert_cmpint(*(char *)address, ==, 0);
        }
        ivshmem_peer_free(peer);
    }
}

typedef struct Ringer {
    IvshmemPeer *peer;
    int stop;
    unsigned rung;
} Ringer;

static void *ringer_run(void *opaque)
{
    Ringer *ringer = opaque;

    while (!g_atomic_int_get(&ringer->stop)) {
        int ret = ivshmem_peer_ring(ringer->peer, 5, 1);

        g_assert_true(ret == 0 || ret == IVSHMEM_E_NO_PEER);
        ringer->rung += ret == 0;
        g_thread_yield();       /* valgrind runs one thread at a time */
    }
    return NULL;
}

/* Ringing in two threads while the peer comes and goes in a third. */
static void test_threads(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemPeer *peer;
    IVSHMEM_FD_AUTO int sock = script_new(&peer);
    Ringer ringers[2];
    GThread *threads[2];
    uint64_t total = 0;
    int fds[2];

    script_greet(sock, 1, shm);
    script_vectors(sock, 1, 1, NULL);
    script_expect_ready(peer, 1);
    for (int i = 0; i < 2; i++) {
        ringers[i] = (Ringer) { .peer = peer };
        threads[i] = g_thread_new("ringer", ringer_run, &ringers[i]);
    }
    for (int i = 0; i < 300; i++) {
        uint64_t count = 0;

        script_vectors(sock, 5, 2, fds);
        script_expect_peer(peer, IVSHMEM_PEER_JOINED, 5);
        script_expect_vector(peer, 5, 1);
        script_send(sock, 5, -1);
        script_expect_peer(peer, IVSHMEM_PEER_LEFT, 5);
        if (ivshmem_io_drain(fds[1], &count) == 0) {
            total += count;
        }
        ivshmem_fd_close(&fds[0]);
        ivshmem_fd_close(&fds[1]);
    }
    for (int i = 0; i < 2; i++) {
        g_atomic_int_set(&ringers[i].stop, 1);
        g_thread_join(threads[i]);
    }
    g_assert_cmpuint(total, ==, ringers[0].rung + ringers[1].rung);
    ivshmem_peer_free(peer);
}

/* What the registry has for a member goes over its socket. */
static void group_flush(IvshmemRegistry *registry)
{
    IvshmemMember *member = NULL;

    while ((member = ivshmem_registry_next(registry, member))) {
        int sock = GPOINTER_TO_INT(ivshmem_member_opaque(member));
        IvshmemFrame frames[IVSHMEM_IO_BATCH];
        size_t n;

        while ((n = ivshmem_member_peek(member, frames, IVSHMEM_IO_BATCH))) {
            ssize_t sent = ivshmem_io_send(sock, frames, n);

            g_assert_cmpint(sent, >, 0);
            ivshmem_member_sent(registry, member, (size_t)sent);
        }
    }
}

#define GROUP 4
#define GROUP_VECTORS 3

/* Several peers in one process, behind the server side of the library. */
static void test_group(void)
{
    IVSHMEM_FD_AUTO int shm = script_memory();
    IvshmemRegistry *registry = ivshmem_registry_new(0);
    IvshmemMember *members[GROUP];
    IvshmemPeer *peers[GROUP];
    int socks[GROUP], fd;

    for (int i = 0; i < GROUP; i++) {
        int fds[GROUP_VECTORS];
        IvshmemJoin join = {
            .id = IVSHMEM_ID_ANY, .shm_fd = shm,
            .vector_fds = fds, .vectors = GROUP_VECTORS,
        };

        socks[i] = script_new(&peers[i]);
        join.opaque = GINT_TO_POINTER(socks[i]);
        for (int v = 0; v < GROUP_VECTORS; v++) {
            fds[v] = script_eventfd();
        }
        g_assert_cmpint(ivshmem_registry_join(registry, &join, &members[i]),
                        ==, 0);
        group_flush(registry);
    }
    for (int i = 0; i < GROUP; i++) {
        IvshmemPeerEvent event;

        script_expect_ready(peers[i], ivshmem_member_id(members[i]));
        while (ivshmem_peer_next(peers[i], &event) == 1) {
            g_assert_cmpint(event.type, !=, IVSHMEM_PEER_CLOSED);
        }
    }
    for (int i = 0; i < GROUP; i++) {
        for (int k = 0; k < GROUP; k++) {
            uint16_t id = ivshmem_member_id(members[k]);

            g_assert_cmpuint(ivshmem_peer_vectors_of(peers[i], id), ==,
                             GROUP_VECTORS);
            g_assert_cmpint(ivshmem_peer_ring(peers[i], id, 2), ==, 0);
            script_expect_rung(peers[k], 2, 1);
        }
    }
    for (int i = 0; i < GROUP; i++) {
        uint16_t id = ivshmem_member_id(members[i]);

        ivshmem_registry_leave(registry, members[i]);
        group_flush(registry);
        for (int k = i + 1; k < GROUP; k++) {
            script_expect_peer(peers[k], IVSHMEM_PEER_LEFT, id);
        }
        ivshmem_fd_close(&socks[i]);
        script_expect_closed(peers[i], IVSHMEM_E_EOF);
        ivshmem_peer_free(peers[i]);
    }
    while ((fd = ivshmem_registry_reap(registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
    ivshmem_registry_free(registry);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/peer/handshake", test_handshake);
    fd_leak_add("/peer/wait-ready", test_wait_ready);
    fd_leak_add("/peer/wait-ready-late", test_wait_ready_late);
    fd_leak_add("/peer/memory-last", test_memory_last);
    fd_leak_add("/peer/joins-and-leaves", test_joins_and_leaves);
    fd_leak_add("/peer/ring", test_ring);
    fd_leak_add("/peer/fairness", test_fairness);
    fd_leak_add("/peer/take-vector", test_take_vector);
    fd_leak_add("/peer/map", test_map);
    fd_leak_add("/peer/map-read-only", test_map_read_only);
    fd_leak_add("/peer/threads", test_threads);
    fd_leak_add("/peer/group", test_group);
    return g_test_run();
}
