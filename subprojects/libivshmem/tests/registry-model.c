/*
 * The registry's model, see registry-model.h.  Deliberately naive: it keeps no
 * log, only who is there now and what each reader has been told so far.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "ivshmem-registry-state.h"
#include "ivshmem-session.h"
#include "registry-model.h"
#include "test-util.h"

/* Where a descriptor came from: "vector @vector of @id". */
typedef struct Origin {
    uint16_t id;
    unsigned vector;
} Origin;

struct Reader {
    IvshmemMember *member;
    IvshmemSession *session;
    GHashTable *view;           /* id -> GArray of the fds we were told */
    uint16_t id;
    GArray *fds;                /* our vectors: the truth about us */
    int shm_fd;
};

struct World {
    IvshmemRegistry *registry;
    uint16_t first_id;
    GPtrArray *readers;         /* in the order of joining */
    GHashTable *reserved;
    FakeFds fds;
    GArray *origins;            /* per fake fd */
};

static void reader_free(Reader *reader)
{
    int fd;

    g_assert_cmpint(ivshmem_session_end(reader->session, &fd), ==,
                    IVSHMEM_E_EOF);
    g_assert_cmpint(fd, ==, -1);
    ivshmem_session_free(reader->session);
    g_hash_table_unref(reader->view);
    g_array_unref(reader->fds);
    g_free(reader);
}

World *world_new(uint16_t first_id)
{
    World *world = g_new0(World, 1);

    world->registry = ivshmem_registry_new(first_id);
    world->first_id = first_id;
    world->readers = g_ptr_array_new();
    world->reserved = g_hash_table_new(NULL, NULL);
    world->origins = g_array_new(FALSE, FALSE, sizeof(Origin));
    fake_fds_init(&world->fds);
    return world;
}

void world_free(World *world)
{
    while (world->readers->len) {
        world_leave(world, g_ptr_array_index(world->readers, 0));
    }
    world_settle(world);
    ivshmem_registry_free(world->registry);
    fake_fds_finish(&world->fds);
    g_array_unref(world->origins);
    g_hash_table_unref(world->reserved);
    g_ptr_array_unref(world->readers);
    g_free(world);
}

unsigned world_size(const World *world)
{
    return world->readers->len;
}

Reader *world_nth(const World *world, unsigned n)
{
    return g_ptr_array_index(world->readers, n);
}

Reader *world_find(const World *world, uint16_t id)
{
    for (unsigned i = 0; i < world->readers->len; i++) {
        if (world_nth(world, i)->id == id) {
            return world_nth(world, i);
        }
    }
    return NULL;
}

uint16_t reader_id(const Reader *reader)
{
    return reader->id;
}

const IvshmemMember *reader_member(const Reader *reader)
{
    return reader->member;
}

static bool world_id_reserved(const World *world, unsigned id)
{
    return g_hash_table_contains(world->reserved, GUINT_TO_POINTER(id));
}

/* The result that a join must have: 0 or an error. */
static int world_expect(const World *world, const IvshmemJoin *join)
{
    if (join->vectors < 1 || join->vectors > IVSHMEM_VECTORS_MAX) {
        return IVSHMEM_E_VECTORS;
    }
    if (join->id == IVSHMEM_ID_ANY) {
        for (unsigned id = world->first_id; id <= IVSHMEM_ID_MAX; id++) {
            if (!world_id_reserved(world, id) && !world_find(world, id)) {
                return 0;
            }
        }
        return IVSHMEM_E_FULL;
    }
    if (join->id < 0 || join->id > IVSHMEM_ID_MAX) {
        return IVSHMEM_E_RANGE;
    }
    if (world_find(world, join->id) ||
        (world_id_reserved(world, join->id) && !join->reserved_ok)) {
        return IVSHMEM_E_ID_TAKEN;
    }
    return 0;
}

static int world_new_fd(World *world, uint16_t id, unsigned vector)
{
    Origin origin = { id, vector };

    g_array_append_val(world->origins, origin);
    return fake_fd_new(&world->fds);
}

/* The member is in: the registry now owns its fds. */
static Reader *world_admit(World *world, const IvshmemJoin *join,
                           IvshmemMember *member, GArray *fds)
{
    Reader *reader = join->opaque;

    reader->member = member;
    reader->session = ivshmem_session_new(IVSHMEM_VECTORS_MAX);
    reader->view = g_hash_table_new_full(NULL, NULL, NULL,
                                         (GDestroyNotify)g_array_unref);
    reader->id = ivshmem_member_id(member);
    reader->fds = fds;
    reader->shm_fd = join->shm_fd;
    for (unsigned i = 0; i < fds->len; i++) {
        int fd = g_array_index(fds, int, i);

        fake_fd_give(&world->fds, fd);
        g_array_index(world->origins, Origin, fd - FAKE_FD_BASE).id =
            reader->id;
    }
    return reader;
}

Reader *world_join(World *world, int id, unsigned vectors, bool reserved_ok)
{
    GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));
    Reader *reader = g_new0(Reader, 1);
    IvshmemJoin join = {
        .id = id,
        .reserved_ok = reserved_ok,
        .shm_fd = 1000 + (int)world->readers->len,
        .vectors = vectors,
        .opaque = reader,
    };
    int expected = world_expect(world, &join), ret;
    IvshmemMember *member = NULL;

    for (unsigned i = 0; i < MIN(vectors, IVSHMEM_VECTORS_MAX); i++) {
        int fd = world_new_fd(world, 0, i);

        g_array_append_val(fds, fd);
    }
    join.vector_fds = (int *)fds->data;
    ret = ivshmem_registry_join(world->registry, &join, &member);
    g_assert_cmpint(ret, ==, expected);
    if (ret < 0) {
        g_array_unref(fds);
        g_free(reader);
        return NULL;
    }
    world_admit(world, &join, member, fds);
    g_assert_null(world_find(world, reader->id));
    if (id != IVSHMEM_ID_ANY) {
        g_assert_cmpint(reader->id, ==, id);
    } else {
        g_assert_cmpint(reader->id, >=, world->first_id);
        g_assert_false(world_id_reserved(world, reader->id));
    }
    g_ptr_array_add(world->readers, reader);
    return reader;
}

void world_leave(World *world, Reader *reader)
{
    g_assert_true(g_ptr_array_remove(world->readers, reader));
    ivshmem_registry_leave(world->registry, reader->member);
    reader_free(reader);
}

void world_reserve(World *world, uint16_t id, bool reserved)
{
    ivshmem_registry_reserve(world->registry, id, reserved);
    if (reserved) {
        g_hash_table_add(world->reserved, GUINT_TO_POINTER(id));
    } else {
        g_hash_table_remove(world->reserved, GUINT_TO_POINTER(id));
    }
}

void world_reap(World *world, size_t n)
{
    for (; n > 0; n--) {
        int fd = ivshmem_registry_reap(world->registry);

        if (fd == -1) {
            return;
        }
        fake_fd_take(&world->fds, fd);
    }
}

/* The oracle knows descriptors by number, so they stay the same; each once. */
static int world_fd_of(int saved, void *opaque)
{
    int *left = opaque;

    --*left;
    return saved;
}

static void world_end_old(IvshmemRegistry *registry)
{
    IvshmemMember *member;

    while ((member = ivshmem_registry_next(registry, NULL))) {
        ivshmem_registry_leave(registry, member);
    }
    while (ivshmem_registry_reap(registry) != -1) {
        /* the same descriptors live on in the successor */
    }
    ivshmem_registry_free(registry);
}

void world_hand_over(World *world)
{
    g_autoptr(GVariant) state =
        g_variant_ref_sink(ivshmem_registry_save(world->registry));
    IvshmemRegistry *successor;
    GHashTableIter iter;
    gpointer id;
    int left;

    world_reap(world, SIZE_MAX);
    left = (int)world->fds.n_inside;
    successor = ivshmem_registry_restore(state, world->first_id, world_fd_of,
                                         &left);
    g_assert_nonnull(successor);
    g_assert_cmpint(left, ==, 0);
    g_hash_table_iter_init(&iter, world->reserved);
    while (g_hash_table_iter_next(&iter, &id, NULL)) {
        ivshmem_registry_reserve(successor, (uint16_t)GPOINTER_TO_UINT(id),
                                 true);
    }
    for (unsigned i = 0; i < world->readers->len; i++) {
        Reader *reader = world_nth(world, i);

        g_assert_cmpuint(ivshmem_member_queued(reader->member), ==,
                         ivshmem_member_queued(ivshmem_registry_find(
                             successor, reader->id)));
        reader->member = ivshmem_registry_find(successor, reader->id);
        ivshmem_member_attach(reader->member, reader->shm_fd, reader);
    }
    world_end_old(world->registry);
    world->registry = successor;
    world_check(world);
}

static GArray *reader_told(Reader *reader, unsigned id)
{
    return g_hash_table_lookup(reader->view, GUINT_TO_POINTER(id));
}

static void reader_learn(World *world, Reader *reader,
                         const IvshmemEvent *event)
{
    GArray *told = reader_told(reader, event->id);
    const Origin *origin = &g_array_index(world->origins, Origin,
                                          event->fd - FAKE_FD_BASE);

    g_assert_cmpint(event->type == IVSHMEM_EVENT_SELF_VECTOR, ==,
                    event->id == reader->id);
    g_assert_true(fake_fd_inside(&world->fds, event->fd));
    if (!told) {
        told = g_array_new(FALSE, FALSE, sizeof(int));
        g_hash_table_insert(reader->view, GUINT_TO_POINTER(event->id), told);
    }
    g_assert_cmpuint(event->vector, ==, told->len);
    g_assert_cmpuint(event->vector, ==, origin->vector);
    g_assert_cmpint(event->id, ==, origin->id);
    g_array_append_val(told, event->fd);
}

static void reader_take(World *world, Reader *reader,
                        const IvshmemFrame *frame)
{
    IvshmemEvent event;

    g_assert_cmpint(ivshmem_session_frame(reader->session, frame, &event), ==,
                    0);
    switch (event.type) {
    case IVSHMEM_EVENT_NONE:
        break;
    case IVSHMEM_EVENT_SELF_ID:
        g_assert_cmpint(event.id, ==, reader->id);
        break;
    case IVSHMEM_EVENT_SHM:
        g_assert_cmpint(event.fd, ==, reader->shm_fd);
        break;
    case IVSHMEM_EVENT_SELF_VECTOR:
    case IVSHMEM_EVENT_PEER_VECTOR:
        g_assert_true(ivshmem_session_has_shm(reader->session));
        reader_learn(world, reader, &event);
        break;
    case IVSHMEM_EVENT_PEER_GONE:
        /* Departures are only told to those who know whom they are about. */
        g_assert_true(g_hash_table_remove(reader->view,
                                          GUINT_TO_POINTER(event.id)));
        break;
    case IVSHMEM_EVENT_EXCESS_VECTOR:
    default:
        g_assert_not_reached();
    }
}

void world_drain(World *world, Reader *reader, size_t n)
{
    IvshmemFrame frames[7];     /* odd and small: batches end anywhere */

    while (n > 0) {
        size_t max = MIN(n, G_N_ELEMENTS(frames));
        uint64_t queued = ivshmem_member_queued(reader->member);
        size_t got = ivshmem_member_peek(reader->member, frames, max);

        g_assert_cmpuint(got, ==, MIN(max, queued));
        if (got == 0) {
            return;
        }
        for (size_t i = 0; i < got; i++) {
            reader_take(world, reader, &frames[i]);
        }
        ivshmem_member_sent(world->registry, reader->member, got);
        g_assert_cmpuint(ivshmem_member_queued(reader->member), ==,
                         queued - got);
        n -= got;
    }
}

/*
 * Whatever is yet to be sent must be sendable, and counted right: the backlog
 * is what follows our own vectors.
 */
static void reader_check_queue(World *world, const Reader *reader)
{
    size_t queued = ivshmem_member_queued(reader->member), backlog = queued;
    g_autofree IvshmemFrame *frames = g_new(IvshmemFrame, queued + 1);

    g_assert_cmpuint(ivshmem_member_peek(reader->member, frames, queued + 1),
                     ==, queued);
    for (size_t i = 0; i < queued; i++) {
        bool self = frames[i].value == reader->id;

        if (frames[i].fd >= FAKE_FD_BASE) {
            g_assert_true(fake_fd_inside(&world->fds, frames[i].fd));
        }
        if (self && frames[i].fd >= 0) {
            backlog = queued - i - 1;
        }
    }
    g_assert_cmpuint(ivshmem_member_backlog(reader->member), ==, backlog);
}

/* @reader has been told all of @other, and nothing else about its id. */
static void reader_check_knows(Reader *reader, const Reader *other)
{
    const GArray *told = reader_told(reader, other->id);

    g_assert_nonnull(told);
    g_assert_cmpmem(told->data, told->len * sizeof(int), other->fds->data,
                    other->fds->len * sizeof(int));
}

static void reader_check(World *world, unsigned n)
{
    Reader *reader = world_nth(world, n);
    const IvshmemMember *member = reader->member;
    const GArray *self = reader_told(reader, reader->id);
    bool ready = self && self->len == reader->fds->len;

    g_assert_true(ivshmem_registry_find(world->registry, reader->id) ==
                  member);
    g_assert_true(ivshmem_member_opaque(member) == reader);
    g_assert_cmpint(ivshmem_member_id(member), ==, reader->id);
    g_assert_cmpuint(ivshmem_member_vectors(member), ==, reader->fds->len);
    for (unsigned i = 0; i < reader->fds->len; i++) {
        int fd = g_array_index(reader->fds, int, i);

        g_assert_cmpint(ivshmem_member_vector_fd(member, i), ==, fd);
        g_assert_true(fake_fd_inside(&world->fds, fd));
    }
    g_assert_cmpint(ivshmem_member_vector_fd(member, reader->fds->len), ==, -1);

    reader_check_queue(world, reader);
    g_assert_true(ivshmem_member_ready(member) == ready);
    /* Those who were here first come before ourselves. */
    for (unsigned i = 0; ready && i < n; i++) {
        reader_check_knows(reader, world_nth(world, i));
    }
}

void world_check(World *world)
{
    const IvshmemMember *member = NULL;

    g_assert_cmpuint(ivshmem_registry_members(world->registry), ==,
                     world->readers->len);
    for (unsigned i = 0; i < world->readers->len; i++) {
        member = ivshmem_registry_next(world->registry, member);
        g_assert_true(member == world_nth(world, i)->member);
        reader_check(world, i);
    }
    g_assert_null(ivshmem_registry_next(world->registry, member));
}

void world_settle(World *world)
{
    unsigned vectors = 0;

    for (unsigned i = 0; i < world->readers->len; i++) {
        Reader *reader = world_nth(world, i);

        world_drain(world, reader, SIZE_MAX);
        vectors += reader->fds->len;
        g_assert_cmpuint(ivshmem_member_queued(reader->member), ==, 0);
        g_assert_cmpuint(g_hash_table_size(reader->view), ==,
                         world->readers->len);
        for (unsigned j = 0; j < world->readers->len; j++) {
            reader_check_knows(reader, world_nth(world, j));
        }
    }
    world_reap(world, SIZE_MAX);
    g_assert_cmpuint(world->fds.n_inside, ==, vectors);
    world_check(world);
}
