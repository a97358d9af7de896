/*
 * Public API for host programs that are peers themselves: connect to an
 * ivshmem server, map the memory, ring and be rung.
 *
 * One IvshmemPeer is one connection; there is no global state.  A peer may be
 * used from one thread at a time, except for ivshmem_peer_ring() on ids and
 * vectors returned by earlier events... see each function.
 *
 * Functions return >= 0, or a negative -errno or IVSHMEM_E_*, which
 * ivshmem_strerror() explains.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_PEER_H
#define IVSHMEM_PEER_H

#include <stdbool.h>
#include "ivshmem-framer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct IvshmemPeer IvshmemPeer;

typedef enum IvshmemPeerEventType {
    IVSHMEM_PEER_NONE,          /* nothing at the moment */
    IVSHMEM_PEER_READY,         /* id and memory known: may map and ring */
    IVSHMEM_PEER_JOINED,        /* id, vector = number of vectors so far */
    IVSHMEM_PEER_LEFT,          /* id */
    IVSHMEM_PEER_RUNG,          /* vector, count */
    IVSHMEM_PEER_CLOSED,        /* error: the server is gone */
} IvshmemPeerEventType;

typedef struct IvshmemPeerEvent {
    IvshmemPeerEventType type;
    uint16_t id;
    uint32_t vector;
    uint64_t count;             /* rings merged into this event, >= 1 */
    int error;
} IvshmemPeerEvent;

/*
 * Connect to the server at @path.  Returns 0 and a peer to be freed with
 * ivshmem_peer_free().  Does not wait for the server: that is
 * ivshmem_peer_wait_ready()'s part.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_connect(const char *path, IvshmemPeer **peer);

/* The same on a connected socket, which @peer owns afterwards; 0 or -errno,
 * and then @sock is still the caller's. */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_attach(int sock, IvshmemPeer **peer);

/* Disconnect, unmap, close everything.  NULL is fine. */
void ivshmem_peer_free(IvshmemPeer *peer);

/* One fd, readable whenever ivshmem_peer_next() has something.  Borrowed. */
int ivshmem_peer_fd(const IvshmemPeer *peer);

/*
 * Take the next event without waiting.  Returns 1 with an event, 0 with type
 * NONE when there is none, or an error.  After CLOSED the memory and the peers
 * known stay usable, but no more joins and leaves are learnt.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_next(IvshmemPeer *peer, IvshmemPeerEvent *event);

/*
 * The same, waiting up to @timeout_ms milliseconds (-1: for ever) for an
 * event.  Returns 1, IVSHMEM_E_TIMEOUT, or an error.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_wait(IvshmemPeer *peer, int timeout_ms,
                      IvshmemPeerEvent *event);

/*
 * Wait until READY, events up to then being taken.  Returns 0,
 * IVSHMEM_E_TIMEOUT, or why there will be none.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_wait_ready(IvshmemPeer *peer, int timeout_ms);

bool ivshmem_peer_connected(const IvshmemPeer *peer);

/* Our id, or IVSHMEM_E_NO_SHM before READY. */
int ivshmem_peer_id(const IvshmemPeer *peer);

/* Our own vectors so far. */
unsigned ivshmem_peer_vectors(const IvshmemPeer *peer);

/*
 * Map the shared memory once, all of it.  Returns 0 and its address and size
 * in bytes; valid until ivshmem_peer_free().  -EACCES when writing was asked
 * for and the server allows reading only.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_map(IvshmemPeer *peer, bool writable, void **address,
                     uint64_t *size);

/* Ring @vector of peer @id.  0, IVSHMEM_E_NO_PEER, or -errno. */
int ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector);

/*
 * Number of vectors of @id (0: not connected), and the next connected id after
 * @after in ascending order (start with -1), or -1 at the end.
 */
unsigned ivshmem_peer_vectors_of(const IvshmemPeer *peer, uint16_t id);
int ivshmem_peer_next_id(const IvshmemPeer *peer, int after);

/*
 * Borrowed: the eventfd of our own @vector, or of peer @id's, for a loop or a
 * hot path of one's own; -1 if there is none.
 */
int ivshmem_peer_vector_fd(const IvshmemPeer *peer, uint32_t vector);
int ivshmem_peer_ring_fd(const IvshmemPeer *peer, uint16_t id, uint32_t vector);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_PEER_H */
