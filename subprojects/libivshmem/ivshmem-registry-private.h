/*
 * The registry from inside, for its two source files.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_REGISTRY_PRIVATE_H
#define IVSHMEM_REGISTRY_PRIVATE_H

#include <glib.h>
#include "ivshmem-registry.h"

/* Frames that every newcomer gets first: version, id, shared memory. */
#define REGISTRY_PREAMBLE 3

typedef struct RegistryEntry {
    GList link;
    uint64_t seq;
    uint16_t id;
    unsigned vectors;           /* join: > 0; departure: 0 */
    int *fds;                   /* join: eventfds, one per vector */
    size_t pending;             /* departure: members still to be told */
    uint64_t *skip;             /* departure: slots that never knew the peer */
} RegistryEntry;

struct IvshmemMember {
    GList link;
    RegistryEntry *join;
    unsigned slot;
    int shm_fd;
    void *opaque;
    /* Where this member is in its reading. */
    unsigned preamble;          /* frames of the preamble sent */
    RegistryEntry *cursor;      /* next entry; NULL: has read everything */
    unsigned vector;            /* next vector of a join */
    uint64_t queued;
    uint64_t backlog;
};

struct IvshmemRegistry {
    GQueue members;             /* in the order of joining */
    GQueue log;
    GHashTable *by_id;
    GHashTable *reserved;
    GArray *freed;              /* of uint16_t: ids, longest unused first */
    unsigned freed_head;        /* where that is; what is before is used */
    unsigned next_fresh;        /* ids from here on were never handed out */
    uint16_t first_id;
    uint64_t next_seq;
    uint64_t vectors;           /* of all members */
    GArray *free_slots;
    unsigned slots;
    GArray *reaped;             /* descriptors on their way out */
};

RegistryEntry *ivshmem_registry_log_append(IvshmemRegistry *registry,
                                           uint16_t id);

/* The member with @slot never knew the peer whose departure @entry is. */
void ivshmem_registry_skip(RegistryEntry *entry,
                           const IvshmemRegistry *registry, unsigned slot);

/* Joins are for everybody, departures for those who know whom it is about. */
bool ivshmem_registry_concerns(const RegistryEntry *entry,
                               const IvshmemMember *member);

unsigned ivshmem_registry_slot_take(IvshmemRegistry *registry);

#endif /* IVSHMEM_REGISTRY_PRIVATE_H */
