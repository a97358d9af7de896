/*
 * Inter-VM shared memory device: what a guest sees.
 *
 * The guest ABI and nothing else, so that device, qtests, bare-metal guests
 * and guest tools share one definition.  Section "Device" of
 * docs/specs/ivshmem-spec.rst describes each register.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_H
#define HW_MISC_IVSHMEM_H

#include <stdint.h>

#define IVSHMEM_PCI_VENDOR_ID   0x1af4
#define IVSHMEM_PCI_DEVICE_ID   0x1110
#define IVSHMEM_PCI_REVISION    1

#define IVSHMEM_BAR_REGS        0
#define IVSHMEM_BAR_MSIX        1       /* ivshmem-doorbell only */
#define IVSHMEM_BAR_SHM         2       /* 64-bit: occupies BAR2 and BAR3 */

/* BAR0: 32-bit little-endian registers; all other offsets are reserved. */
#define IVSHMEM_REG_BAR_SIZE    0x100
#define IVSHMEM_REG_INTR_MASK   0
#define IVSHMEM_REG_INTR_STATUS 4
#define IVSHMEM_REG_IV_POSITION 8
#define IVSHMEM_REG_DOORBELL    12
#define IVSHMEM_REG_SIZE        4

#define IVSHMEM_DOORBELL_VECTOR_MASK 0xffffu
#define IVSHMEM_DOORBELL_PEER_SHIFT  16

/* An MSI-X table has at most this many entries (PCI 3.0, 6.8.2.3). */
#define IVSHMEM_MSIX_VECTORS_MAX     2048

static inline uint32_t ivshmem_doorbell_value(uint16_t peer, uint16_t vector)
{
    return (uint32_t)peer << IVSHMEM_DOORBELL_PEER_SHIFT | vector;
}

static inline uint16_t ivshmem_doorbell_peer(uint32_t value)
{
    return value >> IVSHMEM_DOORBELL_PEER_SHIFT;
}

static inline uint16_t ivshmem_doorbell_vector(uint32_t value)
{
    return value & IVSHMEM_DOORBELL_VECTOR_MASK;
}

#endif /* HW_MISC_IVSHMEM_H */
