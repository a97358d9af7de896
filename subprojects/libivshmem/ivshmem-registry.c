/*
 * Server side of the protocol: ids, connected peers, and the log of joins and
 * leaves that each of them reads at its own pace.
 *
 * Not responsible for sockets, for making or closing descriptors, or for how
 * far a peer may fall behind: its owner sees ivshmem_member_backlog().
 *
 * A peer's join stands in the log as long as it is connected.  When it leaves,
 * its join is taken out at once, and the departure is logged only for those
 * who have been told at least one of its vectors.  So a reader that does not
 * read holds no descriptor of anybody, and the log is never longer than twice
 * the number of peers that somebody knows.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>
#include <string.h>
#include "ivshmem-registry-private.h"

IvshmemRegistry *ivshmem_registry_new(uint16_t first_id)
{
    IvshmemRegistry *registry = g_new0(IvshmemRegistry, 1);

    g_queue_init(&registry->members);
    g_queue_init(&registry->log);
    registry->freed = g_array_new(FALSE, FALSE, sizeof(uint16_t));
    registry->by_id = g_hash_table_new(NULL, NULL);
    registry->reserved = g_hash_table_new(NULL, NULL);
    registry->first_id = first_id;
    registry->next_fresh = first_id;
    registry->free_slots = g_array_new(FALSE, FALSE, sizeof(unsigned));
    registry->reaped = g_array_new(FALSE, FALSE, sizeof(int));
    return registry;
}

void ivshmem_registry_free(IvshmemRegistry *registry)
{
    if (!registry) {
        return;
    }
    g_array_unref(registry->freed);
    g_hash_table_unref(registry->by_id);
    g_hash_table_unref(registry->reserved);
    g_array_unref(registry->free_slots);
    g_array_unref(registry->reaped);
    g_free(registry);
}

/* Ids */

static bool id_is_used(const IvshmemRegistry *registry, unsigned id)
{
    return g_hash_table_contains(registry->by_id, GUINT_TO_POINTER(id));
}

static bool id_is_reserved(const IvshmemRegistry *registry, unsigned id)
{
    return g_hash_table_contains(registry->reserved, GUINT_TO_POINTER(id));
}

/* The ids before the head have been used again; half of the array at most. */
static void id_freed_trim(IvshmemRegistry *registry)
{
    if (registry->freed_head * 2 > registry->freed->len) {
        g_array_remove_range(registry->freed, 0, registry->freed_head);
        registry->freed_head = 0;
    }
}

static void id_freed_remove(IvshmemRegistry *registry, unsigned id)
{
    for (unsigned i = registry->freed_head; i < registry->freed->len; i++) {
        if (g_array_index(registry->freed, uint16_t, i) == id) {
            g_array_remove_index(registry->freed, i);
            id_freed_trim(registry);
            return;
        }
    }
}

static int id_freed_pop(IvshmemRegistry *registry)
{
    int id;

    if (registry->freed_head == registry->freed->len) {
        return IVSHMEM_E_FULL;
    }
    id = g_array_index(registry->freed, uint16_t, registry->freed_head++);
    id_freed_trim(registry);
    return id;
}

/* Never handed out ids first, then the one that has been unused longest. */
static int id_choose(IvshmemRegistry *registry)
{
    while (registry->next_fresh <= IVSHMEM_ID_MAX) {
        unsigned id = registry->next_fresh++;

        if (!id_is_used(registry, id) && !id_is_reserved(registry, id)) {
            return (int)id;
        }
    }
    return id_freed_pop(registry);
}

static void id_release(IvshmemRegistry *registry, unsigned id)
{
    if (id >= registry->first_id && id < registry->next_fresh &&
        !id_is_reserved(registry, id)) {
        uint16_t freed = (uint16_t)id;

        g_array_append_val(registry->freed, freed);
    }
}

static int id_take(IvshmemRegistry *registry, const IvshmemJoin *join)
{
    unsigned id = (unsigned)join->id;

    if (join->id == IVSHMEM_ID_ANY) {
        return id_choose(registry);
    }
    if (join->id < 0 || join->id > IVSHMEM_ID_MAX) {
        return IVSHMEM_E_RANGE;
    }
    if (id_is_used(registry, id) ||
        (id_is_reserved(registry, id) && !join->reserved_ok)) {
        return IVSHMEM_E_ID_TAKEN;
    }
    id_freed_remove(registry, id);
    return join->id;
}

void ivshmem_registry_reserve(IvshmemRegistry *registry, uint16_t id,
                              bool reserved)
{
    if (id_is_reserved(registry, id) == reserved) {
        return;
    }
    if (reserved) {
        g_hash_table_add(registry->reserved, GUINT_TO_POINTER(id));
        id_freed_remove(registry, id);
        return;
    }
    g_hash_table_remove(registry->reserved, GUINT_TO_POINTER(id));
    if (!id_is_used(registry, id)) {
        id_release(registry, id);
    }
}

/* The log */

RegistryEntry *ivshmem_registry_log_append(IvshmemRegistry *registry,
                                           uint16_t id)
{
    RegistryEntry *entry = g_new0(RegistryEntry, 1);

    entry->link.data = entry;
    entry->seq = registry->next_seq++;
    entry->id = id;
    g_queue_push_tail_link(&registry->log, &entry->link);
    return entry;
}

static void log_remove(IvshmemRegistry *registry, RegistryEntry *entry)
{
    g_queue_unlink(&registry->log, &entry->link);
    if (entry->fds) {
        g_array_append_vals(registry->reaped, entry->fds, entry->vectors);
    }
    g_free(entry->fds);
    g_free(entry->skip);
    g_free(entry);
}

void ivshmem_registry_skip(RegistryEntry *entry,
                           const IvshmemRegistry *registry, unsigned slot)
{
    if (!entry->skip) {
        entry->skip = g_new0(uint64_t, registry->slots / 64 + 1);
    }
    entry->skip[slot / 64] |= UINT64_C(1) << (slot % 64);
}

bool ivshmem_registry_concerns(const RegistryEntry *entry,
                               const IvshmemMember *member)
{
    unsigned slot = member->slot;

    if (entry->vectors) {
        return true;
    }
    if (entry->seq < member->join->seq) {
        return false;           /* and its slot may have been another's */
    }
    return !entry->skip ||
           !(entry->skip[slot / 64] & UINT64_C(1) << (slot % 64));
}

static RegistryEntry *log_next(const RegistryEntry *entry,
                               const IvshmemMember *member)
{
    for (GList *l = entry->link.next; l; l = l->next) {
        if (ivshmem_registry_concerns(l->data, member)) {
            return l->data;
        }
    }
    return NULL;
}

static void departure_told(IvshmemRegistry *registry, RegistryEntry *entry)
{
    if (--entry->pending == 0) {
        log_remove(registry, entry);
    }
}

/* Reading */

static bool is_later_news(const IvshmemMember *member,
                          const RegistryEntry *entry)
{
    return entry->seq > member->join->seq;
}

static void member_unqueue(IvshmemMember *member, const RegistryEntry *entry,
                           unsigned frames)
{
    member->queued -= frames;
    if (is_later_news(member, entry)) {
        member->backlog -= frames;
    }
}

static void member_queue(IvshmemMember *member, RegistryEntry *entry,
                         unsigned frames)
{
    member->queued += frames;
    member->backlog += frames;
    if (!member->cursor) {
        member->cursor = entry;
        member->vector = 0;
    }
}

static void member_advance(IvshmemRegistry *registry, IvshmemMember *member)
{
    RegistryEntry *entry = member->cursor;

    member->cursor = log_next(entry, member);
    member->vector = 0;
    if (!entry->vectors) {
        departure_told(registry, entry);
    }
}

static IvshmemFrame preamble_frame(const IvshmemMember *member, unsigned n)
{
    switch (n) {
    case 0:
        return (IvshmemFrame) { IVSHMEM_PROTOCOL_VERSION, -1 };
    case 1:
        return (IvshmemFrame) { member->join->id, -1 };
    default:
        return (IvshmemFrame) { IVSHMEM_VALUE_SHM, member->shm_fd };
    }
}

size_t ivshmem_member_peek(const IvshmemMember *member, IvshmemFrame *frames,
                           size_t max)
{
    const RegistryEntry *entry = member->cursor;
    unsigned vector = member->vector;
    size_t n = 0;

    for (unsigned p = member->preamble; p < REGISTRY_PREAMBLE && n < max; p++) {
        frames[n++] = preamble_frame(member, p);
    }
    while (entry && n < max) {
        if (!entry->vectors) {
            frames[n++] = (IvshmemFrame) { entry->id, -1 };
        } else {
            frames[n++] = (IvshmemFrame) { entry->id, entry->fds[vector++] };
        }
        if (vector >= entry->vectors) {
            entry = log_next(entry, member);
            vector = 0;
        }
    }
    return n;
}

void ivshmem_member_sent(IvshmemRegistry *registry, IvshmemMember *member,
                         size_t n)
{
    while (n > 0 && member->preamble < REGISTRY_PREAMBLE) {
        member->preamble++;
        member->queued--;
        n--;
    }
    while (n > 0 && member->cursor) {
        const RegistryEntry *entry = member->cursor;
        unsigned left = entry->vectors ? entry->vectors - member->vector : 1;
        unsigned now = (unsigned)MIN(n, left);

        member_unqueue(member, entry, now);
        member->vector += now;
        n -= now;
        if (now == left) {
            member_advance(registry, member);
        }
    }
}

uint64_t ivshmem_member_queued(const IvshmemMember *member)
{
    return member->queued;
}

uint64_t ivshmem_member_backlog(const IvshmemMember *member)
{
    return member->backlog;
}

bool ivshmem_member_ready(const IvshmemMember *member)
{
    return member->preamble == REGISTRY_PREAMBLE &&
           (!member->cursor || is_later_news(member, member->cursor));
}

/* Joining and leaving */

unsigned ivshmem_registry_slot_take(IvshmemRegistry *registry)
{
    GArray *slots = registry->free_slots;
    unsigned slot;

    if (slots->len == 0) {
        return registry->slots++;
    }
    slot = g_array_index(slots, unsigned, slots->len - 1);
    g_array_set_size(slots, slots->len - 1);
    return slot;
}

int ivshmem_registry_join(IvshmemRegistry *registry, const IvshmemJoin *join,
                          IvshmemMember **member)
{
    IvshmemMember *m, *first;
    RegistryEntry *entry;
    int id;

    if (join->vectors < 1 || join->vectors > IVSHMEM_VECTORS_MAX) {
        return IVSHMEM_E_VECTORS;
    }
    id = id_take(registry, join);
    if (id < 0) {
        return id;
    }

    entry = ivshmem_registry_log_append(registry, (uint16_t)id);
    entry->vectors = join->vectors;
    entry->fds = g_new(int, join->vectors);
    memcpy(entry->fds, join->vector_fds, join->vectors * sizeof(int));
    for (GList *l = registry->members.head; l; l = l->next) {
        member_queue(l->data, entry, entry->vectors);
    }
    registry->vectors += entry->vectors;

    m = g_new0(IvshmemMember, 1);
    m->link.data = m;
    m->join = entry;
    m->slot = ivshmem_registry_slot_take(registry);
    m->shm_fd = join->shm_fd;
    m->opaque = join->opaque;
    m->queued = REGISTRY_PREAMBLE + registry->vectors;
    g_queue_push_tail_link(&registry->members, &m->link);
    first = registry->members.head->data;
    m->cursor = first->join;
    g_hash_table_insert(registry->by_id, GINT_TO_POINTER(id), m);
    *member = m;
    return 0;
}

/*
 * @member is about to lose @join, the join of a peer that leaves.  Returns
 * whether it must be told of the departure.
 */
static bool member_withdraw(IvshmemMember *member, RegistryEntry *join)
{
    bool reading = member->cursor == join;
    bool known = !member->cursor || member->cursor->seq > join->seq ||
                 (reading && member->vector > 0);

    if (reading) {
        member_unqueue(member, join, join->vectors - member->vector);
        member->cursor = log_next(join, member);
        member->vector = 0;
    } else if (!known) {
        member_unqueue(member, join, join->vectors);
    }
    return known;
}

static void log_departure(IvshmemRegistry *registry, RegistryEntry *join)
{
    RegistryEntry *entry = ivshmem_registry_log_append(registry, join->id);

    for (GList *l = registry->members.head; l; l = l->next) {
        IvshmemMember *member = l->data;

        if (member_withdraw(member, join)) {
            entry->pending++;
            member_queue(member, entry, 1);
        } else {
            ivshmem_registry_skip(entry, registry, member->slot);
            if (member->cursor == entry) {
                member->cursor = NULL;
            }
        }
    }
    if (!entry->pending) {
        log_remove(registry, entry);
    }
}

/* Departures that @member was still to be told are told no more. */
static void member_stop_reading(IvshmemRegistry *registry,
                                IvshmemMember *member)
{
    while (member->cursor) {
        member_advance(registry, member);
    }
}

void ivshmem_registry_leave(IvshmemRegistry *registry, IvshmemMember *member)
{
    RegistryEntry *join = member->join;

    member_stop_reading(registry, member);
    g_queue_unlink(&registry->members, &member->link);
    g_hash_table_remove(registry->by_id, GUINT_TO_POINTER(join->id));
    registry->vectors -= join->vectors;
    log_departure(registry, join);
    id_release(registry, join->id);
    log_remove(registry, join);
    g_array_append_val(registry->free_slots, member->slot);
    g_free(member);
}

int ivshmem_registry_reap(IvshmemRegistry *registry)
{
    GArray *reaped = registry->reaped;
    int fd;

    if (reaped->len == 0) {
        return -1;
    }
    fd = g_array_index(reaped, int, reaped->len - 1);
    g_array_set_size(reaped, reaped->len - 1);
    return fd;
}

/* Looking at members */

uint16_t ivshmem_member_id(const IvshmemMember *member)
{
    return member->join->id;
}

unsigned ivshmem_member_vectors(const IvshmemMember *member)
{
    return member->join->vectors;
}

void *ivshmem_member_opaque(const IvshmemMember *member)
{
    return member->opaque;
}

int ivshmem_member_vector_fd(const IvshmemMember *member, unsigned vector)
{
    return vector < member->join->vectors ? member->join->fds[vector] : -1;
}

size_t ivshmem_registry_members(const IvshmemRegistry *registry)
{
    return registry->members.length;
}

IvshmemMember *ivshmem_registry_find(const IvshmemRegistry *registry,
                                     uint16_t id)
{
    return g_hash_table_lookup(registry->by_id, GUINT_TO_POINTER(id));
}

IvshmemMember *ivshmem_registry_next(const IvshmemRegistry *registry,
                                     const IvshmemMember *member)
{
    GList *l = member ? member->link.next : registry->members.head;

    return l ? l->data : NULL;
}
