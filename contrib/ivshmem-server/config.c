/*
 * The server's settings.
 *
 * Not responsible for reading them (options.c, keyfile.c), nor for acting on
 * them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "config.h"

IvshmemRegionConfig *ivshmem_region_config_new(const char *name)
{
    IvshmemRegionConfig *region = g_new0(IvshmemRegionConfig, 1);

    region->name = g_strdup(name);
    region->memory.size = IVSHMEM_DEFAULT_SIZE;
    region->socket.owner = (uid_t)-1;
    region->socket.group = (gid_t)-1;
    region->vectors = IVSHMEM_DEFAULT_VECTORS;
    return region;
}

void ivshmem_region_config_free(IvshmemRegionConfig *region)
{
    if (!region) {
        return;
    }
    g_free(region->name);
    g_free(region->memory.name);
    g_free(region->socket.path);
    g_free(region);
}

IvshmemConfig *ivshmem_config_new(void)
{
    IvshmemConfig *config = g_new0(IvshmemConfig, 1);

    config->regions = g_ptr_array_new_with_free_func(
        (GDestroyNotify)ivshmem_region_config_free);
    config->ready_fd = -1;
    config->queue_limit = IVSHMEM_DEFAULT_QUEUE_LIMIT;
    return config;
}

void ivshmem_config_free(IvshmemConfig *config)
{
    if (!config) {
        return;
    }
    g_ptr_array_unref(config->regions);
    g_free(config->pid_file);
    g_free(config);
}
