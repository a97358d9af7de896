/*
 * The registry against its model: orders of joining, leaving and reading.
 * Ids and memory are test-registry-ids.c's part.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "fd-leak.h"
#include "ivshmem-registry-state.h"
#include "registry-model.h"
#include "test-util.h"

#define PEERS 4
#define ALL SIZE_MAX

/* A step is a join of the lowest peer that has not joined, or a departure. */
#define JOIN (-1)

/* Different numbers of vectors, so that nothing fits by chance. */
static const unsigned vectors_of[PEERS] = { 2, 1, 3, 2 };

typedef struct Order {
    int steps[2 * PEERS];       /* JOIN, or the peer that leaves */
    unsigned n;
} Order;

typedef struct Plan Plan;
struct Plan {
    const Order *order;
    bool same_id;               /* newcomers want the id of those who left */
    /* How many frames @peer is sent after @step. */
    size_t (*frames)(const Plan *plan, unsigned step, unsigned peer);
    /* For frames_one() */
    unsigned step, peer;
    size_t n;
    size_t others;
    size_t queued;              /* what @peer was then waiting for */
    /* For frames_ternary() */
    unsigned *digits;
    GRand *rand;
};

static void plan_drain(Plan *plan, World *world, Reader *reader, unsigned step,
                       unsigned peer)
{
    if (step == plan->step && peer == plan->peer) {
        plan->queued = ivshmem_member_queued(reader_member(reader));
    }
    world_drain(world, reader, plan->frames(plan, step, peer));
}

static void plan_run(Plan *plan)
{
    World *world = world_new(0);
    Reader *peers[PEERS] = { NULL };
    unsigned joined = 0;

    plan->queued = 0;
    for (unsigned step = 0; step < plan->order->n; step++) {
        int op = plan->order->steps[step];

        if (op == JOIN) {
            bool fixed = plan->same_id && !world_find(world, 9);

            peers[joined] = world_join(world, fixed ? 9 : IVSHMEM_ID_ANY,
                                       vectors_of[joined], false);
            g_assert_nonnull(peers[joined++]);
        } else {
            world_leave(world, peers[op]);
            peers[op] = NULL;
        }
        for (unsigned i = 0; i < joined; i++) {
            if (peers[i]) {
                plan_drain(plan, world, peers[i], step, i);
            }
        }
        world_reap(world, step % 3);
        world_check(world);
    }
    world_settle(world);
    world_free(world);
}

/*
 * All orders in which @peers join and leave, peers being told apart by when
 * they join.
 */
static void order_each(Order *order, unsigned peers, unsigned joined,
                       unsigned present, void (*func)(Order *, void *),
                       void *data)
{
    if (order->n == 2 * peers) {
        func(order, data);
        return;
    }
    if (joined < peers) {
        order->steps[order->n++] = JOIN;
        order_each(order, peers, joined + 1, present | 1u << joined, func,
                   data);
        order->n--;
    }
    for (unsigned i = 0; i < joined; i++) {
        if (present & 1u << i) {
            order->steps[order->n++] = (int)i;
            order_each(order, peers, joined, present & ~(1u << i), func, data);
            order->n--;
        }
    }
}

/* One peer is sent @n frames once; before and after it is stuck. */
static size_t frames_one(const Plan *plan, unsigned step, unsigned peer)
{
    if (peer != plan->peer) {
        return plan->others;
    }
    return step == plan->step ? plan->n : 0;
}

static void check_one(Order *order, void *data)
{
    unsigned *orders = data;
    Plan plan = { .order = order, .frames = frames_one };
    bool more;

    (*orders)++;
    for (unsigned i = 0; i < 4; i++) {
        plan.same_id = i & 1;
        plan.others = i & 2 ? ALL : 0;
        for (plan.peer = 0; plan.peer < PEERS; plan.peer++) {
            for (plan.step = 0; plan.step < order->n; plan.step++) {
                plan.n = 0;
                do {
                    plan_run(&plan);
                    more = plan.n++ < plan.queued;
                } while (more);
            }
        }
    }
}

/* 4 peers, all orders, one of them reads any number of frames at any point. */
/* R-SRV-5 to R-SRV-7 */
static void test_one_stops_anywhere(void)
{
    Order order = { .n = 0 };
    unsigned orders = 0;

    order_each(&order, PEERS, 0, 0, check_one, &orders);
    g_assert_cmpuint(orders, ==, 105);      /* 8! / (2^4 * 4!) */
}

/* At each point each peer is sent nothing, one frame or everything. */
static size_t frames_ternary(const Plan *plan, unsigned step, unsigned peer)
{
    static const size_t frames[] = { 0, 1, ALL };

    return frames[plan->digits[step * PEERS + peer]];
}

/* Count @digits up in base 3, only where somebody is connected. */
static bool digits_next(unsigned *digits, const Order *order)
{
    unsigned joined = 0, present = 0;

    for (unsigned step = 0; step < order->n; step++) {
        int op = order->steps[step];

        present = op == JOIN ? present | 1u << joined++
                             : present & ~(1u << op);
        for (unsigned peer = 0; peer < PEERS; peer++) {
            unsigned *digit = &digits[step * PEERS + peer];

            if (!(present & 1u << peer)) {
                continue;
            }
            if (++*digit < 3) {
                return true;
            }
            *digit = 0;
        }
    }
    return false;
}

static void check_ternary(Order *order, void *data)
{
    unsigned *runs = data;
    unsigned digits[2 * PEERS * PEERS] = { 0 };
    Plan plan = {
        .order = order, .frames = frames_ternary, .digits = digits,
    };

    do {
        plan.same_id = *runs % 2;
        plan_run(&plan);
        (*runs)++;
    } while (digits_next(digits, order));
}

/* 3 peers, all orders, every combination of who reads when. */
/* R-SRV-5 to R-SRV-7 */
static void test_all_combinations(void)
{
    Order order = { .n = 0 };
    unsigned runs = 0;

    order_each(&order, 3, 0, 0, check_ternary, &runs);
    /* 3 to the power of (steps * peers connected then), over 15 orders */
    g_assert_cmpuint(runs, ==, 127845);
}

/* Often not all there is: 3 of the preamble and 8 vectors, at most. */
#define FRAMES_MAX 12

static size_t frames_random(const Plan *plan, unsigned step, unsigned peer)
{
    (void)step;
    (void)peer;
    return g_rand_boolean(plan->rand)
           ? 0 : (size_t)g_rand_int_range(plan->rand, 0, FRAMES_MAX);
}

static void check_random(Order *order, void *data)
{
    Plan plan = { .order = order, .frames = frames_random, .rand = data };

    for (unsigned i = 0; i < 100; i++) {
        plan.same_id = i % 2;
        plan_run(&plan);
    }
}

/* 4 peers, all orders, everybody reads at random. */
static void test_random_reading(void)
{
    g_autoptr(GRand) rand = test_rand_new();
    Order order = { .n = 0 };

    order_each(&order, PEERS, 0, 0, check_random, rand);
}

/* Few ids, so that all of them are used again, asked for and reserved. */
static uint16_t random_id(GRand *rand)
{
    return (uint16_t)(IVSHMEM_ID_MAX - g_rand_int_range(rand, 0, 60));
}

/* A long life: up to 40 peers, and only 50 ids for those who ask for none. */
/* R-SRV-13, R-SRV-14 */
static void random_life(bool hand_over)
{
    g_autoptr(GRand) rand = test_rand_new();
    World *world = world_new(IVSHMEM_ID_MAX - 50);

    for (unsigned i = 0; i < 20000; i++) {
        unsigned size = world_size(world);
        Reader *reader =
            size ? world_nth(world, g_rand_int_range(rand, 0, size)) : NULL;

        switch (g_rand_int_range(rand, 0, 8)) {
        case 0:
            if (size < 40) {
                world_join(world, IVSHMEM_ID_ANY,
                           g_rand_int_range(rand, 1, 6), false);
            }
            break;
        case 1:
            if (size < 40) {
                world_join(world, random_id(rand), 1, g_rand_boolean(rand));
            }
            break;
        case 2:
            if (reader) {
                world_leave(world, reader);
            }
            break;
        case 3:
            world_reserve(world, random_id(rand),
                          g_rand_int_range(rand, 0, 8) == 0);
            break;
        case 4:
            world_reap(world, g_rand_int_range(rand, 0, 4));
            break;
        default:
            if (reader) {
                world_drain(world, reader, g_rand_int_range(rand, 0, 40));
            }
        }
        if (i % 16 == 0) {
            world_check(world);
        }
        if (i % 1000 == 0) {
            world_settle(world);
        }
        if (hand_over && i % 64 == 0) {
            world_hand_over(world);
        }
    }
    world_free(world);
}

/* R-SRV-13, R-SRV-14 */
static void test_random_life(void)
{
    random_life(false);
}

/* The same with a successor again and again, in the middle of everything. */
static void test_random_hand_over(void)
{
    random_life(true);
}

/* What is not the state of a registry is not taken for one. */
static void test_wrong_states(void)
{
    static const char *const states[] = {
        "(uint32 0, [(1, [7], [], 4, -1, 0)], @aq [])",     /* preamble */
        "(uint32 0, [(1, [7], [], 0, 1, 0)], @aq [])",      /* cursor */
        "(uint32 0, [(1, [7], [], 0, -2, 0)], @aq [])",
        "(uint32 0, [(1, [7], [], 0, 0, 1)], @aq [])",      /* vector */
        "(uint32 0, [(1, [7], [], 0, -1, 1)], @aq [])",
        "(uint32 0, [(1, [7], [], 0, 0, 0), (1, [8], [], 0, 0, 0)], @aq [])",
        "(uint32 0, [(1, [7], [], 0, 0, 0), (2, [], [3], 0, 0, 0)], @aq [])",
        "(uint32 0, [(1, [7], [], 0, 0, 0), (2, [], [], 0, 0, 0)], @aq [])",
        "(uint32 0, [(1, [7], [], 0, 0, 0), (2, [], [1, 1], 0, 0, 0)], @aq [])",
        "(uint32 2, [(1, [7], [], 0, 0, 0)], [uint16 1])",  /* free and used */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(states); i++) {
        g_autoptr(GVariant) state = g_variant_parse(
            G_VARIANT_TYPE("(ua(qaiaquiu)aq)"), states[i], NULL, NULL, NULL);

        g_assert_nonnull(state);
        g_assert_null(ivshmem_registry_restore(state, 0, NULL, NULL));
    }
}

/* The very frames of a small group, in the order that the protocol demands. */
/* R-SRV-2 to R-SRV-6 */
static void test_frames(void)
{
    static const int a_fds[] = { 11, 12 }, b_fds[] = { 21, 22 };
    static const IvshmemFrame a_wants[] = {
        { 0, -1 }, { 3, -1 }, { -1, 10 }, { 3, 11 }, { 3, 12 },
        { 5, 21 }, { 5, 22 },
    };
    static const IvshmemFrame b_wants[] = {
        { 0, -1 }, { 5, -1 }, { -1, 20 }, { 3, 11 }, { 3, 12 },
        { 5, 21 }, { 5, 22 }, { 3, -1 },
    };
    IvshmemRegistry *registry = ivshmem_registry_new(3);
    IvshmemJoin join = { .id = IVSHMEM_ID_ANY, .vectors = 2 };
    IvshmemMember *a, *b;
    IvshmemFrame frames[16];
    unsigned reaped = 0;

    join.shm_fd = 10;
    join.vector_fds = a_fds;
    g_assert_cmpint(ivshmem_registry_join(registry, &join, &a), ==, 0);
    join.id = 5;
    join.shm_fd = 20;
    join.vector_fds = b_fds;
    g_assert_cmpint(ivshmem_registry_join(registry, &join, &b), ==, 0);

    g_assert_cmpuint(ivshmem_member_peek(a, frames, 16), ==, 7);
    for (unsigned i = 0; i < 7; i++) {
        g_assert_cmpint(frames[i].value, ==, a_wants[i].value);
        g_assert_cmpint(frames[i].fd, ==, a_wants[i].fd);
    }
    g_assert_cmpuint(ivshmem_member_backlog(a), ==, 2);

    ivshmem_member_sent(registry, b, 4);    /* knows vector 0 of a */
    ivshmem_registry_leave(registry, a);
    g_assert_cmpuint(ivshmem_member_peek(b, frames, 16), ==, 3);
    for (unsigned i = 0; i < 3; i++) {      /* a's vector 1 is withdrawn */
        g_assert_cmpint(frames[i].value, ==, b_wants[5 + i].value);
        g_assert_cmpint(frames[i].fd, ==, b_wants[5 + i].fd);
    }
    ivshmem_registry_leave(registry, b);
    for (int fd; (fd = ivshmem_registry_reap(registry)) != -1; ) {
        g_assert_true(fd == 11 || fd == 12 || fd == 21 || fd == 22);
        reaped++;
    }
    g_assert_cmpuint(reaped, ==, 4);
    ivshmem_registry_free(registry);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/registry/frames", test_frames);
    fd_leak_add("/registry/one-stops-anywhere", test_one_stops_anywhere);
    fd_leak_add("/registry/all-combinations", test_all_combinations);
    fd_leak_add("/registry/random-reading", test_random_reading);
    fd_leak_add("/registry/random-life", test_random_life);
    fd_leak_add("/registry/random-hand-over", test_random_hand_over);
    fd_leak_add("/registry/wrong-states", test_wrong_states);
    return g_test_run();
}
