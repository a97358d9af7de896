/*
 * The shared memory as its users hold it: descriptor and mappings.
 *
 * Private to ivshmem-peer.c: not installed.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_MEMORY_H
#define IVSHMEM_MEMORY_H

#include <sys/stat.h>
#include "ivshmem-framer.h"

typedef struct IvshmemMemory {
    int fd;                     /* -1: none yet */
    struct stat stat;
    void *map[2];               /* read-only, read-write */
} IvshmemMemory;

void ivshmem_memory_init(IvshmemMemory *memory);

/* Unmaps and closes. */
void ivshmem_memory_clear(IvshmemMemory *memory);

/*
 * Take @fd, always consumed.  Memory that is there already must be the same
 * object, or the result is IVSHMEM_E_SHM_CHANGED and nothing changes.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_memory_take(IvshmemMemory *memory, int fd);

uint64_t ivshmem_memory_size(const IvshmemMemory *memory);

/* See ivshmem_peer_map(). */
IVSHMEM_WARN_UNUSED
int ivshmem_memory_map(IvshmemMemory *memory, bool writable, void **address);

#endif /* IVSHMEM_MEMORY_H */
