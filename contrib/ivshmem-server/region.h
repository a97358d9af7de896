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
#include "state.h"

typedef struct IvshmemDoor IvshmemDoor;

typedef struct IvshmemRegion {
    IvshmemServer *server;
    IvshmemRegionConfig *config;
    IvshmemMemory *memory;
    IvshmemRegistry *registry;
    IvshmemState *state;
    unsigned state_timer;       /* as long as somebody may come back */
    unsigned save_timer;        /* @state could not be written; try again */
    bool unsaved;               /* the same, also while we try */
    GPtrArray *doors;           /* of IvshmemDoor */
    bool served;                /* clients may know of it */
    bool keep_memory;           /* its name stays in the end */
    bool changed;               /* somebody joined or left this turn */
    bool closing;               /* out of the configuration: no newcomers */
} IvshmemRegion;

/* A listening socket, and what those who come through it get. */
struct IvshmemDoor {
    IvshmemWatch watch;
    IvshmemListener listener;
    IvshmemRegion *region;
    IvshmemRegionConfig *region_config; /* that @config is a part of */
    const IvshmemClientConfig *config;
    unsigned pause_timer;       /* not accepting until it fires */
    bool shut;                  /* and nobody has come in since */
};

/*
 * Opens sockets and memory of @config, or nothing; but while server->handover
 * is set, a failure leaves things as they are, see ivshmem_server_new().
 */
IvshmemRegion *ivshmem_region_new(IvshmemServer *server,
                                  IvshmemRegionConfig *config, GError **errp);

/*
 * The configuration has changed: close the doors that are not in it, and, when
 * all regions have, open the new ones.  Those inside stay.  What cannot be done
 * is logged.
 */
void ivshmem_region_close_old(IvshmemRegion *region,
                              IvshmemRegionConfig *config);
void ivshmem_region_open_new(IvshmemRegion *region);

/* No newcomers from now on; whoever is inside stays. */
void ivshmem_region_shut(IvshmemRegion *region);

/* Let the service manager keep the memory for a crash, or forget it. */
void ivshmem_region_store(const IvshmemRegion *region);
void ivshmem_region_unstore(const IvshmemRegion *region);

/*
 * Disconnects the clients and removes what was made, @memory included if
 * @remove.  NULL is fine.
 */
void ivshmem_region_free(IvshmemRegion *region, bool remove);

/* Vectors of a client that comes in by @door. */
unsigned ivshmem_door_vectors(const IvshmemDoor *door);

/* Whether @id belongs to a door of its own. */
bool ivshmem_region_id_is_fixed(const IvshmemRegion *region, uint16_t id);

/* Somebody joined or left: the others are to be told. */
void ivshmem_region_set_changed(IvshmemRegion *region);

/* Write down who is here, before they are told. */
void ivshmem_region_save(IvshmemRegion *region);

/* Close the descriptors that nobody waits for any more. */
void ivshmem_region_reap(IvshmemRegion *region);

#endif /* IVSHMEM_SERVER_REGION_H */
