/*
 * Fuzz target: peers that come, go and read in any order.
 *
 * The first byte chooses the first id.  Then steps of two bytes, what and
 * whom; the model (tests/registry-model.c) is the oracle.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>

#include "fuzz.h"
#include "registry-model.h"

/* Few and small: the model compares everything with everything. */
#define READERS_MAX 16
#define STEPS_MAX 400

/* Few ids, so that they collide; some in the range that ANY has. */
static int fuzz_id(uint8_t byte)
{
    static const int ids[] = {
        0, 1, 2, 65533, 65534, 65535, 65536, -2,
    };

    return ids[byte % G_N_ELEMENTS(ids)];
}

static Reader *fuzz_reader(World *world, uint8_t whom)
{
    unsigned size = world_size(world);

    return size ? world_nth(world, whom % size) : NULL;
}

static void fuzz_join(World *world, int id, uint8_t how)
{
    static const unsigned vectors[] = { 1, 2, 3, 5, 0, 33, 2049, 9 };

    if (world_size(world) < READERS_MAX) {
        world_join(world, id, vectors[how >> 3 & 7], how & 0x40);
    }
}

static void fuzz_step(World *world, uint8_t what, uint8_t how)
{
    Reader *reader = fuzz_reader(world, how);

    switch (what & 7) {
    case 0:
        fuzz_join(world, IVSHMEM_ID_ANY, how & 0x18);   /* 1..5 vectors */
        break;
    case 1:
        fuzz_join(world, fuzz_id(how), how);
        break;
    case 2:
        if (reader) {
            world_leave(world, reader);
        }
        break;
    case 3:
        world_reserve(world, (uint16_t)fuzz_id(how), how & 0x80);
        break;
    case 4:
        world_reap(world, 1 + how % 8);
        break;
    case 5:
        if (reader) {
            world_drain(world, reader, SIZE_MAX);
        }
        break;
    default:
        if (reader) {
            world_drain(world, reader, 1 + (what >> 3));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t first_ids[] = { 0, 1, 65530, 65535 };
    FuzzInput in = { data, size };
    World *world = world_new(first_ids[fuzz_byte(&in) % 4]);

    for (unsigned step = 0; in.left && step < STEPS_MAX; step++) {
        uint8_t what = fuzz_byte(&in), how = fuzz_byte(&in);

        fuzz_step(world, what, how);
        world_check(world);
    }
    world_settle(world);
    world_free(world);
    return 0;
}
