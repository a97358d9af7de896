/*
 * ivshmem-guest: list and info.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "access.h"
#include "command.h"
#include "hw/misc/ivshmem.h"

static void ivshmem_show_size(uint64_t size, char *text, size_t n)
{
    static const char units[] = "KMGT";
    int unit = -1;

    while (unit < 3 && size && size % 1024 == 0) {
        size /= 1024;
        unit++;
    }
    snprintf(text, n, "%" PRIu64 "%.*s", size, unit >= 0, unit >= 0 ? units + unit : "");
}

static void ivshmem_show_vectors(const IvshmemDevice *dev, char *text, size_t n)
{
    if (dev->vectors < 0) {
        snprintf(text, n, "?");
    } else {
        snprintf(text, n, "%d", dev->vectors);
    }
}

static void ivshmem_show_json(const IvshmemDevice *dev)
{
    printf("{\"address\": \"%s\", \"kind\": \"%s\", \"region_id\": %u, \"size\": %" PRIu64
           ", \"vectors\": %d, \"driver\": \"%s\", \"iommu_group\": %d", dev->address,
           ivshmem_device_kind(dev), dev->region_id, dev->bar_size[IVSHMEM_BAR_SHM],
           dev->vectors, dev->driver, dev->iommu_group);
}

bool ivshmem_command_list(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    IvshmemDevices devices;
    char size[32], vectors[16];
    bool ok;

    (void)argc, (void)argv;
    ok = ivshmem_device_scan(opt->sysfs, &devices, err);
    if (ok && !opt->json && devices.n) {
        printf("%-13s %-9s %-7s %7s %8s  %s\n", "ADDRESS", "KIND", "ID", "SIZE",
               "VECTORS", "DRIVER");
    }
    for (size_t i = 0; ok && i < devices.n; i++) {
        const IvshmemDevice *dev = &devices.list[i];

        if (opt->json) {
            ivshmem_show_json(dev);
            puts("}");
            continue;
        }
        ivshmem_show_size(dev->bar_size[IVSHMEM_BAR_SHM], size, sizeof(size));
        ivshmem_show_vectors(dev, vectors, sizeof(vectors));
        printf("%-13s %-9s id=%-4u %7s %8s  %s\n", dev->address,
               ivshmem_device_kind(dev), dev->region_id, size, vectors,
               ivshmem_device_driver(dev));
    }
    if (ok && devices.old_revisions) {
        fprintf(stderr, "ivshmem-guest: %u device(s) of an old revision left out\n",
                devices.old_revisions);
    }
    if (ok && !devices.n) {
        ok = ivshmem_error_set(err, "this machine has no ivshmem device (PCI %04x:%04x "
                               "revision %d): start the VM with -device ivshmem-plain "
                               "or ivshmem-doorbell", IVSHMEM_PCI_VENDOR_ID,
                               IVSHMEM_PCI_DEVICE_ID, IVSHMEM_PCI_REVISION);
    }
    free(devices.list);
    return ok;
}

/* What this device can be used for, and what helps when that is little. */
static const char *ivshmem_show_interrupts(const IvshmemDevice *dev)
{
    char path[320];

    if (!dev->doorbell) {
        return "none: ivshmem-plain is polled";
    }
    if (!strcmp(dev->driver, "vfio-pci")) {
        return "MSI-X by way of VFIO";
    }
    snprintf(path, sizeof(path), "%s/uio", dev->path);
    if (!access(path, F_OK)) {
        return "by way of uio, one for all vectors";
    }
    return "not usable yet: run 'ivshmem-guest bind'";
}

static void ivshmem_show_info(const IvshmemAccess *access, uint32_t id)
{
    const IvshmemDevice *dev = &access->dev;
    char size[32], vectors[16];

    ivshmem_show_size(access->shm_size, size, sizeof(size));
    ivshmem_show_vectors(dev, vectors, sizeof(vectors));
    printf("address:     %s\n", dev->address);
    printf("kind:        ivshmem-%s\n", ivshmem_device_kind(dev));
    printf("region id:   %u\n", dev->region_id);
    printf("peer id:     %" PRIu32 "%s\n", id, dev->doorbell ? "" :
           " (ivshmem-plain has no IDs)");
    printf("memory:      %s (%" PRIu64 " bytes) at 0x%" PRIx64 "\n", size,
           access->shm_size, dev->bar_address[IVSHMEM_BAR_SHM]);
    printf("mapping:     %s (%s)\n", access->mapping, access->mapping_why);
    printf("vectors:     %s\n", vectors);
    printf("interrupts:  %s\n", ivshmem_show_interrupts(dev));
    printf("driver:      %s\n", ivshmem_device_driver(dev));
    if (dev->iommu_group >= 0) {
        printf("iommu group: %d\n", dev->iommu_group);
    } else {
        printf("iommu group: none\n");
    }
    printf("reached by:  %s\n", access->backend->name);
}

bool ivshmem_command_info(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    IvshmemAccess access;
    uint32_t id;

    (void)argc, (void)argv;
    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_REGS | IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    id = ivshmem_access_read_reg(&access, IVSHMEM_REG_IV_POSITION);
    if (opt->json) {
        ivshmem_show_json(&access.dev);
        printf(", \"id\": %" PRIu32 ", \"mapping\": \"%s\", \"via\": \"%s\"}\n", id,
               access.mapping, access.backend->name);
    } else {
        ivshmem_show_info(&access, id);
    }
    ivshmem_access_close(&access);
    return true;
}
