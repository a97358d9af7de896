/*
 * bench-peer SOCKET: a host program as a peer, for the benchmarks.
 *
 * Commands on stdin, one JSON answer each on stdout:
 *   id                        own ID
 *   await PEER VECTORS        until that peer is there with so many vectors
 *   ping PEER THEIR OUR N     N round trips: ring their vector, wait for ours
 *   pong PEER THEIR           answer every ring of ours until the next command
 *   flood PEER VECTOR MS      ring without a pause for so long
 * Only the public API is used: what it costs is what users get.  Not
 * responsible for statistics.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "ivshmem-peer.h"

#define PEER_MAX_TRIPS 1000000
#define PEER_WAIT_MS 10000

typedef int (*PeerCommand)(IvshmemPeer *peer, const unsigned *args);

static int peer_id(IvshmemPeer *peer, const unsigned *args G_GNUC_UNUSED)
{
    printf("{\"id\": %d}\n", ivshmem_peer_id(peer));
    return 0;
}

static int peer_await(IvshmemPeer *peer, const unsigned *args)
{
    gint64 deadline = g_get_monotonic_time() + PEER_WAIT_MS * 1000;
    IvshmemPeerEvent event;

    while (ivshmem_peer_vectors_of(peer, (uint16_t)args[0]) < args[1]) {
        int ret = ivshmem_peer_wait(peer, PEER_WAIT_MS, &event);

        if (ret < 0) {
            return ret;
        }
        if (g_get_monotonic_time() > deadline) {
            return IVSHMEM_E_TIMEOUT;
        }
    }
    printf("{\"vectors\": %u}\n",
           ivshmem_peer_vectors_of(peer, (uint16_t)args[0]));
    return 0;
}

static int peer_wait_rung(IvshmemPeer *peer, unsigned vector)
{
    IvshmemPeerEvent event = { .type = IVSHMEM_PEER_NONE };
    int ret;

    do {
        ret = ivshmem_peer_wait(peer, PEER_WAIT_MS, &event);
    } while (ret == 1 && (event.type != IVSHMEM_PEER_RUNG ||
                          event.vector != vector));
    return ret;
}

static gint64 peer_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * G_GINT64_CONSTANT(1000000000) + now.tv_nsec;
}

static int peer_ping(IvshmemPeer *peer, const unsigned *args)
{
    unsigned n = MIN(args[3], PEER_MAX_TRIPS);
    g_autofree gint64 *ns = g_new(gint64, n);

    for (unsigned i = 0; i < n; i++) {
        gint64 start = peer_now_ns();
        int ret = ivshmem_peer_ring(peer, (uint16_t)args[0], args[1]);

        ret = ret < 0 ? ret : peer_wait_rung(peer, args[2]);
        if (ret < 0) {
            return ret;
        }
        ns[i] = peer_now_ns() - start;
    }
    printf("{\"ns\": [");
    for (unsigned i = 0; i < n; i++) {
        printf("%s%" PRId64, i ? ", " : "", ns[i]);
    }
    printf("]}\n");
    return 0;
}

static int peer_pong(IvshmemPeer *peer, const unsigned *args)
{
    struct pollfd fds[] = {
        { .fd = ivshmem_peer_fd(peer), .events = POLLIN },
        { .fd = STDIN_FILENO, .events = POLLIN },
    };
    IvshmemPeerEvent event;
    uint64_t answered = 0;

    while (!fds[1].revents) {
        int ret = ivshmem_peer_next(peer, &event);

        if (ret == 1 && event.type == IVSHMEM_PEER_RUNG) {
            ret = ivshmem_peer_ring(peer, (uint16_t)args[0], args[1]);
            answered++;
        }
        if (ret < 0) {
            return ret;
        }
        if (event.type == IVSHMEM_PEER_NONE) {
            poll(fds, G_N_ELEMENTS(fds), -1);
        }
    }
    printf("{\"answered\": %" PRIu64 "}\n", answered);
    return 0;
}

static int peer_flood(IvshmemPeer *peer, const unsigned *args)
{
    gint64 start = peer_now_ns(), end = start + args[2] * G_GINT64_CONSTANT(1000000);
    uint64_t rings = 0;

    while (peer_now_ns() < end) {
        int ret = ivshmem_peer_ring(peer, (uint16_t)args[0], args[1]);

        if (ret < 0) {
            return ret;
        }
        rings++;
    }
    printf("{\"rings\": %" PRIu64 ", \"ns\": %" PRId64 "}\n", rings,
           peer_now_ns() - start);
    return 0;
}

static int peer_run(IvshmemPeer *peer, const char *line)
{
    static const struct {
        const char *name;
        PeerCommand run;
    } commands[] = {
        { "id", peer_id }, { "await", peer_await }, { "ping", peer_ping },
        { "pong", peer_pong }, { "flood", peer_flood },
    };
    unsigned args[4] = { 0 };
    char name[16];

    if (sscanf(line, "%15s %u %u %u %u", name, &args[0], &args[1], &args[2],
               &args[3]) < 1) {
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(name, commands[i].name)) {
            return commands[i].run(peer, args);
        }
    }
    fprintf(stderr, "bench-peer: no command \"%s\"\n", name);
    return -EINVAL;
}

/* A line without stdio's buffer, which poll() does not know of. */
static bool peer_read_line(char *line, size_t size)
{
    size_t n = 0;

    while (n < size - 1 && read(STDIN_FILENO, &line[n], 1) == 1) {
        if (line[n++] == '\n') {
            line[n] = '\0';
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    IvshmemPeer *peer = NULL;
    char line[128];
    int ret;

    if (argc != 2) {
        fprintf(stderr, "usage: bench-peer SOCKET\n");
        return 1;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ret = ivshmem_peer_connect(argv[1], &peer);
    ret = ret < 0 ? ret : ivshmem_peer_wait_ready(peer, PEER_WAIT_MS);
    while (ret >= 0 && peer_read_line(line, sizeof(line))) {
        ret = peer_run(peer, line);
        fflush(stdout);
    }
    if (ret < 0) {
        fprintf(stderr, "bench-peer: %s\n", ivshmem_strerror(ret));
    }
    ivshmem_peer_free(peer);
    return ret < 0;
}
