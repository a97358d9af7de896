/*
 * Inter-VM shared memory: registers, BARs and migration of both PCI devices,
 * and ivshmem-plain.
 *
 * docs/specs/ivshmem-spec.rst is what it implements.  ivshmem-doorbell, with
 * all that concerns servers, peers and interrupts, is in ivshmem-doorbell.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "qemu/memfd.h"
#include "qemu/module.h"
#include "exec/ramblock.h"
#include "hw/core/cpu.h"
#include "hw/misc/ivshmem.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "ivshmem-common.h"
#include "trace.h"

#define TYPE_IVSHMEM_PLAIN "ivshmem-plain"

/* The lowest bits of a memory BAR are no part of the address. */
#define IVSHMEM_BAR_SIZE_MIN 16

OBJECT_DECLARE_SIMPLE_TYPE(IvshmemPlainState, IVSHMEM_PLAIN)

struct IvshmemPlainState {
    IvshmemState parent_obj;

    HostMemoryBackend *memdev;
};

/* Registers.  vCPUs come here without the big lock. */

static uint64_t ivshmem_read(void *opaque, hwaddr addr, unsigned size)
{
    IvshmemState *s = opaque;
    uint64_t value = 0;

    /* Unlike writes, reads off a register's start find nothing: it is ABI. */
    switch (addr) {
    case IVSHMEM_REG_INTR_MASK:
        value = qatomic_read(&s->intr_mask);
        break;
    case IVSHMEM_REG_INTR_STATUS:
        value = qatomic_xchg(&s->intr_status, 0);
        break;
    case IVSHMEM_REG_IV_POSITION:
        value = qatomic_read(&s->id);
        break;
    default:
        break;                  /* Doorbell and reserved: 0 */
    }
    trace_ivshmem_read(s->parent_obj.name, addr, value);
    return value;
}

static void ivshmem_ring(IvshmemState *s, uint32_t value)
{
    IvshmemClass *ic = IVSHMEM_COMMON_GET_CLASS(s);
    uint16_t id = ivshmem_doorbell_peer(value);
    uint16_t vector = ivshmem_doorbell_vector(value);

    if (ic->ring && ic->ring(s, id, vector)) {
        trace_ivshmem_doorbell(s->parent_obj.name, id, vector);
        stat64_add(&s->rung, 1);
        return;
    }
    stat64_add(&s->refused, 1);
    trace_ivshmem_doorbell_ignored(s->parent_obj.name, id, vector);
    qemu_log_mask(LOG_GUEST_ERROR, "%s: doorbell rung for vector %u of peer "
                  "%u, which is not connected\n", s->parent_obj.name, vector,
                  id);
}

static void ivshmem_write(void *opaque, hwaddr addr, uint64_t value,
                          unsigned size)
{
    IvshmemState *s = opaque;

    trace_ivshmem_write(s->parent_obj.name, addr, value);
    switch (addr & ~(hwaddr)(IVSHMEM_REG_SIZE - 1)) {
    case IVSHMEM_REG_INTR_MASK:
        qatomic_set(&s->intr_mask, value);
        break;
    case IVSHMEM_REG_INTR_STATUS:
        qatomic_set(&s->intr_status, value);
        break;
    case IVSHMEM_REG_DOORBELL:
        ivshmem_ring(s, value);
        break;
    default:
        qemu_log_mask(LOG_GUEST_ERROR, "%s: write to read-only or reserved "
                      "register 0x%" HWADDR_PRIx "\n", s->parent_obj.name,
                      addr);
        break;
    }
}

static const MemoryRegionOps ivshmem_ops = {
    .read = ivshmem_read,
    .write = ivshmem_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .impl = {
        .min_access_size = IVSHMEM_REG_SIZE,
        .max_access_size = IVSHMEM_REG_SIZE,
    },
};

/* Memory that the guest may only read: its writes end here. */

static void ivshmem_discard_write(void *opaque, hwaddr addr, uint64_t value,
                                  unsigned size)
{
    IvshmemState *s = opaque;

    trace_ivshmem_write_discarded(s->parent_obj.name, addr, value, size);
    qemu_log_mask(LOG_GUEST_ERROR, "%s: write to read-only memory at offset "
                  "0x%" HWADDR_PRIx "\n", s->parent_obj.name, addr);
}

/* Reads are direct and never come here. */
static const MemoryRegionOps ivshmem_readonly_ops = {
    .write = ivshmem_discard_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid.unaligned = true,
    .impl = {
        .max_access_size = 8,
        .unaligned = true,
    },
};

/* What both devices have */

bool ivshmem_check_size(uint64_t size, const char *what, Error **errp)
{
    if (is_power_of_2(size) && size >= IVSHMEM_BAR_SIZE_MIN) {
        return true;
    }
    /* In the message, for QMP does not pass hints on. */
    if (size < IVSHMEM_BAR_SIZE_MIN) {
        error_setg(errp, "%s has a size of %" PRIu64 " bytes, and a PCI BAR "
                   "has %d at least", what, size, IVSHMEM_BAR_SIZE_MIN);
    } else if (size > INT64_MAX / 2 + 1) {
        error_setg(errp, "%s has a size of %" PRIu64 " bytes, and a PCI BAR "
                   "needs a power of two", what, size);
    } else {
        error_setg(errp, "%s has a size of %" PRIu64 " bytes, and a PCI BAR "
                   "needs a power of two: the next is %" PRIu64, what, size,
                   pow2ceil(size));
    }
    return false;
}

bool ivshmem_memory_is_sealed(int fd)
{
#ifdef CONFIG_LINUX
    int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);

    return seals >= 0 && seals & F_SEAL_SHRINK;
#else
    return false;
#endif
}

static bool ivshmem_realize_role(IvshmemState *s, Error **errp)
{
    DeviceState *dev = DEVICE(s);
    g_autofree char *where = NULL;
    bool master = s->master == ON_OFF_AUTO_ON ||
                  (s->master == ON_OFF_AUTO_AUTO && s->id == 0);

    if (s->master == ON_OFF_AUTO_ON && s->id != 0) {
        error_setg(errp, "master=on needs peer ID 0, and the server gave this "
                   "device %u", s->id);
        error_append_hint(errp, "Give it a fixed ID in the server's "
                          "configuration ([client ...], id=0), or use "
                          "master=auto.\n");
        return false;
    }
    if (master) {
        return true;
    }
    where = dev->id ? g_strdup(dev->id) : qdev_get_dev_path(dev);
    error_setg(&s->migration_blocker,
               "device '%s' (%s) is in peer mode: its memory belongs to the "
               "master of the group; unplug it before the migration, or use "
               "master=on", where, object_get_typename(OBJECT(s)));
    return migrate_add_blocker(&s->migration_blocker, errp) == 0;
}

void ivshmem_realize_registers(IvshmemState *s)
{
    memory_region_init_io(&s->registers, OBJECT(s), &ivshmem_ops, s,
                          "ivshmem-registers", IVSHMEM_REG_BAR_SIZE);
    memory_region_enable_lockless_io(&s->registers);
    pci_register_bar(PCI_DEVICE(s), IVSHMEM_BAR_REGS,
                     PCI_BASE_ADDRESS_SPACE_MEMORY, &s->registers);
}

/* A guest with several devices tells them apart by their subsystem IDs. */
static void ivshmem_set_region_id(IvshmemState *s)
{
    pci_set_word(PCI_DEVICE(s)->config + PCI_SUBSYSTEM_ID, s->region_id);
}

/*
 * What BAR2 shows of @memory.  RAM that is read-only discards writes, with TCG
 * in silence.  To hear of them takes a ROM device, and QEMU has no function
 * that makes one of memory which exists: hence the private fields.
 */
static MemoryRegion *ivshmem_memory_view(IvshmemState *s, MemoryRegion *memory)
{
    MemoryRegion *view = &s->readonly_view;

    /*
     * DMA takes a reference to the owner of what BAR2 shows, and drops one to
     * the owner of the RAM behind it: they have to be the same.
     */
    if (!memory_region_is_rom(memory) ||
        memory_region_owner(memory) != OBJECT(s)) {
        return memory;
    }
    memory_region_init_io(view, OBJECT(s), &ivshmem_readonly_ops, s,
                          "ivshmem-read-only", memory_region_size(memory));
    view->rom_device = true;
    view->ram_block = memory->ram_block;
    return view;
}

/*
 * VFIO and vhost devices take RAM for the guest's own: they would pin it, and
 * hand it to other processes, any of which may fail on it.
 */
static void ivshmem_set_protected(MemoryRegion *memory, bool protected)
{
    memory->ram_block->flags &= ~RAM_PROTECTED;
    memory->ram_block->flags |= protected ? RAM_PROTECTED : 0;
}

bool ivshmem_realize_memory(IvshmemState *s, MemoryRegion *memory,
                            Error **errp)
{
    PCIDevice *pci = PCI_DEVICE(s);

    if (!ivshmem_realize_role(s, errp)) {
        return false;
    }
    ivshmem_set_region_id(s);
    ivshmem_set_protected(memory, !s->dma);
    pci_register_bar(pci, IVSHMEM_BAR_SHM,
                     PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64,
                     ivshmem_memory_view(s, memory));
    /* An incoming migration would die of writing to what is read-only. */
    if (!memory_region_is_rom(memory)) {
        vmstate_register_ram(memory, DEVICE(s));
    }
    s->memory = memory;
    if (!ivshmem_memory_is_sealed(memory_region_get_fd(memory))) {
        trace_ivshmem_memory_unsealed(pci->name);
    }
    trace_ivshmem_realize(pci->name, s->id, memory_region_size(memory));
    return true;
}

/*
 * Whether KVM can have BAR2 where it is now.  Guests size BARs while they are
 * mapped, so that for a moment the address is out of this world, and QEMU
 * aborts when KVM refuses a memory slot.  A guest cannot see anything there
 * anyway.  Other targets than x86 have bridge windows that see to this.
 */
static bool ivshmem_memory_is_reachable(const IvshmemState *s)
{
    uint64_t address = s->parent_obj.io_regions[IVSHMEM_BAR_SHM].addr;
    uint64_t bits;

    if (!kvm_enabled() || address == PCI_BAR_UNMAPPED ||
        !object_property_find(OBJECT(first_cpu), "phys-bits")) {
        return true;
    }
    bits = object_property_get_uint(OBJECT(first_cpu), "phys-bits",
                                    NULL);
    return bits == 0 || bits >= 64 || address >> bits == 0;
}

/* PCI maps the BARs in the middle of loading: not before BAR2 may be. */
int ivshmem_pre_load(void *opaque)
{
    PCIDevice *pci = PCI_DEVICE(opaque);

    memory_region_set_enabled(pci->io_regions[IVSHMEM_BAR_SHM].memory, false);
    return 0;
}

int ivshmem_post_load(void *opaque, int version_id)
{
    PCIDevice *pci = PCI_DEVICE(opaque);

    memory_region_set_enabled(pci->io_regions[IVSHMEM_BAR_SHM].memory,
                              ivshmem_memory_is_reachable(IVSHMEM_COMMON(pci)));
    return 0;
}

void ivshmem_write_config(PCIDevice *pci, uint32_t addr, uint32_t value,
                          int len)
{
    IvshmemState *s = IVSHMEM_COMMON(pci);

    memory_region_transaction_begin();
    pci_default_write_config(pci, addr, value, len);
    memory_region_set_enabled(pci->io_regions[IVSHMEM_BAR_SHM].memory,
                              ivshmem_memory_is_reachable(s));
    memory_region_transaction_commit();
}

void ivshmem_cleanup(IvshmemState *s)
{
    if (s->memory) {
        memory_region_set_enabled(s->memory, true);
        ivshmem_set_protected(s->memory, false);
        vmstate_unregister_ram(s->memory, DEVICE(s));
        s->memory = NULL;
    }
    if (s->migration_blocker) {
        migrate_del_blocker(&s->migration_blocker);
    }
    s->id = 0;
}

void ivshmem_reset_hold(Object *obj, ResetType type)
{
    IvshmemState *s = IVSHMEM_COMMON(obj);

    qatomic_set(&s->intr_mask, 0);
    qatomic_set(&s->intr_status, 0);
    trace_ivshmem_reset(s->parent_obj.name);
}

static void ivshmem_get_region_size(Object *obj, Visitor *v, const char *name,
                                    void *opaque, Error **errp)
{
    IvshmemState *s = IVSHMEM_COMMON(obj);
    uint64_t size = s->memory ? memory_region_size(s->memory) : 0;

    visit_type_size(v, name, &size, errp);
}

static void ivshmem_get_peer_id(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    visit_type_uint16(v, name, &IVSHMEM_COMMON(obj)->id, errp);
}

static const Property ivshmem_common_properties[] = {
    DEFINE_PROP_ON_OFF_AUTO("master", IvshmemState, master, ON_OFF_AUTO_OFF),
    DEFINE_PROP_UINT16("region-id", IvshmemState, region_id,
                       PCI_SUBDEVICE_ID_QEMU),
    DEFINE_PROP_BOOL("dma", IvshmemState, dma, false),
};

static void ivshmem_common_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->vendor_id = IVSHMEM_PCI_VENDOR_ID;
    pc->device_id = IVSHMEM_PCI_DEVICE_ID;
    pc->class_id = PCI_CLASS_MEMORY_RAM;
    pc->revision = IVSHMEM_PCI_REVISION;
    pc->config_write = ivshmem_write_config;
    device_class_set_props(dc, ivshmem_common_properties);
    object_class_property_set_description(klass, "master",
        "Whether the memory migrates with this device; auto: if its ID is 0");
    object_class_property_set_description(klass, "region-id",
        "PCI subsystem ID, by which the guest tells its devices apart");
    object_class_property_set_description(klass, "dma",
        "Whether VFIO and vhost devices can reach the memory");
    rc->phases.hold = ivshmem_reset_hold;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    dc->desc = "Inter-VM shared memory";
    object_class_property_add(klass, "region-size", "size",
                              ivshmem_get_region_size, NULL, NULL, NULL);
    object_class_property_set_description(klass, "region-size",
        "Size of the shared memory in bytes; 0 until realized");
    object_class_property_add(klass, "peer-id", "uint16",
                              ivshmem_get_peer_id, NULL, NULL, NULL);
    object_class_property_set_description(klass, "peer-id",
        "This device's peer ID, as in its IVPosition register");
}

static const TypeInfo ivshmem_common_info = {
    .name = TYPE_IVSHMEM_COMMON,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(IvshmemState),
    .class_size = sizeof(IvshmemClass),
    .abstract = true,
    .class_init = ivshmem_common_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { },
    },
};

/* ivshmem-plain */

static bool ivshmem_plain_check(IvshmemPlainState *p, Error **errp)
{
    const char *name;
    g_autofree char *what = NULL;

    if (!p->memdev) {
        error_setg(errp, "You must specify a 'memdev'");
        return false;
    }
    name = object_get_canonical_path_component(OBJECT(p->memdev));
    if (host_memory_backend_is_mapped(p->memdev)) {
        error_setg(errp, "memdev '%s' is already in use by another device",
                   name);
        error_append_hint(errp, "Give each device a memory backend of its "
                          "own; two may name the same file.\n");
        return false;
    }
    what = g_strdup_printf("memdev '%s'", name);
    if (!ivshmem_check_size(
            memory_region_size(host_memory_backend_get_memory(p->memdev)),
            what, errp)) {
        return false;
    }
    if (!p->memdev->share) {
        warn_report("%s has share=off: this device shares nothing with other "
                    "VMs, use share=on", what);
    }
    return true;
}

static void ivshmem_plain_exit(PCIDevice *pci)
{
    IvshmemPlainState *p = IVSHMEM_PLAIN(pci);

    if (p->parent_obj.memory) {
        host_memory_backend_set_mapped(p->memdev, false);
    }
    ivshmem_cleanup(&p->parent_obj);
}

static void ivshmem_plain_realize(PCIDevice *pci, Error **errp)
{
    IvshmemPlainState *p = IVSHMEM_PLAIN(pci);

    if (!ivshmem_plain_check(p, errp)) {
        return;
    }
    ivshmem_realize_registers(&p->parent_obj);
    if (!ivshmem_realize_memory(&p->parent_obj,
                                host_memory_backend_get_memory(p->memdev),
                                errp)) {
        ivshmem_plain_exit(pci);
        return;
    }
    host_memory_backend_set_mapped(p->memdev, true);
}

static const VMStateDescription ivshmem_plain_vmstate = {
    .name = TYPE_IVSHMEM_PLAIN,
    .version_id = 0,
    .minimum_version_id = 0,
    .pre_load = ivshmem_pre_load,
    .post_load = ivshmem_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj.parent_obj, IvshmemPlainState),
        VMSTATE_UINT32(parent_obj.intr_status, IvshmemPlainState),
        VMSTATE_UINT32(parent_obj.intr_mask, IvshmemPlainState),
        VMSTATE_END_OF_LIST()
    },
};

static const Property ivshmem_plain_properties[] = {
    DEFINE_PROP_LINK("memdev", IvshmemPlainState, memdev, TYPE_MEMORY_BACKEND,
                     HostMemoryBackend *),
};

static void ivshmem_plain_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = ivshmem_plain_realize;
    pc->exit = ivshmem_plain_exit;
    dc->vmsd = &ivshmem_plain_vmstate;
    device_class_set_props(dc, ivshmem_plain_properties);
}

static const TypeInfo ivshmem_plain_info = {
    .name = TYPE_IVSHMEM_PLAIN,
    .parent = TYPE_IVSHMEM_COMMON,
    .instance_size = sizeof(IvshmemPlainState),
    .class_init = ivshmem_plain_class_init,
};

static void ivshmem_register_types(void)
{
    type_register_static(&ivshmem_common_info);
    type_register_static(&ivshmem_plain_info);
}

type_init(ivshmem_register_types)
