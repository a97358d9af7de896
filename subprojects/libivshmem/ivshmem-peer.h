/*
 * Public API for host programs that are peers themselves: connect to an
 * ivshmem server, map the memory, ring and be rung.
 *
 * One IvshmemPeer is one connection; there is no global state, and a process
 * may have any number of them.  What goes on below is in "Client-server
 * protocol" and "Reconnection" of docs/specs/ivshmem-spec.rst; logger.c and
 * bridge.c in the examples are whole programs.
 *
 * Threads: different peers are independent.  Calls for one peer must not
 * overlap, except ivshmem_peer_ring(), which any thread may call at any time
 * before ivshmem_peer_free().
 *
 * Functions that return int return >= 0, or a negative -errno or IVSHMEM_E_*,
 * which ivshmem_strerror() explains.  Without memory of its own, a process ends
 * (GLib).
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
    IVSHMEM_PEER_NONE,      /* nothing at the moment */
    IVSHMEM_PEER_READY,     /* id: connected, and told of all peers so far */
    IVSHMEM_PEER_JOINED,    /* id: a peer with one vector as yet */
    IVSHMEM_PEER_VECTOR,    /* id, vector: one more, of a peer or our own */
    IVSHMEM_PEER_LEFT,      /* id */
    IVSHMEM_PEER_RUNG,      /* vector of ours, count */
    IVSHMEM_PEER_CLOSED,    /* error: the connection to the server has ended */
} IvshmemPeerEventType;

typedef struct IvshmemPeerEvent {
    IvshmemPeerEventType type;
    uint16_t id;
    uint32_t vector;
    uint64_t count;         /* rings merged into this event, >= 1 */
    int error;
    uint64_t reserved[2];   /* 0; room to grow without a new ABI */
} IvshmemPeerEvent;

/*
 * Connect to the server at @path.  Returns 0 and in @peer a peer to be freed
 * with ivshmem_peer_free().  -ENOENT and -ECONNREFUSED: there is no server;
 * -EACCES: its socket is not for this user.  Waits for nothing: -EAGAIN means
 * that too many others are waiting to be accepted, and the handshake is
 * ivshmem_peer_wait_ready()'s part.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_connect(const char *path, IvshmemPeer **peer);

/*
 * The same on a connected unix stream socket, for instance an inherited one.
 * Returns 0, and @peer owns @sock; or an error (-EPROTOTYPE when it is another
 * kind of socket), and @sock is still the caller's.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_attach(int sock, IvshmemPeer **peer);

/*
 * After CLOSED, connect again to the same path.  Until the next READY, and for
 * as long as it does not come, memory, peers and vectors known stay usable.
 * The new connection must bring the same memory, or it is closed with
 * IVSHMEM_E_SHM_CHANGED.  At READY the id may have changed; peers that were not
 * announced again have LEFT, those that stayed have no event.  Our former
 * vectors are listened to until a READY after it, so that no ring of a peer
 * that is slower to reconnect is lost.
 *
 * Does not wait and does not repeat: pauses between attempts are the caller's.
 * -EISCONN while connected, -EDESTADDRREQ after ivshmem_peer_attach().
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_reconnect(IvshmemPeer *peer);

/* Disconnect, unmap, close everything.  NULL is fine. */
void ivshmem_peer_free(IvshmemPeer *peer);

/*
 * One fd, readable whenever ivshmem_peer_next() may have something.  Borrowed,
 * and the same for the life of @peer.
 */
int ivshmem_peer_fd(const IvshmemPeer *peer);

/*
 * Take the next event without waiting.  Returns 1 with an event, 0 with type
 * NONE, or an error.  After CLOSED, living peers still ring.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_next(IvshmemPeer *peer, IvshmemPeerEvent *event);

/*
 * The same, waiting up to @timeout_ms milliseconds (-1: for ever).  Returns 1,
 * IVSHMEM_E_TIMEOUT, -EINTR after a signal (on Linux SIGCONT is one, even
 * without a handler), or an error.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_wait(IvshmemPeer *peer, int timeout_ms,
                      IvshmemPeerEvent *event);

/*
 * Wait up to @timeout_ms milliseconds (-1: for ever) until connected and told
 * of all peers.  Takes no event: READY and those before it are still to come
 * from ivshmem_peer_next().  What has arrived when the time is over counts.
 * Returns 0, IVSHMEM_E_TIMEOUT, -EINTR, or why it will not happen.
 *
 * The protocol has no mark for the end of the handshake.  Servers announce our
 * own vectors last, so the first of them, with the memory, is taken for it;
 * the others of our own may be yet to come (VECTOR).
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_wait_ready(IvshmemPeer *peer, int timeout_ms);

/* Whether there is a connection to the server, be it READY or not yet. */
bool ivshmem_peer_connected(const IvshmemPeer *peer);

/* Our id, or -1 before it and the memory have arrived. */
int ivshmem_peer_id(const IvshmemPeer *peer);

/* Our own vectors so far. */
unsigned ivshmem_peer_vectors(const IvshmemPeer *peer);

/* The size of the shared memory in bytes; 0 before it has arrived. */
uint64_t ivshmem_peer_size(const IvshmemPeer *peer);

/*
 * The fd of the shared memory, or -1 before it has arrived.  Borrowed: valid
 * until it comes again, after ivshmem_peer_reconnect().
 */
int ivshmem_peer_shm_fd(const IvshmemPeer *peer);

/*
 * Map the shared memory, all of it.  Returns 0 and its address and size in
 * bytes (either pointer may be NULL), valid until ivshmem_peer_free(); later
 * calls give the same address.  IVSHMEM_E_NO_SHM before it has arrived,
 * -EACCES when writing is asked for and the server allows reading only,
 * -EINVAL for memory of size 0.
 *
 * Unless the server has sealed it, another peer can shrink the memory, and
 * access then raises SIGBUS.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_map(IvshmemPeer *peer, bool writable, void **address,
                     uint64_t *size);

/*
 * Ring @vector of peer @id, which may be ourselves.  0, IVSHMEM_E_NO_PEER, or
 * -errno.  Any thread.
 */
int ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector);

/*
 * Number of vectors of peer @id (0: not connected), which may be ourselves.
 */
unsigned ivshmem_peer_vectors_of(const IvshmemPeer *peer, uint16_t id);

/*
 * The lowest id above @after of a connected peer other than ourselves, or -1.
 * Starts with @after = -1.
 */
int ivshmem_peer_next_id(const IvshmemPeer *peer, int after);

/*
 * Take our own @vector out of ivshmem_peer_fd() and RUNG, to put its eventfd
 * into an event loop of one's own.  Returns the eventfd, or IVSHMEM_E_NO_PEER.
 * Borrowed: valid until, after ivshmem_peer_reconnect(), a VECTOR event
 * announces its successor.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_take_vector(IvshmemPeer *peer, uint32_t vector);

/*
 * The eventfd that rings @vector of peer @id, or IVSHMEM_E_NO_PEER.  Borrowed:
 * valid until the next ivshmem_peer_next(), _wait() or _wait_ready().  To ring
 * is to write the 8-byte number 1 to it.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_peer_ring_fd(const IvshmemPeer *peer, uint16_t id,
                         uint32_t vector);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_PEER_H */
