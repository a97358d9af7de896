/*
 * What the machines differ in on which the ivshmem tests run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_IVSHMEM_MACHINE_H
#define TESTS_QTEST_IVSHMEM_MACHINE_H

#include "ivshmem-vm.h"

/* What each slot, and the root bus after them, has to itself for BARs. */
#define IVSHMEM_VM_WINDOW_SIZE 0x08000000u

struct IvshmemMachine {
    const char *name;           /* in the names of tests */
    const char *type;           /* QEMU's name */
    const char *options;        /* command line */
    bool pcie;                  /* one root port per slot */
    bool unplugs_at_reset;      /* what the guest was asked to eject */
    uint64_t ram;
    uint32_t window;            /* of the first slot, as the bus has it */
    uint64_t cpu_offset;        /* the guest's address of bus address 0 */

    QPCIBus *(*bus_new)(IvshmemVM *vm);
    void (*bus_free)(QPCIBus *bus);

    /* After start and reset; NULL: nothing to do. */
    void (*start)(IvshmemVM *vm);

    /* The guest takes what was plugged (NULL: no need), and ejects it. */
    void (*accept)(IvshmemVM *vm, unsigned slot);
    void (*eject)(IvshmemVM *vm, unsigned slot);

    /*
     * Points the device's messages, @n in turn 0 or 1 for other ones than
     * last time, at an interrupt controller; false: it has no room for so
     * many.  NULL: messages go to memory.
     */
    bool (*aim)(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n);
};

/* The @n-th machine, NULL after the last one. */
const IvshmemMachine *ivshmem_machine_get(unsigned n);
const IvshmemMachine *ivshmem_machine_find(const char *name);

/* Arm's interrupt controllers: ivshmem-gic.c */
bool ivshmem_gicv2m_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n);
void ivshmem_its_start(IvshmemVM *vm);
bool ivshmem_its_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n);

#endif /* TESTS_QTEST_IVSHMEM_MACHINE_H */
