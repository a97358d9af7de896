/*
 * The system's limits, and how the server lives within them.
 *
 * Not responsible for turning clients away (client.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <glib.h>
#include "quota.h"

/* So many clients may stop reading before anybody else notices. */
#define WINDOW_SHARES 256

/* Less would cost a wake-up for every few messages. */
#define WINDOW_MIN 16

/* What a message of 8 bytes takes of a socket's buffer on 64-bit Linux. */
#define WINDOW_MESSAGE_BYTES 768

/* Messages that the default buffer (212,992 bytes) holds. */
#define WINDOW_DEFAULT 277

/* Bits of CapEff in /proc/self/status; each lifts the limit. */
#define CAPABILITY_SYS_ADMIN 21
#define CAPABILITY_SYS_RESOURCE 24

unsigned ivshmem_quota_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 1024;            /* the least that Linux systems come with */
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return (unsigned)MIN(limit.rlim_cur, G_MAXINT);
}

static bool quota_is_lifted(void)
{
    g_autofree char *status = NULL;
    unsigned long long effective = 0;
    const char *line;

    if (!g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        return false;
    }
    line = strstr(status, "CapEff:");
    if (!line || sscanf(line, "CapEff: %llx", &effective) != 1) {
        return false;
    }
    return effective & (1ULL << CAPABILITY_SYS_ADMIN |
                        1ULL << CAPABILITY_SYS_RESOURCE);
}

unsigned ivshmem_quota_window(unsigned fd_limit)
{
    unsigned window = MAX(fd_limit / WINDOW_SHARES, WINDOW_MIN);

    return window >= WINDOW_DEFAULT || quota_is_lifted() ? 0 : window;
}

void ivshmem_quota_set_window(int sock, unsigned window)
{
    /* The kernel doubles what it is told. */
    int bytes = (int)window * WINDOW_MESSAGE_BYTES / 2;

    if (window) {
        setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
}
