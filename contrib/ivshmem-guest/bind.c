/*
 * ivshmem-guest: gives the device to vfio-pci, and back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "command.h"
#include "device.h"
#include "ivshmem-fd.h"

#define IVSHMEM_VFIO_DRIVER "vfio-pci"

/* True if the driver is in the kernel, or could be loaded. */
static bool ivshmem_bind_load(const char *driver_dir)
{
    int status;
    pid_t pid;

    if (!access(driver_dir, F_OK)) {
        return true;
    }
    pid = fork();
    if (pid == 0) {
        execlp("modprobe", "modprobe", "-q", IVSHMEM_VFIO_DRIVER, (char *)NULL);
        _exit(127);
    }
    if (pid > 0) {
        waitpid(pid, &status, 0);
    }
    return !access(driver_dir, F_OK);
}

static bool ivshmem_bind_failed(const IvshmemDevice *dev, const char *file, int ret,
                                IvshmemError *err)
{
    return ivshmem_error_set(err, "cannot write %s of %s: %s; %s", file, dev->address,
                             strerror(-ret), ret == -EACCES || ret == -EPERM ?
                             "run as root" : "see dmesg");
}

static bool ivshmem_bind_has_iommu(const IvshmemOptions *opt)
{
    char pattern[256];
    glob_t found;
    int ret;

    snprintf(pattern, sizeof(pattern), "%s/class/iommu/*", opt->sysfs);
    ret = glob(pattern, GLOB_NOSORT, NULL, &found);
    globfree(&found);
    return ret == 0;
}

/* Without an IOMMU vfio-pci needs the kernel's no-IOMMU mode switched on. */
static bool ivshmem_bind_check_iommu(const IvshmemOptions *opt, const IvshmemDevice *dev,
                                     IvshmemError *err)
{
    char dir[256], mode[8];
    const char *name = "enable_unsafe_noiommu_mode";

    /* With Arm's SMMU the group comes when a driver takes the device. */
    if (dev->iommu_group >= 0 || ivshmem_bind_has_iommu(opt)) {
        return true;
    }
    snprintf(dir, sizeof(dir), "%s/module/vfio/parameters", opt->sysfs);
    if (!ivshmem_sysfs_read(dir, name, mode, sizeof(mode))) {
        return ivshmem_error_set(err, "%s is in no IOMMU group, and this kernel has no "
                                 "VFIO no-IOMMU mode: start the VM with -machine q35 "
                                 "-device intel-iommu,intremap=on and the kernel with "
                                 "intel_iommu=on (aarch64: with -machine "
                                 "virt,iommu=smmuv3), or use --via sysfs",
                                 dev->address);
    }
    if (mode[0] == 'Y') {
        return true;
    }
    if (!opt->no_iommu) {
        return ivshmem_error_set(err, "%s is in no IOMMU group: start the VM with a "
                                 "virtual IOMMU (-device intel-iommu,intremap=on), or "
                                 "run 'ivshmem-guest bind --no-iommu', which switches "
                                 "on the kernel's no-IOMMU mode: programs with access "
                                 "to a VFIO device may then reach all memory of this "
                                 "guest", dev->address);
    }
    return !ivshmem_sysfs_write(dir, name, "Y") ||
           ivshmem_error_set(err, "cannot switch on no-IOMMU mode in %s: %s; run as "
                             "root", dir, strerror(errno));
}

/* Takes the device from its driver and lets the kernel find one again. */
static bool ivshmem_bind_reprobe(const IvshmemOptions *opt, const IvshmemDevice *dev,
                                 const char *override, IvshmemError *err)
{
    char dir[320];
    int ret;

    ret = ivshmem_sysfs_write(dev->path, "driver_override", override);
    if (ret < 0) {
        return ivshmem_bind_failed(dev, "driver_override", ret, err);
    }
    snprintf(dir, sizeof(dir), "%s/driver", dev->path);
    ret = dev->driver[0] ? ivshmem_sysfs_write(dir, "unbind", dev->address) : 0;
    if (ret < 0) {
        return ivshmem_bind_failed(dev, "driver/unbind", ret, err);
    }
    snprintf(dir, sizeof(dir), "%s/bus/pci", opt->sysfs);
    ret = ivshmem_sysfs_write(dir, "drivers_probe", dev->address);
    if (ret < 0 && ret != -EINVAL) {    /* EINVAL: no driver wants it */
        return ivshmem_bind_failed(dev, "drivers_probe", ret, err);
    }
    return true;
}

bool ivshmem_command_bind(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    IvshmemDevice dev;
    char dir[256];

    (void)argc, (void)argv;
    if (!ivshmem_device_select(opt, &dev, err)) {
        return false;
    }
    if (!strcmp(dev.driver, IVSHMEM_VFIO_DRIVER)) {
        printf("%s is already bound to vfio-pci\n", dev.address);
        return true;
    }
    snprintf(dir, sizeof(dir), "%s/bus/pci/drivers/%s", opt->sysfs, IVSHMEM_VFIO_DRIVER);
    if (!ivshmem_bind_load(dir)) {
        return ivshmem_error_set(err, "the module vfio-pci is missing and modprobe does "
                                 "not find it: install the kernel's full module "
                                 "package, or use --via sysfs");
    }
    if (!ivshmem_bind_check_iommu(opt, &dev, err) ||
        !ivshmem_bind_reprobe(opt, &dev, IVSHMEM_VFIO_DRIVER, err)) {
        return false;
    }
    if (!ivshmem_device_select(opt, &dev, err)) {
        return false;
    }
    if (strcmp(dev.driver, IVSHMEM_VFIO_DRIVER)) {
        return ivshmem_error_set(err, "vfio-pci did not take %s (driver: %s): see dmesg",
                                 dev.address, ivshmem_device_driver(&dev));
    }
    printf("%s is bound to vfio-pci, IOMMU group %d\n", dev.address, dev.iommu_group);
    return true;
}

/* Unbinding waits until the last user closes it: better to say so. */
static bool ivshmem_bind_in_use(const IvshmemDevice *dev)
{
    char path[64];

    ivshmem_device_vfio_path(dev, path, sizeof(path));
    IVSHMEM_FD_AUTO int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 && errno == EBUSY;
}

bool ivshmem_command_unbind(const IvshmemOptions *opt, int argc, char **argv,
                            IvshmemError *err)
{
    IvshmemDevice dev;

    (void)argc, (void)argv;
    if (!ivshmem_device_select(opt, &dev, err)) {
        return false;
    }
    if (!dev.driver[0]) {
        printf("%s is bound to no driver\n", dev.address);
        return true;
    }
    if (strcmp(dev.driver, IVSHMEM_VFIO_DRIVER)) {
        return ivshmem_error_set(err, "%s is bound to '%s', which 'bind' did not do: "
                                 "unbind it by hand (echo %s > %s/driver/unbind)",
                                 dev.address, dev.driver, dev.address, dev.path);
    }
    if (ivshmem_bind_in_use(&dev)) {
        return ivshmem_error_set(err, "device in use: a program has VFIO group %d of %s "
                                 "open; end it first", dev.iommu_group, dev.address);
    }
    if (!ivshmem_bind_reprobe(opt, &dev, "\n", err)) {
        return false;
    }
    printf("%s is free\n", dev.address);
    return true;
}
