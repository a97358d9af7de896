/*
 * Fuzz target: any configuration file, read twice as a reload does.
 *
 * The oracle: it is refused with a text, or every value that comes out is one
 * that the rest of the server may use unchecked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "config.h"
#include "fuzz.h"
#include "ivshmem-fd.h"
#include "ivshmem-registry.h"

static void check_client(const IvshmemClientConfig *client)
{
    g_assert_true(client->id == IVSHMEM_ID_ANY ||
                  (client->id >= 0 && client->id <= IVSHMEM_ID_MAX));
    g_assert_cmpuint(client->vectors, <=, IVSHMEM_VECTORS_MAX);
    g_assert_true(!client->socket.path ||
                  g_path_is_absolute(client->socket.path));
    g_assert_true(!client->name || *client->name);
    g_assert_true(client->name == NULL || client->socket.path != NULL);
}

static void check_region(const IvshmemRegionConfig *region)
{
    const IvshmemMemoryConfig *memory = &region->memory;

    g_assert_true(*region->name && !strchr(region->name, '/'));
    g_assert_cmpuint(memory->size, >, 0);
    g_assert_true(memory->numa_node >= -1 && memory->numa_node < 64);
    g_assert_true((memory->page_size & (memory->page_size - 1)) == 0);
    g_assert_true(memory->name != NULL ||
                  memory->kind <= IVSHMEM_MEMORY_HUGETLB);
    g_assert_cmpuint(region->vectors, >=, 1);
    g_assert_cmpuint(region->vectors, <=, IVSHMEM_VECTORS_MAX);
    check_client(region->common);
    for (unsigned i = 0; i < region->clients->len; i++) {
        check_client(g_ptr_array_index(region->clients, i));
    }
}

static void check_config(const IvshmemConfig *config)
{
    g_assert_cmpuint(config->regions->len, >=, 1);
    g_assert_cmpuint(config->queue_limit, >=, 1);
    for (unsigned i = 0; i < config->regions->len; i++) {
        const IvshmemRegionConfig *region =
            g_ptr_array_index(config->regions, i);

        check_region(region);
        g_assert_true(ivshmem_memory_config_equal(&region->memory,
                                                  &region->memory));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    IVSHMEM_FD_AUTO int fd = memfd_create("config", MFD_CLOEXEC);
    g_autoptr(IvshmemConfig) config = ivshmem_config_new();
    g_autoptr(GError) error = NULL;
    IvshmemConfig *again;

    g_assert_cmpint(write(fd, data, size), ==, (ssize_t)size);
    config->file = g_strdup_printf("/proc/self/fd/%d", fd);
    if (!ivshmem_config_read_file(config, &error)) {
        g_assert_true(error && *error->message);
        return 0;
    }
    g_assert_no_error(error);
    check_config(config);
    again = ivshmem_config_reload(config, &error);
    g_assert_no_error(error);
    check_config(again);
    g_assert_cmpuint(again->regions->len, ==, config->regions->len);
    ivshmem_config_free(again);
    return 0;
}
