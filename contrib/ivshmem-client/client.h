/*
 * The connection of ivshmem-client, and what has happened on it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_CLIENT_CLIENT_H
#define IVSHMEM_CLIENT_CLIENT_H

#include <glib.h>
#include "ivshmem-peer.h"

/* Times are milliseconds; -1 is for ever. */
#define CLIENT_FOREVER (-1)

typedef struct Client {
    const char *path;
    gboolean json;
    gboolean events;            /* print joins, leaves and rings */
    gboolean verbose;           /* and every vector, on stderr */
    gboolean reconnect;

    IvshmemPeer *peer;
    GArray *rings;              /* of guint64, by vector: not waited for yet */
    gboolean ready;             /* connected, and told of all peers */
    gboolean lost;              /* the server is gone, and that is the end */
    gint64 retry_at;            /* monotonic us; 0: connected */
    unsigned retry_ms;
} Client;

#define CLIENT_ERROR client_error_quark()
GQuark client_error_quark(void);

/*
 * Connect to client->path, or to the inherited socket @fd if it is not -1
 * (consumed), and wait until the server has told of all peers.
 */
gboolean client_open(Client *client, int fd, int timeout_ms, GError **error);
void client_close(Client *client);

/* Deal with all that has happened, and try to reconnect if it is time. */
void client_poll(Client *client);

/* When client_poll() wants to be called even if nothing happens. */
int client_poll_timeout(const Client *client);

/*
 * Deal with what happens until test(client, opaque) holds.  Returns FALSE with
 * @error after @timeout_ms, or when the server is gone for good; @what
 * completes "within 2 s, ..." in the message.
 */
typedef gboolean ClientTest(Client *client, const void *opaque);
gboolean client_wait(Client *client, int timeout_ms, ClientTest *test,
                     const void *opaque, const char *what, GError **error);

/* One event for those who cannot wait for the rest: 1, 0, or an error. */
int client_step(Client *client, int timeout_ms);

/* Rings of our @vector not waited for yet. */
guint64 client_rings(const Client *client, unsigned vector);
void client_forget_rings(Client *client, unsigned vector);

unsigned client_peers(const Client *client);

/* "2 s", "500 ms" */
char *client_time_string(int ms);

#endif /* IVSHMEM_CLIENT_CLIENT_H */
