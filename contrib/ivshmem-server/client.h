/*
 * One connected client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_CLIENT_H
#define IVSHMEM_SERVER_CLIENT_H

#include "log.h"
#include "region.h"

typedef struct IvshmemClient {
    IvshmemWatch watch;         /* its socket */
    IvshmemRegion *region;
    IvshmemMember *member;      /* NULL: it has left */
    pid_t pid;
    IvshmemProcess process;
    uid_t uid;
    char *name;                 /* of its own socket; NULL: the region's */
    gint64 since;               /* seconds since 1970 */
    bool read_only;
    size_t chatter;             /* bytes it sent, which it should not */
    GList link;                 /* in @queue */
    GQueue *queue;              /* one of the server's, or NULL */
    gint64 blocked_since;
} IvshmemClient;

/*
 * Take in whoever connected to @door, or turn them away; @sock is consumed
 * either way.
 */
void ivshmem_client_admit(IvshmemDoor *door, int sock);

/* A client whose connection was handed over. */
typedef struct IvshmemClientHanded {
    uint16_t id;
    int sock;
    pid_t pid;
    uint64_t seen;
    uid_t uid;
    bool read_only;
    const char *name;           /* "" for none */
    gint64 since;
} IvshmemClientHanded;

/*
 * Go on with a client that is a member already; its socket is consumed either
 * way.
 */
bool ivshmem_client_resume(IvshmemRegion *region,
                           const IvshmemClientHanded *handed, GError **errp);

/* Disconnect, because of @reason.  @client is freed when the turn ends. */
void ivshmem_client_drop(IvshmemClient *client, const char *reason, ...)
    G_GNUC_PRINTF(2, 3);

/* It has closed the connection.  Freed when the turn ends as well. */
void ivshmem_client_left(IvshmemClient *client, const char *how);

/* Disconnect without a word: the server stops. */
void ivshmem_client_free(IvshmemClient *client);

/* Descriptors that newcomers may take, roughly: gaps do not count. */
unsigned ivshmem_client_free_fds(const IvshmemServer *server);

/* How many more clients with @vectors the descriptors allow for. */
unsigned ivshmem_client_capacity(const IvshmemServer *server, unsigned vectors);

/* For the log. */
IvshmemLogSubject ivshmem_client_subject(const IvshmemClient *client);

#endif /* IVSHMEM_SERVER_CLIENT_H */
