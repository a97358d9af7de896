/*
 * The service manager's protocols.
 *
 * Not responsible for what is worth telling or keeping.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "log.h"
#include "systemd.h"

/* The first descriptor that is passed, by definition. */
#define SYSTEMD_FIRST_FD 3

/* More than any process may have open. */
#define SYSTEMD_FDS_MAX (1024 * 1024)

static struct {
    char *address;              /* NULL: nobody wants to be told */
    guint64 watchdog_us;        /* 0: nobody waits for it */
    GHashTable *fds;            /* name -> descriptor */
} systemd;

static void systemd_close_value(gpointer value)
{
    int fd = GPOINTER_TO_INT(value);

    ivshmem_fd_close(&fd);
}

/* The number in @variable, if its companion says that it is meant for us. */
static guint64 systemd_number(const char *variable, const char *pid_variable)
{
    const char *text = g_getenv(variable);
    const char *pid = g_getenv(pid_variable);

    if (!text ||
        (pid && g_ascii_strtoull(pid, NULL, 10) != (guint64)getpid())) {
        return 0;
    }
    return g_ascii_strtoull(text, NULL, 10);
}

/* Sockets of one unit share a name: a number keeps them apart. */
static void systemd_receive(guint64 count)
{
    g_auto(GStrv) names = g_strsplit(g_getenv("LISTEN_FDNAMES") ?: "", ":", -1);
    guint n_names = g_strv_length(names);

    for (guint64 i = 0; i < MIN(count, SYSTEMD_FDS_MAX); i++) {
        int fd = SYSTEMD_FIRST_FD + (int)i;
        const char *name = i < n_names ? names[i] : "unknown";
        g_autofree char *key = g_hash_table_contains(systemd.fds, name)
            ? g_strdup_printf("%s#%" G_GUINT64_FORMAT, name, i)
            : g_strdup(name);

        if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
            g_hash_table_insert(systemd.fds, g_steal_pointer(&key),
                                GINT_TO_POINTER(fd));
        }
    }
}

void ivshmem_systemd_init(void)
{
    static const char *const variables[] = {
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS",
        "LISTEN_PID", "LISTEN_FDNAMES",
    };

    systemd.fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        systemd_close_value);
    systemd.address = g_strdup(g_getenv("NOTIFY_SOCKET"));
    systemd.watchdog_us = systemd_number("WATCHDOG_USEC", "WATCHDOG_PID");
    if (g_getenv("LISTEN_PID")) {
        systemd_receive(systemd_number("LISTEN_FDS", "LISTEN_PID"));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(variables); i++) {
        g_unsetenv(variables[i]);
    }
}

void ivshmem_systemd_close(void)
{
    g_clear_pointer(&systemd.fds, g_hash_table_unref);
    g_clear_pointer(&systemd.address, g_free);
}

bool ivshmem_systemd_is_there(void)
{
    return systemd.address;
}

static void systemd_send(const char *text, int fd)
{
    int ret;

    if (!systemd.address) {
        return;
    }
    ret = ivshmem_io_notify(systemd.address, text, fd);
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
    systemd_send(text, -1);
}

static gboolean systemd_watchdog(gpointer opaque)
{
    ivshmem_systemd_notify("WATCHDOG=1");
    return G_SOURCE_CONTINUE;
}

void ivshmem_systemd_start_watchdog(void)
{
    if (systemd.watchdog_us) {
        /* Twice as often as it must be. */
        g_timeout_add((guint)MAX(systemd.watchdog_us / 2000, 1),
                      systemd_watchdog, NULL);
    }
}

/* Whether @fd is a socket that listens at @path. */
static bool systemd_listens_at(int fd, const char *path)
{
    struct sockaddr_un address = { 0 };
    socklen_t len = sizeof(address);
    int listens = 0;
    socklen_t listens_len = sizeof(listens);

    return getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
        address.sun_family == AF_UNIX &&
        strncmp(address.sun_path, path, sizeof(address.sun_path)) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens,
                   &listens_len) == 0 && listens;
}

bool ivshmem_systemd_listener(const char *path, IvshmemListener *listener)
{
    GHashTableIter iter;
    gpointer key, value;

    g_hash_table_iter_init(&iter, systemd.fds);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        int fd = GPOINTER_TO_INT(value);

        if (systemd_listens_at(fd, path) && ivshmem_io_set_nonblock(fd) == 0) {
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

    systemd_send(text, fd);
}

void ivshmem_systemd_forget(const char *name)
{
    ivshmem_systemd_notify("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

int ivshmem_systemd_take(const char *name)
{
    gpointer key, value;

    if (!g_hash_table_steal_extended(systemd.fds, name, &key, &value)) {
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

    g_hash_table_iter_init(&iter, systemd.fds);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        if (g_str_has_prefix(key, prefix)) {
            g_hash_table_iter_steal(&iter);
            func(key, GPOINTER_TO_INT(value), opaque);
            g_free(key);
        }
    }
}
