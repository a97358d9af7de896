/*
 * libqos driver for ivshmem-plain and ivshmem-doorbell.
 *
 * MSI-X messages go to guest memory, where a test can see them: an interrupt
 * is a number that has been written there.  Or a test brings a sink for them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_LIBQOS_IVSHMEM_H
#define TESTS_LIBQOS_IVSHMEM_H

#include "hw/misc/ivshmem.h"
#include "pci.h"
#include "qgraph.h"

typedef struct QIvshmem QIvshmem;

/* Where messages go: what to write into the table, and what has come. */
typedef struct QIvshmemSink {
    void (*message)(QIvshmem *d, unsigned vector, uint64_t *address,
                    uint32_t *data);
    bool (*take)(QIvshmem *d, unsigned vector);
} QIvshmemSink;

struct QIvshmem {
    QOSGraphObject obj;
    QPCIDevice dev;
    QPCIBar regs;
    QPCIBar shm;
    QPCIBar msix;
    uint64_t shm_size;
    unsigned vectors;           /* 0: ivshmem-plain */
    uint64_t messages;          /* the first one's address, or the sink's */
    const QIvshmemSink *sink;   /* NULL: guest memory */
};

/* The device at @devfn of @bus: maps its BARs and enables it. */
void qivshmem_init(QIvshmem *d, QPCIBus *bus, int devfn);

/* Puts the BARs where they were, after a reset or in a migrated VM. */
void qivshmem_remap(QIvshmem *d);

uint32_t qivshmem_read(QIvshmem *d, unsigned offset);
void qivshmem_write(QIvshmem *d, unsigned offset, uint32_t value);
void qivshmem_ring(QIvshmem *d, uint16_t peer, uint16_t vector);

/* Writes all messages, from the @first on, and leaves every vector masked. */
void qivshmem_msix_init(QIvshmem *d, uint64_t first);

/* As it is after reset: no address, no data; its mask stays. */
void qivshmem_msix_clear(QIvshmem *d, unsigned vector);

void qivshmem_msix_enable(QIvshmem *d, bool enable);
void qivshmem_msix_mask_all(QIvshmem *d, bool mask);
void qivshmem_msix_mask(QIvshmem *d, unsigned vector, bool mask);
bool qivshmem_msix_is_masked(QIvshmem *d, unsigned vector);
bool qivshmem_msix_pending(QIvshmem *d, unsigned vector);

/* Whether the interrupt has come since it was last taken. */
bool qivshmem_msix_take(QIvshmem *d, unsigned vector);

#endif /* TESTS_LIBQOS_IVSHMEM_H */
