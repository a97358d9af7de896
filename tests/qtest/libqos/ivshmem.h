/*
 * libqos driver for ivshmem-plain and ivshmem-doorbell.
 *
 * MSI-X messages are directed to guest memory, where a test can see them:
 * an interrupt is a number that has been written there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_LIBQOS_IVSHMEM_H
#define TESTS_LIBQOS_IVSHMEM_H

#include "hw/misc/ivshmem.h"
#include "pci.h"
#include "qgraph.h"

typedef struct QIvshmem {
    QOSGraphObject obj;
    QPCIDevice dev;
    QPCIBar regs;
    QPCIBar shm;
    QPCIBar msix;
    uint64_t shm_size;
    unsigned vectors;           /* 0: ivshmem-plain */
    uint64_t messages;          /* guest address; 0: none yet */
} QIvshmem;

/* The device at @devfn of @bus: maps its BARs and enables it. */
void qivshmem_init(QIvshmem *d, QPCIBus *bus, int devfn);

/* Puts the BARs where they were, after a reset or in a migrated VM. */
void qivshmem_remap(QIvshmem *d);

uint32_t qivshmem_read(QIvshmem *d, unsigned offset);
void qivshmem_write(QIvshmem *d, unsigned offset, uint32_t value);
void qivshmem_ring(QIvshmem *d, uint16_t peer, uint16_t vector);

/* Writes all messages, to @address and on, and leaves every vector masked. */
void qivshmem_msix_init(QIvshmem *d, uint64_t address);

void qivshmem_msix_enable(QIvshmem *d, bool enable);
void qivshmem_msix_mask_all(QIvshmem *d, bool mask);
void qivshmem_msix_mask(QIvshmem *d, unsigned vector, bool mask);
bool qivshmem_msix_is_masked(QIvshmem *d, unsigned vector);
bool qivshmem_msix_pending(QIvshmem *d, unsigned vector);

/* Whether the interrupt has come since it was last taken. */
bool qivshmem_msix_take(QIvshmem *d, unsigned vector);

#endif /* TESTS_LIBQOS_IVSHMEM_H */
