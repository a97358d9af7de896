/*
 * A virtual machine with ivshmem devices, for tests: on every machine alike,
 * devices are plugged into two hot-plug slots and unplugged as guests do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_IVSHMEM_VM_H
#define TESTS_QTEST_IVSHMEM_VM_H

#include "libqtest.h"
#include "libqos/ivshmem.h"
#include "ivshmem-server-script.h"

#define IVSHMEM_VM_SLOTS 2

/* How long anything may take: far beyond what a loaded machine needs. */
#define IVSHMEM_TEST_DEADLINE_S 60

/* Waits until @condition, which has to ask QEMU (or poll) each time. */
#define IVSHMEM_WAIT(condition) \
    do { \
        gint64 end_ = g_get_monotonic_time() + \
                      IVSHMEM_TEST_DEADLINE_S * G_USEC_PER_SEC; \
        while (!(condition)) { \
            g_assert_cmpint(g_get_monotonic_time(), <, end_); \
        } \
    } while (0)

typedef struct IvshmemMachine IvshmemMachine;

/* Of the buses the last one is for devices without a slot. */
typedef struct IvshmemVM {
    QTestState *qts;
    const IvshmemMachine *machine;
    char *stderr_path;
    char *dir;
    QPCIBus *bus[IVSHMEM_VM_SLOTS + 1];
    unsigned turn[IVSHMEM_VM_SLOTS + 1];
    unsigned threads;           /* before the first device */
} IvshmemVM;

/* @args: more of the command line, or NULL. */
IvshmemVM *ivshmem_vm_start(const char *machine, const char *args);
void ivshmem_vm_stop(IvshmemVM *vm);

/* What QEMU has written to its standard error; the caller frees it. */
char *ivshmem_vm_stderr(const IvshmemVM *vm);

/* System reset; the device @d (NULL: none) gets its BARs back. */
void ivshmem_vm_reset(IvshmemVM *vm, QIvshmem *d);

/* Where @slot is, as device_add has it: "bus=...,addr=...". */
char *ivshmem_vm_place(const IvshmemVM *vm, unsigned slot);
int ivshmem_vm_devfn(const IvshmemVM *vm, unsigned slot);

/* What a slot of PCI Express hangs from. */
QPCIDevice ivshmem_vm_root_port(const IvshmemVM *vm, unsigned slot);

/*
 * device_add through QMP with @props, in JSON without braces.  The first
 * wants success, the second returns the error's text, which the caller frees.
 */
void ivshmem_vm_plug(IvshmemVM *vm, unsigned slot, const char *id,
                     const char *driver, const char *props, ...)
    G_GNUC_PRINTF(5, 6);
char *ivshmem_vm_plug_fails(IvshmemVM *vm, unsigned slot, const char *id,
                            const char *driver, const char *props, ...)
    G_GNUC_PRINTF(5, 6);

/* The parts of it, for when something has to happen in between. */
void ivshmem_vm_plug_send(IvshmemVM *vm, unsigned slot, const char *id,
                          const char *driver, const char *props);
char *ivshmem_vm_plug_finish(IvshmemVM *vm);

/* What HMP's device_add says: errors with their hints, and warnings. */
char *ivshmem_vm_plug_says(IvshmemVM *vm, unsigned slot, const char *id,
                           const char *driver, const char *props);

/* Finds the device in @slot, maps it, and gives it messages. */
void ivshmem_vm_probe(IvshmemVM *vm, unsigned slot, QIvshmem *d);

/*
 * Gives all vectors messages, other ones than last time, and leaves them
 * masked.  They go to the machine's interrupt controller if the tests know it
 * and it has room for so many, else to memory.
 */
void ivshmem_vm_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d);
bool ivshmem_vm_present(IvshmemVM *vm, unsigned slot);

/* device_del, and the guest ejects it. */
void ivshmem_vm_unplug(IvshmemVM *vm, unsigned slot, const char *id);

/* The steps of it. */
void ivshmem_vm_eject(IvshmemVM *vm, unsigned slot);
void ivshmem_vm_wait_deleted(IvshmemVM *vm, const char *id);

/*
 * Plug ivshmem-doorbell "iv0" or "iv1" with chardev "chr0" or "chr1", by slot,
 * and probe it.  @props: more of it, in JSON, or NULL.
 *
 * _script: the server gives it @id and as many vectors as it has.
 * _group: returns the ID that the server gave it.
 */
void ivshmem_vm_join_script(IvshmemVM *vm, unsigned slot, IvshmemScript *s,
                            uint16_t id, unsigned vectors, const char *props,
                            QIvshmem *d);
uint16_t ivshmem_vm_join_group(IvshmemVM *vm, unsigned slot,
                               IvshmemGroup *group, unsigned vectors,
                               const char *props, QIvshmem *d);

/* Unplug it, and remove its chardev. */
void ivshmem_vm_leave(IvshmemVM *vm, unsigned slot);

/* Chardevs to the unix socket @path, and memory backends @kind. */
void ivshmem_vm_chardev_add(IvshmemVM *vm, const char *id, const char *path);
void ivshmem_vm_chardev_remove(IvshmemVM *vm, const char *id);
void ivshmem_vm_memory_add(IvshmemVM *vm, const char *id, uint64_t size,
                           bool share);
void ivshmem_vm_object_del(IvshmemVM *vm, const char *id);

/* QOM properties of /machine/peripheral/@id. */
uint64_t ivshmem_vm_get_int(IvshmemVM *vm, const char *id, const char *name);
bool ivshmem_vm_connected(IvshmemVM *vm, const char *id);

/* Vectors of peer @peer as the property "peers" has it; -1: no such peer. */
int ivshmem_vm_peer_vectors(IvshmemVM *vm, const char *id, unsigned peer);
unsigned ivshmem_vm_peers(IvshmemVM *vm, const char *id);

/* Open descriptors of QEMU, without those that RCU is about to close. */
unsigned ivshmem_vm_fds(const IvshmemVM *vm);

/* How many QEMU has when all that the devices which left had is closed. */
unsigned ivshmem_vm_fds_left(const IvshmemVM *vm);

/* The same, with all that the first one leaves open: plugs and unplugs one. */
unsigned ivshmem_vm_fds_without(IvshmemVM *vm, IvshmemScript *s);
void ivshmem_vm_wait_fds(const IvshmemVM *vm, unsigned n);

/* Waits for one interrupt, and takes it. */
void ivshmem_vm_wait_interrupt(QIvshmem *d, unsigned vector);

/* QEMU has seen all that happened to its descriptors before. */
void ivshmem_vm_settle(IvshmemVM *vm);

#endif /* TESTS_QTEST_IVSHMEM_VM_H */
