/*
 * ivshmem-guest: the device through sysfs resource files - registers, memory
 * and ringing, but no interrupts.  Works with any driver bound, or none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "access.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-fd.h"

static bool ivshmem_sysfs_failed(const char *what, const char *path, IvshmemError *err)
{
    const char *remedy =
        errno == EACCES || errno == EPERM ?
            geteuid() ? "run as root" :
            "the kernel is locked down: use VFIO ('ivshmem-guest bind')" :
        errno == ENOENT ? "the kernel lacks this file: use VFIO ('ivshmem-guest bind')" :
        errno == EINVAL ? "the kernel refuses: a program that uses the device by VFIO "
                          "or uio has it mapped; end that, or boot this guest with "
                          "iomem=relaxed" :
        errno == ENOMEM || errno == EAGAIN ? "free memory, or raise 'ulimit -v'" :
        "see dmesg";

    return ivshmem_error_set(err, "cannot %s %s: %s; %s", what, path,
                             strerror(errno), remedy);
}

static void *ivshmem_sysfs_map(const IvshmemDevice *dev, const char *name,
                               size_t size, IvshmemError *err)
{
    char path[320];
    void *map = NULL;

    snprintf(path, sizeof(path), "%s/%s", dev->path, name);
    IVSHMEM_FD_AUTO int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        ivshmem_sysfs_failed("open", path, err);
        return NULL;
    }
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        ivshmem_sysfs_failed("map", path, err);
        return NULL;
    }
    return map;
}

/*
 * Where a BAR begins in the pages that sysfs maps.  It is as aligned as it is
 * large: if it is smaller than a page, it is in one.
 */
static size_t ivshmem_sysfs_inside(const IvshmemAccess *access, int bar)
{
    return access->dev.bar_address[bar] % sysconf(_SC_PAGESIZE);
}

bool ivshmem_sysfs_map_shm(IvshmemAccess *access, const IvshmemOptions *opt,
                           IvshmemError *err)
{
    char path[320];
    bool have_wc, wc;

    snprintf(path, sizeof(path), "%s/resource%d_wc", access->dev.path, IVSHMEM_BAR_SHM);
    have_wc = !faccessat(AT_FDCWD, path, F_OK, 0);
    wc = !strcmp(opt->map, "wc") || (!strcmp(opt->map, "auto") && have_wc);
    access->shm_map = ivshmem_sysfs_map(&access->dev, wc ? "resource2_wc" : "resource2",
                                        access->shm_size, err);
    access->shm = access->shm_map ? (uint8_t *)access->shm_map +
        ivshmem_sysfs_inside(access, IVSHMEM_BAR_SHM) : NULL;
    access->mapping = wc ? "write-combining" : "uncached";
    access->mapping_why = wc ?
        "sysfs resource2_wc; --map uc gives resource2" :
        have_wc ? "sysfs resource2, as --map uc says; --map wc writes faster" :
        "sysfs resource2; this kernel offers no resource2_wc";
    return access->shm_map;
}

bool ivshmem_sysfs_map_regs(IvshmemAccess *access, IvshmemError *err)
{
    size_t page = sysconf(_SC_PAGESIZE);

    access->regs_map_size = page;
    access->regs_map = ivshmem_sysfs_map(&access->dev, "resource0", page, err);
    if (access->regs_map) {
        access->regs = (volatile uint32_t *)((char *)access->regs_map +
            ivshmem_sysfs_inside(access, IVSHMEM_BAR_REGS));
    }
    return access->regs_map;
}

bool ivshmem_sysfs_enable(IvshmemAccess *access, IvshmemError *err)
{
    int ret;

    if (access->dev.memory_enabled) {
        return true;
    }
    ret = ivshmem_sysfs_write(access->dev.path, "enable", "1");
    if (ret < 0) {
        return ivshmem_error_set(err, "cannot enable %s: %s; %s", access->dev.address,
                                 strerror(-ret), geteuid() ? "run as root" :
                                 "see dmesg for why the kernel refuses");
    }
    access->dev.memory_enabled = true;
    return true;
}

static bool ivshmem_sysfs_backend_open(IvshmemAccess *access,
                                       const IvshmemOptions *opt, unsigned need,
                                       IvshmemError *err)
{
    return ivshmem_sysfs_enable(access, err) &&
           (!(need & IVSHMEM_NEED_REGS) || ivshmem_sysfs_map_regs(access, err)) &&
           (!(need & IVSHMEM_NEED_SHM) || ivshmem_sysfs_map_shm(access, opt, err));
}

static void ivshmem_sysfs_backend_close(IvshmemAccess *access)
{
    (void)access;               /* the mappings are all there is */
}

const IvshmemBackend ivshmem_backend_sysfs = {
    .name = "sysfs",
    .open = ivshmem_sysfs_backend_open,
    .close = ivshmem_sysfs_backend_close,
};
