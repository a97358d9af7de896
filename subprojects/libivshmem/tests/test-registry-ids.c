/*
 * The registry's ids, limits and memory.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#ifdef HAVE_MALLINFO2
#include <malloc.h>
#endif

#include "fd-leak.h"
#include "ivshmem-registry-state.h"
#include "registry-model.h"
#include "test-util.h"

#define ANY IVSHMEM_ID_ANY

/* A peer without a reader, for tests with very many of them. */
static int join_as(IvshmemRegistry *registry, int id, IvshmemMember **member)
{
    static const int fd = 7;
    const IvshmemJoin join = {
        .id = id, .shm_fd = 6, .vector_fds = &fd, .vectors = 1,
    };

    return ivshmem_registry_join(registry, &join, member);
}

static void leave(IvshmemRegistry *registry, IvshmemMember *member)
{
    ivshmem_registry_leave(registry, member);
    while (ivshmem_registry_reap(registry) != -1) {
        /* the same number for all: who gets which is the model's part */
    }
}

static void leave_all(IvshmemRegistry *registry)
{
    IvshmemMember *member;

    while ((member = ivshmem_registry_next(registry, NULL))) {
        leave(registry, member);
    }
    g_assert_cmpuint(ivshmem_registry_members(registry), ==, 0);
    ivshmem_registry_free(registry);
}

/* R-SRV-16 */
static void test_vectors(void)
{
    World *world = world_new(0);

    ivshmem_registry_free(NULL);
    g_assert_null(world_join(world, ANY, 0, false));
    g_assert_null(world_join(world, ANY, IVSHMEM_VECTORS_MAX + 1, false));
    g_assert_null(world_join(world, ANY, UINT32_MAX, false));
    /* A refused join has used up no id. */
    g_assert_cmpint(reader_id(world_join(world, ANY, 1, false)), ==, 0);
    g_assert_nonnull(world_join(world, ANY, IVSHMEM_VECTORS_MAX, false));
    g_assert_nonnull(world_join(world, ANY, 1, false));
    world_settle(world);
    world_free(world);
}

/* R-SRV-13 */
static void test_fixed(void)
{
    World *world = world_new(10);
    Reader *nine;

    g_assert_null(world_join(world, -2, 1, false));
    g_assert_null(world_join(world, INT32_MIN, 1, false));
    g_assert_null(world_join(world, IVSHMEM_IDS, 1, false));
    g_assert_null(world_join(world, INT32_MAX, 1, false));

    nine = world_join(world, 9, 1, false);      /* below first_id */
    g_assert_nonnull(nine);
    g_assert_null(world_join(world, 9, 1, false));
    g_assert_null(world_join(world, 9, 1, true));
    g_assert_nonnull(world_join(world, IVSHMEM_ID_MAX, 1, false));
    g_assert_nonnull(world_join(world, 11, 1, false));
    /* Those who take what comes get the others. */
    g_assert_cmpint(reader_id(world_join(world, ANY, 1, false)), ==, 10);
    g_assert_cmpint(reader_id(world_join(world, ANY, 1, false)), ==, 12);
    world_leave(world, nine);
    g_assert_nonnull(world_join(world, 9, 2, false));
    world_settle(world);
    world_free(world);
}

static void test_reserved(void)
{
    World *world = world_new(0);
    Reader *one, *two;

    world_reserve(world, 1, true);
    world_reserve(world, 1, true);              /* says nothing new */
    g_assert_cmpint(reader_id(world_join(world, ANY, 1, false)), ==, 0);
    two = world_join(world, ANY, 1, true);      /* ANY never means reserved */
    g_assert_cmpint(reader_id(two), ==, 2);
    g_assert_null(world_join(world, 1, 1, false));
    one = world_join(world, 1, 1, true);
    g_assert_nonnull(one);

    /* A member keeps an id that becomes reserved; afterwards it is kept. */
    world_reserve(world, 2, true);
    world_settle(world);
    world_leave(world, two);
    g_assert_null(world_join(world, 2, 1, false));

    /* Given back while in use, and while not. */
    world_reserve(world, 1, false);
    g_assert_null(world_join(world, 1, 1, true));
    world_leave(world, one);
    g_assert_nonnull(world_join(world, 1, 1, false));
    world_reserve(world, 2, false);
    world_reserve(world, 2, false);
    g_assert_nonnull(world_join(world, 2, 1, false));
    world_settle(world);
    world_free(world);
}

/* An id given back is handed out again, to one who asks for any. */
static void test_reserved_given_back(void)
{
    World *world = world_new(IVSHMEM_ID_MAX);

    world_reserve(world, IVSHMEM_ID_MAX, true);
    g_assert_null(world_join(world, ANY, 1, false));
    world_reserve(world, IVSHMEM_ID_MAX, false);
    g_assert_nonnull(world_join(world, ANY, 1, false));
    g_assert_null(world_join(world, ANY, 1, false));
    world_free(world);
}

/* ANY is never served from below first_id, or with a reserved id. */
static void test_any_is_picky(void)
{
    World *world = world_new(IVSHMEM_ID_MAX - 1);
    Reader *below = world_join(world, 5, 1, false);
    Reader *one = world_join(world, ANY, 1, false);
    Reader *two = world_join(world, ANY, 1, false);

    world_leave(world, below);
    g_assert_null(world_join(world, ANY, 1, false));
    world_leave(world, one);
    world_reserve(world, IVSHMEM_ID_MAX - 1, true);     /* free, but used */
    g_assert_null(world_join(world, ANY, 1, false));
    world_reserve(world, IVSHMEM_ID_MAX, true);         /* in use */
    world_leave(world, two);
    g_assert_null(world_join(world, ANY, 1, false));
    world_reserve(world, IVSHMEM_ID_MAX, false);
    two = world_join(world, IVSHMEM_ID_MAX, 1, false);  /* asked for by name */
    g_assert_nonnull(two);
    g_assert_null(world_join(world, ANY, 1, false));
    world_free(world);
}

/* 65,536 peers, and no more; then the one id that is free again. */
static void test_exhaustion(void)
{
    IvshmemRegistry *registry = ivshmem_registry_new(0);
    IvshmemMember *member = NULL;
    const unsigned step = 256;  /* few at a time: all * all would take long */

    for (unsigned i = 0; i < IVSHMEM_IDS; i++) {
        g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
        g_assert_cmpint(ivshmem_member_id(member), ==, i);
        if (i % step != 0) {
            leave(registry, member);
        }
    }
    /* All ids were handed out once: the first that left is next. */
    for (unsigned i = 0; i < IVSHMEM_IDS; i++) {
        if (i % step != 0) {
            g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
            g_assert_cmpint(ivshmem_member_id(member), ==, i);
            leave(registry, member);
        }
    }
    leave_all(registry);
}

/* R-SRV-15 */
static void test_full(void)
{
    const uint16_t first = IVSHMEM_ID_MAX - 299;
    IvshmemRegistry *registry = ivshmem_registry_new(first);
    IvshmemMember *member;

    for (unsigned i = 0; i < 300; i++) {
        g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
    }
    for (unsigned id = first; id <= IVSHMEM_ID_MAX; id += 7) {
        g_assert_cmpint(join_as(registry, ANY, &member), ==, IVSHMEM_E_FULL);
        g_assert_cmpint(join_as(registry, id, &member), ==,
                        IVSHMEM_E_ID_TAKEN);
        leave(registry, ivshmem_registry_find(registry, id));
        g_assert_null(ivshmem_registry_find(registry, id));
        g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
        g_assert_cmpint(ivshmem_member_id(member), ==, id);
    }
    g_assert_cmpint(join_as(registry, first - 1, &member), ==, 0);
    leave_all(registry);
}

/*
 * An id is used again as late as possible: a peer that missed the departure
 * must not take a newcomer for the one who left.
 */
/* R-SRV-14 */
static void test_reuse_late(void)
{
    const uint16_t first = IVSHMEM_ID_MAX - 9;
    IvshmemRegistry *registry = ivshmem_registry_new(first);
    static const unsigned order[] = { 3, 0, 7, 5 };
    IvshmemMember *members[10];

    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpint(join_as(registry, ANY, &members[i]), ==, 0);
        if (i == 4) {           /* free early, and yet not next */
            leave(registry, members[2]);
        }
    }
    g_assert_cmpint(ivshmem_member_id(members[9]), ==, IVSHMEM_ID_MAX);
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        leave(registry, members[order[i]]);
    }
    g_assert_cmpint(join_as(registry, ANY, &members[0]), ==, 0);
    g_assert_cmpint(ivshmem_member_id(members[0]), ==, first + 2);
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        g_assert_cmpint(join_as(registry, ANY, &members[0]), ==, 0);
        g_assert_cmpint(ivshmem_member_id(members[0]), ==, first + order[i]);
    }
    leave_all(registry);
}

/* Bytes in use on the heap, or 0 when this allocator does not tell. */
static size_t heap_bytes(void)
{
#ifdef HAVE_MALLINFO2
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

static bool heap_is_counted(void)
{
    size_t before = heap_bytes();
    void *volatile probe = malloc(100000);
    bool counted = heap_bytes() >= before + 100000;

    free(probe);
    return counted;
}

/*
 * 100,000 peers come and go while one does not read and another keeps up:
 * nothing piles up, for the stuck one either.
 */
/* R-SRV-8 */
static void test_memory_bounded(void)
{
    IvshmemRegistry *registry;
    IvshmemMember *stuck, *reading, *guest;
    size_t before = 0;

    if (!heap_is_counted()) {
        g_test_skip("this malloc() (sanitizer, valgrind?) counts nothing");
        return;
    }
    registry = ivshmem_registry_new(0);
    g_assert_cmpint(join_as(registry, 0, &stuck), ==, 0);
    g_assert_cmpint(join_as(registry, 1, &reading), ==, 0);
    ivshmem_member_sent(registry, stuck, 4);
    for (unsigned i = 0; i < 100000; i++) {
        if (i == 1000) {
            before = heap_bytes();
        }
        g_assert_cmpint(join_as(registry, 2 + i % 100, &guest), ==, 0);
        ivshmem_member_sent(registry, reading, 1000);
        leave(registry, guest);
        ivshmem_member_sent(registry, reading, 1000);
        g_assert_cmpuint(ivshmem_member_queued(reading), ==, 0);
    }
    /* With a departure in the log, known to one and unknown to the other. */
    g_assert_cmpint(join_as(registry, 2, &guest), ==, 0);
    ivshmem_member_sent(registry, reading, 1000);
    leave(registry, guest);
    g_assert_cmpuint(heap_bytes(), <, before + 4096);
    g_assert_cmpuint(ivshmem_member_backlog(stuck), ==, 1);
    leave_all(registry);
}

/* Departures that nobody is left to be told of go as well. */
static void test_memory_bounded_untold(void)
{
    IvshmemRegistry *registry;
    IvshmemMember *a, *b;
    size_t before = 0;

    if (!heap_is_counted()) {
        g_test_skip("this malloc() (sanitizer, valgrind?) counts nothing");
        return;
    }
    registry = ivshmem_registry_new(0);
    for (unsigned i = 0; i < 10000; i++) {
        if (i == 1000) {
            before = heap_bytes();
        }
        g_assert_cmpint(join_as(registry, 0, &a), ==, 0);
        g_assert_cmpint(join_as(registry, 1, &b), ==, 0);
        ivshmem_member_sent(registry, b, 5);
        leave(registry, a);
        g_assert_cmpuint(ivshmem_member_queued(b), ==, 1);
        leave(registry, b);
    }
    g_assert_cmpuint(heap_bytes(), <, before + 4096);
    leave_all(registry);
}

/*
 * The same with one who has read the joins and then got stuck: a departure
 * for each peer it knows, and nothing for those who came later.
 */
static void test_memory_bounded_known(void)
{
    IvshmemRegistry *registry = ivshmem_registry_new(0);
    IvshmemMember *stuck, *guests[100];

    g_assert_cmpint(join_as(registry, 0, &stuck), ==, 0);
    for (unsigned i = 0; i < 10000; i++) {
        unsigned n = i % 100;

        if (i >= 100) {
            leave(registry, guests[n]);
        }
        g_assert_cmpint(join_as(registry, 1 + (int)n, &guests[n]), ==, 0);
        if (i == 99) {
            ivshmem_member_sent(registry, stuck, 4 + 100);
            g_assert_cmpuint(ivshmem_member_queued(stuck), ==, 0);
        }
    }
    /* 100 departures, and the 100 who are there now. */
    g_assert_cmpuint(ivshmem_member_backlog(stuck), ==, 200);
    g_assert_cmpuint(ivshmem_member_queued(stuck), ==, 200);
    leave_all(registry);
}

static int same_fd(int saved, void *opaque)
{
    (void)opaque;
    return saved;
}

static IvshmemRegistry *move(IvshmemRegistry *registry, uint16_t first_id)
{
    g_autoptr(GVariant) state =
        g_variant_ref_sink(ivshmem_registry_save(registry));
    IvshmemRegistry *successor = ivshmem_registry_restore(state, first_id,
                                                          same_fd, NULL);

    g_assert_nonnull(successor);
    leave_all(registry);
    return successor;
}

/* A successor may have another first id: it holds for those who come later. */
static void test_other_first_id(void)
{
    IvshmemRegistry *registry = ivshmem_registry_new(IVSHMEM_ID_MAX - 2);
    IvshmemMember *member;

    g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
    leave(registry, member);
    g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
    g_assert_cmpint(ivshmem_member_id(member), ==, IVSHMEM_ID_MAX - 1);
    registry = move(registry, IVSHMEM_ID_MAX);
    g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
    g_assert_cmpint(ivshmem_member_id(member), ==, IVSHMEM_ID_MAX);
    g_assert_cmpint(join_as(registry, ANY, &member), ==, IVSHMEM_E_FULL);
    registry = move(registry, IVSHMEM_ID_MAX - 3);
    for (unsigned id = IVSHMEM_ID_MAX - 3; id < IVSHMEM_ID_MAX - 1; id++) {
        g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
        g_assert_cmpint(ivshmem_member_id(member), ==, id);
    }
    g_assert_cmpint(join_as(registry, ANY, &member), ==, IVSHMEM_E_FULL);
    leave_all(registry);

    registry = move(ivshmem_registry_new(5), 300);
    g_assert_cmpint(join_as(registry, ANY, &member), ==, 0);
    g_assert_cmpint(ivshmem_member_id(member), ==, 300);
    leave_all(registry);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/registry/vectors", test_vectors);
    fd_leak_add("/registry/fixed", test_fixed);
    fd_leak_add("/registry/reserved", test_reserved);
    fd_leak_add("/registry/reserved-given-back", test_reserved_given_back);
    fd_leak_add("/registry/any-is-picky", test_any_is_picky);
    fd_leak_add("/registry/exhaustion", test_exhaustion);
    fd_leak_add("/registry/full", test_full);
    fd_leak_add("/registry/other-first-id", test_other_first_id);
    fd_leak_add("/registry/reuse-late", test_reuse_late);
    fd_leak_add("/registry/memory-bounded", test_memory_bounded);
    fd_leak_add("/registry/memory-bounded-untold", test_memory_bounded_untold);
    fd_leak_add("/registry/memory-bounded-known", test_memory_bounded_known);
    return g_test_run();
}
