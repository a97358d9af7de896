/*
 * The control socket: others ask for the status, a successor for everything.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_CONTROL_H
#define IVSHMEM_SERVER_CONTROL_H

#include "listener.h"
#include "server.h"

/* What is sent to ask, each followed by a newline. */
#define IVSHMEM_CONTROL_STATUS "status"
#define IVSHMEM_CONTROL_TEXT "text"
#define IVSHMEM_CONTROL_METRICS "metrics"
#define IVSHMEM_CONTROL_REPLACE "replace"

/* The control socket that goes with @config; the caller frees it. */
char *ivshmem_control_path(const IvshmemConfig *config);

/* Listen there, or on @handed (consumed), if it is not NULL. */
IvshmemControl *ivshmem_control_new(IvshmemServer *server,
                                    IvshmemListener *handed, GError **errp);

/* Ends all conversations as well.  NULL is fine. */
void ivshmem_control_free(IvshmemControl *control);

/*
 * Whether @control listens on the path of its server's configuration, in which
 * case its file gets the mode and group that are there; if it cannot, that is
 * logged.
 */
bool ivshmem_control_renew(IvshmemControl *control);

/* Borrowed. */
const IvshmemListener *ivshmem_control_listener(const IvshmemControl *control);

/*
 * The other end: connect to the server of @config and send @request.  Returns
 * a socket that the caller owns, or -errno.
 */
int ivshmem_control_ask(const IvshmemConfig *config, const char *request);

/* Wait until @sock can be read or written; false after ten seconds. */
int ivshmem_control_wait(int sock, short events);

#endif /* IVSHMEM_SERVER_CONTROL_H */
