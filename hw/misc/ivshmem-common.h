/*
 * ivshmem: what the two PCI devices have in common.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_COMMON_H
#define HW_MISC_IVSHMEM_COMMON_H

#include "hw/pci/pci_device.h"
#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-ivshmem.h"
#include "qemu/stats64.h"
#include "qom/object.h"

#define TYPE_IVSHMEM_COMMON "ivshmem-common"
OBJECT_DECLARE_TYPE(IvshmemState, IvshmemClass, IVSHMEM_COMMON)

struct IvshmemClass {
    PCIDeviceClass parent_class;

    /*
     * Rings a peer, from any thread, within an RCU read-side critical section.
     * False if it is not connected.  NULL: there are no peers.
     */
    bool (*ring)(IvshmemState *s, uint16_t id, uint16_t vector);

    /* Adds what only this type has.  NULL: nothing. */
    void (*fill_info)(IvshmemState *s, IvshmemInfo *info);
};

struct IvshmemState {
    PCIDevice parent_obj;

    MemoryRegion registers;
    MemoryRegion *memory;       /* NULL until realized */
    MemoryRegion readonly_view; /* BAR2 of memory that is read-only */
    uint32_t intr_mask;
    uint32_t intr_status;
    uint16_t id;
    OnOffAuto master;
    uint16_t region_id;
    bool dma;
    Error *migration_blocker;
    Stat64 rung;                /* doorbells that came to QEMU */
    Stat64 refused;
};

/* Whether nobody can shrink the file behind @fd.  False for no file. */
bool ivshmem_memory_is_sealed(int fd);

/* Whether @size bytes can be a BAR; @what names them for @errp. */
bool ivshmem_check_size(uint64_t size, const char *what, Error **errp);

/* BAR0.  Cannot fail. */
void ivshmem_realize_registers(IvshmemState *s);

/*
 * The device's role in migration, and @memory as BAR2.  The last step of
 * realize: once it has succeeded, nothing fails any more.
 */
bool ivshmem_realize_memory(IvshmemState *s, MemoryRegion *memory,
                            Error **errp);

/* Undoes any part of realize; may be called at any stage. */
void ivshmem_cleanup(IvshmemState *s);

/* Every write to configuration space goes through this. */
void ivshmem_write_config(PCIDevice *pci, uint32_t addr, uint32_t value,
                          int len);

/* BAR2 is where the loaded state has it, if that can be reached. */
int ivshmem_pre_load(void *opaque);
int ivshmem_post_load(void *opaque, int version_id);

void ivshmem_reset_hold(Object *obj, ResetType type);

#endif /* HW_MISC_IVSHMEM_COMMON_H */
