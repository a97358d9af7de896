/*
 * The place where clients of a region come in: a unix socket and its file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_LISTENER_H
#define IVSHMEM_SERVER_LISTENER_H

#include "config.h"

typedef struct IvshmemListener {
    int fd;                     /* -1: closed */
    char *path;
    dev_t dev;                  /* of the file at @path */
    ino_t ino;
} IvshmemListener;

/*
 * Take the path: replaces the file of a server that is dead, refuses the one
 * of a server that lives, and anything else that stands there.  Owner and mode
 * are right before anybody can connect.  ivshmem_listener_close() undoes it.
 */
bool ivshmem_listener_open(IvshmemListener *listener,
                           const IvshmemSocketConfig *config, GError **errp);

/* Owner and mode as in @config, which has the same path. */
bool ivshmem_listener_renew(const IvshmemListener *listener,
                            const IvshmemSocketConfig *config, GError **errp);

/*
 * Stop listening, and remove the file if it still is this socket's.  May be
 * called again, and on a listener that is all zero but for @fd -1.
 */
void ivshmem_listener_close(IvshmemListener *listener);

#endif /* IVSHMEM_SERVER_LISTENER_H */
