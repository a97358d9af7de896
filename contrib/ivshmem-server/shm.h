/*
 * Memory objects: what a region's clients map.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_SHM_H
#define IVSHMEM_SERVER_SHM_H

#include "config.h"

typedef struct IvshmemMemory IvshmemMemory;

/*
 * Make the object, or open it where it exists with the right size.  An object
 * that exists keeps its size and contents, or is an error.
 */
IvshmemMemory *ivshmem_memory_open(const IvshmemMemoryConfig *config,
                                   GError **errp);

/*
 * The sealed memory of a server that is no more, @fd, which is consumed.  NULL
 * with @errp set if it is not what @config describes.
 */
IvshmemMemory *ivshmem_memory_found_again(const IvshmemMemoryConfig *config,
                                          int fd, GError **errp);

/*
 * Removes the name, if @remove, a server made the object, and no other server
 * uses it; those who have mapped it keep it.  NULL is fine.
 */
void ivshmem_memory_close(IvshmemMemory *memory, bool remove);

/*
 * For another process, with the descriptors' numbers appended to @fds (of int),
 * which stay ours; and there, with what @fd_of gives for each number.
 */
GVariant *ivshmem_memory_save(const IvshmemMemory *memory, GArray *fds);
IvshmemMemory *ivshmem_memory_restore(GVariant *saved,
                                      int (*fd_of)(int saved, void *opaque),
                                      void *opaque);

/* Whether @memory is what @config describes. */
bool ivshmem_memory_check(const IvshmemMemory *memory,
                          const IvshmemMemoryConfig *config, GError **errp);

/* Borrowed: for reading and writing. */
int ivshmem_memory_fd(const IvshmemMemory *memory);

/*
 * Make ready for clients that may only read, while we have the privileges to
 * do it well.
 */
bool ivshmem_memory_prepare_read_only(IvshmemMemory *memory, GError **errp);

/*
 * Borrowed: for reading only, or -1 with @errp set.  For @user it cannot
 * become more than that, neither by mapping nor by opening it again.
 */
int ivshmem_memory_read_only_fd(IvshmemMemory *memory, uid_t user,
                                GError **errp);

uint64_t ivshmem_memory_size(const IvshmemMemory *memory);

/* "POSIX shared memory object /ivshmem", and so on; for people. */
const char *ivshmem_memory_describe(const IvshmemMemory *memory);

/* Whether the object was there before. */
bool ivshmem_memory_found(const IvshmemMemory *memory);

/* Bytes for which its file system has no room: who writes there is killed. */
uint64_t ivshmem_memory_lacks(const IvshmemMemory *memory);

/* Whether nobody can shrink it under those who have mapped it. */
bool ivshmem_memory_sealed(const IvshmemMemory *memory);

#endif /* IVSHMEM_SERVER_SHM_H */
