/*
 * ivshmem: what management sees of the devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_INFO_H
#define HW_MISC_IVSHMEM_INFO_H

#include "hw/qdev-core.h"

/*
 * Joins and leaves reported in a second, for each device: what a person can
 * follow, and what a server cannot turn into a flood.
 */
#define IVSHMEM_EVENTS_PER_SECOND 20

typedef struct IvshmemEventLimit {
    int64_t second;
    unsigned sent;
    uint32_t suppressed;
} IvshmemEventLimit;

/* QMP events; @previous_id is -1 if it has not changed. */
void ivshmem_event_connected(DeviceState *dev, uint16_t id, int previous_id);
void ivshmem_event_disconnected(DeviceState *dev);
void ivshmem_event_peer(DeviceState *dev, IvshmemEventLimit *limit,
                        uint16_t id, bool joined);

#endif /* HW_MISC_IVSHMEM_INFO_H */
