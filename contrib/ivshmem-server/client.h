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

/* Disconnect, because of @reason.  @client is freed when the turn ends. */
void ivshmem_client_drop(IvshmemClient *client, const char *reason, ...)
    G_GNUC_PRINTF(2, 3);

/* It has closed the connection.  Freed when the turn ends as well. */
void ivshmem_client_left(IvshmemClient *client, const char *how);

/* Disconnect without a word: the server stops. */
void ivshmem_client_free(IvshmemClient *client);

/* How many more clients with @vectors the descriptors allow for. */
unsigned ivshmem_client_capacity(const IvshmemServer *server, unsigned vectors);

/* For the log. */
IvshmemLogSubject ivshmem_client_subject(const IvshmemClient *client);

#endif /* IVSHMEM_SERVER_CLIENT_H */
