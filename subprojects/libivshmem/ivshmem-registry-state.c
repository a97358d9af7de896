/*
 * Saving and restoring a registry.
 *
 * Not responsible for how the result, and the descriptors, get to the other
 * process.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include "ivshmem-registry-private.h"
#include "ivshmem-registry-state.h"

/*
 * next fresh id, log, free ids.  An entry of the log: id, descriptors (none: a
 * departure), ids of those still to be told of the departure; and for a join
 * the member's reading: frames of the preamble, entry (-1: none), vector.
 */
#define STATE_ENTRY "(qaiaquiu)"
#define STATE_TYPE "(ua" STATE_ENTRY "aq)"

/* Saving */

static GVariant *state_fds(const RegistryEntry *entry)
{
    return g_variant_new_fixed_array(G_VARIANT_TYPE_INT32, entry->fds,
                                     entry->fds ? entry->vectors : 0,
                                     sizeof(int32_t));
}

static GVariant *state_untold(const IvshmemRegistry *registry,
                              const RegistryEntry *entry)
{
    GVariantBuilder ids;

    g_variant_builder_init(&ids, G_VARIANT_TYPE("aq"));
    for (GList *l = registry->members.head; l && !entry->vectors; l = l->next) {
        const IvshmemMember *member = l->data;

        if (member->cursor && member->cursor->seq <= entry->seq &&
            ivshmem_registry_concerns(entry, member)) {
            g_variant_builder_add(&ids, "q", member->join->id);
        }
    }
    return g_variant_builder_end(&ids);
}

static GVariant *state_entry(const IvshmemRegistry *registry,
                             const RegistryEntry *entry, GHashTable *numbers)
{
    const IvshmemMember *member = NULL;
    int cursor = -1;

    if (entry->vectors) {
        member = ivshmem_registry_find(registry, entry->id);
    }
    if (member && member->cursor) {
        cursor = GPOINTER_TO_INT(g_hash_table_lookup(numbers, member->cursor));
    }
    return g_variant_new("(q@ai@aquiu)", entry->id, state_fds(entry),
                         state_untold(registry, entry),
                         member ? member->preamble : 0, cursor,
                         member ? member->vector : 0);
}

GVariant *ivshmem_registry_save(const IvshmemRegistry *registry)
{
    g_autoptr(GHashTable) numbers = g_hash_table_new(NULL, NULL);
    GVariantBuilder log, freed;
    int n = 0;

    for (GList *l = registry->log.head; l; l = l->next) {
        g_hash_table_insert(numbers, l->data, GINT_TO_POINTER(n++));
    }
    g_variant_builder_init(&log, G_VARIANT_TYPE("a" STATE_ENTRY));
    for (GList *l = registry->log.head; l; l = l->next) {
        g_variant_builder_add_value(&log, state_entry(registry, l->data,
                                                      numbers));
    }
    g_variant_builder_init(&freed, G_VARIANT_TYPE("aq"));
    for (unsigned i = registry->freed_head; i < registry->freed->len; i++) {
        g_variant_builder_add(&freed, "q",
                              g_array_index(registry->freed, uint16_t, i));
    }
    return g_variant_new("(ua" STATE_ENTRY "aq)", registry->next_fresh, &log,
                         &freed);
}

/* Restoring: entries and members first, then what refers to them */

static bool state_read_join(IvshmemRegistry *registry, RegistryEntry *entry,
                            const int32_t *fds, gsize n, uint32_t preamble)
{
    IvshmemMember *member;

    if (n > IVSHMEM_VECTORS_MAX || preamble > REGISTRY_PREAMBLE ||
        ivshmem_registry_find(registry, entry->id)) {
        return false;
    }
    entry->vectors = (unsigned)n;
    entry->fds = g_new(int, n);
    memcpy(entry->fds, fds, n * sizeof(int));
    registry->vectors += n;
    member = g_new0(IvshmemMember, 1);
    member->link.data = member;
    member->join = entry;
    member->slot = ivshmem_registry_slot_take(registry);
    member->shm_fd = -1;
    member->preamble = preamble;
    g_queue_push_tail_link(&registry->members, &member->link);
    g_hash_table_insert(registry->by_id, GUINT_TO_POINTER(entry->id), member);
    return true;
}

static bool state_read_untold(IvshmemRegistry *registry, RegistryEntry *entry,
                              const uint16_t *ids, gsize n)
{
    g_autoptr(GHashTable) untold = g_hash_table_new(NULL, NULL);

    for (gsize i = 0; i < n; i++) {
        if (!ivshmem_registry_find(registry, ids[i]) ||
            !g_hash_table_add(untold, GUINT_TO_POINTER(ids[i]))) {
            return false;
        }
    }
    for (GList *l = registry->members.head; l; l = l->next) {
        const IvshmemMember *member = l->data;

        if (!g_hash_table_contains(untold,
                                   GUINT_TO_POINTER(member->join->id))) {
            ivshmem_registry_skip(entry, registry, member->slot);
        }
    }
    entry->pending = n;
    return n > 0;               /* else it would have been taken out */
}

/* What a member that reads on from @cursor has before it. */
static void state_count_queued(IvshmemMember *member)
{
    const GList *l = member->cursor ? &member->cursor->link : NULL;

    member->queued = REGISTRY_PREAMBLE - member->preamble;
    for (; l; l = l->next) {
        const RegistryEntry *entry = l->data;
        unsigned frames = entry->vectors ? entry->vectors : 1;

        if (!ivshmem_registry_concerns(entry, member)) {
            continue;
        }
        if (entry == member->cursor) {
            frames -= member->vector;
        }
        member->queued += frames;
        if (entry->seq > member->join->seq) {
            member->backlog += frames;
        }
    }
}

static bool state_read_cursor(IvshmemMember *member, GPtrArray *entries,
                              int32_t cursor, uint32_t vector)
{
    if (cursor < -1 || cursor >= (int32_t)entries->len) {
        return false;
    }
    if (cursor >= 0) {
        member->cursor = g_ptr_array_index(entries, (guint)cursor);
    }
    member->vector = vector;
    return !member->cursor ? vector == 0 :
        vector <= (member->cursor->vectors ? member->cursor->vectors - 1 : 0) &&
        ivshmem_registry_concerns(member->cursor, member);
}

/* One of the three passes over the log; each needs the ones before. */
static bool state_read_entry(IvshmemRegistry *registry, GVariant *value,
                             GPtrArray *entries, guint n, int pass)
{
    g_autoptr(GVariant) fds = NULL, untold = NULL;
    uint32_t preamble, vector;
    const int32_t *numbers;
    const uint16_t *ids;
    int32_t cursor;
    uint16_t id;
    gsize n_fds, n_ids;

    g_variant_get(value, "(q@ai@aquiu)", &id, &fds, &untold, &preamble,
                  &cursor, &vector);
    numbers = g_variant_get_fixed_array(fds, &n_fds, sizeof(int32_t));
    ids = g_variant_get_fixed_array(untold, &n_ids, sizeof(uint16_t));
    if (pass == 0) {
        RegistryEntry *entry = ivshmem_registry_log_append(registry, id);

        g_ptr_array_add(entries, entry);
        return n_fds == 0 || state_read_join(registry, entry, numbers, n_fds,
                                             preamble);
    }
    if (pass == 1) {
        return n_fds > 0 || state_read_untold(registry,
                                              g_ptr_array_index(entries, n),
                                              ids, n_ids);
    }
    return n_fds == 0 || state_read_cursor(ivshmem_registry_find(registry, id),
                                           entries, cursor, vector);
}

static bool state_read_log(IvshmemRegistry *registry, GVariant *log)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new();

    for (int pass = 0; pass < 3; pass++) {
        for (gsize i = 0; i < g_variant_n_children(log); i++) {
            g_autoptr(GVariant) value = g_variant_get_child_value(log, i);

            if (!state_read_entry(registry, value, entries, (guint)i, pass)) {
                return false;
            }
        }
    }
    return true;
}

/* With another first id than before, other ids are free. */
static bool state_read_freed(IvshmemRegistry *registry, GVariant *freed)
{
    gsize n;
    const uint16_t *ids = g_variant_get_fixed_array(freed, &n,
                                                    sizeof(uint16_t));
    g_autofree bool *known = g_new0(bool, IVSHMEM_IDS);

    for (gsize i = 0; i < n; i++) {
        if (known[ids[i]] || ivshmem_registry_find(registry, ids[i])) {
            return false;
        }
        known[ids[i]] = true;
        if (ids[i] >= registry->first_id) {
            g_array_append_val(registry->freed, ids[i]);
        }
    }
    registry->next_fresh = MIN(registry->next_fresh, IVSHMEM_IDS);
    for (unsigned id = registry->first_id; id < registry->next_fresh; id++) {
        uint16_t other = (uint16_t)id;

        if (!known[id] && !ivshmem_registry_find(registry, other)) {
            g_array_append_val(registry->freed, other);
        }
    }
    registry->next_fresh = MAX(registry->next_fresh, registry->first_id);
    return true;
}

/* Frees what a failed restore has made; no descriptor is owned yet. */
static void state_discard(IvshmemRegistry *registry)
{
    GList *l;

    while ((l = g_queue_pop_head_link(&registry->log))) {
        RegistryEntry *entry = l->data;

        g_free(entry->fds);
        g_free(entry->skip);
        g_free(entry);
    }
    while ((l = g_queue_pop_head_link(&registry->members))) {
        g_free(l->data);
    }
    ivshmem_registry_free(registry);
}

static void state_take_fds(IvshmemRegistry *registry,
                           int (*fd_of)(int saved, void *opaque), void *opaque)
{
    for (GList *l = registry->log.head; l; l = l->next) {
        RegistryEntry *entry = l->data;

        for (unsigned i = 0; i < entry->vectors; i++) {
            entry->fds[i] = fd_of(entry->fds[i], opaque);
        }
    }
}

IvshmemRegistry *ivshmem_registry_restore(GVariant *state, uint16_t first_id,
                                          int (*fd_of)(int saved,
                                                       void *opaque),
                                          void *opaque)
{
    g_autoptr(GVariant) log = NULL, freed = NULL;
    IvshmemRegistry *registry;

    if (!g_variant_is_of_type(state, G_VARIANT_TYPE(STATE_TYPE))) {
        return NULL;
    }
    registry = ivshmem_registry_new(first_id);
    g_variant_get(state, "(u@a" STATE_ENTRY "@aq)", &registry->next_fresh, &log,
                  &freed);
    if (!state_read_log(registry, log) || !state_read_freed(registry, freed)) {
        state_discard(registry);
        return NULL;
    }
    for (GList *l = registry->members.head; l; l = l->next) {
        state_count_queued(l->data);
    }
    state_take_fds(registry, fd_of, opaque);
    return registry;
}

void ivshmem_member_attach(IvshmemMember *member, int shm_fd, void *opaque)
{
    member->shm_fd = shm_fd;
    member->opaque = opaque;
}
