/*
 * ivshmem-guest: bench - what registers, doorbell, interrupts and memory cost.
 *
 * Rings only this guest's own ID; leaves the memory as it was.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "access.h"
#include "command.h"
#include "hw/misc/ivshmem.h"

#define IVSHMEM_BENCH_CALLS     10000
#define IVSHMEM_BENCH_TRIPS     2000
#define IVSHMEM_BENCH_COPY_NS   (200 * INT64_C(1000000))
#define IVSHMEM_BENCH_SIZE      (UINT64_C(1) << 20)
#define IVSHMEM_BENCH_WAIT_NS   (2 * INT64_C(1000000000))

static void ivshmem_bench_print(const IvshmemOptions *opt, const char *what,
                                const char *how, double value, const char *unit)
{
    if (opt->json) {
        printf("{\"what\": \"%s\", \"how\": \"%s\", \"value\": %.3f, \"unit\": \"%s\"}\n",
               what, how, value, unit);
    } else {
        printf("%-28s %-26s %12.2f %s\n", what, how, value, unit);
    }
    fflush(stdout);
}

static void ivshmem_bench_registers(IvshmemAccess *access, const IvshmemOptions *opt)
{
    const char *how = access->regs ? "mapped" : "system call";
    int64_t begin = ivshmem_now_ns();

    for (int i = 0; i < IVSHMEM_BENCH_CALLS; i++) {
        ivshmem_access_read_reg(access, IVSHMEM_REG_IV_POSITION);
    }
    ivshmem_bench_print(opt, "register read", how,
                        (double)(ivshmem_now_ns() - begin) / IVSHMEM_BENCH_CALLS, "ns");
}

/* Takes interrupts until none comes for a moment; their number, or -1. */
static int64_t ivshmem_bench_drain(IvshmemAccess *access, int64_t quiet_ns,
                                   IvshmemError *err)
{
    int64_t total = 0;
    uint64_t count;
    unsigned vector;
    int ret;

    while ((ret = ivshmem_access_wait(access, ivshmem_deadline(quiet_ns), -1, &vector,
                                      &count, err)) == 1) {
        total += count;
    }
    return ret < 0 ? -1 : total;
}

static bool ivshmem_bench_rings(IvshmemAccess *access, const IvshmemOptions *opt,
                                uint16_t id, IvshmemError *err)
{
    int64_t begin = ivshmem_now_ns(), arrived;

    for (int i = 0; i < IVSHMEM_BENCH_CALLS; i++) {
        ivshmem_access_ring(access, id, 0);
    }
    ivshmem_bench_print(opt, "one ring, for the sender", "to itself",
                        (double)(ivshmem_now_ns() - begin) / IVSHMEM_BENCH_CALLS, "ns");
    arrived = ivshmem_bench_drain(access, 50 * 1000000, err);
    if (arrived < 0) {
        return false;
    }
    ivshmem_bench_print(opt, "rings merged per interrupt", "to itself",
                        arrived ? (double)IVSHMEM_BENCH_CALLS / arrived : 0, "rings");
    return true;
}

static bool ivshmem_bench_interrupts(IvshmemAccess *access, const IvshmemOptions *opt,
                                     IvshmemError *err)
{
    static int64_t ns[IVSHMEM_BENCH_TRIPS];
    uint16_t id = ivshmem_access_read_reg(access, IVSHMEM_REG_IV_POSITION);
    int64_t begin;
    uint64_t count;
    unsigned vector;

    if (!ivshmem_bench_rings(access, opt, id, err)) {
        return false;
    }
    begin = ivshmem_now_ns();
    for (int i = 0; i < IVSHMEM_BENCH_TRIPS; i++) {
        int64_t start = ivshmem_now_ns();
        int ret;

        ivshmem_access_ring(access, id, 0);
        ret = ivshmem_access_wait(access, ivshmem_deadline(IVSHMEM_BENCH_WAIT_NS), -1,
                                  &vector, &count, err);
        if (ret <= 0) {
            return ret < 0 ? false :
                   ivshmem_error_set(err, "interrupt %d to itself did not arrive: is the "
                                     "device connected to a server (ID %u)?", i, id);
        }
        ns[i] = ivshmem_now_ns() - start;
    }
    ivshmem_bench_print(opt, "interrupt rate", "ring itself and wait",
                        IVSHMEM_BENCH_TRIPS * 1e9 / (ivshmem_now_ns() - begin), "/s");
    ivshmem_bench_print(opt, "interrupt latency, median", "ring itself and wait",
                        ivshmem_percentile(ns, IVSHMEM_BENCH_TRIPS, 50) / 1e3, "us");
    ivshmem_bench_print(opt, "interrupt latency, p99", "ring itself and wait",
                        ivshmem_percentile(ns, IVSHMEM_BENCH_TRIPS, 99) / 1e3, "us");
    return true;
}

static double ivshmem_bench_copy(volatile uint8_t *shm, uint8_t *ram, size_t size,
                                 bool out)
{
    int64_t begin = ivshmem_now_ns(), ns;
    uint64_t bytes = 0;

    do {
        if (out) {
            ivshmem_copy_out(shm, ram, size);
            ivshmem_barrier();
        } else {
            ivshmem_copy_in(ram, shm, size);
        }
        bytes += size;
        ns = ivshmem_now_ns() - begin;
    } while (ns < IVSHMEM_BENCH_COPY_NS);
    return bytes * 1e3 / ns;
}

/* Read and write one mapping; writes back what was read, so nothing changes. */
static void ivshmem_bench_mapping(const IvshmemOptions *opt, volatile uint8_t *shm,
                                  uint8_t *ram, size_t size, const char *how)
{
    volatile const uint64_t *word = (volatile const uint64_t *)shm;
    int64_t begin;

    ivshmem_bench_print(opt, "memory read", how,
                        ivshmem_bench_copy(shm, ram, size, false), "MB/s");
    ivshmem_bench_print(opt, "memory write", how,
                        ivshmem_bench_copy(shm, ram, size, true), "MB/s");
    begin = ivshmem_now_ns();
    for (int i = 0; i < IVSHMEM_BENCH_CALLS; i++) {
        (void)word[(i * 8u) % (size / 8)];
    }
    ivshmem_bench_print(opt, "load of 8 bytes", how,
                        (double)(ivshmem_now_ns() - begin) / IVSHMEM_BENCH_CALLS, "ns");
}

static bool ivshmem_bench_memory(const IvshmemOptions *opt, IvshmemError *err)
{
    static const char *const ways[][3] = {
        { "vfio", "auto", "VFIO" }, { "uio", "auto", "uio" },
        { "sysfs", "uc", "sysfs resource2" }, { "sysfs", "wc", "sysfs resource2_wc" },
    };
    uint64_t size = opt->size ? opt->size : IVSHMEM_BENCH_SIZE;
    uint8_t *ram = malloc(size), *other = malloc(size);
    IvshmemError ignored;
    unsigned done = 0;
    bool ok = true;

    if (!ram || !other) {
        ok = ivshmem_error_set(err, "out of memory for --size %" PRIu64, size);
    }
    for (size_t i = 0; ok && i < sizeof(ways) / sizeof(ways[0]); i++) {
        IvshmemOptions this = *opt;
        IvshmemAccess access;

        this.via = ways[i][0];
        this.map = ways[i][1];
        if (ivshmem_access_open(&access, &this, IVSHMEM_NEED_SHM, &ignored)) {
            ivshmem_bench_mapping(opt, access.shm, ram,
                                  size < access.shm_size ? size : access.shm_size,
                                  ways[i][2]);
            ivshmem_access_close(&access);
            done++;
        }
    }
    if (ok && done) {
        memset(other, 1, size);
        ivshmem_bench_mapping(opt, other, ram, size, "this guest's RAM");
    } else if (ok) {
        *err = ignored;
        ok = false;
    }
    free(ram);
    free(other);
    return ok;
}

bool ivshmem_command_bench(const IvshmemOptions *opt, int argc, char **argv,
                           IvshmemError *err)
{
    IvshmemAccess access;
    IvshmemDevice dev;
    bool interrupts, ok = true;

    (void)argc, (void)argv;
    if (opt->size && (opt->size < 4096 || opt->size % 8)) {
        return ivshmem_error_set(err, "--size %" PRIu64 " is not a multiple of 8 from "
                                 "4096 on", opt->size);
    }
    if (!ivshmem_device_select(opt, &dev, err)) {
        return false;
    }
    interrupts = dev.doorbell && !strcmp(dev.driver, "vfio-pci");
    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_REGS |
                             (interrupts ? IVSHMEM_NEED_IRQ : 0), err)) {
        return false;
    }
    ivshmem_bench_registers(&access, opt);
    if (interrupts) {
        ok = ivshmem_bench_interrupts(&access, opt, err);
    } else {
        fprintf(stderr, "ivshmem-guest: no interrupts measured: %s\n", dev.doorbell ?
                "run 'ivshmem-guest bind'" : "ivshmem-plain has none");
    }
    ivshmem_access_close(&access);
    return ok && ivshmem_bench_memory(opt, err);
}
