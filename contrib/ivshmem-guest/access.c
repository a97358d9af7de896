/*
 * ivshmem-guest: opens a device through one of the back-ends, and what is the
 * same for all of them: registers, ringing, waiting, copying.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "access.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-fd.h"

/*
 * Interrupts come from whatever driver is bound; all else goes through sysfs if
 * it can, since VFIO lets one program in at a time.
 */
static const IvshmemBackend *ivshmem_access_choose(const IvshmemDevice *dev,
                                                   const char *via, unsigned need)
{
    char path[320];

    if (strcmp(via, "auto")) {
        return !strcmp(via, "vfio") ? &ivshmem_backend_vfio :
               !strcmp(via, "uio") ? &ivshmem_backend_uio :
               !strcmp(via, "sysfs") ? &ivshmem_backend_sysfs : NULL;
    }
    if (!(need & IVSHMEM_NEED_IRQ) && (dev->memory_enabled || !dev->driver[0])) {
        return &ivshmem_backend_sysfs;
    }
    if (!strcmp(dev->driver, "vfio-pci")) {
        return &ivshmem_backend_vfio;
    }
    snprintf(path, sizeof(path), "%s/uio", dev->path);
    return access(path, F_OK) ? &ivshmem_backend_sysfs : &ivshmem_backend_uio;
}

static bool ivshmem_access_open_irq(IvshmemAccess *access, IvshmemError *err)
{
    const IvshmemDevice *dev = &access->dev;

    if (!dev->doorbell) {
        return ivshmem_error_set(err, "%s is an ivshmem-plain device: it has no "
                                 "doorbell and no MSI-X; use ivshmem-doorbell, or "
                                 "poll the memory", dev->address);
    }
    if (!access->backend->interrupts) {
        return ivshmem_error_set(err, "no interrupts by way of %s (driver of %s: %s): "
                                 "run 'ivshmem-guest bind' for VFIO",
                                 access->backend->name, dev->address,
                                 ivshmem_device_driver(dev));
    }
    return access->backend->interrupts(access, err);
}

bool ivshmem_access_open(IvshmemAccess *access, const IvshmemOptions *opt,
                         unsigned need, IvshmemError *err)
{
    memset(access, 0, sizeof(*access));
    access->regs_fd = access->container_fd = access->group_fd = access->device_fd = -1;
    if (!ivshmem_device_select(opt, &access->dev, err)) {
        return false;
    }
    access->backend = ivshmem_access_choose(&access->dev, opt->via, need);
    if (!access->backend) {
        return ivshmem_error_set(err, "--via '%s' is none of auto, vfio, sysfs, uio",
                                 opt->via);
    }
    access->shm_size = access->dev.bar_size[IVSHMEM_BAR_SHM];
    if ((need & IVSHMEM_NEED_SHM) && !access->shm_size) {
        return ivshmem_error_set(err, "%s has no shared memory (BAR2 is empty or was "
                                 "given no address): see 'dmesg | grep %s'; a large "
                                 "BAR needs 64-bit addresses from the firmware",
                                 access->dev.address, access->dev.address);
    }
    if ((need & IVSHMEM_NEED_REGS) &&
        access->dev.bar_size[IVSHMEM_BAR_REGS] < IVSHMEM_REG_BAR_SIZE) {
        return ivshmem_error_set(err, "BAR0 of %s is too small for the registers: %u "
                                 "bytes instead of %u; this is not revision %d of "
                                 "ivshmem", access->dev.address,
                                 (unsigned)access->dev.bar_size[IVSHMEM_BAR_REGS],
                                 IVSHMEM_REG_BAR_SIZE, IVSHMEM_PCI_REVISION);
    }
    if (access->backend->open(access, opt, need, err) &&
        (!(need & IVSHMEM_NEED_IRQ) || ivshmem_access_open_irq(access, err))) {
        return true;
    }
    ivshmem_access_close(access);
    return false;
}

void ivshmem_access_close(IvshmemAccess *access)
{
    if (access->shm_map) {
        munmap(access->shm_map, access->shm_size);
        access->shm_map = NULL;
        access->shm = NULL;
    }
    if (access->regs_map) {
        munmap(access->regs_map, access->regs_map_size);
        access->regs_map = NULL;
        access->regs = NULL;
    }
    if (access->backend) {
        access->backend->close(access);
    }
    free(access->event_fd);
    free(access->poll);
    access->event_fd = NULL;
    access->poll = NULL;
    access->n_events = 0;
}

/* Registers are little-endian, mapped or not. */
uint32_t ivshmem_access_read_reg(IvshmemAccess *access, unsigned reg)
{
    uint32_t value = 0;

    if (access->regs) {
        value = access->regs[reg / IVSHMEM_REG_SIZE];
    } else if (pread(access->regs_fd, &value, sizeof(value),
                     access->regs_offset + reg) != sizeof(value)) {
        return UINT32_MAX;      /* what a PCI bus gives for a device that is gone */
    }
    return le32toh(value);
}

void ivshmem_access_write_reg(IvshmemAccess *access, unsigned reg, uint32_t value)
{
    ssize_t n = sizeof(value);

    value = htole32(value);
    if (access->regs) {
        access->regs[reg / IVSHMEM_REG_SIZE] = value;
    } else {
        n = pwrite(access->regs_fd, &value, sizeof(value), access->regs_offset + reg);
    }
    if (n != sizeof(value)) {
        fprintf(stderr, "ivshmem-guest: register %u of %s: %s\n", reg,
                access->dev.address, strerror(errno));
    }
}

void ivshmem_access_ring(IvshmemAccess *access, uint16_t peer, uint16_t vector)
{
    ivshmem_barrier();
    ivshmem_access_write_reg(access, IVSHMEM_REG_DOORBELL,
                             ivshmem_doorbell_value(peer, vector));
}

/* Takes what has arrived on one event: how often it was rung. */
static bool ivshmem_access_take(IvshmemAccess *access, unsigned event,
                                uint64_t *count, IvshmemError *err)
{
    uint32_t total, on = 1;

    if (!access->event_is_uio) {
        if (read(access->event_fd[event], count, sizeof(*count)) == sizeof(*count)) {
            return true;
        }
    } else if (read(access->event_fd[0], &total, sizeof(total)) == sizeof(total)) {
        *count = 1;             /* uio counts since the driver was loaded */
        if (write(access->event_fd[0], &on, sizeof(on)) < 0) {
            errno = 0;          /* most drivers need no re-arming */
        }
        return true;
    }
    if (errno == EAGAIN) {
        *count = 0;
        return true;
    }
    return ivshmem_error_set(err, "interrupt of %s: %s%s", access->dev.address,
                             strerror(errno), access->event_is_uio ?
                             "; this uio driver gives no interrupts, MSI-X needs VFIO "
                             "('ivshmem-guest bind') or a driver like uio_ivshmem" :
                             "");
}

int ivshmem_access_wait(IvshmemAccess *access, int64_t deadline, int other_fd,
                        unsigned *vector, uint64_t *count, IvshmemError *err)
{
    unsigned n = access->n_events;
    int found;

    for (unsigned i = 0; i < n; i++) {
        access->poll[i] = (struct pollfd) { access->event_fd[i], POLLIN, 0 };
    }
    access->poll[n] = (struct pollfd) { other_fd, POLLIN, 0 };
    do {
        found = poll(access->poll, n + 1, ivshmem_poll_ms(deadline));
    } while (found < 0 && errno == EINTR);
    if (found < 0) {
        ivshmem_error_set(err, "poll: %s", strerror(errno));
        return -1;
    }
    for (unsigned i = 0; i < n; i++) {
        if (access->poll[i].revents) {
            *vector = i;
            return ivshmem_access_take(access, i, count, err) ? 1 : -1;
        }
    }
    return access->poll[n].revents ? 2 : 0;
}

void ivshmem_copy_in(void *to, const volatile uint8_t *from, size_t n)
{
    uint8_t *out = to;

    for (; n && ((uintptr_t)from & 7); n--) {
        *out++ = *from++;
    }
    for (; n >= 8; n -= 8, from += 8, out += 8) {
        uint64_t word = *(const volatile uint64_t *)from;

        memcpy(out, &word, 8);
    }
    for (; n; n--) {
        *out++ = *from++;
    }
}

void ivshmem_copy_out(volatile uint8_t *to, const void *from, size_t n)
{
    const uint8_t *in = from;

    for (; n && ((uintptr_t)to & 7); n--) {
        *to++ = *in++;
    }
    for (; n >= 8; n -= 8, to += 8, in += 8) {
        uint64_t word;

        memcpy(&word, in, 8);
        *(volatile uint64_t *)to = word;
    }
    for (; n; n--) {
        *to++ = *in++;
    }
}
