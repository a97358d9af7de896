/*
 * The service manager: readiness, sockets it has opened, descriptors it keeps.
 *
 * The protocols of sd_notify(3) and sd_listen_fds(3); other managers that speak
 * them do as well.  Without one, or without libsystemd, all of this does
 * nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_SYSTEMD_H
#define IVSHMEM_SERVER_SYSTEMD_H

#include "listener.h"

/* Once, before any other thread or child: takes it all from the environment. */
void ivshmem_systemd_init(void);

/* Closes what nobody took. */
void ivshmem_systemd_close(void);

bool ivshmem_systemd_is_there(void);

/* "READY=1" and so on. */
void ivshmem_systemd_notify(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* Tell it that we live, as often as it wants to know. */
void ivshmem_systemd_start_watchdog(void);

/* A listening socket for @path, whose file stays the manager's. */
bool ivshmem_systemd_listener(const char *path, IvshmemListener *listener);

/* Have it keep @fd, which stays ours too, under @name; or keep it no more. */
void ivshmem_systemd_store(const char *name, int fd);
void ivshmem_systemd_forget(const char *name);

/* What it has kept under @name, which the caller owns, or -1. */
int ivshmem_systemd_take(const char *name);

/* The same for all whose name starts with @prefix. */
void ivshmem_systemd_take_all(const char *prefix,
                              void (*func)(const char *name, int fd,
                                           void *opaque), void *opaque);

#endif /* IVSHMEM_SERVER_SYSTEMD_H */
