/*
 * ivshmem: the connection to the server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_LINK_H
#define HW_MISC_IVSHMEM_LINK_H

#include "chardev/char-fe.h"

typedef struct IvshmemLink IvshmemLink;

/*
 * What the server announces.  Descriptors belong to the callee, except for
 * @memory's when it returns false.
 */
typedef struct IvshmemLinkOps {
    /* A connection begins; it has listed all peers; it is gone. */
    void (*begin)(void *opaque);
    void (*listed)(void *opaque);
    void (*down)(void *opaque);

    void (*self_id)(void *opaque, uint16_t id);
    bool (*memory)(void *opaque, int fd, Error **errp);
    void (*self_vector)(void *opaque, uint32_t vector, int fd);
    void (*peer_vector)(void *opaque, uint16_t id, uint32_t vector, int fd);
    void (*peer_gone)(void *opaque, uint16_t id);
} IvshmemLinkOps;

/*
 * Take the handshake up to and including the shared memory from @chr, waiting
 * for at most @timeout_ms; @unlocked: without the big lock, so that vCPUs run
 * meanwhile.  What follows is announced from the main loop.
 * @name is for messages, @max_vectors per peer.  NULL and @errp on error; then
 * @chr has been disconnected, unless it could not be used at all.
 */
IvshmemLink *ivshmem_link_new(CharBackend *chr, const char *name,
                              unsigned max_vectors, uint32_t timeout_ms,
                              bool unlocked, const IvshmemLinkOps *ops,
                              void *opaque, Error **errp);

/* Disconnect; nothing is announced any more.  NULL is fine. */
void ivshmem_link_free(IvshmemLink *link);

/* Whether there is a server that has listed all peers, or is about to. */
bool ivshmem_link_connected(const IvshmemLink *link);

#endif /* HW_MISC_IVSHMEM_LINK_H */
