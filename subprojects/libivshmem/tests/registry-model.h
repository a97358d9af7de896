/*
 * A registry with all its members, each of whom reads through a session of its
 * own, and an independent account of what they must come to see.  Shared by
 * test-registry and fuzz-registry; every function asserts what must hold.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_TESTS_REGISTRY_MODEL_H
#define IVSHMEM_TESTS_REGISTRY_MODEL_H

#include "ivshmem-registry.h"

typedef struct World World;
typedef struct Reader Reader;

World *world_new(uint16_t first_id);

/* Everybody leaves, and every descriptor must have come out exactly once. */
void world_free(World *world);

/* NULL when it was refused, which must have been right. */
Reader *world_join(World *world, int id, unsigned vectors, bool reserved_ok);
void world_leave(World *world, Reader *reader);

/* Sends up to @n frames to @reader. */
void world_drain(World *world, Reader *reader, size_t n);

/* Takes up to @n descriptors out of the registry. */
void world_reap(World *world, size_t n);

/* The registry is saved, restored in another process, and the old one ends. */
void world_hand_over(World *world);

void world_reserve(World *world, uint16_t id, bool reserved);

/* What holds at any moment: counters, order, and fds that are still there. */
void world_check(World *world);

/* Sends and reaps everything; then all must see the same, the truth. */
void world_settle(World *world);

/* Readers in the order in which they joined. */
unsigned world_size(const World *world);
Reader *world_nth(const World *world, unsigned n);
Reader *world_find(const World *world, uint16_t id);
uint16_t reader_id(const Reader *reader);
const IvshmemMember *reader_member(const Reader *reader);

#endif /* IVSHMEM_TESTS_REGISTRY_MODEL_H */
