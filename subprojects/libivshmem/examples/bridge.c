/*
 * Example: a two-way pipe through the shared memory.
 *
 *   bridge SOCKET      on both sides: stdin here is stdout there
 *
 * Two rings of bytes, one each way.  Who fills one rings when there is
 * something to read, who drains it rings when there is room again; end of
 * input travels along.  Shows ivshmem_peer_fd() in a poll() loop, and waiting
 * for another peer to join.
 *
 * Not responsible for more than two peers: the first other one is the partner.
 * The memory must be zero, as a new server has it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include "ivshmem-peer.h"

#define BRIDGE_CONNECT_MS 5000

typedef struct Ring {
    uint64_t written, read;     /* bytes ever: one side owns each */
    uint64_t closed;            /* no more will be written */
    char bytes[];
} Ring;

typedef struct Bridge {
    IvshmemPeer *peer;
    uint16_t partner;
    Ring *out, *in;
    uint64_t room;              /* bytes in each ring */
    bool gone;                  /* the partner has left */
} Bridge;

static int bridge_fail(const char *what, int error)
{
    fprintf(stderr, "bridge: %s: %s\n", what, ivshmem_strerror(error));
    return 1;
}

static uint64_t bridge_load(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_ACQUIRE);
}

static void bridge_store(Bridge *bridge, uint64_t *to, uint64_t value)
{
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
    ivshmem_peer_ring(bridge->peer, bridge->partner, 0);
}

/* The partner may write anywhere: no number is taken as it is. */
static uint64_t bridge_used(const Bridge *bridge, const Ring *ring)
{
    uint64_t used = bridge_load(&ring->written) - bridge_load(&ring->read);

    return used > bridge->room ? bridge->room : used;
}

/* stdin to the ring; 0, or -1 at the end of input */
static int bridge_fill(Bridge *bridge)
{
    Ring *ring = bridge->out;
    uint64_t at = ring->written % bridge->room;
    uint64_t n = bridge->room - bridge_used(bridge, ring);
    ssize_t got;

    n = n > bridge->room - at ? bridge->room - at : n;
    got = read(STDIN_FILENO, ring->bytes + at, n);
    if (got <= 0) {
        bridge_store(bridge, &ring->closed, 1);
        return -1;
    }
    bridge_store(bridge, &ring->written, ring->written + (uint64_t)got);
    return 0;
}

/* The ring to stdout; 0, or -1 when stdout takes no more. */
static int bridge_drain(Bridge *bridge)
{
    Ring *ring = bridge->in;
    uint64_t n;

    while ((n = bridge_used(bridge, ring))) {
        uint64_t at = ring->read % bridge->room;
        ssize_t put;

        n = n > bridge->room - at ? bridge->room - at : n;
        put = write(STDOUT_FILENO, ring->bytes + at, n);
        if (put < 0 && errno != EINTR) {
            return bridge_fail("stdout", -errno);
        }
        if (put > 0) {
            bridge_store(bridge, &ring->read, ring->read + (uint64_t)put);
        }
    }
    return 0;
}

static int bridge_events(Bridge *bridge)
{
    IvshmemPeerEvent event;
    int ret;

    while ((ret = ivshmem_peer_next(bridge->peer, &event)) == 1) {
        if (event.type == IVSHMEM_PEER_CLOSED) {
            return bridge_fail("the server is gone", event.error);
        }
        bridge->gone |= event.type == IVSHMEM_PEER_LEFT &&
                        event.id == bridge->partner;
    }
    return ret < 0 ? bridge_fail("cannot take events", ret) : 0;
}

static int bridge_run(Bridge *bridge)
{
    bool input = true;

    for (;;) {
        bool room = bridge_used(bridge, bridge->out) < bridge->room;
        struct pollfd fds[] = {
            { .fd = ivshmem_peer_fd(bridge->peer), .events = POLLIN },
            { .fd = input && room ? STDIN_FILENO : -1, .events = POLLIN },
        };

        /* First the mark of the end, then the last bytes before it. */
        bool closed = bridge_load(&bridge->in->closed) || bridge->gone;

        if (bridge_drain(bridge)) {
            return 1;
        }
        if (closed && (bridge->gone || (!input &&
                       !bridge_used(bridge, bridge->out)))) {
            return !bridge_load(&bridge->in->closed) ||
                   bridge_used(bridge, bridge->out);
        }
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            return bridge_fail("poll", -errno);
        }
        if (bridge_events(bridge)) {
            return 1;
        }
        if (fds[1].revents && bridge_fill(bridge)) {
            input = false;
        }
    }
}

/* The first other peer; the one with the lower id has the first ring. */
static int bridge_meet(Bridge *bridge)
{
    Ring *rings[2];
    uint64_t size;
    void *address;
    int id, own, ret = ivshmem_peer_map(bridge->peer, true, &address, &size);

    if (ret == 0 && size / 2 <= sizeof(Ring)) {
        ret = -ENOSPC;
    }
    if (ret < 0) {
        return ret;
    }
    while ((id = ivshmem_peer_next_id(bridge->peer, -1)) < 0) {
        IvshmemPeerEvent event;

        ret = ivshmem_peer_wait(bridge->peer, -1, &event);
        if (ret < 0 && ret != -EINTR) {
            return ret;
        }
        if (ret == 1 && event.type == IVSHMEM_PEER_CLOSED) {
            return event.error;
        }
    }
    own = ivshmem_peer_id(bridge->peer);
    bridge->partner = (uint16_t)id;
    bridge->room = size / 2 - sizeof(Ring);
    rings[0] = address;
    rings[1] = (Ring *)((char *)address + size / 2);
    bridge->out = rings[own > id];
    bridge->in = rings[own < id];
    return 0;
}

int main(int argc, char **argv)
{
    Bridge bridge = { NULL };
    int ret, status;

    if (argc != 2) {
        fprintf(stderr, "usage: bridge SOCKET\n");
        return 2;
    }
    ret = ivshmem_peer_connect(argv[1], &bridge.peer);
    if (ret == 0) {
        ret = ivshmem_peer_wait_ready(bridge.peer, BRIDGE_CONNECT_MS);
    }
    if (ret == 0) {
        ret = bridge_meet(&bridge);
    }
    status = ret < 0 ? bridge_fail(argv[1], ret) : bridge_run(&bridge);
    ivshmem_peer_free(bridge.peer);
    return status;
}
