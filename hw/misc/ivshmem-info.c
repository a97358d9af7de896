/*
 * ivshmem: what management sees of the devices.
 *
 * query-ivshmem, "info ivshmem" and the QMP events.  Only shows: the devices
 * fill in what is theirs (IvshmemClass.fill_info).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#ifdef CONFIG_LINUX
#include <sys/vfs.h>
#include <linux/magic.h>
#endif
#include "qapi/error.h"
#include "qapi/qapi-commands-ivshmem.h"
#include "qapi/qapi-events-ivshmem.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "ivshmem-common.h"
#include "ivshmem-info.h"

/* Events */

void ivshmem_event_connected(DeviceState *dev, uint16_t id, int previous_id)
{
    g_autofree char *path = object_get_canonical_path(OBJECT(dev));

    qapi_event_send_ivshmem_connected(dev->id, path, id, previous_id >= 0,
                                      previous_id);
}

void ivshmem_event_disconnected(DeviceState *dev)
{
    g_autofree char *path = object_get_canonical_path(OBJECT(dev));

    qapi_event_send_ivshmem_disconnected(dev->id, path);
}

void ivshmem_event_peer(DeviceState *dev, IvshmemEventLimit *limit,
                        uint16_t id, bool joined)
{
    g_autofree char *path = NULL;
    int64_t second = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) / 1000;

    if (second != limit->second) {
        limit->second = second;
        limit->sent = 0;
    }
    if (limit->sent == IVSHMEM_EVENTS_PER_SECOND) {
        limit->suppressed++;
        return;
    }
    limit->sent++;
    path = object_get_canonical_path(OBJECT(dev));
    if (joined) {
        qapi_event_send_ivshmem_peer_joined(dev->id, path, id,
                                            limit->suppressed);
    } else {
        qapi_event_send_ivshmem_peer_left(dev->id, path, id,
                                          limit->suppressed);
    }
    limit->suppressed = 0;
}

/* query-ivshmem */

static IvshmemMemoryKind info_memory_kind(int fd)
{
#ifdef CONFIG_LINUX
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *target = g_file_read_link(link, NULL);
    struct statfs fs;

    if (fd < 0 || fstatfs(fd, &fs) < 0) {
        return IVSHMEM_MEMORY_KIND_ANONYMOUS;
    }
    if (fs.f_type == HUGETLBFS_MAGIC) {
        return IVSHMEM_MEMORY_KIND_HUGETLB;
    }
    if (target && strstart(target, "/memfd:", NULL)) {
        return IVSHMEM_MEMORY_KIND_MEMFD;
    }
    return fs.f_type == TMPFS_MAGIC ? IVSHMEM_MEMORY_KIND_SHM
                                    : IVSHMEM_MEMORY_KIND_FILE;
#else
    return fd < 0 ? IVSHMEM_MEMORY_KIND_ANONYMOUS : IVSHMEM_MEMORY_KIND_FILE;
#endif
}

static IvshmemMemoryInfo *info_memory(MemoryRegion *memory)
{
    IvshmemMemoryInfo *info = g_new0(IvshmemMemoryInfo, 1);
    int fd = memory_region_get_fd(memory);

    info->kind = info_memory_kind(fd);
    info->size = memory_region_size(memory);
    info->readonly = memory_region_is_rom(memory);
    info->sealed = ivshmem_memory_is_sealed(fd);
    return info;
}

static int info_device(Object *obj, void *opaque)
{
    IvshmemInfoList ***tail = opaque;
    IvshmemState *s = (IvshmemState *)object_dynamic_cast(obj,
                                                          TYPE_IVSHMEM_COMMON);
    IvshmemInfo *info;

    if (!s || !s->memory) {
        return 0;
    }
    info = g_new0(IvshmemInfo, 1);
    info->qom_path = object_get_canonical_path(obj);
    info->type = g_strdup(object_get_typename(obj));
    info->role = s->migration_blocker ? IVSHMEM_ROLE_PEER
                                      : IVSHMEM_ROLE_MASTER;
    info->id = s->id;
    info->memory = info_memory(s->memory);
    info->refused = stat64_get(&s->refused);
    if (IVSHMEM_COMMON_GET_CLASS(s)->fill_info) {
        IVSHMEM_COMMON_GET_CLASS(s)->fill_info(s, info);
    }
    QAPI_LIST_APPEND(*tail, info);
    return 0;
}

IvshmemInfoList *qmp_query_ivshmem(Error **errp)
{
    IvshmemInfoList *list = NULL, **tail = &list;

    object_child_foreach_recursive(object_get_root(), info_device, &tail);
    return list;
}

/* info ivshmem */

static void hmp_vectors(Monitor *mon, const IvshmemVectorInfoList *list)
{
    for (; list; list = list->next) {
        const IvshmemVectorInfo *v = list->value;

        monitor_printf(mon, "    vector %" PRIu32 ": %s%s%s%s, %" PRIu64
                       " delivered by QEMU\n", v->vector,
                       v->connected ? "connected" : "not connected",
                       v->masked ? ", masked" : "",
                       v->pending ? ", pending" : "",
                       v->irqfd ? ", by KVM" : "", v->delivered);
    }
}

static void hmp_device(Monitor *mon, const IvshmemInfo *info)
{
    g_autofree char *size = size_to_str(info->memory->size);

    monitor_printf(mon, "%s (%s)\n", info->qom_path, info->type);
    monitor_printf(mon, "  memory: %s, %s%s%s\n", size,
                   IvshmemMemoryKind_str(info->memory->kind),
                   info->memory->readonly ? ", read-only" : "",
                   info->memory->sealed ? "" : ", can shrink (not sealed)");
    monitor_printf(mon, "  migration: %s\n", IvshmemRole_str(info->role));
    if (!info->has_connected) {
        return;
    }
    monitor_printf(mon, "  server: %s, peer ID %u\n",
                   info->connected ? "connected" : "not connected", info->id);
    monitor_printf(mon, "  doorbells through QEMU: %" PRIu64 " rung, %" PRIu64
                   " refused\n", info->rung, info->refused);
    hmp_vectors(mon, info->vectors);
    for (IvshmemPeerInfoList *l = info->peers; l; l = l->next) {
        monitor_printf(mon, "    peer %u: %" PRIu32 " vectors\n", l->value->id,
                       l->value->vectors);
    }
}

static void hmp_info_ivshmem(Monitor *mon, const QDict *qdict)
{
    g_autoptr(IvshmemInfoList) list = qmp_query_ivshmem(NULL);

    if (!list) {
        monitor_printf(mon, "No inter-VM shared memory device\n");
    }
    for (IvshmemInfoList *l = list; l; l = l->next) {
        hmp_device(mon, l->value);
    }
}

static void ivshmem_info_register(void)
{
    monitor_register_hmp("ivshmem", true, hmp_info_ivshmem);
}

type_init(ivshmem_info_register)
