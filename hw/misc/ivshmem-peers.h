/*
 * ivshmem: the peers a guest may ring.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_PEERS_H
#define HW_MISC_IVSHMEM_PEERS_H

#include "exec/memory.h"

typedef struct IvshmemPeers IvshmemPeers;
typedef void IvshmemPeersVisitor(uint16_t id, unsigned vectors, void *opaque);

/* Ten times what a reconnecting chardev commonly waits between attempts. */
#define IVSHMEM_PEERS_LINGER_MS 30000

/*
 * @doorbell: the region with the Doorbell register, if KVM is to take the
 * guest's writes to it (ioeventfd); NULL: ivshmem_peers_ring() takes them all.
 */
IvshmemPeers *ivshmem_peers_new(MemoryRegion *doorbell);

/* Forget all peers and close their descriptors.  NULL is fine. */
void ivshmem_peers_free(IvshmemPeers *peers);

/*
 * @fd rings @vector of peer @id from now on; it belongs to @peers.  A vector
 * announced again (after a reconnection) replaces the one before.  Returns
 * whether the peer was not listed before.
 */
bool ivshmem_peers_set_vector(IvshmemPeers *peers, uint16_t id,
                              uint32_t vector, int fd);

/* Peer @id has left.  False if it was not known, which is legal. */
bool ivshmem_peers_leave(IvshmemPeers *peers, uint16_t id);

/*
 * A new connection begins to list the peers; it has listed them all.  Those it
 * did not list are no longer shown, but can be rung for another
 * IVSHMEM_PEERS_LINGER_MS: they may be living peers that have yet to find
 * their way back to the server.  One that does keeps its former vectors for
 * that time, until each is announced again.
 */
void ivshmem_peers_list_begin(IvshmemPeers *peers);
void ivshmem_peers_list_end(IvshmemPeers *peers, IvshmemPeersVisitor *unlisted,
                            void *opaque);

/*
 * Ring.  Returns false for an unknown peer or vector.  Needs no lock; may be
 * called from any thread.
 */
bool ivshmem_peers_ring(IvshmemPeers *peers, uint16_t id, uint16_t vector);

/* Calls @visit for all peers that are listed, in the order of joining. */
void ivshmem_peers_foreach(IvshmemPeers *peers, IvshmemPeersVisitor *visit,
                           void *opaque);

#endif /* HW_MISC_IVSHMEM_PEERS_H */
