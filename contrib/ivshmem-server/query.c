/*
 * Asking a server that runs for its status.
 *
 * Not responsible for what it says (status.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include "control.h"
#include "ivshmem-fd.h"
#include "ivshmem-wire.h"
#include "json.h"
#include "query.h"

#define QUERY_WATCH_US (1000 * 1000)

static const char *query_request(const IvshmemConfig *config)
{
    switch (config->query) {
    case IVSHMEM_QUERY_JSON:
        return IVSHMEM_CONTROL_STATUS;
    case IVSHMEM_QUERY_METRICS:
        return IVSHMEM_CONTROL_METRICS;
    default:
        return IVSHMEM_CONTROL_TEXT;
    }
}

/* The whole answer, or NULL with @errp set. */
static GString *query_ask(const IvshmemConfig *config, GError **errp)
{
    g_autofree char *path = ivshmem_control_path(config);
    g_autoptr(GString) answer = g_string_new(NULL);
    IVSHMEM_FD_AUTO int sock = ivshmem_control_ask(config,
                                                   query_request(config));
    ssize_t n = 1;
    int ret = 0;

    if (sock < 0) {
        ivshmem_error(errp, "no server answers on %s: %s; give its -S, "
                      "--config or --control-socket", path,
                      ivshmem_strerror(sock));
        return NULL;
    }
    while (n > 0 && ret == 0) {
        char bytes[4096];

        ret = ivshmem_control_wait(sock, POLLIN);
        if (ret < 0) {
            break;
        }
        n = read(sock, bytes, sizeof(bytes));
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            n = 1;
            continue;
        }
        ret = n < 0 ? -errno : 0;
        g_string_append_len(answer, bytes, MAX(n, 0));
    }
    if (ret < 0 || answer->len == 0) {
        ivshmem_error(errp, "the server on %s did not finish its answer: %s",
                      path, ivshmem_strerror(ret < 0 ? ret : IVSHMEM_E_EOF));
        return NULL;
    }
    if (config->query == IVSHMEM_QUERY_JSON &&
        g_str_has_prefix(answer->str, IVSHMEM_JSON_ERROR)) {
        ivshmem_error(errp, "no JSON from the server on %s: %s", path,
                      g_strchomp(answer->str));
        return NULL;
    }
    return g_steal_pointer(&answer);
}

bool ivshmem_query_run(const IvshmemConfig *config, GError **errp)
{
    do {
        g_autoptr(GString) answer = query_ask(config, errp);

        if (!answer) {
            return false;
        }
        if (config->watch && isatty(STDOUT_FILENO)) {
            fputs("\033[H\033[2J", stdout);
        }
        fputs(answer->str, stdout);
        if (fflush(stdout) < 0) {
            return true;        /* nobody looks any more */
        }
        if (config->watch) {
            g_usleep(QUERY_WATCH_US);
        }
    } while (config->watch);
    return true;
}
