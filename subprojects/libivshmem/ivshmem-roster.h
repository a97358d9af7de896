/*
 * Who can be rung: the other peers' eventfds by id and vector.
 *
 * Private to ivshmem-peer.c: not installed, and not locked.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_ROSTER_H
#define IVSHMEM_ROSTER_H

#include <glib.h>
#include "ivshmem-framer.h"

/* id -> IvshmemRosterEntry */
typedef GHashTable IvshmemRoster;

typedef enum IvshmemRosterChange {
    IVSHMEM_ROSTER_NEW_PEER,
    IVSHMEM_ROSTER_NEW_VECTOR,
    IVSHMEM_ROSTER_REPLACED,    /* an eventfd known from a former connection */
} IvshmemRosterChange;

IvshmemRoster *ivshmem_roster_new(void);

/* Closes all eventfds. */
void ivshmem_roster_free(IvshmemRoster *roster);

/* @vector is at most one more than those known of @id.  Consumes @fd. */
IvshmemRosterChange ivshmem_roster_set(IvshmemRoster *roster, uint16_t id,
                                       uint32_t vector, int fd);

/* Returns whether @id was known. */
bool ivshmem_roster_remove(IvshmemRoster *roster, uint16_t id);

/*
 * What is known now comes from a former connection: all of it is stale until
 * it is set again.
 */
void ivshmem_roster_age(IvshmemRoster *roster);

/* Forget the stale vectors of peers that have others. */
void ivshmem_roster_trim(IvshmemRoster *roster);

/* The lowest id above @after, of all or of those that are stale; or -1. */
int ivshmem_roster_next(IvshmemRoster *roster, int after, bool stale);

/* The eventfds of @id, by vector; NULL if it is unknown. */
const GArray *ivshmem_roster_get(IvshmemRoster *roster, uint16_t id);

/* Closes those from @n on.  For arrays of int fds in general. */
void ivshmem_fds_truncate(GArray *fds, unsigned n);

#endif /* IVSHMEM_ROSTER_H */
