/*
 * ivshmem-guest: finds the devices and reads what sysfs tells about them.
 *
 * Opens no device: access.c and its back-ends do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include "device.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-fd.h"

static int ivshmem_sysfs_open(const char *dir, const char *name, int flags)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return open(path, flags | O_CLOEXEC);
}

bool ivshmem_sysfs_read(const char *dir, const char *name, char *text, size_t size)
{
    IVSHMEM_FD_AUTO int fd = ivshmem_sysfs_open(dir, name, O_RDONLY);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    n = read(fd, text, size - 1);
    if (n < 0) {
        return false;
    }
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return true;
}

bool ivshmem_sysfs_number(const char *dir, const char *name, uint64_t *value)
{
    char text[64], *end;

    if (!ivshmem_sysfs_read(dir, name, text, sizeof(text))) {
        return false;
    }
    *value = strtoull(text, &end, 0);
    return end != text;
}

int ivshmem_sysfs_write(const char *dir, const char *name, const char *text)
{
    IVSHMEM_FD_AUTO int fd = ivshmem_sysfs_open(dir, name, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        return -errno;
    }
    return 0;
}

bool ivshmem_sysfs_link(const char *dir, const char *name, char *text, size_t size)
{
    char path[PATH_MAX], target[PATH_MAX], *base;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0) {
        return false;
    }
    target[n] = '\0';
    base = strrchr(target, '/');
    snprintf(text, size, "%s", base ? base + 1 : target);
    return true;
}

static bool ivshmem_device_read_bars(IvshmemDevice *dev)
{
    IVSHMEM_FD_AUTO int fd = ivshmem_sysfs_open(dev->path, "resource", O_RDONLY);
    char text[1024], *line = text;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0) {
        return false;
    }
    text[n] = '\0';
    for (int bar = 0; bar < IVSHMEM_BARS && line && *line; bar++) {
        unsigned long long start, end, flags;

        if (sscanf(line, "%llx %llx %llx", &start, &end, &flags) == 3 && end) {
            dev->bar_address[bar] = start;
            dev->bar_size[bar] = end - start + 1;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return true;
}

/* The number of MSI-X vectors; -1 when the configuration space ends before. */
static int ivshmem_device_msix(const uint8_t *config, size_t n)
{
    unsigned pos, hops = 0;

    if (n <= PCI_STD_HEADER_SIZEOF) {
        return -1;
    }
    if (!(config[PCI_STATUS] & PCI_STATUS_CAP_LIST)) {
        return 0;
    }
    pos = config[PCI_CAPABILITY_LIST] & ~3u;
    while (pos >= PCI_STD_HEADER_SIZEOF && pos + 4 <= n && hops++ < 48) {
        if (config[pos] == PCI_CAP_ID_MSIX) {
            unsigned flags = config[pos + PCI_MSIX_FLAGS] |
                             config[pos + PCI_MSIX_FLAGS + 1] << 8;

            return (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
        }
        pos = config[pos + 1] & ~3u;
    }
    return 0;
}

static void ivshmem_device_read_config(IvshmemDevice *dev)
{
    IVSHMEM_FD_AUTO int fd = ivshmem_sysfs_open(dev->path, "config", O_RDONLY);
    uint8_t config[256];
    ssize_t n = fd < 0 ? 0 : read(fd, config, sizeof(config));

    dev->doorbell = dev->bar_size[IVSHMEM_BAR_MSIX] != 0;
    dev->vectors = -1;
    dev->memory_enabled = n > PCI_COMMAND &&
                          (config[PCI_COMMAND] & PCI_COMMAND_MEMORY);
    if (n > 0) {
        dev->vectors = ivshmem_device_msix(config, n);
    }
    if (!dev->doorbell) {
        dev->vectors = 0;
    }
}

static bool ivshmem_device_is_ours(const char *path, uint64_t *revision)
{
    uint64_t vendor, device;

    return ivshmem_sysfs_number(path, "vendor", &vendor) &&
           ivshmem_sysfs_number(path, "device", &device) &&
           vendor == IVSHMEM_PCI_VENDOR_ID && device == IVSHMEM_PCI_DEVICE_ID &&
           ivshmem_sysfs_number(path, "revision", revision);
}

static void ivshmem_device_fill(IvshmemDevice *dev)
{
    char group[32];
    uint64_t number;

    ivshmem_device_read_bars(dev);
    ivshmem_device_read_config(dev);
    if (ivshmem_sysfs_number(dev->path, "subsystem_device", &number)) {
        dev->region_id = number;
    }
    dev->iommu_group = -1;
    if (ivshmem_sysfs_link(dev->path, "iommu_group", group, sizeof(group))) {
        dev->iommu_group = atoi(group);
    }
    if (!ivshmem_sysfs_link(dev->path, "driver", dev->driver, sizeof(dev->driver))) {
        dev->driver[0] = '\0';
    }
}

static int ivshmem_device_compare(const void *a, const void *b)
{
    return strcmp(((const IvshmemDevice *)a)->address,
                  ((const IvshmemDevice *)b)->address);
}

/* Appends one entry; false when memory runs out. */
static bool ivshmem_device_append(IvshmemDevices *devices, const char *path,
                                  const char *address)
{
    IvshmemDevice *list = realloc(devices->list, (devices->n + 1) * sizeof(*list));
    IvshmemDevice *dev;

    if (!list) {
        return false;
    }
    devices->list = list;
    dev = &list[devices->n++];
    memset(dev, 0, sizeof(*dev));
    snprintf(dev->path, sizeof(dev->path), "%s", path);
    snprintf(dev->address, sizeof(dev->address), "%.31s", address);
    ivshmem_device_fill(dev);
    return true;
}

bool ivshmem_device_scan(const char *sysfs, IvshmemDevices *devices,
                         IvshmemError *err)
{
    char root[200], path[256];
    struct dirent *entry;
    bool ok = true;
    DIR *dir;

    memset(devices, 0, sizeof(*devices));
    snprintf(root, sizeof(root), "%s/bus/pci/devices", sysfs);
    dir = opendir(root);
    if (!dir) {
        return ivshmem_error_set(err, "cannot list PCI devices in %s: %s; is sysfs "
                                 "mounted (mount -t sysfs sysfs /sys) and has this "
                                 "machine PCI?", root, strerror(errno));
    }
    while (ok && (entry = readdir(dir))) {
        uint64_t revision;

        if (entry->d_name[0] == '.' ||
            snprintf(path, sizeof(path), "%s/%s", root, entry->d_name)
            >= (int)sizeof(path) || !ivshmem_device_is_ours(path, &revision)) {
            continue;
        }
        if (revision != IVSHMEM_PCI_REVISION) {
            devices->old_revisions++;
            continue;
        }
        ok = ivshmem_device_append(devices, path, entry->d_name) ||
             ivshmem_error_set(err, "out of memory");
    }
    closedir(dir);
    if (ok && devices->n) {
        qsort(devices->list, devices->n, sizeof(devices->list[0]),
              ivshmem_device_compare);
    }
    return ok;
}

static bool ivshmem_device_matches(const IvshmemDevice *dev, const char *name)
{
    uint64_t id;

    if (!strncmp(name, "id=", 3)) {
        return ivshmem_parse_size(name + 3, &id) && dev->region_id == id;
    }
    return !strcmp(dev->address, name) ||
           (strlen(name) + 5 == strlen(dev->address) &&
            !strncmp(dev->address, "0000:", 5) && !strcmp(dev->address + 5, name));
}

/* Why @name is none of ours. */
static bool ivshmem_device_unknown(const IvshmemOptions *opt, IvshmemError *err)
{
    char path[256];
    uint64_t vendor, device, revision = 0;

    snprintf(path, sizeof(path), "%s/bus/pci/devices/%s%s", opt->sysfs,
             strlen(opt->device) == 7 ? "0000:" : "", opt->device);
    if (strncmp(opt->device, "id=", 3) &&
        ivshmem_sysfs_number(path, "vendor", &vendor) &&
        ivshmem_sysfs_number(path, "device", &device)) {
        ivshmem_sysfs_number(path, "revision", &revision);
        return ivshmem_error_set(err, "%s is PCI device %04x:%04x revision %u, not an "
                                 "ivshmem device (%04x:%04x revision %u): "
                                 "'ivshmem-guest list' shows those", opt->device,
                                 (unsigned)vendor, (unsigned)device,
                                 (unsigned)revision, IVSHMEM_PCI_VENDOR_ID,
                                 IVSHMEM_PCI_DEVICE_ID, IVSHMEM_PCI_REVISION);
    }
    return ivshmem_error_set(err, "no ivshmem device '%s': give an address like "
                             "00:03.0 or a region ID like id=7; 'ivshmem-guest list' "
                             "shows both", opt->device);
}

static bool ivshmem_device_none(const IvshmemDevices *devices, IvshmemError *err)
{
    if (devices->old_revisions) {
        return ivshmem_error_set(err, "this machine has ivshmem of an old revision "
                                 "only; revision %d is needed: start the VM with "
                                 "-device ivshmem-plain or ivshmem-doorbell",
                                 IVSHMEM_PCI_REVISION);
    }
    return ivshmem_error_set(err, "this machine has no ivshmem device (PCI %04x:%04x): "
                             "start the VM with -device ivshmem-plain or "
                             "ivshmem-doorbell", IVSHMEM_PCI_VENDOR_ID,
                             IVSHMEM_PCI_DEVICE_ID);
}

bool ivshmem_device_select(const IvshmemOptions *opt, IvshmemDevice *dev,
                           IvshmemError *err)
{
    IvshmemDevices devices;
    size_t matches = 0;
    bool ok = true;

    if (!ivshmem_device_scan(opt->sysfs, &devices, err)) {
        free(devices.list);
        return false;
    }
    for (size_t i = 0; i < devices.n; i++) {
        if (!opt->device || ivshmem_device_matches(&devices.list[i], opt->device)) {
            *dev = devices.list[i];
            matches++;
        }
    }
    if (!matches && opt->device) {
        ok = ivshmem_device_unknown(opt, err);
    } else if (!matches) {
        ok = ivshmem_device_none(&devices, err);
    } else if (matches > 1) {
        ok = ivshmem_error_set(err, "%zu ivshmem devices fit: choose one by its "
                               "address with --device; 'ivshmem-guest list' shows "
                               "them", matches);
    }
    free(devices.list);
    return ok;
}

bool ivshmem_device_is_noiommu(const IvshmemDevice *dev)
{
    char path[320], name[64];

    snprintf(path, sizeof(path), "%s/iommu_group", dev->path);
    return ivshmem_sysfs_read(path, "name", name, sizeof(name)) &&
           !strcmp(name, "vfio-noiommu");
}

void ivshmem_device_vfio_path(const IvshmemDevice *dev, char *path, size_t size)
{
    snprintf(path, size, "/dev/vfio/%s%d",
             ivshmem_device_is_noiommu(dev) ? "noiommu-" : "", dev->iommu_group);
}
