/*
 * ivshmem-guest: the device through /dev/uioN, for machines with a driver like
 * uio_ivshmem.  uio has one interrupt for all vectors; what the driver does not
 * map comes from sysfs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "access.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-fd.h"

/* The name, uioN, that the kernel gave this device. */
static bool ivshmem_uio_name(const IvshmemDevice *dev, char *name, size_t size)
{
    char path[320];
    struct dirent *entry;
    bool found = false;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/uio", dev->path);
    dir = opendir(path);
    while (dir && !found && (entry = readdir(dir))) {
        if (!strncmp(entry->d_name, "uio", 3)) {
            snprintf(name, size, "%.20s", entry->d_name);
            found = true;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

/* Maps the uio map that shows a BAR; NULL if the driver offers none. */
static void *ivshmem_uio_map(IvshmemAccess *access, const char *name, int bar,
                             size_t size)
{
    char dir[400];
    uint64_t address;
    size_t page = sysconf(_SC_PAGESIZE);
    void *map;

    for (int i = 0; i < 5; i++) {       /* MAX_UIO_MAPS */
        snprintf(dir, sizeof(dir), "%s/uio/%s/maps/map%d", access->dev.path, name, i);
        if (ivshmem_sysfs_number(dir, "addr", &address) &&
            address == access->dev.bar_address[bar]) {
            map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                       access->device_fd, i * page);
            return map == MAP_FAILED ? NULL : map;
        }
    }
    return NULL;
}

static bool ivshmem_uio_map_bars(IvshmemAccess *access, const char *name,
                                 const IvshmemOptions *opt, unsigned need,
                                 IvshmemError *err)
{
    size_t page = sysconf(_SC_PAGESIZE);

    if (need & IVSHMEM_NEED_REGS) {
        access->regs_map_size = page;
        access->regs_map = ivshmem_uio_map(access, name, IVSHMEM_BAR_REGS, page);
        access->regs = access->regs_map;
        if (!access->regs_map && !ivshmem_sysfs_map_regs(access, err)) {
            return false;
        }
    }
    if (need & IVSHMEM_NEED_SHM) {
        access->shm_map = strcmp(opt->map, "auto") ? NULL :
            ivshmem_uio_map(access, name, IVSHMEM_BAR_SHM, access->shm_size);
        access->shm = access->shm_map;
        access->mapping = "uncached";
        access->mapping_why = "uio; --map wc maps it from sysfs instead";
        if (!access->shm_map && !ivshmem_sysfs_map_shm(access, opt, err)) {
            return false;
        }
    }
    return true;
}

static bool ivshmem_uio_open(IvshmemAccess *access, const IvshmemOptions *opt,
                             unsigned need, IvshmemError *err)
{
    char name[32], path[64];

    if (!ivshmem_uio_name(&access->dev, name, sizeof(name))) {
        return ivshmem_error_set(err, "%s has no uio device (driver: %s): load a driver "
                                 "like uio_ivshmem and bind it, or use VFIO "
                                 "('ivshmem-guest bind')", access->dev.address,
                                 ivshmem_device_driver(&access->dev));
    }
    snprintf(path, sizeof(path), "/dev/%s", name);
    access->device_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (access->device_fd < 0) {
        return ivshmem_error_set(err, "cannot open %s: %s; %s", path, strerror(errno),
                                 geteuid() ? "run as root" :
                                 "is devtmpfs mounted on /dev?");
    }
    return ivshmem_sysfs_enable(access, err) &&
           ivshmem_uio_map_bars(access, name, opt, need, err);
}

static bool ivshmem_uio_interrupts(IvshmemAccess *access, IvshmemError *err)
{
    access->event_fd = malloc(sizeof(int));
    access->poll = calloc(2, sizeof(*access->poll));
    if (!access->event_fd || !access->poll) {
        return ivshmem_error_set(err, "out of memory");
    }
    access->event_fd[0] = access->device_fd;
    access->event_is_uio = true;
    access->n_events = 1;
    return true;
}

static void ivshmem_uio_close(IvshmemAccess *access)
{
    ivshmem_fd_close(&access->device_fd);
}

const IvshmemBackend ivshmem_backend_uio = {
    .name = "uio",
    .open = ivshmem_uio_open,
    .interrupts = ivshmem_uio_interrupts,
    .close = ivshmem_uio_close,
};
