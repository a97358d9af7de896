/*
 * ivshmem-guest: an opened device - registers, memory, interrupts - whichever
 * way the kernel lets us at it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_GUEST_ACCESS_H
#define IVSHMEM_GUEST_ACCESS_H

#include <poll.h>
#include <stddef.h>
#include <sys/types.h>
#include "device.h"

enum {
    IVSHMEM_NEED_REGS = 1,
    IVSHMEM_NEED_SHM = 2,
    IVSHMEM_NEED_IRQ = 4,
};

typedef struct IvshmemAccess IvshmemAccess;

/*
 * open: fills what @need asks for; on failure close() is called as well.
 * interrupts: makes event_fd[]; NULL: this way has none.
 * close: idempotent, accepts a half-open access.
 */
typedef struct IvshmemBackend {
    const char *name;
    bool (*open)(IvshmemAccess *access, const IvshmemOptions *opt, unsigned need,
                 IvshmemError *err);
    bool (*interrupts)(IvshmemAccess *access, IvshmemError *err);
    void (*close)(IvshmemAccess *access);
} IvshmemBackend;

extern const IvshmemBackend ivshmem_backend_vfio;
extern const IvshmemBackend ivshmem_backend_sysfs;
extern const IvshmemBackend ivshmem_backend_uio;

struct IvshmemAccess {
    IvshmemDevice dev;
    const IvshmemBackend *backend;

    void *regs_map;             /* NULL: reach registers through regs_fd */
    size_t regs_map_size;
    volatile uint32_t *regs;
    int regs_fd;                /* borrowed from the back-end */
    off_t regs_offset;

    void *shm_map;
    volatile uint8_t *shm;
    uint64_t shm_size;
    const char *mapping;        /* what the mapping is, and why */
    const char *mapping_why;

    unsigned n_events;
    int *event_fd;              /* eventfd per vector; uio: one for all */
    bool event_is_uio;
    struct pollfd *poll;        /* event_fd[], then one place for another */

    int container_fd;           /* VFIO */
    int group_fd;
    int device_fd;              /* VFIO device or /dev/uioN */
};

bool ivshmem_access_open(IvshmemAccess *access, const IvshmemOptions *opt,
                         unsigned need, IvshmemError *err);
void ivshmem_access_close(IvshmemAccess *access);

uint32_t ivshmem_access_read_reg(IvshmemAccess *access, unsigned reg);
void ivshmem_access_write_reg(IvshmemAccess *access, unsigned reg, uint32_t value);
/* Orders the memory before the doorbell, then rings. */
void ivshmem_access_ring(IvshmemAccess *access, uint16_t peer, uint16_t vector);

/*
 * Waits for an interrupt, or for input on @other_fd (-1: none).
 * 1: interrupts, *@vector is one that fired, *@count how often it was rung;
 * 2: input; 0: the deadline passed; -1: failed.
 */
int ivshmem_access_wait(IvshmemAccess *access, int64_t deadline, int other_fd,
                        unsigned *vector, uint64_t *count, IvshmemError *err);

/* Aligned loads and stores only: BARs may be mapped as device memory. */
void ivshmem_copy_in(void *to, const volatile uint8_t *from, size_t n);
void ivshmem_copy_out(volatile uint8_t *to, const void *from, size_t n);

/* A full barrier that also drains write-combining buffers. */
static inline void ivshmem_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#ifdef __aarch64__
    __asm__ __volatile__("dmb sy" : : : "memory");
#endif
}

/* Maps BAR2 from sysfs: the one way to choose the kind of mapping. */
bool ivshmem_sysfs_map_shm(IvshmemAccess *access, const IvshmemOptions *opt,
                           IvshmemError *err);
bool ivshmem_sysfs_map_regs(IvshmemAccess *access, IvshmemError *err);
/* Turns on memory decoding if nobody has. */
bool ivshmem_sysfs_enable(IvshmemAccess *access, IvshmemError *err);

#endif /* IVSHMEM_GUEST_ACCESS_H */
