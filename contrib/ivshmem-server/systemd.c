/*
 * The service manager, by libsystemd.
 *
 * Not responsible for what is worth telling or keeping.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "log.h"
#include "systemd.h"

static GHashTable *systemd_fds; /* name -> descriptor */
static uint64_t systemd_watchdog_us;    /* 0: nobody waits for it */

static void systemd_close_value(gpointer value)
{
    int fd = GPOINTER_TO_INT(value);

    ivshmem_fd_close(&fd);
}

/* Sockets of one unit share a name: a number keeps them apart. */
static void systemd_receive(void)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(true, &names);

    if (n < 0) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "cannot take what the service manager "
                    "has kept: %s", ivshmem_strerror(n));
    }
    for (int i = 0; i < n; i++) {
        char *key = g_hash_table_contains(systemd_fds, names[i])
            ? g_strdup_printf("%s#%d", names[i], i) : g_strdup(names[i]);

        g_hash_table_insert(systemd_fds, key,
                            GINT_TO_POINTER(SD_LISTEN_FDS_START + i));
        free(names[i]);
    }
    free(names);
}

void ivshmem_systemd_init(void)
{
    systemd_fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        systemd_close_value);
    if (sd_watchdog_enabled(true, &systemd_watchdog_us) <= 0) {
        systemd_watchdog_us = 0;
    }
    systemd_receive();
}

void ivshmem_systemd_close(void)
{
    g_clear_pointer(&systemd_fds, g_hash_table_unref);
}

bool ivshmem_systemd_is_there(void)
{
    return g_getenv("NOTIFY_SOCKET");
}

static void systemd_sent(int ret)
{
    if (ret < 0) {
        ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_WAIT, NULL,
                          "cannot notify the service manager: %s",
                          ivshmem_strerror(ret));
    }
}

void ivshmem_systemd_notify(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    systemd_sent(sd_notify(false, text));
}

static gboolean systemd_watchdog(gpointer opaque)
{
    ivshmem_systemd_notify("WATCHDOG=1");
    return G_SOURCE_CONTINUE;
}

void ivshmem_systemd_start_watchdog(void)
{
    if (systemd_watchdog_us) {
        /* Twice as often as it must be. */
        g_timeout_add((guint)MAX(systemd_watchdog_us / 2000, 1),
                      systemd_watchdog, NULL);
    }
}

bool ivshmem_systemd_listener(const char *path, IvshmemListener *listener)
{
    GHashTableIter iter;
    gpointer key, value;

    g_hash_table_iter_init(&iter, systemd_fds);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        int fd = GPOINTER_TO_INT(value);

        if (sd_is_socket_unix(fd, SOCK_STREAM, 1, path, 0) > 0 &&
            ivshmem_io_set_nonblock(fd) == 0) {
            g_hash_table_iter_steal(&iter);
            g_free(key);
            *listener = (IvshmemListener) { .fd = fd, .path = g_strdup(path) };
            return true;
        }
    }
    return false;
}

void ivshmem_systemd_store(const char *name, int fd)
{
    g_autofree char *text = g_strdup_printf("FDSTORE=1\nFDNAME=%s\nFDPOLL=0",
                                            name);

    systemd_sent(sd_pid_notify_with_fds(0, 0, text, &fd, 1));
}

void ivshmem_systemd_forget(const char *name)
{
    ivshmem_systemd_notify("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

int ivshmem_systemd_take(const char *name)
{
    gpointer key, value;

    if (!g_hash_table_steal_extended(systemd_fds, name, &key, &value)) {
        return -1;
    }
    g_free(key);
    return GPOINTER_TO_INT(value);
}

void ivshmem_systemd_take_all(const char *prefix,
                              void (*func)(const char *name, int fd,
                                           void *opaque), void *opaque)
{
    GHashTableIter iter;
    gpointer key, value;

    g_hash_table_iter_init(&iter, systemd_fds);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        if (g_str_has_prefix(key, prefix)) {
            g_hash_table_iter_steal(&iter);
            func(key, GPOINTER_TO_INT(value), opaque);
            g_free(key);
        }
    }
}
