/*
 * The other peers' eventfds by id and vector.
 *
 * Not responsible for ringing them, nor for telling anybody what has changed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "ivshmem-fd.h"
#include "ivshmem-roster.h"

typedef struct IvshmemRosterEntry {
    GArray *fds;                /* of int, by vector */
    unsigned fresh;             /* vectors that are not stale */
} IvshmemRosterEntry;

void ivshmem_fds_truncate(GArray *fds, unsigned n)
{
    for (unsigned i = n; i < fds->len; i++) {
        ivshmem_fd_close(&g_array_index(fds, int, i));
    }
    g_array_set_size(fds, n);
}

static void roster_entry_free(void *opaque)
{
    IvshmemRosterEntry *entry = opaque;

    ivshmem_fds_truncate(entry->fds, 0);
    g_array_unref(entry->fds);
    g_free(entry);
}

IvshmemRoster *ivshmem_roster_new(void)
{
    return g_hash_table_new_full(NULL, NULL, NULL, roster_entry_free);
}

void ivshmem_roster_free(IvshmemRoster *roster)
{
    g_hash_table_unref(roster);
}

static IvshmemRosterEntry *roster_entry(IvshmemRoster *roster, int id)
{
    return g_hash_table_lookup(roster, GINT_TO_POINTER(id));
}

IvshmemRosterChange ivshmem_roster_set(IvshmemRoster *roster, uint16_t id,
                                       uint32_t vector, int fd)
{
    IvshmemRosterEntry *entry = roster_entry(roster, id);
    IvshmemRosterChange change = IVSHMEM_ROSTER_NEW_VECTOR;

    if (!entry) {
        entry = g_new0(IvshmemRosterEntry, 1);
        entry->fds = g_array_new(FALSE, FALSE, sizeof(int));
        g_hash_table_insert(roster, GINT_TO_POINTER(id), entry);
        change = IVSHMEM_ROSTER_NEW_PEER;
    }
    if (vector < entry->fds->len) {
        int *old = &g_array_index(entry->fds, int, vector);

        ivshmem_fd_close(old);
        *old = fd;
        change = IVSHMEM_ROSTER_REPLACED;
    } else {
        g_array_append_val(entry->fds, fd);
    }
    entry->fresh = vector + 1;
    return change;
}

bool ivshmem_roster_remove(IvshmemRoster *roster, uint16_t id)
{
    return g_hash_table_remove(roster, GINT_TO_POINTER(id));
}

void ivshmem_roster_age(IvshmemRoster *roster)
{
    GHashTableIter iter;
    void *entry;

    g_hash_table_iter_init(&iter, roster);
    while (g_hash_table_iter_next(&iter, NULL, &entry)) {
        ((IvshmemRosterEntry *)entry)->fresh = 0;
    }
}

void ivshmem_roster_trim(IvshmemRoster *roster)
{
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, roster);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        IvshmemRosterEntry *entry = value;

        if (entry->fresh) {
            ivshmem_fds_truncate(entry->fds, entry->fresh);
        }
    }
}

/* Looks up every id: a round through all of them takes about 1 ms. */
int ivshmem_roster_next(IvshmemRoster *roster, int after, bool stale)
{
    for (int id = MAX(after, -1) + 1; id <= IVSHMEM_ID_MAX; id++) {
        IvshmemRosterEntry *entry = roster_entry(roster, id);

        if (entry && (!stale || !entry->fresh)) {
            return id;
        }
    }
    return -1;
}

const GArray *ivshmem_roster_get(IvshmemRoster *roster, uint16_t id)
{
    IvshmemRosterEntry *entry = roster_entry(roster, id);

    return entry ? entry->fds : NULL;
}
