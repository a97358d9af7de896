/*
 * The server's settings: made, compared, freed.
 *
 * Not responsible for reading them (options.c, keyfile.c), nor for acting on
 * them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <limits.h>
#include <string.h>
#include "config.h"
#include "ivshmem-registry.h"
#include "value.h"

static void client_config_free(IvshmemClientConfig *client)
{
    g_free(client->name);
    g_free(client->socket.path);
    g_clear_pointer(&client->socket.users, g_array_unref);
    g_free(client);
}

static IvshmemClientConfig *client_config_alloc(const char *name)
{
    IvshmemClientConfig *client = g_new0(IvshmemClientConfig, 1);

    client->name = g_strdup(name);
    client->socket.owner = (uid_t)-1;
    client->socket.group = (gid_t)-1;
    client->id = IVSHMEM_ID_ANY;
    return client;
}

IvshmemClientConfig *ivshmem_client_config_new(IvshmemRegionConfig *region,
                                               const char *name)
{
    IvshmemClientConfig *client = client_config_alloc(name);

    g_ptr_array_add(region->clients, client);
    return client;
}

IvshmemRegionConfig *ivshmem_region_config_new(const char *name)
{
    IvshmemRegionConfig *region = g_rc_box_new0(IvshmemRegionConfig);

    region->name = g_strdup(name);
    region->memory.size = IVSHMEM_DEFAULT_SIZE;
    region->memory.persistent = -1;
    region->memory.numa_node = -1;
    region->vectors = IVSHMEM_DEFAULT_VECTORS;
    region->common = client_config_alloc(NULL);
    region->clients = g_ptr_array_new_with_free_func(
        (GDestroyNotify)client_config_free);
    return region;
}

IvshmemRegionConfig *ivshmem_region_config_ref(IvshmemRegionConfig *region)
{
    return g_rc_box_acquire(region);
}

static void region_config_clear(gpointer opaque)
{
    IvshmemRegionConfig *region = opaque;

    g_free(region->name);
    g_free(region->memory.name);
    client_config_free(region->common);
    g_ptr_array_unref(region->clients);
}

void ivshmem_region_config_unref(IvshmemRegionConfig *region)
{
    if (region) {
        g_rc_box_release_full(region, region_config_clear);
    }
}

/* Consumes @name. */
static void memory_config_set(IvshmemMemoryConfig *memory,
                              IvshmemMemoryKind kind, char *name)
{
    g_free(memory->name);
    memory->name = name;
    memory->kind = kind;
}

bool ivshmem_memory_config_set_shm(IvshmemMemoryConfig *memory,
                                   const char *what, const char *name,
                                   GError **errp)
{
    const char *word = name + strspn(name, "/");

    if (!*word || strchr(word, '/') || strlen(word) >= NAME_MAX ||
        strcmp(word, ".") == 0 || strcmp(word, "..") == 0) {
        ivshmem_error(errp, "%s: '%s' cannot be the name of a shared memory "
                      "object; use a word without '/', shorter than %d", what,
                      name, NAME_MAX);
        return false;
    }
    memory_config_set(memory, IVSHMEM_MEMORY_SHM, g_strdup(word));
    return true;
}

static bool memory_config_set_file(IvshmemMemoryConfig *memory,
                                   const char *what, const char *path,
                                   GError **errp)
{
    if (!g_path_is_absolute(path)) {
        ivshmem_error(errp, "%s: '%s' does not start with /; the server has "
                      "no directory of its own", what, path);
        return false;
    }
    memory_config_set(memory, IVSHMEM_MEMORY_FILE,
                      g_canonicalize_filename(path, NULL));
    return true;
}

static bool memory_config_set_hugetlb(IvshmemMemoryConfig *memory,
                                      const char *what, const char *page,
                                      GError **errp)
{
    memory_config_set(memory, IVSHMEM_MEMORY_HUGETLB, NULL);
    return !*page || ivshmem_value_region_size(what, page, &memory->page_size,
                                               errp);
}

bool ivshmem_memory_config_set(IvshmemMemoryConfig *memory, const char *what,
                               const char *text, GError **errp)
{
    if (strcmp(text, "memfd") == 0) {
        memory_config_set(memory, IVSHMEM_MEMORY_MEMFD, NULL);
        return true;
    }
    if (strcmp(text, "hugetlb") == 0) {
        return memory_config_set_hugetlb(memory, what, "", errp);
    }
    if (g_str_has_prefix(text, "hugetlb:")) {
        return memory_config_set_hugetlb(memory, what, text + 8, errp);
    }
    if (g_str_has_prefix(text, "shm:")) {
        return ivshmem_memory_config_set_shm(memory, what, text + 4, errp);
    }
    if (g_str_has_prefix(text, "file:")) {
        return memory_config_set_file(memory, what, text + 5, errp);
    }
    ivshmem_error(errp, "%s: '%s' is no kind of memory; use memfd, "
                  "hugetlb:PAGESIZE, shm:NAME or file:PATH", what, text);
    return false;
}

bool ivshmem_memory_config_is_persistent(const IvshmemMemoryConfig *memory)
{
    return memory->persistent < 0 ? memory->kind == IVSHMEM_MEMORY_FILE
                                  : memory->persistent;
}

static bool users_equal(const GArray *a, const GArray *b)
{
    if (!a || !b) {
        return a == b;
    }
    return a->len == b->len &&
        memcmp(a->data, b->data, a->len * sizeof(uid_t)) == 0;
}

bool ivshmem_client_config_equal(const IvshmemClientConfig *a,
                                 const IvshmemClientConfig *b)
{
    return g_strcmp0(a->socket.path, b->socket.path) == 0 &&
        a->socket.mode == b->socket.mode &&
        a->socket.owner == b->socket.owner &&
        a->socket.group == b->socket.group &&
        users_equal(a->socket.users, b->socket.users) &&
        a->id == b->id && a->read_only == b->read_only &&
        a->vectors == b->vectors && a->replace == b->replace;
}

bool ivshmem_memory_config_equal(const IvshmemMemoryConfig *a,
                                 const IvshmemMemoryConfig *b)
{
    return a->kind == b->kind && g_strcmp0(a->name, b->name) == 0 &&
        a->size == b->size && a->page_size == b->page_size &&
        a->prealloc == b->prealloc && a->numa_node == b->numa_node;
}

IvshmemRegionConfig *ivshmem_config_find(const IvshmemConfig *config,
                                         const char *region)
{
    for (unsigned i = 0; i < config->regions->len; i++) {
        IvshmemRegionConfig *r = g_ptr_array_index(config->regions, i);

        if (strcmp(r->name, region) == 0) {
            return r;
        }
    }
    return NULL;
}

IvshmemConfig *ivshmem_config_new(void)
{
    IvshmemConfig *config = g_new0(IvshmemConfig, 1);

    config->regions = g_ptr_array_new_with_free_func(
        (GDestroyNotify)ivshmem_region_config_unref);
    config->ready_fd = -1;
    config->user = (uid_t)-1;
    config->group = (gid_t)-1;
    config->control.owner = (uid_t)-1;
    config->control.group = (gid_t)-1;
    config->queue_limit = IVSHMEM_DEFAULT_QUEUE_LIMIT;
    return config;
}

void ivshmem_config_free(IvshmemConfig *config)
{
    if (!config) {
        return;
    }
    g_ptr_array_unref(config->regions);
    g_free(config->control_path);
    g_free(config->file);
    g_free(config->pid_file);
    g_free(config);
}

IvshmemConfig *ivshmem_config_reload(const IvshmemConfig *config, GError **errp)
{
    g_autoptr(IvshmemConfig) again = ivshmem_config_new();

    again->file = g_strdup(config->file);
    again->foreground = config->foreground;
    again->verbose = config->verbose;
    again->fdstore = config->fdstore;
    again->pid_file = g_strdup(config->pid_file);
    if (!ivshmem_config_read_file(again, errp)) {
        return NULL;
    }
    if (config->control_given) {
        g_free(again->control_path);
        again->control_path = g_strdup(config->control_path);
        again->control_given = true;
    }
    return g_steal_pointer(&again);
}
