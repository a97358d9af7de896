/*
 * ivshmem tests: each file adds its own, every test runs on every machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_IVSHMEM_TEST_H
#define TESTS_QTEST_IVSHMEM_TEST_H

#include "ivshmem-vm.h"

typedef struct IvshmemTest {
    const char *name;           /* NULL ends a list */
    void (*run)(const char *machine);
} IvshmemTest;

/* Adds @tests as ivshmem/MACHINE/@area/NAME. */
void ivshmem_test_add(const char *area, const IvshmemTest *tests);

/* Checks of one device, here and in qos-test. */
void ivshmem_check_identity(QIvshmem *d);
void ivshmem_check_registers(QIvshmem *d, uint16_t id);
void ivshmem_check_accesses(QIvshmem *d, uint16_t id);
void ivshmem_check_memory(QIvshmem *d, uint64_t size);

void ivshmem_add_register_tests(void);
void ivshmem_add_interrupt_tests(void);
void ivshmem_add_handshake_tests(void);
void ivshmem_add_peer_tests(void);
void ivshmem_add_plug_tests(void);
void ivshmem_add_migration_tests(void);
void ivshmem_add_kvm_tests(void);

#endif /* TESTS_QTEST_IVSHMEM_TEST_H */
