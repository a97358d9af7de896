/*
 * The shared memory: one object for the life of a peer, mapped on demand.
 *
 * Not responsible for what is in it, nor for SIGBUS.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <sys/mman.h>
#include "ivshmem-fd.h"
#include "ivshmem-memory.h"

void ivshmem_memory_init(IvshmemMemory *memory)
{
    *memory = (IvshmemMemory) { .fd = -1 };
}

void ivshmem_memory_clear(IvshmemMemory *memory)
{
    for (int i = 0; i < 2; i++) {
        if (memory->map[i]) {
            munmap(memory->map[i], (size_t)memory->stat.st_size);
        }
    }
    ivshmem_fd_close(&memory->fd);
    ivshmem_memory_init(memory);
}

int ivshmem_memory_take(IvshmemMemory *memory, int fd)
{
    IVSHMEM_FD_AUTO int owned = fd;
    const struct stat *before = &memory->stat;
    struct stat now;

    if (fstat(owned, &now) < 0) {
        return -errno;
    }
    if (memory->fd >= 0 &&
        (now.st_dev != before->st_dev || now.st_ino != before->st_ino ||
         now.st_size != before->st_size)) {
        return IVSHMEM_E_SHM_CHANGED;
    }
    ivshmem_fd_close(&memory->fd);
    memory->fd = ivshmem_fd_steal(&owned);
    memory->stat = now;
    return 0;
}

uint64_t ivshmem_memory_size(const IvshmemMemory *memory)
{
    return memory->fd < 0 ? 0 : (uint64_t)memory->stat.st_size;
}

int ivshmem_memory_map(IvshmemMemory *memory, bool writable, void **address)
{
    uint64_t size = ivshmem_memory_size(memory);

    if (memory->fd < 0) {
        return IVSHMEM_E_NO_SHM;
    }
    if (size > SIZE_MAX) {
        return -EFBIG;
    }
    if (!memory->map[writable]) {
        void *map = mmap(NULL, (size_t)size,
                         PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED,
                         memory->fd, 0);

        if (map == MAP_FAILED) {
            /* EPERM: sealed against writing */
            return errno == EPERM ? -EACCES : -errno;
        }
        memory->map[writable] = map;
    }
    *address = memory->map[writable];
    return 0;
}
