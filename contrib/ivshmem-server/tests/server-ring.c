/*
 * server-ring SOCKET ROUNDS: a client that rings its partner and is rung back,
 * counting in the memory, so that a ring that gets lost shows.
 *
 * The partner of an even id is the next one.  The even one asks.  Prints
 * "ready ID" when it has its id, and "done ROUNDS" in the end; waits for a
 * newline on stdin in between, until its partner is there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "ivshmem-io.h"
#include "ivshmem-peer.h"

/* A ring takes microseconds, even on a busy machine much less than this. */
#define RING_PATIENCE_MS 60000

/* What a pair has in the memory: a cache line of its own. */
typedef struct RingSlot {
    _Atomic uint64_t question;
    _Atomic uint64_t answer;
    uint64_t unused[6];
} RingSlot;

typedef struct Ring {
    IvshmemPeer *peer;
    RingSlot *slots;
    uint16_t id;
    int vector;                 /* rung here */
} Ring;

static RingSlot *ring_slot(const Ring *ring)
{
    return &ring->slots[ring->id / 2];
}

/* Others come and go; all that matters is that we go on reading. */
static int ring_read_events(Ring *ring)
{
    IvshmemPeerEvent event;
    int ret;

    while ((ret = ivshmem_peer_next(ring->peer, &event)) > 0) {
        if (event.type == IVSHMEM_PEER_CLOSED) {
            return event.error;
        }
    }
    return ret;
}

static int ring_wait(Ring *ring)
{
    struct pollfd fds[] = {
        { .fd = ring->vector, .events = POLLIN },
        { .fd = ivshmem_peer_fd(ring->peer), .events = POLLIN },
    };
    int ret = -EAGAIN;

    while (ret == -EAGAIN) {
        if (poll(fds, 2, RING_PATIENCE_MS) == 0) {
            return IVSHMEM_E_TIMEOUT;
        }
        if (fds[1].revents) {
            ret = ring_read_events(ring);
            if (ret < 0) {
                return ret;
            }
        }
        ret = ivshmem_io_drain(ring->vector, NULL);
    }
    return ret;
}

static int ring_ask(Ring *ring, uint64_t round)
{
    int ret;

    atomic_store(&ring_slot(ring)->question, round);
    ret = ivshmem_peer_ring(ring->peer, ring->id ^ 1, 0);
    if (ret == 0) {
        ret = ring_wait(ring);
    }
    if (ret == 0 && atomic_load(&ring_slot(ring)->answer) != round) {
        ret = -EBADMSG;
    }
    return ret;
}

static int ring_answer(Ring *ring, uint64_t round)
{
    int ret = ring_wait(ring);

    if (ret == 0 && atomic_load(&ring_slot(ring)->question) != round) {
        ret = -EBADMSG;
    }
    if (ret == 0) {
        atomic_store(&ring_slot(ring)->answer, round);
        ret = ivshmem_peer_ring(ring->peer, ring->id ^ 1, 0);
    }
    return ret;
}

static int ring_connect(Ring *ring, const char *path)
{
    void *address;
    uint64_t size;
    int ret = ivshmem_peer_connect(path, &ring->peer);

    if (ret == 0) {
        ret = ivshmem_peer_wait_ready(ring->peer, RING_PATIENCE_MS);
    }
    if (ret == 0) {
        ret = ivshmem_peer_map(ring->peer, true, &address, &size);
    }
    if (ret < 0) {
        return ret;
    }
    ring->slots = address;
    ring->id = (uint16_t)ivshmem_peer_id(ring->peer);
    if ((ring->id / 2 + 1) * sizeof(RingSlot) > size) {
        return -ENOSPC;
    }
    ring->vector = ivshmem_peer_take_vector(ring->peer, 0);
    return ring->vector < 0 ? ring->vector : 0;
}

static int ring_await_partner(Ring *ring)
{
    IvshmemPeerEvent event;
    int ret = 0;

    while (ret >= 0 && ivshmem_peer_vectors_of(ring->peer, ring->id ^ 1) == 0) {
        ret = ivshmem_peer_wait(ring->peer, RING_PATIENCE_MS, &event);
    }
    return ret < 0 ? ret : 0;
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    Ring ring = { .vector = -1 };
    uint64_t round = 0;
    int ret;

    if (rounds == 0) {
        fprintf(stderr, "usage: server-ring SOCKET ROUNDS\n");
        return EXIT_FAILURE;
    }
    ret = ring_connect(&ring, argv[1]);
    if (ret == 0) {
        printf("ready %u\n", ring.id);
        fflush(stdout);
        ret = getchar() == EOF ? -ECANCELED : ring_await_partner(&ring);
    }
    while (ret == 0 && round < rounds) {
        round++;
        ret = ring.id & 1 ? ring_answer(&ring, round) : ring_ask(&ring, round);
    }
    if (ret < 0) {
        fprintf(stderr, "server-ring: client %u, round %" PRIu64 ": %s\n",
                ring.id, round, ivshmem_strerror(ret));
    } else {
        printf("done %" PRIu64 "\n", round);
    }
    ivshmem_peer_free(ring.peer);
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
