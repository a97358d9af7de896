/*
 * A region: one memory object, those who share it, and the doors by which
 * they come in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_REGION_H
#define IVSHMEM_SERVER_REGION_H

#include "ivshmem-registry.h"
#include "listener.h"
#include "server.h"
#include "shm.h"

typedef struct IvshmemDoor IvshmemDoor;

typedef struct IvshmemRegion {
    IvshmemServer *server;
    const IvshmemRegionConfig *config;  /* borrowed */
    IvshmemMemory *memory;
    IvshmemRegistry *registry;
    GPtrArray *doors;           /* of IvshmemDoor */
    bool changed;               /* somebody joined or left this turn */
} IvshmemRegion;

/* A listening socket, and what those who come through it get. */
struct IvshmemDoor {
    IvshmemWatch watch;
    IvshmemListener listener;
    IvshmemRegion *region;
    unsigned vectors;
    unsigned pause_timer;       /* not accepting until it fires */
};

/* Opens sockets and memory of @config (borrowed), or nothing. */
IvshmemRegion *ivshmem_region_new(IvshmemServer *server,
                                  const IvshmemRegionConfig *config,
                                  GError **errp);

/*
 * Disconnects the clients and removes what was made, @memory included if
 * @remove.  NULL is fine.
 */
void ivshmem_region_free(IvshmemRegion *region, bool remove);

/* Somebody joined or left: the others are to be told. */
void ivshmem_region_set_changed(IvshmemRegion *region);

/* Close the descriptors that nobody waits for any more. */
void ivshmem_region_reap(IvshmemRegion *region);

#endif /* IVSHMEM_SERVER_REGION_H */
