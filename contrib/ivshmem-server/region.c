/*
 * Regions: opening and closing what belongs to one, and its doors.
 *
 * Not responsible for the clients inside (client.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include "client.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "region.h"

/*
 * Newcomers of one turn.  They are told of each other together, which is what
 * makes a burst cheap; and those inside do not wait for long.
 */
#define DOOR_BATCH 256

/* How long a door stays shut when the system cannot accept anybody. */
#define DOOR_PAUSE_MS 100

static gboolean door_resume(gpointer opaque)
{
    IvshmemDoor *door = opaque;

    door->pause_timer = 0;
    ivshmem_loop_set_events(door->region->server->loop, &door->watch, EPOLLIN);
    return G_SOURCE_REMOVE;
}

/* Whoever is at the door waits there; we do not spin. */
static void door_pause(IvshmemDoor *door, int error)
{
    IvshmemLogSubject subject = { door->region->config->name, -1, -1 };

    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_WAIT, &subject,
                      "newcomers have to wait: accept: %s",
                      ivshmem_strerror(error));
    door->region->server->counters.waits++;
    ivshmem_loop_set_events(door->region->server->loop, &door->watch, 0);
    door->pause_timer = g_timeout_add(DOOR_PAUSE_MS, door_resume, door);
}

static void door_ready(IvshmemWatch *watch, uint32_t events)
{
    IvshmemDoor *door = (IvshmemDoor *)watch;

    G_STATIC_ASSERT(offsetof(IvshmemDoor, watch) == 0);
    for (int i = 0; i < DOOR_BATCH; i++) {
        int sock = ivshmem_io_accept(door->listener.fd);

        if (sock == -EAGAIN) {
            return;
        }
        if (sock < 0) {
            door_pause(door, sock);
            return;
        }
        ivshmem_client_admit(door, sock);
    }
}

static void door_free(IvshmemDoor *door)
{
    g_clear_handle_id(&door->pause_timer, g_source_remove);
    ivshmem_loop_remove(door->region->server->loop, &door->watch);
    ivshmem_listener_close(&door->listener);
    g_free(door);
}

static bool door_open(IvshmemRegion *region, const IvshmemSocketConfig *config,
                      unsigned vectors, GError **errp)
{
    IvshmemDoor *door = g_new0(IvshmemDoor, 1);

    door->region = region;
    door->vectors = vectors;
    door->listener.fd = -1;
    if (!ivshmem_listener_open(&door->listener, config, errp)) {
        g_free(door);
        return false;
    }
    door->watch = (IvshmemWatch) {
        .fd = door->listener.fd, .events = EPOLLIN, .ready = door_ready,
    };
    g_ptr_array_add(region->doors, door);
    return true;
}

/* Not before the region is complete: whoever comes early waits. */
static bool region_start(IvshmemRegion *region, GError **errp)
{
    for (unsigned i = 0; i < region->doors->len; i++) {
        IvshmemDoor *door = g_ptr_array_index(region->doors, i);
        int ret = ivshmem_loop_add(region->server->loop, &door->watch);

        if (ret < 0) {
            ivshmem_error(errp, "cannot watch %s: %s", door->listener.path,
                          ivshmem_strerror(ret));
            return false;
        }
    }
    return true;
}

IvshmemRegion *ivshmem_region_new(IvshmemServer *server,
                                  const IvshmemRegionConfig *config,
                                  GError **errp)
{
    IvshmemRegion *region = g_new0(IvshmemRegion, 1);

    region->server = server;
    region->config = config;
    region->registry = ivshmem_registry_new(config->first_id);
    region->doors = g_ptr_array_new_with_free_func((GDestroyNotify)door_free);
    /* The socket first: who cannot have it must not touch the memory. */
    if (!door_open(region, &config->socket, config->vectors, errp)) {
        ivshmem_region_free(region, true);
        return NULL;
    }
    region->memory = ivshmem_memory_open(&config->memory, errp);
    if (!region->memory || !region_start(region, errp)) {
        ivshmem_region_free(region, true);
        return NULL;
    }
    return region;
}

void ivshmem_region_free(IvshmemRegion *region, bool remove)
{
    IvshmemMember *member;

    if (!region) {
        return;
    }
    g_ptr_array_unref(region->doors);
    while ((member = ivshmem_registry_next(region->registry, NULL))) {
        ivshmem_client_free(ivshmem_member_opaque(member));
    }
    ivshmem_region_reap(region);
    ivshmem_registry_free(region->registry);
    ivshmem_memory_close(region->memory, remove);
    g_free(region);
}

void ivshmem_region_set_changed(IvshmemRegion *region)
{
    region->changed = true;
    ivshmem_loop_wake(region->server->loop);
}

void ivshmem_region_reap(IvshmemRegion *region)
{
    int fd;

    while ((fd = ivshmem_registry_reap(region->registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
}
