/*
 * ivshmem-guest: ring and wait.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "access.h"
#include "command.h"
#include "hw/misc/ivshmem.h"

bool ivshmem_command_ring(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    uint16_t peer, vector = opt->vector;
    IvshmemAccess access;
    bool ok = true;

    if (!ivshmem_parse_u16(argv[0], "peer", &peer, err) ||
        (argc > 1 && !ivshmem_parse_u16(argv[1], "vector", &vector, err)) ||
        !ivshmem_access_open(&access, opt, IVSHMEM_NEED_REGS, err)) {
        return false;
    }
    if (!access.dev.doorbell) {
        ok = ivshmem_error_set(err, "%s is an ivshmem-plain device: it has no doorbell "
                               "and no peers to ring; use ivshmem-doorbell",
                               access.dev.address);
    }
    for (uint64_t i = 0; ok && i < (opt->count ? opt->count : 1); i++) {
        ivshmem_access_ring(&access, peer, vector);
    }
    if (ok && access.regs) {
        /* A posted write may still be on its way; a read of the device is not. */
        ivshmem_access_read_reg(&access, IVSHMEM_REG_IV_POSITION);
    }
    ivshmem_access_close(&access);
    return ok;
}

static void ivshmem_wait_print(const IvshmemOptions *opt, unsigned vector,
                               uint64_t count)
{
    if (opt->json) {
        printf("{\"vector\": %u, \"count\": %" PRIu64 "}\n", vector, count);
    } else {
        printf("vector %u: %" PRIu64 " interrupt%s\n", vector, count,
               count == 1 ? "" : "s");
    }
    fflush(stdout);
}

/* Waits for opt->count interrupts of @only (-1: of any vector). */
static bool ivshmem_wait_loop(IvshmemAccess *access, const IvshmemOptions *opt,
                              int only, IvshmemError *err)
{
    int64_t deadline = ivshmem_deadline(opt->timeout_ns);
    uint64_t left = opt->count ? opt->count : 1, count;
    unsigned vector;

    while (left) {
        switch (ivshmem_access_wait(access, deadline, -1, &vector, &count, err)) {
        case 1:
            if (count && (only < 0 || vector == (unsigned)only)) {
                ivshmem_wait_print(opt, vector, count);
                left -= count < left ? count : left;
            }
            break;
        case 0:
            return ivshmem_error_set(err, "no interrupt within %.3g s (%" PRIu64 " more "
                                     "expected); does a peer ring this guest's ID "
                                     "('ivshmem-guest info')?",
                                     opt->timeout_ns / 1e9, left);
        default:
            return false;
        }
    }
    return true;
}

/* Takes no registers: many kernels let sysfs have only what VFIO has not. */
bool ivshmem_command_wait(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    uint16_t vector = 0;
    IvshmemAccess access;
    bool ok = true;

    if ((argc && !ivshmem_parse_u16(argv[0], "vector", &vector, err)) ||
        !ivshmem_access_open(&access, opt, IVSHMEM_NEED_IRQ, err)) {
        return false;
    }
    if (argc && vector >= access.n_events) {
        ok = ivshmem_error_set(err, "%s has %u vector%s (%s): vector %u does not exist",
                               access.dev.address, access.n_events,
                               access.n_events == 1 ? "" : "s",
                               access.backend->name, vector);
    }
    if (ok && opt->verbose) {
        fprintf(stderr, "waiting on %u vectors by way of %s\n", access.n_events,
                access.backend->name);
    }
    ok = ok && ivshmem_wait_loop(&access, opt, argc ? vector : -1, err);
    ivshmem_access_close(&access);
    return ok;
}
