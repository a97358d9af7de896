/*
 * The server's side of a connection, said frame by frame, for tests of the peer
 * API.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_TESTS_PEER_SCRIPT_H
#define IVSHMEM_TESTS_PEER_SCRIPT_H

#include "ivshmem-peer.h"

#define SCRIPT_SHM_SIZE 8192

/* Nothing in these tests takes that long unless it is broken. */
#define SCRIPT_MS 10000

/* A socket pair: a peer on one end, the return value is the other. */
int script_new(IvshmemPeer **peer);

/* Shared memory of SCRIPT_SHM_SIZE bytes. */
int script_memory(void);

int script_eventfd(void);

/* Send a frame; @fd is borrowed. */
void script_send(int sock, int64_t value, int fd);

/*
 * Send the first @len bytes of a frame, with @fd: more than the library's
 * sender would do.
 */
void script_send_part(int sock, int64_t value, int fd, size_t len);

/* Send a frame, and close @fd. */
void script_give(int sock, int64_t value, int fd);

/* @vectors frames for @id, with eventfds that are stored in @fds, or closed. */
void script_vectors(int sock, int id, unsigned vectors, int *fds);

/* Version, @id and @shm, which is borrowed. */
void script_greet(int sock, int id, int shm);

/* All of it: greeting, peers 5 and 9, and our own @id, 2 vectors each. */
void script_handshake(int sock, int id, int shm);

/* Takes the next event, which must be of this kind. */
IvshmemPeerEvent script_expect(IvshmemPeer *peer, IvshmemPeerEventType type);
void script_expect_vector(IvshmemPeer *peer, int id, unsigned vector);
void script_expect_peer(IvshmemPeer *peer, IvshmemPeerEventType type, int id);
void script_expect_rung(IvshmemPeer *peer, unsigned vector, unsigned count);
void script_expect_closed(IvshmemPeer *peer, int error);
void script_expect_none(IvshmemPeer *peer);

/* Takes all events up to READY. */
void script_expect_ready(IvshmemPeer *peer, int id);

#endif /* IVSHMEM_TESTS_PEER_SCRIPT_H */
