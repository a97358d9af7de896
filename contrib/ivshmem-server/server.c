/*
 * The server: what happens in a turn of its loop, and in which order things
 * are opened and closed.
 *
 * Not responsible for being a daemon (main.c, daemon.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "client.h"
#include "control.h"
#include "handover.h"
#include "quota.h"
#include "log.h"
#include "outbox.h"
#include "region.h"
#include "server.h"
#include "systemd.h"
#include "value.h"

/* Regions out of the configuration go with their last client. */
static void server_free_closed(IvshmemServer *server)
{
    for (unsigned i = server->regions->len; i-- > 0;) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        if (region->closing && !ivshmem_registry_members(region->registry)) {
            ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: removed",
                        region->config->name);
            g_ptr_array_remove_index(server->regions, i);
            ivshmem_region_free(region, true);
        }
    }
}

/* A burst of joins is one line of status. */
#define STATUS_PAUSE_MS 200

static gboolean server_tell_manager(gpointer opaque)
{
    IvshmemServer *server = opaque;
    size_t clients = 0;

    for (unsigned i = 0; i < server->regions->len; i++) {
        const IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        clients += ivshmem_registry_members(region->registry);
    }
    server->status_timer = 0;
    ivshmem_systemd_notify("STATUS=%zu clients in %u regions", clients,
                           server->regions->len);
    return G_SOURCE_REMOVE;
}

/*
 * After all joins and leaves of the turn: one pass that tells everybody.
 * Clients that are found dead in it make the next turn's news.
 */
static void server_turn_end(void *opaque)
{
    IvshmemServer *server = opaque;

    for (unsigned i = 0; i < server->regions->len; i++) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        if (region->changed) {
            region->changed = false;
            ivshmem_region_save(region);
            if (!server->status_timer && ivshmem_systemd_is_there()) {
                server->status_timer = g_timeout_add(
                    STATUS_PAUSE_MS, server_tell_manager, server);
            }
            ivshmem_outbox_add_region(region);
        }
    }
    ivshmem_outbox_flush(server);
    for (unsigned i = 0; i < server->regions->len; i++) {
        ivshmem_region_reap(g_ptr_array_index(server->regions, i));
    }
    g_ptr_array_set_size(server->gone, 0);
    server_free_closed(server);
    ivshmem_log_flush();
}

static bool server_open_regions(IvshmemServer *server,
                                const GPtrArray *configs, GError **errp)
{
    for (unsigned i = 0; i < configs->len; i++) {
        IvshmemRegionConfig *config = g_ptr_array_index(configs, i);
        IvshmemRegion *region = ivshmem_region_new(server, config, errp);

        if (!region) {
            return false;
        }
        g_ptr_array_add(server->regions, region);
    }
    return true;
}

static IvshmemControl *server_new_control(IvshmemServer *server, GError **errp)
{
    g_autofree char *path = ivshmem_control_path(server->config);
    IvshmemListener listener = { .fd = -1 };
    bool handed =
        ivshmem_handover_listener(server->handover, path, &listener) ||
        ivshmem_systemd_listener(path, &listener);

    return ivshmem_control_new(server, handed ? &listener : NULL, errp);
}

static bool server_open_control(IvshmemServer *server, GError **errp)
{
    g_autoptr(GError) error = NULL;

    server->control = server_new_control(server, &error);
    if (server->control) {
        return true;
    }
    if (server->config->control_path) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return false;
    }
    /* Clients can do without it, so a place that we chose must not matter. */
    ivshmem_log(G_LOG_LEVEL_WARNING, "no --status and no --replace: %s; "
                "choose another place with --control-socket", error->message);
    return true;
}

IvshmemServer *ivshmem_server_new(const IvshmemConfig *config,
                                  IvshmemHandover *handover, GError **errp)
{
    IvshmemServer *server = g_new0(IvshmemServer, 1);
    g_autoptr(GPtrArray) closing = ivshmem_handover_closing(handover, config);

    server->config = config;
    server->handover = handover;
    server->start_time = g_get_real_time() / G_USEC_PER_SEC;
    server->regions = g_ptr_array_new();
    server->gone = g_ptr_array_new_with_free_func(
        (GDestroyNotify)ivshmem_client_free);
    g_queue_init(&server->pending);
    g_queue_init(&server->blocked);
    g_queue_init(&server->waiting);
    server->fd_limit = ivshmem_quota_raise();
    server->window = ivshmem_quota_window(server->fd_limit);
    server->loop = ivshmem_loop_new(server_turn_end, server, errp);
    if (!server->loop || !server_open_regions(server, config->regions, errp) ||
        !server_open_regions(server, closing, errp) ||
        !server_open_control(server, errp)) {
        if (!handover) {
            ivshmem_server_free(server);
        }
        return NULL;
    }
    server->handover = NULL;
    return server;
}

void ivshmem_server_free(IvshmemServer *server)
{
    if (!server) {
        return;
    }
    ivshmem_control_free(server->control);
    g_ptr_array_unref(server->gone);
    for (unsigned i = 0; i < server->regions->len; i++) {
        ivshmem_region_free(g_ptr_array_index(server->regions, i), true);
    }
    g_ptr_array_unref(server->regions);
    ivshmem_outbox_stop(server);
    g_clear_handle_id(&server->status_timer, g_source_remove);
    ivshmem_loop_free(server->loop);
    g_free(server);
}

static IvshmemRegion *server_find(const IvshmemServer *server,
                                  const char *name)
{
    for (unsigned i = 0; i < server->regions->len; i++) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        if (strcmp(region->config->name, name) == 0) {
            return region;
        }
    }
    return NULL;
}

/* A file of that size takes no room until clients write to it. */
static void server_warn_of_room(const IvshmemRegion *region)
{
    uint64_t lacks = ivshmem_memory_lacks(region->memory);
    g_autofree char *size = ivshmem_value_format_size(lacks);

    if (lacks) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "region %s: the file system has no "
                    "room for %s of its memory: a client that writes there is "
                    "killed (SIGBUS); make room, or take memory=memfd in a "
                    "configuration file", region->config->name, size);
    }
}

static void server_announce_region(const IvshmemServer *server,
                                   const IvshmemRegion *region)
{
    const IvshmemRegionConfig *config = region->config;
    g_autofree char *size =
        ivshmem_value_format_size(ivshmem_memory_size(region->memory));
    g_autoptr(GString) sockets = g_string_new(NULL);

    if (region->closing) {
        ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: not in the configuration; "
                    "it goes with its last client", config->name);
        return;
    }
    for (unsigned i = 0; i < region->doors->len; i++) {
        const IvshmemDoor *door = g_ptr_array_index(region->doors, i);

        g_string_append_printf(sockets, "%s%s", i ? ", " : "",
                               door->listener.path);
    }
    ivshmem_log(G_LOG_LEVEL_MESSAGE, "region %s: %s in %s%s, %u vector%s, "
                "socket %s; %u descriptors allow for %u clients",
                config->name, size, ivshmem_memory_describe(region->memory),
                ivshmem_memory_found(region->memory) ?
                " (found with its contents)" : "",
                config->vectors, config->vectors == 1 ? "" : "s", sockets->str,
                server->fd_limit,
                ivshmem_client_capacity(server, config->vectors));
    server_warn_of_room(region);
    if (!ivshmem_memory_sealed(region->memory)) {
        ivshmem_log(G_LOG_LEVEL_INFO, "region %s: this memory cannot be "
                    "sealed: a client that shrinks it kills the others "
                    "(SIGBUS); memory=memfd in a configuration file can",
                    config->name);
    }
}

void ivshmem_server_settled(IvshmemServer *server)
{
    server->window = ivshmem_quota_window(server->fd_limit);
    /* New files take long: not when the first newcomer waits for them. */
    for (unsigned i = 0; i < server->regions->len; i++) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        ivshmem_region_save(region);
        ivshmem_region_store(region);   /* it may have had another name */
    }
}

void ivshmem_server_announce(const IvshmemServer *server)
{
    for (unsigned i = 0; i < server->regions->len; i++) {
        server_announce_region(server, g_ptr_array_index(server->regions, i));
    }
}

static void server_add_region(IvshmemServer *server,
                              IvshmemRegionConfig *config)
{
    g_autoptr(GError) error = NULL;
    IvshmemRegion *region = ivshmem_region_new(server, config, &error);

    if (!region) {
        ivshmem_log(G_LOG_LEVEL_CRITICAL, "region %s: %s", config->name,
                    error->message);
        return;
    }
    g_ptr_array_add(server->regions, region);
    server_announce_region(server, region);
}

/* Those who ask, and successors, look where the configuration says. */
static void server_move_control(IvshmemServer *server)
{
    g_autoptr(GError) error = NULL;
    IvshmemControl *control;

    if (server->control && ivshmem_control_renew(server->control)) {
        return;
    }
    control = server_new_control(server, &error);
    if (control) {
        ivshmem_control_free(server->control);
        server->control = control;
    } else {
        ivshmem_log(G_LOG_LEVEL_CRITICAL, "control socket: %s%s",
                    error->message,
                    server->control ? "; it stays where it was" : "");
    }
}

void ivshmem_server_reconfigure(IvshmemServer *server,
                                const IvshmemConfig *config)
{
    server->config = config;
    /* First close what is gone: its paths may be used anew. */
    for (unsigned i = 0; i < server->regions->len; i++) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        IvshmemRegionConfig *r = ivshmem_config_find(config,
                                                     region->config->name);

        if (r) {
            ivshmem_region_close_old(region, r);
        } else {
            ivshmem_region_shut(region);
        }
    }
    for (unsigned i = 0; i < config->regions->len; i++) {
        IvshmemRegionConfig *r = g_ptr_array_index(config->regions, i);
        IvshmemRegion *region = server_find(server, r->name);

        if (region) {
            ivshmem_region_open_new(region);
        } else {
            server_add_region(server, r);
        }
    }
    server_move_control(server);
    ivshmem_outbox_new_timeout(server);
    ivshmem_loop_wake(server->loop);
}
