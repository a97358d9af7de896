/*
 * ivshmem-guest: the ivshmem devices of this machine, as sysfs shows them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_GUEST_DEVICE_H
#define IVSHMEM_GUEST_DEVICE_H

#include "guest.h"

#define IVSHMEM_BARS 6

typedef struct IvshmemDevice {
    char address[32];           /* 0000:00:03.0 */
    char path[256];             /* its folder in sysfs */
    char driver[64];            /* empty: none */
    uint16_t region_id;         /* PCI subsystem ID */
    uint64_t bar_address[IVSHMEM_BARS];
    uint64_t bar_size[IVSHMEM_BARS];
    bool doorbell;              /* has MSI-X */
    int vectors;                /* -1: unknown, only root may look */
    int iommu_group;            /* -1: none */
    bool memory_enabled;        /* PCI command register */
} IvshmemDevice;

typedef struct IvshmemDevices {
    IvshmemDevice *list;        /* by address; free() it */
    size_t n;
    unsigned old_revisions;     /* 1af4:1110, but not revision 1 */
} IvshmemDevices;

bool ivshmem_device_scan(const char *sysfs, IvshmemDevices *devices,
                         IvshmemError *err);
/* The one that --device names, or the only one there is. */
bool ivshmem_device_select(const IvshmemOptions *opt, IvshmemDevice *dev,
                           IvshmemError *err);

/* Whether its group was made in the kernel's no-IOMMU mode. */
bool ivshmem_device_is_noiommu(const IvshmemDevice *dev);
/* The file of its IOMMU group, which one program at a time can open. */
void ivshmem_device_vfio_path(const IvshmemDevice *dev, char *path, size_t size);

static inline const char *ivshmem_device_driver(const IvshmemDevice *dev)
{
    return dev->driver[0] ? dev->driver : "none";
}

static inline const char *ivshmem_device_kind(const IvshmemDevice *dev)
{
    return dev->doorbell ? "doorbell" : "plain";
}

/* Small sysfs files. */
bool ivshmem_sysfs_read(const char *dir, const char *name, char *text, size_t size);
bool ivshmem_sysfs_number(const char *dir, const char *name, uint64_t *value);
/* 0 or -errno */
int ivshmem_sysfs_write(const char *dir, const char *name, const char *text);
/* The last part of what a link points to; false if there is no link. */
bool ivshmem_sysfs_link(const char *dir, const char *name, char *text, size_t size);

#endif /* IVSHMEM_GUEST_DEVICE_H */
