/*
 * What was handed over: regions, with memory and clients, and sockets, each to
 * whoever needs it.
 *
 * Not responsible for how it came here (handover.c, handover-store.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "client.h"
#include "handover-internal.h"
#include "ivshmem-fd.h"
#include "ivshmem-registry-state.h"
#include "log.h"

int ivshmem_handover_fd(int number, void *opaque)
{
    IvshmemHandover *handover = opaque;
    gpointer value;

    return g_hash_table_steal_extended(handover->fds, GINT_TO_POINTER(number),
                                       NULL, &value)
        ? GPOINTER_TO_INT(value) : -1;
}

/* The region's part of the document: memory, registry, clients. */
static bool take_region(const IvshmemHandover *handover, const char *name,
                        GVariant **memory, GVariant **registry,
                        GVariant **clients)
{
    g_autoptr(GVariant) regions = NULL;

    if (!handover) {
        return false;
    }
    regions = g_variant_get_child_value(handover->document, 1);
    for (gsize i = 0; i < g_variant_n_children(regions); i++) {
        g_autoptr(GVariant) region = g_variant_get_child_value(regions, i);
        const char *other;

        g_variant_get_child(region, 0, "&s", &other);
        if (g_strcmp0(other, name) == 0) {
            g_variant_get(region, "(&svv@a" CLIENT_TYPE ")", NULL, memory,
                          registry, clients);
            return true;
        }
    }
    return false;
}

/* Whether a region's memory says that it is closing, and how it was made. */
static IvshmemRegionConfig *take_closing(const char *name, GVariant *memory)
{
    IvshmemRegionConfig *config;
    IvshmemMemoryConfig *m;
    gboolean persistent, prealloc;
    int kind;

    if (!g_variant_is_of_type(memory, G_VARIANT_TYPE(CLOSING_TYPE))) {
        return NULL;
    }
    config = ivshmem_region_config_new(name);
    m = &config->memory;
    g_variant_get(memory, CLOSING_TYPE, &persistent, &kind, &m->name, &m->size,
                  &m->page_size, &prealloc, &m->numa_node, NULL);
    m->persistent = persistent;
    m->prealloc = prealloc;
    m->kind = (IvshmemMemoryKind)kind;
    return config;
}

GPtrArray *ivshmem_handover_closing(const IvshmemHandover *handover,
                                    const IvshmemConfig *config)
{
    GPtrArray *closing = g_ptr_array_new_with_free_func(
        (GDestroyNotify)ivshmem_region_config_unref);
    g_autoptr(GVariant) regions = NULL;

    if (!handover) {
        return closing;
    }
    regions = g_variant_get_child_value(handover->document, 1);
    for (gsize i = 0; i < g_variant_n_children(regions); i++) {
        g_autoptr(GVariant) memory = NULL;
        IvshmemRegionConfig *region;
        const char *name;

        g_variant_get_child(regions, i, "(&svv@a" CLIENT_TYPE ")", &name,
                            &memory, NULL, NULL);
        region = ivshmem_config_find(config, name)
            ? NULL : take_closing(name, memory);
        if (region) {
            g_ptr_array_add(closing, region);
        }
    }
    return closing;
}

bool ivshmem_handover_check(const IvshmemHandover *handover,
                            const IvshmemConfig *config, GError **errp)
{
    g_autoptr(GVariant) regions =
        g_variant_get_child_value(handover->document, 1);

    for (gsize i = 0; i < g_variant_n_children(regions); i++) {
        g_autoptr(GVariant) memory = NULL;
        const char *name;

        g_variant_get_child(regions, i, "(&svv@a" CLIENT_TYPE ")", &name,
                            &memory, NULL, NULL);
        if (!ivshmem_config_find(config, name) &&
            !g_variant_is_of_type(memory, G_VARIANT_TYPE(CLOSING_TYPE))) {
            ivshmem_error(errp, "the server that runs has a region %s, which "
                          "is not in the configuration; it goes on", name);
            return false;
        }
    }
    return true;
}

bool ivshmem_handover_has_region(const IvshmemHandover *handover,
                                 const char *region)
{
    return take_region(handover, region, NULL, NULL, NULL);
}

IvshmemRegistry *ivshmem_handover_registry(IvshmemHandover *handover,
                                           const IvshmemRegionConfig *config,
                                           GError **errp)
{
    g_autoptr(GVariant) saved = NULL;
    IvshmemRegistry *registry = NULL;

    if (take_region(handover, config->name, NULL, &saved, NULL)) {
        registry = ivshmem_registry_restore(saved, config->first_id,
                                            ivshmem_handover_fd, handover);
    }
    if (!registry) {
        ivshmem_error(errp, "region %s was not handed over as it should be",
                      config->name);
    }
    return registry;
}

/* Takes @saved, which is to be what @config (NULL: anything) describes. */
static IvshmemMemory *take_memory(IvshmemHandover *handover, GVariant *saved,
                                  const IvshmemMemoryConfig *config,
                                  GError **errp)
{
    IvshmemMemory *memory = ivshmem_memory_restore(saved, ivshmem_handover_fd,
                                                   handover);

    if (!memory) {
        ivshmem_error(errp, "the memory was not handed over as it should be");
    } else if (config && !ivshmem_memory_check(memory, config, errp)) {
        ivshmem_memory_close(memory, false);
        memory = NULL;
    }
    g_variant_unref(saved);
    return memory;
}

IvshmemMemory *ivshmem_handover_memory(IvshmemHandover *handover,
                                       const IvshmemRegionConfig *config,
                                       GError **errp)
{
    const IvshmemMemoryConfig *want = &config->memory;
    GVariant *saved = NULL;
    IvshmemMemory *memory;

    take_region(handover, config->name, &saved, NULL, NULL);
    if (g_variant_is_of_type(saved, G_VARIANT_TYPE(CLOSING_TYPE))) {
        GVariant *wrapped = saved;

        g_variant_get_child(wrapped, 7, "v", &saved);
        g_variant_unref(wrapped);
        if (!config->common->socket.path && !config->clients->len) {
            want = NULL;        /* it is as it is, until it goes */
        }
    }
    memory = take_memory(handover, saved, want, errp);
    if (!memory) {
        g_prefix_error(errp, "region %s: ", config->name);
    }
    return memory;
}

bool ivshmem_handover_clients(IvshmemHandover *handover, IvshmemRegion *region,
                              GError **errp)
{
    g_autoptr(GVariant) clients = NULL;
    IvshmemClientHanded c;
    GVariantIter iter;
    gboolean read_only;
    int sock;

    take_region(handover, region->config->name, NULL, NULL, &clients);
    g_variant_iter_init(&iter, clients);
    while (g_variant_iter_next(&iter, "(qiitub&sx)", &c.id, &sock, &c.pid,
                               &c.seen, &c.uid, &read_only, &c.name,
                               &c.since)) {
        c.read_only = read_only;
        c.sock = ivshmem_handover_fd(sock, handover);
        if (!ivshmem_client_resume(region, &c, errp)) {
            g_prefix_error(errp, "region %s: ", region->config->name);
            return false;
        }
    }
    return true;
}

bool ivshmem_handover_listener(IvshmemHandover *handover, const char *path,
                               IvshmemListener *listener)
{
    g_autoptr(GVariant) listeners = NULL;
    const char *other;
    guint64 dev, ino;
    GVariantIter iter;
    int fd;

    if (!handover) {
        return false;
    }
    listeners = g_variant_get_child_value(handover->document, 0);
    g_variant_iter_init(&iter, listeners);
    while (g_variant_iter_next(&iter, "(&sitt)", &other, &fd, &dev, &ino)) {
        if (g_strcmp0(other, path) == 0) {
            *listener = (IvshmemListener) {
                .fd = ivshmem_handover_fd(fd, handover), .path = g_strdup(path),
                .dev = (dev_t)dev, .ino = (ino_t)ino,
            };
            return listener->fd >= 0;
        }
    }
    return false;
}

void ivshmem_handover_remove_rest(IvshmemHandover *handover)
{
    g_autoptr(GVariant) listeners =
        g_variant_get_child_value(handover->document, 0);
    const char *path;
    guint64 dev, ino;
    GVariantIter iter;
    int fd;

    g_variant_iter_init(&iter, listeners);
    while (g_variant_iter_next(&iter, "(&sitt)", &path, &fd, &dev, &ino)) {
        IvshmemListener listener = {
            .fd = ivshmem_handover_fd(fd, handover), .path = g_strdup(path),
            .dev = (dev_t)dev, .ino = (ino_t)ino,
        };

        if (listener.fd >= 0) {
            g_autofree char *file = g_strconcat(path, ".state", NULL);
            IvshmemState *state = ivshmem_state_open(file, handover->user);

            ivshmem_log(G_LOG_LEVEL_MESSAGE, "closed socket %s, which is not "
                        "in the configuration", path);
            ivshmem_state_close(state, ivshmem_state_found(state));
        }
        ivshmem_listener_close(&listener);
    }
}
