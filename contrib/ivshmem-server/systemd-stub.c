/*
 * No service manager: built without libsystemd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "log.h"
#include "systemd.h"

void ivshmem_systemd_init(void)
{
    if (g_getenv("NOTIFY_SOCKET") || g_getenv("LISTEN_FDS")) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "built without libsystemd: the "
                    "service manager is told nothing, and what it passes is "
                    "not used; Type=exec or --ready-fd do without");
    }
}

void ivshmem_systemd_close(void)
{
}

bool ivshmem_systemd_is_there(void)
{
    return false;
}

void ivshmem_systemd_notify(const char *format, ...)
{
}

void ivshmem_systemd_start_watchdog(void)
{
}

bool ivshmem_systemd_listener(const char *path, IvshmemListener *listener)
{
    return false;
}

void ivshmem_systemd_store(const char *name, int fd)
{
}

void ivshmem_systemd_forget(const char *name)
{
}

int ivshmem_systemd_take(const char *name)
{
    return -1;
}

void ivshmem_systemd_take_all(const char *prefix,
                              void (*func)(const char *name, int fd,
                                           void *opaque), void *opaque)
{
}
