/*
 * Compares /proc/self/fd before and after a test.  Knows nothing of ivshmem,
 * and does not look at memory: that is the sanitizers' part.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <glib.h>

#include "fd-leak.h"

/* The open descriptors: number -> what it is. */
static GHashTable *fd_leak_snapshot(void)
{
    GHashTable *fds = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_strdup_printf("/proc/self/fd/%s", name);

        g_hash_table_insert(fds, GINT_TO_POINTER(atoi(name)),
                            g_file_read_link(path, NULL));
    }
    g_dir_close(dir);

    /* The directory itself was open, and is no more. */
    GHashTableIter iter;
    gpointer fd;

    g_hash_table_iter_init(&iter, fds);
    while (g_hash_table_iter_next(&iter, &fd, NULL)) {
        if (fcntl(GPOINTER_TO_INT(fd), F_GETFD) < 0) {
            g_assert_cmpint(errno, ==, EBADF);
            g_hash_table_iter_remove(&iter);
        }
    }
    return fds;
}

/* Fails the test for each descriptor of @a that is not the same in @b. */
static void fd_leak_missing(GHashTable *a, GHashTable *b, const char *verb)
{
    GHashTableIter iter;
    gpointer fd, what;

    g_hash_table_iter_init(&iter, a);
    while (g_hash_table_iter_next(&iter, &fd, &what)) {
        if (g_strcmp0(g_hash_table_lookup(b, fd), what) != 0) {
            g_printerr("# %s descriptor %d (%s)\n", verb, GPOINTER_TO_INT(fd),
                       what ? (char *)what : "?");
            g_test_fail();
        }
    }
}

static void fd_leak_run(gconstpointer data)
{
    void (*func)(void) = (void (*)(void))data;
    g_autoptr(GHashTable) before = fd_leak_snapshot();

    func();

    g_autoptr(GHashTable) after = fd_leak_snapshot();

    fd_leak_missing(after, before, "leaked");
    fd_leak_missing(before, after, "closed a foreign");
}

void fd_leak_add(const char *path, void (*func)(void))
{
    g_test_add_data_func(path, (gconstpointer)func, fd_leak_run);
}
