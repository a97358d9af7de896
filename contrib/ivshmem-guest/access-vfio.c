/*
 * ivshmem-guest: the device through VFIO - registers, memory and an eventfd per
 * MSI-X vector.  Needs an IOMMU, or the kernel's no-IOMMU mode.
 *
 * Binds nothing: bind.c does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "access.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-fd.h"

static bool ivshmem_vfio_open_container(IvshmemAccess *access, IvshmemError *err)
{
    access->container_fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (access->container_fd < 0) {
        return ivshmem_error_set(err, "cannot open /dev/vfio/vfio: %s; %s",
                                 strerror(errno),
                                 errno == EACCES || errno == EPERM ? "run as root" :
                                 "the module is missing: 'modprobe vfio-pci'");
    }
    if (ioctl(access->container_fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION) {
        return ivshmem_error_set(err, "this kernel's VFIO has another API version; "
                                 "use --via sysfs");
    }
    return true;
}

static bool ivshmem_vfio_open_group(IvshmemAccess *access, IvshmemError *err)
{
    const IvshmemDevice *dev = &access->dev;
    char path[64];

    ivshmem_device_vfio_path(dev, path, sizeof(path));
    access->group_fd = open(path, O_RDWR | O_CLOEXEC);
    if (access->group_fd >= 0) {
        return true;
    }
    if (errno == EBUSY) {
        return ivshmem_error_set(err, "device in use: another program has %s open "
                                 "(VFIO allows one); end it; beside 'wait' other "
                                 "commands work with --via sysfs", path);
    }
    return ivshmem_error_set(err, "cannot open %s: %s; %s", path, strerror(errno),
                             errno == ENOENT ? "run 'ivshmem-guest bind' again" :
                             "run as root");
}

/* Names the devices that keep a group from being used. */
static bool ivshmem_vfio_not_viable(const IvshmemDevice *dev, IvshmemError *err)
{
    char path[320], entry_path[640], driver[64], others[400] = "";
    struct dirent *entry;
    size_t used = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/iommu_group/devices", dev->path);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        snprintf(entry_path, sizeof(entry_path), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && used < sizeof(others) - 100 &&
            ivshmem_sysfs_link(entry_path, "driver", driver, sizeof(driver)) &&
            strcmp(driver, "vfio-pci")) {
            used += snprintf(others + used, sizeof(others) - used, " %.32s (%s)",
                             entry->d_name, driver);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return ivshmem_error_set(err, "IOMMU group %d of %s is not viable: other devices "
                             "in it are used by the kernel:%s; give ivshmem a slot of "
                             "its own (on q35 not behind a conventional PCI bridge), "
                             "or bind those to vfio-pci too", dev->iommu_group,
                             dev->address, others);
}

static bool ivshmem_vfio_set_iommu(IvshmemAccess *access, IvshmemError *err)
{
    static const int types[] = {
        VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU,
        VFIO_SPAPR_TCE_IOMMU,
    };
    bool noiommu = ivshmem_device_is_noiommu(&access->dev);

    if (noiommu && !ioctl(access->container_fd, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU)) {
        return true;
    }
    for (size_t i = 0; !noiommu && i < sizeof(types) / sizeof(types[0]); i++) {
        if (ioctl(access->container_fd, VFIO_CHECK_EXTENSION, types[i]) > 0 &&
            !ioctl(access->container_fd, VFIO_SET_IOMMU, types[i])) {
            return true;
        }
    }
    return ivshmem_error_set(err, "VFIO finds no IOMMU driver: %s; "
                             "'modprobe vfio_iommu_type1' (vfio_iommu_spapr_tce on "
                             "ppc64)", strerror(errno));
}

static bool ivshmem_vfio_open_device(IvshmemAccess *access, IvshmemError *err)
{
    struct vfio_group_status status = { .argsz = sizeof(status) };
    const IvshmemDevice *dev = &access->dev;

    if (ioctl(access->group_fd, VFIO_GROUP_GET_STATUS, &status) ||
        !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        return ivshmem_vfio_not_viable(dev, err);
    }
    if (ioctl(access->group_fd, VFIO_GROUP_SET_CONTAINER, &access->container_fd)) {
        return ivshmem_error_set(err, "VFIO group %d: %s; see dmesg", dev->iommu_group,
                                 strerror(errno));
    }
    if (!ivshmem_vfio_set_iommu(access, err)) {
        return false;
    }
    access->device_fd = ioctl(access->group_fd, VFIO_GROUP_GET_DEVICE_FD, dev->address);
    if (access->device_fd < 0) {
        return ivshmem_error_set(err, "VFIO gives no access to %s: %s; see dmesg",
                                 dev->address, strerror(errno));
    }
    return true;
}

static bool ivshmem_vfio_region(IvshmemAccess *access, unsigned index,
                                struct vfio_region_info *info, IvshmemError *err)
{
    *info = (struct vfio_region_info) { .argsz = sizeof(*info), .index = index };
    if (ioctl(access->device_fd, VFIO_DEVICE_GET_REGION_INFO, info)) {
        return ivshmem_error_set(err, "VFIO region %u of %s: %s; see dmesg", index,
                                 access->dev.address, strerror(errno));
    }
    return true;
}

static void *ivshmem_vfio_map(IvshmemAccess *access, const struct vfio_region_info *info)
{
    void *map;

    if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP)) {
        return NULL;
    }
    map = mmap(NULL, info->size, PROT_READ | PROT_WRITE, MAP_SHARED,
               access->device_fd, info->offset);
    return map == MAP_FAILED ? NULL : map;
}

/* Nobody else sets the bus master bit, without which no MSI-X leaves. */
static bool ivshmem_vfio_enable(IvshmemAccess *access, IvshmemError *err)
{
    struct vfio_region_info info;
    uint16_t command;
    off_t at;

    if (!ivshmem_vfio_region(access, VFIO_PCI_CONFIG_REGION_INDEX, &info, err)) {
        return false;
    }
    at = info.offset + PCI_COMMAND;
    if (pread(access->device_fd, &command, 2, at) == 2) {
        command = htole16(le16toh(command) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        if (pwrite(access->device_fd, &command, 2, at) == 2) {
            return true;
        }
    }
    return ivshmem_error_set(err, "cannot set the bus master bit of %s: %s; see dmesg",
                             access->dev.address, strerror(errno));
}

static bool ivshmem_vfio_map_bars(IvshmemAccess *access, const IvshmemOptions *opt,
                                  unsigned need, IvshmemError *err)
{
    struct vfio_region_info info;

    if (need & IVSHMEM_NEED_REGS) {
        if (!ivshmem_vfio_region(access, VFIO_PCI_BAR0_REGION_INDEX, &info, err)) {
            return false;
        }
        access->regs_fd = access->device_fd;
        access->regs_offset = info.offset;
        access->regs_map_size = info.size;
        access->regs_map = ivshmem_vfio_map(access, &info);
        access->regs = access->regs_map;
    }
    if (!(need & IVSHMEM_NEED_SHM)) {
        return true;
    }
    if (strcmp(opt->map, "auto")) {
        return ivshmem_sysfs_map_shm(access, opt, err);
    }
    if (!ivshmem_vfio_region(access, VFIO_PCI_BAR2_REGION_INDEX, &info, err)) {
        return false;
    }
    access->shm_map = ivshmem_vfio_map(access, &info);
    access->shm = access->shm_map;
    access->mapping = "uncached";
    access->mapping_why = "VFIO maps BARs so; --map wc takes sysfs resource2_wc";
    return access->shm_map ||
           ivshmem_error_set(err, "VFIO cannot map BAR2 of %s: %s; use --via sysfs",
                             access->dev.address, strerror(errno));
}

static bool ivshmem_vfio_open(IvshmemAccess *access, const IvshmemOptions *opt,
                              unsigned need, IvshmemError *err)
{
    const IvshmemDevice *dev = &access->dev;

    if (strcmp(dev->driver, "vfio-pci")) {
        return ivshmem_error_set(err, "%s is bound to driver '%s', VFIO needs vfio-pci: "
                                 "run 'ivshmem-guest bind'", dev->address,
                                 ivshmem_device_driver(dev));
    }
    return ivshmem_vfio_open_container(access, err) &&
           ivshmem_vfio_open_group(access, err) &&
           ivshmem_vfio_open_device(access, err) &&
           ivshmem_vfio_enable(access, err) &&
           ivshmem_vfio_map_bars(access, opt, need, err);
}

static bool ivshmem_vfio_make_events(IvshmemAccess *access, unsigned n,
                                     IvshmemError *err)
{
    access->event_fd = malloc(n * sizeof(int));
    access->poll = calloc(n + 1, sizeof(*access->poll));
    if (!access->event_fd || !access->poll) {
        return ivshmem_error_set(err, "out of memory");
    }
    for (; access->n_events < n; access->n_events++) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        if (fd < 0) {
            return ivshmem_error_set(err, "eventfd for vector %u: %s; raise "
                                     "'ulimit -n'", access->n_events, strerror(errno));
        }
        access->event_fd[access->n_events] = fd;
    }
    return true;
}

static bool ivshmem_vfio_interrupts(IvshmemAccess *access, IvshmemError *err)
{
    struct vfio_irq_info info = {
        .argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX,
    };
    struct vfio_irq_set *set;
    int ret;

    if (ioctl(access->device_fd, VFIO_DEVICE_GET_IRQ_INFO, &info) || !info.count) {
        return ivshmem_error_set(err, "%s has no MSI-X vectors; is it ivshmem-doorbell "
                                 "with vectors=1 or more?", access->dev.address);
    }
    if (!ivshmem_vfio_make_events(access, info.count, err)) {
        return false;
    }
    set = calloc(1, sizeof(*set) + info.count * sizeof(int));
    if (!set) {
        return ivshmem_error_set(err, "out of memory");
    }
    set->argsz = sizeof(*set) + info.count * sizeof(int);
    set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set->index = VFIO_PCI_MSIX_IRQ_INDEX;
    set->count = info.count;
    memcpy(set->data, access->event_fd, info.count * sizeof(int));
    ret = ioctl(access->device_fd, VFIO_DEVICE_SET_IRQS, set);
    free(set);
    return !ret ||
           ivshmem_error_set(err, "cannot set up %u MSI-X vectors of %s: %s; with fewer "
                             "vectors= on the device it may work", info.count,
                             access->dev.address, strerror(errno));
}

static void ivshmem_vfio_close(IvshmemAccess *access)
{
    ivshmem_fd_close(&access->device_fd);       /* ends the interrupts as well */
    for (unsigned i = 0; i < access->n_events; i++) {
        ivshmem_fd_close(&access->event_fd[i]);
    }
    ivshmem_fd_close(&access->group_fd);
    ivshmem_fd_close(&access->container_fd);
}

const IvshmemBackend ivshmem_backend_vfio = {
    .name = "VFIO",
    .open = ivshmem_vfio_open,
    .interrupts = ivshmem_vfio_interrupts,
    .close = ivshmem_vfio_close,
};
