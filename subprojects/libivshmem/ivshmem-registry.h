/*
 * Server side of the protocol: who is connected, under which id, and which
 * frames each peer has yet to be sent.
 *
 * All peers read one log of joins and leaves, each at its own pace, so that a
 * burst of N joins costs N log entries and not N * N queued frames.  A peer
 * that has just joined starts at the oldest join of a peer still connected:
 * the order of the specification (the others, itself, what comes later)
 * follows from the order of the log.
 *
 * A peer that leaves before a slow reader was told of it is never announced to
 * that reader, and one that leaves in the middle of its vectors is announced
 * no further: only its departure is.
 *
 * No system calls: descriptors are numbers here.  Those handed in with a peer
 * come out of ivshmem_registry_reap(), each exactly once, when it has left.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_REGISTRY_H
#define IVSHMEM_REGISTRY_H

#include "ivshmem-framer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct IvshmemRegistry IvshmemRegistry;
typedef struct IvshmemMember IvshmemMember;     /* a connected peer */

/* Let the registry choose an id. */
#define IVSHMEM_ID_ANY (-1)

/* @first_id: the lowest id that is handed out to those who ask for ANY. */
IvshmemRegistry *ivshmem_registry_new(uint16_t first_id);

/*
 * Frees @registry (NULL is fine).  All members must have left and all
 * descriptors must have been reaped.
 */
void ivshmem_registry_free(IvshmemRegistry *registry);

/*
 * Keep @id for those who ask for it by number, or give it back to all.
 * A member that has it keeps it.
 */
void ivshmem_registry_reserve(IvshmemRegistry *registry, uint16_t id,
                              bool reserved);

typedef struct IvshmemJoin {
    int id;                     /* 0..65535, or IVSHMEM_ID_ANY */
    bool reserved_ok;           /* may take a reserved @id */
    int shm_fd;                 /* borrowed: valid as long as the member */
    const int *vector_fds;      /* array of @vectors; the fds are consumed */
    unsigned vectors;           /* 1..IVSHMEM_VECTORS_MAX */
    void *opaque;               /* ivshmem_member_opaque() */
} IvshmemJoin;

/*
 * Add a peer and queue what everybody has to be told.  Returns 0, or
 * IVSHMEM_E_FULL, _ID_TAKEN, _RANGE, _VECTORS, and then the caller still owns
 * @join->vector_fds.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_registry_join(IvshmemRegistry *registry, const IvshmemJoin *join,
                          IvshmemMember **member);

/*
 * Remove a peer, queue its departure for those who know of it, and free
 * @member.  Its descriptors come out of ivshmem_registry_reap().
 */
void ivshmem_registry_leave(IvshmemRegistry *registry, IvshmemMember *member);

/* A descriptor that the caller owns from now on and should close, or -1. */
IVSHMEM_WARN_UNUSED
int ivshmem_registry_reap(IvshmemRegistry *registry);

/*
 * The next up to @max frames for @member, in order.  Returns how many.  Their
 * fds are borrowed, valid until the next call that changes the registry.
 */
size_t ivshmem_member_peek(const IvshmemMember *member, IvshmemFrame *frames,
                           size_t max);

/* The first @n of the frames peeked have been sent. */
void ivshmem_member_sent(IvshmemRegistry *registry, IvshmemMember *member,
                         size_t n);

/*
 * Frames not sent yet, and how many of them are about events after the
 * member's own join: the first is work, the second what a reader that keeps
 * up keeps near 0.
 */
uint64_t ivshmem_member_queued(const IvshmemMember *member);
uint64_t ivshmem_member_backlog(const IvshmemMember *member);

/* True once the member has been sent its own vectors: its handshake is over. */
bool ivshmem_member_ready(const IvshmemMember *member);

uint16_t ivshmem_member_id(const IvshmemMember *member);
unsigned ivshmem_member_vectors(const IvshmemMember *member);
void *ivshmem_member_opaque(const IvshmemMember *member);

/* Borrowed: the eventfd on which @member is rung; -1 if there is none. */
int ivshmem_member_vector_fd(const IvshmemMember *member, unsigned vector);

size_t ivshmem_registry_members(const IvshmemRegistry *registry);
IvshmemMember *ivshmem_registry_find(const IvshmemRegistry *registry,
                                     uint16_t id);

/* Members in the order in which they joined; NULL starts and ends. */
IvshmemMember *ivshmem_registry_next(const IvshmemRegistry *registry,
                                     const IvshmemMember *member);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_REGISTRY_H */
