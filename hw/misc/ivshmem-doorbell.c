/*
 * Inter-VM shared memory: the PCI device ivshmem-doorbell.
 *
 * Joins the parts: the server's connection (ivshmem-link.c), other peers'
 * vectors (ivshmem-peers.c), our own (ivshmem-msix.c), and what it has in
 * common with ivshmem-plain (ivshmem.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-ivshmem.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "chardev/char-fe.h"
#include "hw/acpi/acpi_dev_interface.h"
#include "hw/misc/ivshmem.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie_port.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "migration/vmstate.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "ivshmem-common.h"
#include "ivshmem-fd.h"
#include "ivshmem-info.h"
#include "ivshmem-link.h"
#include "ivshmem-msix.h"
#include "ivshmem-peers.h"
#include "trace.h"

#define TYPE_IVSHMEM_DOORBELL "ivshmem-doorbell"
OBJECT_DECLARE_SIMPLE_TYPE(IvshmemDoorbellState, IVSHMEM_DOORBELL)

struct IvshmemDoorbellState {
    IvshmemState parent_obj;

    CharBackend chr;
    uint32_t vectors;
    bool ioeventfd;
    uint32_t handshake_timeout;
    uint32_t poll_max_ns;

    char *name;                 /* for messages */
    IvshmemLink *link;
    IvshmemMsix *msix;
    IvshmemPeers *peers;
    MemoryRegion server_memory;
    struct stat server_stat;    /* of the descriptor it came with */
    VMChangeStateEntry *vm_state;
    uint16_t announced_id;      /* by the connection at hand */
    bool has_memory;            /* a later connection, with our memory */
    bool listed;                /* all peers, by the connection at hand */
    bool up;                    /* both, or the first connection */
    IvshmemEventLimit event_limit;
};

/* What the server announces */

static void ivshmem_doorbell_begin(void *opaque)
{
    IvshmemDoorbellState *d = opaque;

    d->has_memory = false;
    d->listed = false;
    ivshmem_peers_list_begin(d->peers);
}

static void ivshmem_doorbell_unlisted(uint16_t id, unsigned vectors,
                                      void *opaque)
{
    IvshmemDoorbellState *d = opaque;

    if (id != d->parent_obj.id) {
        ivshmem_event_peer(DEVICE(d), &d->event_limit, id, false);
    }
}

/*
 * The server is back when it has brought our memory and listed all peers, in
 * whichever order, and may have given us another id.
 */
static void ivshmem_doorbell_resumed(IvshmemDoorbellState *d)
{
    IvshmemState *s = &d->parent_obj;
    int previous = s->id == d->announced_id ? -1 : s->id;

    if (!d->has_memory || !d->listed) {
        return;
    }
    d->up = true;
    if (previous >= 0) {
        warn_report("%s: the ivshmem server changed this device's peer ID from "
                    "%d to %u", d->name, previous, d->announced_id);
        qatomic_set(&s->id, d->announced_id);
    }
    ivshmem_event_connected(DEVICE(d), s->id, previous);
}

static void ivshmem_doorbell_listed(void *opaque)
{
    IvshmemDoorbellState *d = opaque;

    ivshmem_peers_list_end(d->peers, ivshmem_doorbell_unlisted, d);
    d->listed = true;
    if (!d->up) {
        ivshmem_doorbell_resumed(d);
    }
}

static void ivshmem_doorbell_self_id(void *opaque, uint16_t id)
{
    IvshmemDoorbellState *d = opaque;
    IvshmemState *s = &d->parent_obj;

    trace_ivshmem_self_id(d->name, id);
    d->announced_id = id;
    if (!s->memory) {
        qatomic_set(&s->id, id);
    }
}

static bool ivshmem_doorbell_map(IvshmemDoorbellState *d, int fd, Error **errp)
{
    uint32_t flags = RAM_SHARED;

    if (!ivshmem_check_size(d->server_stat.st_size, "the shared memory of the "
                            "ivshmem server", errp)) {
        return false;
    }
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        flags |= RAM_READONLY | RAM_READONLY_FD;
        trace_ivshmem_memory_readonly(d->name);
    }
    return memory_region_init_ram_from_fd(&d->server_memory, OBJECT(d),
                                          "ivshmem.bar2",
                                          d->server_stat.st_size, flags, fd, 0,
                                          errp);
}

/* The server is back: it must bring the same memory. */
static bool ivshmem_doorbell_resume(IvshmemDoorbellState *d,
                                    const struct stat *st, Error **errp)
{
    if (st->st_dev != d->server_stat.st_dev ||
        st->st_ino != d->server_stat.st_ino ||
        st->st_size != d->server_stat.st_size) {
        error_setg(errp, "the server came back with another memory object (%"
                   PRId64 " bytes, before: %" PRId64 ")",
                   (int64_t)st->st_size, (int64_t)d->server_stat.st_size);
        error_append_hint(errp, "Restart the server so that it keeps its "
                          "memory, or unplug and plug the device.\n");
        return false;
    }
    d->has_memory = true;
    ivshmem_doorbell_resumed(d);
    return true;
}

static bool ivshmem_doorbell_memory(void *opaque, int fd, Error **errp)
{
    IvshmemDoorbellState *d = opaque;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot get the size of the shared "
                         "memory");
        return false;
    }
    if (!d->parent_obj.memory) {
        d->server_stat = st;
        return ivshmem_doorbell_map(d, fd, errp);
    }
    if (!ivshmem_doorbell_resume(d, &st, errp)) {
        return false;
    }
    ivshmem_fd_close(&fd);      /* it is mapped already */
    return true;
}

/* A guest may ring its own ID: the doorbell knows it as one more peer. */
static void ivshmem_doorbell_ring_self(IvshmemDoorbellState *d,
                                       uint32_t vector, int fd)
{
    int copy = qemu_dup(fd);

    trace_ivshmem_peer_vector(d->name, d->announced_id, vector, copy);
    if (copy >= 0) {
        ivshmem_peers_set_vector(d->peers, d->announced_id, vector, copy);
    }
}

static void ivshmem_doorbell_self_vector(void *opaque, uint32_t vector, int fd)
{
    IvshmemDoorbellState *d = opaque;

    trace_ivshmem_self_vector(d->name, vector, fd);
    ivshmem_doorbell_ring_self(d, vector, fd);
    ivshmem_msix_connect(d->msix, vector, fd);
}

static void ivshmem_doorbell_peer_vector(void *opaque, uint16_t id,
                                         uint32_t vector, int fd)
{
    IvshmemDoorbellState *d = opaque;
    bool was_us = id == d->parent_obj.id && vector == 0;

    trace_ivshmem_peer_vector(d->name, id, vector, fd);
    if (ivshmem_peers_set_vector(d->peers, id, vector, fd) || was_us) {
        ivshmem_event_peer(DEVICE(d), &d->event_limit, id, true);
    }
}

static void ivshmem_doorbell_peer_gone(void *opaque, uint16_t id)
{
    IvshmemDoorbellState *d = opaque;
    bool known = ivshmem_peers_leave(d->peers, id);

    trace_ivshmem_peer_gone(d->name, id, known);
    if (known) {
        ivshmem_event_peer(DEVICE(d), &d->event_limit, id, false);
    }
}

/* Memory and peers stay: their eventfds do not need the server. */
static void ivshmem_doorbell_down(void *opaque)
{
    IvshmemDoorbellState *d = opaque;

    if (d->up) {
        d->up = false;
        ivshmem_event_disconnected(DEVICE(d));
    }
}

static const IvshmemLinkOps ivshmem_doorbell_ops = {
    .begin = ivshmem_doorbell_begin,
    .listed = ivshmem_doorbell_listed,
    .down = ivshmem_doorbell_down,
    .self_id = ivshmem_doorbell_self_id,
    .memory = ivshmem_doorbell_memory,
    .self_vector = ivshmem_doorbell_self_vector,
    .peer_vector = ivshmem_doorbell_peer_vector,
    .peer_gone = ivshmem_doorbell_peer_gone,
};

/* What guest and VM do to others' vectors, and to ours */

static bool ivshmem_doorbell_ring(IvshmemState *s, uint16_t id,
                                  uint16_t vector)
{
    /* Goes at unplug, but not before this vCPU leaves its RCU section. */
    IvshmemPeers *peers = qatomic_read((void **)&IVSHMEM_DOORBELL(s)->peers);

    return peers && ivshmem_peers_ring(peers, id, vector);
}

static int ivshmem_doorbell_use(PCIDevice *pci, unsigned vector,
                                MSIMessage message)
{
    ivshmem_msix_update(IVSHMEM_DOORBELL(pci)->msix, vector);
    return 0;
}

static void ivshmem_doorbell_release(PCIDevice *pci, unsigned vector)
{
    ivshmem_msix_update(IVSHMEM_DOORBELL(pci)->msix, vector);
}

static void ivshmem_doorbell_poll(PCIDevice *pci, unsigned start, unsigned end)
{
    ivshmem_msix_poll(IVSHMEM_DOORBELL(pci)->msix, start, end);
}

static void ivshmem_doorbell_vm_state(void *opaque, bool running,
                                      RunState state)
{
    IvshmemDoorbellState *d = opaque;

    ivshmem_msix_update_all(d->msix);
}

/*
 * MSI-X calls the notifiers for what it unmasks, not when it is disabled, nor
 * for bus mastering.
 */
static void ivshmem_doorbell_write_config(PCIDevice *pci, uint32_t addr,
                                          uint32_t value, int len)
{
    ivshmem_write_config(pci, addr, value, len);
    if (ranges_overlap(addr, len, pci->msix_cap + PCI_MSIX_FLAGS, 2) ||
        ranges_overlap(addr, len, PCI_COMMAND, 2)) {
        ivshmem_msix_update_all(IVSHMEM_DOORBELL(pci)->msix);
    }
}

static void ivshmem_doorbell_reset_hold(Object *obj, ResetType type)
{
    ivshmem_reset_hold(obj, type);
    /* Unrealized by hand, it is still reset with the rest. */
    if (IVSHMEM_DOORBELL(obj)->msix) {
        ivshmem_msix_reset(IVSHMEM_DOORBELL(obj)->msix);
    }
}

static int ivshmem_doorbell_pre_save(void *opaque)
{
    IvshmemDoorbellState *d = opaque;

    ivshmem_msix_save(d->msix);
    return 0;
}

/* Life */

static bool ivshmem_doorbell_check(IvshmemDoorbellState *d, Error **errp)
{
    if (!qemu_chr_fe_backend_connected(&d->chr)) {
        error_setg(errp, "You must specify a 'chardev'");
        return false;
    }
    if (d->vectors < 1 || d->vectors > IVSHMEM_MSIX_VECTORS_MAX) {
        error_setg(errp, "vectors=%" PRIu32 " is out of range, use 1 to %d",
                   d->vectors, IVSHMEM_MSIX_VECTORS_MAX);
        return false;
    }
    if (d->handshake_timeout < 1 || d->handshake_timeout > INT32_MAX) {
        error_setg(errp, "handshake-timeout=%" PRIu32 " is out of range, use "
                   "1 to %d milliseconds", d->handshake_timeout, INT32_MAX);
        return false;
    }
    return true;
}

static void ivshmem_doorbell_exit(PCIDevice *pci)
{
    IvshmemDoorbellState *d = IVSHMEM_DOORBELL(pci);
    IvshmemState *s = &d->parent_obj;

    ivshmem_link_free(g_steal_pointer(&d->link));
    if (d->vm_state) {
        qemu_del_vm_change_state_handler(g_steal_pointer(&d->vm_state));
    }
    if (d->msix) {
        msix_unset_vector_notifiers(pci);
        ivshmem_msix_free(g_steal_pointer(&d->msix));
    }
    ivshmem_peers_free(g_steal_pointer(&d->peers));
    ivshmem_cleanup(s);
    g_free(g_steal_pointer(&d->name));
}

static bool ivshmem_doorbell_realize_msix(IvshmemDoorbellState *d,
                                          Error **errp)
{
    PCIDevice *pci = PCI_DEVICE(d);

    d->msix = ivshmem_msix_new(pci, d->vectors, IVSHMEM_BAR_MSIX,
                               d->poll_max_ns, errp);
    if (!d->msix) {
        return false;
    }
    msix_set_vector_notifiers(pci, ivshmem_doorbell_use,
                              ivshmem_doorbell_release, ivshmem_doorbell_poll);
    d->vm_state = qdev_add_vm_change_state_handler(
        DEVICE(d), ivshmem_doorbell_vm_state, d);
    return true;
}

/*
 * Whether the guest can neither see the device nor eject it, nor a bridge above
 * it, while it is marked as partially hot-plugged.
 */
static bool ivshmem_doorbell_can_hide(PCIDevice *pci)
{
    PCIBus *bus = pci_get_bus(pci);
    HotplugHandler *handler = BUS(bus)->hotplug_handler;

    if (!object_dynamic_cast(OBJECT(handler), TYPE_ACPI_DEVICE_IF) &&
        !object_dynamic_cast(OBJECT(handler), TYPE_PCIE_SLOT)) {
        return false;
    }
    while (!pci_bus_is_root(bus)) {
        PCIDevice *bridge = pci_bridge_get_device(bus);

        bus = pci_get_bus(bridge);
        if (DEVICE(bridge)->hotplugged ||
            object_dynamic_cast(OBJECT(BUS(bus)->hotplug_handler),
                                TYPE_PCIE_SLOT)) {
            return false;
        }
    }
    return true;
}

/* The server may take its time: vCPUs go on if the device can be hidden. */
static bool ivshmem_doorbell_connect(IvshmemDoorbellState *d, Error **errp)
{
    PCIDevice *pci = PCI_DEVICE(d);
    bool hide = DEVICE(d)->hotplugged && ivshmem_doorbell_can_hide(pci);

    pci->partially_hotplugged = hide;
    d->link = ivshmem_link_new(&d->chr, d->name, d->vectors,
                               d->handshake_timeout, hide,
                               &ivshmem_doorbell_ops, d, errp);
    pci->partially_hotplugged = false;
    return d->link;
}

/* The server may announce vectors before the memory: it comes last. */
static bool ivshmem_doorbell_realize_steps(IvshmemDoorbellState *d,
                                           Error **errp)
{
    IvshmemState *s = &d->parent_obj;

    ivshmem_realize_registers(s);
    if (!ivshmem_doorbell_realize_msix(d, errp)) {
        return false;
    }
    d->peers = ivshmem_peers_new(kvm_enabled() && d->ioeventfd ? &s->registers
                                                               : NULL);
    if (!ivshmem_doorbell_connect(d, errp) ||
        !ivshmem_realize_memory(s, &d->server_memory, errp)) {
        return false;
    }
    d->up = ivshmem_link_connected(d->link);
    return true;
}

static void ivshmem_doorbell_realize(PCIDevice *pci, Error **errp)
{
    IvshmemDoorbellState *d = IVSHMEM_DOORBELL(pci);

    if (!ivshmem_doorbell_check(d, errp)) {
        return;
    }
    d->name = g_strdup(DEVICE(d)->id ?: pci->name);
    if (!ivshmem_doorbell_realize_steps(d, errp)) {
        ivshmem_doorbell_exit(pci);
    }
}

static bool ivshmem_doorbell_get_connected(Object *obj, Error **errp)
{
    return IVSHMEM_DOORBELL(obj)->up;
}

typedef struct IvshmemPeerLister {
    IvshmemPeerInfoList **tail;
    uint16_t self;
} IvshmemPeerLister;

static void ivshmem_doorbell_add_peer(uint16_t id, unsigned vectors,
                                      void *opaque)
{
    IvshmemPeerLister *lister = opaque;
    IvshmemPeerInfo *info;

    if (id == lister->self) {
        return;
    }
    info = g_new0(IvshmemPeerInfo, 1);
    info->id = id;
    info->vectors = vectors;
    QAPI_LIST_APPEND(lister->tail, info);
}

static IvshmemPeerInfoList *ivshmem_doorbell_list_peers(IvshmemDoorbellState *d)
{
    IvshmemPeerInfoList *list = NULL;
    IvshmemPeerLister lister = { .tail = &list, .self = d->parent_obj.id };

    if (d->peers) {
        ivshmem_peers_foreach(d->peers, ivshmem_doorbell_add_peer, &lister);
    }
    return list;
}

static void ivshmem_doorbell_get_peers(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    g_autoptr(IvshmemPeerInfoList) list =
        ivshmem_doorbell_list_peers(IVSHMEM_DOORBELL(obj));

    visit_type_IvshmemPeerInfoList(v, name, &list, errp);
}

static IvshmemVectorInfoList *ivshmem_doorbell_list_vectors(IvshmemMsix *msix)
{
    IvshmemVectorInfoList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < ivshmem_msix_vectors(msix); i++) {
        IvshmemVectorInfo *info = g_new0(IvshmemVectorInfo, 1);

        ivshmem_msix_info(msix, i, info);
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

static void ivshmem_doorbell_fill_info(IvshmemState *s, IvshmemInfo *info)
{
    IvshmemDoorbellState *d = IVSHMEM_DOORBELL(s);

    info->has_connected = true;
    info->connected = d->up;
    info->has_vectors = true;
    info->vectors = ivshmem_doorbell_list_vectors(d->msix);
    info->has_peers = true;
    info->peers = ivshmem_doorbell_list_peers(d);
    info->has_rung = true;
    info->rung = stat64_get(&s->rung);
}

static const VMStateDescription ivshmem_doorbell_vmstate = {
    .name = TYPE_IVSHMEM_DOORBELL,
    .version_id = 0,
    .minimum_version_id = 0,
    .pre_load = ivshmem_pre_load,
    .post_load = ivshmem_post_load,
    .pre_save = ivshmem_doorbell_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj.parent_obj, IvshmemDoorbellState),
        VMSTATE_MSIX(parent_obj.parent_obj, IvshmemDoorbellState),
        VMSTATE_UINT32(parent_obj.intr_status, IvshmemDoorbellState),
        VMSTATE_UINT32(parent_obj.intr_mask, IvshmemDoorbellState),
        VMSTATE_END_OF_LIST()
    },
};

static const Property ivshmem_doorbell_properties[] = {
    DEFINE_PROP_CHR("chardev", IvshmemDoorbellState, chr),
    DEFINE_PROP_UINT32("vectors", IvshmemDoorbellState, vectors, 1),
    DEFINE_PROP_BOOL("ioeventfd", IvshmemDoorbellState, ioeventfd, true),
    DEFINE_PROP_UINT32("handshake-timeout", IvshmemDoorbellState,
                       handshake_timeout, 5000),
    DEFINE_PROP_UINT32("poll-max-ns", IvshmemDoorbellState, poll_max_ns, 0),
};

static void ivshmem_doorbell_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = ivshmem_doorbell_realize;
    pc->exit = ivshmem_doorbell_exit;
    pc->config_write = ivshmem_doorbell_write_config;
    rc->phases.hold = ivshmem_doorbell_reset_hold;
    dc->vmsd = &ivshmem_doorbell_vmstate;
    IVSHMEM_COMMON_CLASS(klass)->ring = ivshmem_doorbell_ring;
    IVSHMEM_COMMON_CLASS(klass)->fill_info = ivshmem_doorbell_fill_info;
    device_class_set_props(dc, ivshmem_doorbell_properties);
    object_class_property_set_description(klass, "vectors",
        "MSI-X vectors, 1 to 2048");
    object_class_property_set_description(klass, "ioeventfd",
        "Whether KVM takes the guest's doorbells by itself");
    object_class_property_set_description(klass, "handshake-timeout",
        "How long the start may wait for the server, in ms");
    object_class_property_set_description(klass, "poll-max-ns",
        "ns to look for rings before sleeping, where KVM does not deliver");
    object_class_property_add_bool(klass, "connected",
                                   ivshmem_doorbell_get_connected, NULL);
    object_class_property_set_description(klass, "connected",
        "Whether the server is there");
    object_class_property_add(klass, "peers", "IvshmemPeerInfoList",
                              ivshmem_doorbell_get_peers, NULL, NULL, NULL);
    object_class_property_set_description(klass, "peers",
        "Connected peers: ID and number of vectors of each");
}

static const TypeInfo ivshmem_doorbell_info = {
    .name = TYPE_IVSHMEM_DOORBELL,
    .parent = TYPE_IVSHMEM_COMMON,
    .instance_size = sizeof(IvshmemDoorbellState),
    .class_init = ivshmem_doorbell_class_init,
};

static void ivshmem_doorbell_register_types(void)
{
    type_register_static(&ivshmem_doorbell_info);
}

type_init(ivshmem_doorbell_register_types)
