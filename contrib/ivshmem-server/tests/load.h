/*
 * Many raw clients in one process, for tests and benchmarks of a server.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_LOAD_H
#define IVSHMEM_SERVER_LOAD_H

#include <stdbool.h>
#include <glib.h>
#include "ivshmem-session.h"

typedef struct IvshmemLoadClient {
    int sock;                   /* -1: closed by us */
    int error;                  /* why the connection ended; 0: it has not */
    bool paused;                /* does not read */
    bool watched;
    IvshmemFramer framer;
    IvshmemSession *session;
    uint64_t frames;
    uint64_t peer_vectors;      /* of all peers together */
    int shm_fd;
    int *own_fds;               /* with @keep: one per vector */
    GHashTable *peer_fds;       /* with @keep: id << 16 | vector -> fd */
} IvshmemLoadClient;

typedef struct IvshmemLoad {
    const char *path;
    unsigned vectors;           /* of every client of that server */
    bool keep;                  /* eventfds, to ring with */
    int epoll;
    GPtrArray *clients;         /* of IvshmemLoadClient */
} IvshmemLoad;

void ivshmem_load_init(IvshmemLoad *load, const char *path, unsigned vectors,
                       bool keep);
void ivshmem_load_clear(IvshmemLoad *load);

/* Connect one more client.  Returns 0 or -errno. */
IVSHMEM_WARN_UNUSED
int ivshmem_load_join(IvshmemLoad *load, bool paused);

/* Connect anew in the place of client number @n, as if after a crash. */
IVSHMEM_WARN_UNUSED
int ivshmem_load_rejoin(IvshmemLoad *load, unsigned n);

void ivshmem_load_leave(IvshmemLoadClient *client);
void ivshmem_load_pause(IvshmemLoad *load, IvshmemLoadClient *client,
                        bool paused);

/* Connected, and not paused. */
bool ivshmem_load_reads(const IvshmemLoadClient *client);

/* It has its id, memory and vectors, and knows @peers others completely. */
bool ivshmem_load_knows(const IvshmemLoad *load,
                        const IvshmemLoadClient *client, size_t peers);

/* Read what there is, waiting up to @timeout_ms.  False: nothing came. */
bool ivshmem_load_turn(IvshmemLoad *load, int timeout_ms);

/*
 * With @keep, every reading client rings every vector of every other, and each
 * ring must come out at the eventfd of just that client and vector.  Returns
 * the number of rings, or -1 when one got lost or astray.
 */
int64_t ivshmem_load_verify(IvshmemLoad *load);

#endif /* IVSHMEM_SERVER_LOAD_H */
