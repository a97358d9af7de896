/*
 * The peer API when the server goes away and comes back.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>
#include <glib/gstdio.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "peer-script.h"

typedef struct Server {
    char *dir, *path;
    int listener;
    int sock;                   /* its one client */
    int shm;
    IvshmemPeer *peer;
    int own[2], five[2];        /* eventfds of the first connection */
} Server;

/* Connected as 3, with peers 5 and 9, two vectors each; all events taken. */
static void server_start(Server *server)
{
    server->dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    server->path = g_build_filename(server->dir, "sock", NULL);
    server->listener = ivshmem_io_listen(server->path, 0600);
    g_assert_cmpint(server->listener, >=, 0);
    g_assert_cmpint(ivshmem_peer_connect(server->path, &server->peer), ==, 0);
    server->sock = ivshmem_io_accept(server->listener);
    server->shm = script_memory();
    script_greet(server->sock, 3, server->shm);
    script_vectors(server->sock, 5, 2, server->five);
    script_vectors(server->sock, 9, 2, NULL);
    script_vectors(server->sock, 3, 2, server->own);
    script_expect_ready(server->peer, 3);
    script_expect_vector(server->peer, 3, 1);
    g_assert_cmpint(ivshmem_peer_reconnect(server->peer), ==, -EISCONN);
}

static void server_lose(Server *server)
{
    ivshmem_fd_close(&server->sock);
    script_expect_closed(server->peer, IVSHMEM_E_EOF);
}

static void server_return(Server *server)
{
    g_assert_cmpint(ivshmem_peer_reconnect(server->peer), ==, 0);
    g_assert_true(ivshmem_peer_connected(server->peer));
    server->sock = ivshmem_io_accept(server->listener);
    g_assert_cmpint(server->sock, >=, 0);
}

static void server_stop(Server *server)
{
    ivshmem_peer_free(server->peer);
    for (int i = 0; i < 2; i++) {
        ivshmem_fd_close(&server->own[i]);
        ivshmem_fd_close(&server->five[i]);
    }
    ivshmem_fd_close(&server->listener);
    ivshmem_fd_close(&server->sock);
    ivshmem_fd_close(&server->shm);
    g_assert_cmpint(g_unlink(server->path), ==, 0);
    g_assert_cmpint(g_rmdir(server->dir), ==, 0);
    g_free(server->path);
    g_free(server->dir);
}

/* Without a server, the living ring each other. */
/* R-CLI-6 */
static void test_without_server(void)
{
    Server server;
    char *memory;
    uint64_t count;

    server_start(&server);
    g_assert_cmpint(ivshmem_peer_map(server.peer, true, (void **)&memory,
                                     NULL), ==, 0);
    server_lose(&server);
    g_assert_cmpint(ivshmem_peer_ring(server.peer, 5, 1), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(server.five[1], &count), ==, 0);
    g_assert_cmpint(ivshmem_io_ring(server.own[1]), ==, 0);
    script_expect_rung(server.peer, 1, 1);
    memory[0] = 1;
    g_assert_cmpint(ivshmem_peer_id(server.peer), ==, 3);
    g_assert_cmpint(ivshmem_peer_next_id(server.peer, -1), ==, 5);
    server_stop(&server);
}

/* R-CLI-15 to R-CLI-17 */
static void test_same_again(void)
{
    Server server;
    char *memory, *again;
    uint64_t count;
    int five[2], own[2];

    server_start(&server);
    g_assert_cmpint(ivshmem_peer_map(server.peer, true, (void **)&memory,
                                     NULL), ==, 0);
    memory[17] = 'k';
    server_lose(&server);
    server_return(&server);

    /* 9 has not come back, 5 has, with one more vector. */
    script_greet(server.sock, 3, server.shm);
    script_vectors(server.sock, 5, 2, five);
    script_vectors(server.sock, 5, 1, NULL);
    script_vectors(server.sock, 3, 2, own);
    script_expect_vector(server.peer, 5, 2);
    script_expect_vector(server.peer, 3, 0);
    script_expect_peer(server.peer, IVSHMEM_PEER_LEFT, 9);
    script_expect_peer(server.peer, IVSHMEM_PEER_READY, 3);
    script_expect_vector(server.peer, 3, 1);
    script_expect_none(server.peer);

    g_assert_cmpint(ivshmem_peer_map(server.peer, true, (void **)&again,
                                     NULL), ==, 0);
    g_assert_true(again == memory);
    g_assert_cmpint(memory[17], ==, 'k');

    /* Rings go to the new eventfds; they come by the new and the former. */
    g_assert_cmpint(ivshmem_peer_ring(server.peer, 5, 0), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(server.five[0], &count), ==, -EAGAIN);
    g_assert_cmpint(ivshmem_io_drain(five[0], &count), ==, 0);
    g_assert_cmpint(ivshmem_io_ring(own[1]), ==, 0);
    script_expect_rung(server.peer, 1, 1);
    g_assert_cmpint(ivshmem_io_ring(server.own[1]), ==, 0);
    script_expect_rung(server.peer, 1, 1);
    script_expect_none(server.peer);
    for (int i = 0; i < 2; i++) {
        ivshmem_fd_close(&five[i]);
        ivshmem_fd_close(&own[i]);
    }
    server_stop(&server);
}

/* All that is known can be used until READY, however many attempts it takes. */
/* R-CLI-15 to R-CLI-17 */
static void test_usable_until_ready(void)
{
    Server server;
    uint64_t count;

    server_start(&server);
    for (int i = 0; i < 3; i++) {
        server_lose(&server);
        server_return(&server);
        for (int step = 0; step < 2; step++) {
            g_assert_cmpint(ivshmem_peer_id(server.peer), ==, 3);
            g_assert_cmpuint(ivshmem_peer_vectors(server.peer), ==, 2);
            g_assert_cmpuint(ivshmem_peer_vectors_of(server.peer, 3), ==, 2);
            g_assert_cmpint(ivshmem_peer_ring(server.peer, 3, 1), ==, 0);
            script_expect_rung(server.peer, 1, 1);
            g_assert_cmpint(ivshmem_peer_ring(server.peer, 5, 0), ==, 0);
            g_assert_cmpint(ivshmem_io_drain(server.five[0], &count), ==, 0);
            script_expect_none(server.peer);
            if (step == 0) {
                script_greet(server.sock, 3, server.shm);
            }
        }
    }
    script_vectors(server.sock, 3, 1, NULL);
    script_expect_vector(server.peer, 3, 0);
    script_expect_peer(server.peer, IVSHMEM_PEER_LEFT, 5);
    script_expect_peer(server.peer, IVSHMEM_PEER_LEFT, 9);
    script_expect_peer(server.peer, IVSHMEM_PEER_READY, 3);
    g_assert_cmpuint(ivshmem_peer_vectors(server.peer), ==, 1);
    g_assert_cmpint(ivshmem_io_ring(server.own[1]), ==, 0);
    script_expect_rung(server.peer, 1, 1);
    server_stop(&server);
}

/* A peer may also come back with fewer vectors. */
/* R-CLI-15 */
static void test_fewer_vectors(void)
{
    Server server;

    server_start(&server);
    server_lose(&server);
    server_return(&server);
    script_greet(server.sock, 3, server.shm);
    script_vectors(server.sock, 5, 1, NULL);
    script_vectors(server.sock, 9, 2, NULL);
    script_vectors(server.sock, 3, 1, NULL);
    script_expect_vector(server.peer, 3, 0);
    script_expect_peer(server.peer, IVSHMEM_PEER_READY, 3);
    g_assert_cmpuint(ivshmem_peer_vectors_of(server.peer, 5), ==, 1);
    g_assert_cmpuint(ivshmem_peer_vectors_of(server.peer, 9), ==, 2);
    g_assert_cmpuint(ivshmem_peer_vectors(server.peer), ==, 1);
    server_stop(&server);
}

/* R-CLI-14 */
static void test_other_memory(void)
{
    Server server;
    IVSHMEM_FD_AUTO int other = script_memory();
    char *memory, *again;

    server_start(&server);
    g_assert_cmpint(ivshmem_peer_map(server.peer, true, (void **)&memory,
                                     NULL), ==, 0);
    server_lose(&server);
    for (int i = 0; i < 3; i++) {
        server_return(&server);
        script_greet(server.sock, 8, other);
        script_vectors(server.sock, 8, 2, NULL);
        script_expect_closed(server.peer, IVSHMEM_E_SHM_CHANGED);
        ivshmem_fd_close(&server.sock);
    }
    g_assert_cmpint(ivshmem_peer_id(server.peer), ==, 3);
    g_assert_cmpint(ivshmem_peer_map(server.peer, true, (void **)&again,
                                     NULL), ==, 0);
    g_assert_true(again == memory);
    g_assert_cmpint(ivshmem_peer_ring(server.peer, 5, 0), ==, 0);
    g_assert_cmpint(ivshmem_io_ring(server.own[0]), ==, 0);
    script_expect_rung(server.peer, 0, 1);

    server_return(&server);
    script_handshake(server.sock, 3, server.shm);
    script_expect_ready(server.peer, 3);
    server_stop(&server);
}

/* The same object, but shrunk meanwhile: access could raise SIGBUS. */
/* R-CLI-14 */
static void test_other_size(void)
{
    Server server;

    server_start(&server);
    server_lose(&server);
    g_assert_cmpint(ftruncate(server.shm, SCRIPT_SHM_SIZE / 2), ==, 0);
    server_return(&server);
    script_greet(server.sock, 3, server.shm);
    script_expect_closed(server.peer, IVSHMEM_E_SHM_CHANGED);
    server_stop(&server);
}

/* Our new id may be one that a peer had. */
static void test_other_id(void)
{
    Server server;

    server_start(&server);
    server_lose(&server);
    server_return(&server);
    script_greet(server.sock, 5, server.shm);
    script_vectors(server.sock, 3, 1, NULL);
    script_vectors(server.sock, 9, 2, NULL);
    script_vectors(server.sock, 5, 1, NULL);
    script_expect_peer(server.peer, IVSHMEM_PEER_LEFT, 5);
    script_expect_peer(server.peer, IVSHMEM_PEER_JOINED, 3);
    script_expect_vector(server.peer, 5, 0);
    script_expect_peer(server.peer, IVSHMEM_PEER_READY, 5);
    g_assert_cmpint(ivshmem_peer_id(server.peer), ==, 5);
    g_assert_cmpint(ivshmem_peer_next_id(server.peer, -1), ==, 3);
    g_assert_cmpint(ivshmem_peer_next_id(server.peer, 3), ==, 9);
    server_stop(&server);
}

/* Takes events up to one of @type (NONE: all); returns the rings in them. */
static uint64_t count_rings(IvshmemPeer *peer, IvshmemPeerEventType type)
{
    IvshmemPeerEvent event;
    uint64_t rings = 0;

    do {
        int ret = type == IVSHMEM_PEER_NONE
            ? ivshmem_peer_next(peer, &event)
            : ivshmem_peer_wait(peer, SCRIPT_MS, &event);

        g_assert_cmpint(ret, ==, event.type != IVSHMEM_PEER_NONE);
        rings += event.type == IVSHMEM_PEER_RUNG ? event.count : 0;
    } while (event.type != type);
    return rings;
}

/* Again and again, with rings in between: none is lost, nothing piles up. */
static void test_many_times(void)
{
    Server server;
    uint64_t sent = 0, got = 0;

    server_start(&server);
    for (int i = 0; i < 50; i++) {
        int own[2];

        ivshmem_fd_close(&server.sock);
        got += count_rings(server.peer, IVSHMEM_PEER_CLOSED);
        g_assert_cmpint(ivshmem_io_ring(server.own[0]), ==, 0);
        server_return(&server);
        g_assert_cmpint(ivshmem_io_ring(server.own[0]), ==, 0);
        script_greet(server.sock, 3, server.shm);
        script_vectors(server.sock, 3, 2, own);
        g_assert_cmpint(ivshmem_peer_wait_ready(server.peer, SCRIPT_MS), ==, 0);
        g_assert_cmpint(ivshmem_io_ring(server.own[0]), ==, 0);
        g_assert_cmpint(ivshmem_io_ring(own[0]), ==, 0);
        sent += 4;
        if (i % 2) {
            /* Else rings are still in the eventfds at the next loss. */
            got += count_rings(server.peer, IVSHMEM_PEER_NONE);
        }
        for (int v = 0; v < 2; v++) {
            ivshmem_fd_close(&server.own[v]);
            server.own[v] = own[v];
        }
    }
    got += count_rings(server.peer, IVSHMEM_PEER_NONE);
    g_assert_cmpuint(got, ==, sent);
    server_stop(&server);
}

static void test_taken_vector(void)
{
    Server server;
    uint64_t count;
    int taken;

    server_start(&server);
    taken = ivshmem_peer_take_vector(server.peer, 0);
    server_lose(&server);
    server_return(&server);
    script_handshake(server.sock, 3, server.shm);
    script_expect_ready(server.peer, 3);
    script_expect_vector(server.peer, 3, 1);

    /* The former is still the taker's, its successor is ours. */
    g_assert_cmpint(ivshmem_io_ring(server.own[0]), ==, 0);
    script_expect_none(server.peer);
    g_assert_cmpint(ivshmem_io_drain(taken, &count), ==, 0);
    g_assert_cmpint(ivshmem_peer_ring(server.peer, 3, 0), ==, 0);
    script_expect_rung(server.peer, 0, 1);
    server_stop(&server);
}

static void test_refused(void)
{
    Server server;
    IvshmemPeer *attached;
    int sock = script_new(&attached);

    ivshmem_fd_close(&sock);
    script_expect_closed(attached, IVSHMEM_E_EOF);
    g_assert_cmpint(ivshmem_peer_reconnect(attached), ==, -EDESTADDRREQ);
    ivshmem_peer_free(attached);

    server_start(&server);
    server_lose(&server);
    ivshmem_fd_close(&server.listener);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(ivshmem_peer_reconnect(server.peer), ==,
                        -ECONNREFUSED);
        script_expect_none(server.peer);
    }
    g_assert_cmpint(ivshmem_peer_ring(server.peer, 5, 0), ==, 0);
    server_stop(&server);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/peer/reconnect/without-server", test_without_server);
    fd_leak_add("/peer/reconnect/same-again", test_same_again);
    fd_leak_add("/peer/reconnect/usable-until-ready", test_usable_until_ready);
    fd_leak_add("/peer/reconnect/fewer-vectors", test_fewer_vectors);
    fd_leak_add("/peer/reconnect/other-memory", test_other_memory);
    fd_leak_add("/peer/reconnect/other-size", test_other_size);
    fd_leak_add("/peer/reconnect/other-id", test_other_id);
    fd_leak_add("/peer/reconnect/many-times", test_many_times);
    fd_leak_add("/peer/reconnect/taken-vector", test_taken_vector);
    fd_leak_add("/peer/reconnect/refused", test_refused);
    return g_test_run();
}
