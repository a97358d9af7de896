/*
 * Runs a fuzz target over the files of a folder, as a test: without libFuzzer,
 * with any compiler.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <glib.h>

#include "fuzz.h"

static gint compare(gconstpointer a, gconstpointer b)
{
    return g_strcmp0(*(const char *const *)a, *(const char *const *)b);
}

/* The files of the folder, in the order of their names. */
static GPtrArray *replay_list(const char *folder)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) err = NULL;
    g_autoptr(GDir) dir = g_dir_open(folder, 0, &err);
    const char *name;

    if (!dir) {
        fprintf(stderr, "%s\n", err->message);
        exit(1);
    }
    while ((name = g_dir_read_name(dir))) {
        g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_sort(names, compare);
    return names;
}

int main(int argc, char **argv)
{
    /* stdout is the target's to redirect. */
    FILE *tap = fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), "w");
    g_autoptr(GPtrArray) names = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 1;
    }
    names = replay_list(argv[1]);
    if (names->len == 0) {
        fprintf(stderr, "%s is empty: there is nothing to replay\n", argv[1]);
        return 1;
    }
    fprintf(tap, "1..%u\n", names->len);
    for (unsigned i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        g_autofree char *path = g_build_filename(argv[1], name, NULL);
        g_autofree char *data = NULL;
        gsize size;

        if (!g_file_get_contents(path, &data, &size, NULL)) {
            fprintf(tap, "not ok %u - %s cannot be read\n", i + 1, name);
            return 1;
        }
        LLVMFuzzerTestOneInput((const uint8_t *)data, size);
        fprintf(tap, "ok %u - %s\n", i + 1, name);
        fflush(tap);
    }
    fclose(tap);
    return 0;
}
