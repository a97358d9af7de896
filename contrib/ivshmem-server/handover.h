/*
 * Handing over: a server gives everything it has to its successor, and no
 * client notices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_HANDOVER_H
#define IVSHMEM_SERVER_HANDOVER_H

#include "region.h"

/*
 * Give all to whoever is at the other end of @sock.  When he has confirmed it
 * server->handed_over() is called, which does not return; otherwise it is as if
 * nothing had been.
 */
void ivshmem_handover_give(IvshmemServer *server, int sock);

/*
 * Take over from the server that runs with the sockets of @config.  Returns
 * NULL without an error if there is none.
 */
IvshmemHandover *ivshmem_handover_take(const IvshmemConfig *config,
                                       GError **errp);

/*
 * The same by way of the service manager, which keeps everything until the
 * successor starts.  ivshmem_handover_reserve() comes early, and sees to it
 * that storing does not fail for want of descriptors; where it fails all the
 * same, nothing is kept.
 */
void ivshmem_handover_reserve(const IvshmemServer *server);
bool ivshmem_handover_store(IvshmemServer *server);
IvshmemHandover *ivshmem_handover_from_store(const IvshmemConfig *config,
                                             GError **errp);

/* Let go of what a former server has stored, when nobody took it. */
void ivshmem_handover_drop(void);

/*
 * Configurations, without any socket, of the regions that are there for their
 * clients only, and not in @config.
 */
GPtrArray *ivshmem_handover_closing(const IvshmemHandover *handover,
                                    const IvshmemConfig *config);

/* Whether @region was handed over; then its registry comes from there. */
bool ivshmem_handover_has_region(const IvshmemHandover *handover,
                                 const char *region);

/* The parts of a region; NULL or false with @errp set when they do not fit. */
IvshmemRegistry *ivshmem_handover_registry(IvshmemHandover *handover,
                                           const IvshmemRegionConfig *config,
                                           GError **errp);
IvshmemMemory *ivshmem_handover_memory(IvshmemHandover *handover,
                                       const IvshmemRegionConfig *config,
                                       GError **errp);
bool ivshmem_handover_clients(IvshmemHandover *handover, IvshmemRegion *region,
                              GError **errp);

/* The listening socket for @path, if there is one. */
bool ivshmem_handover_listener(IvshmemHandover *handover, const char *path,
                               IvshmemListener *listener);

/*
 * All is well: the predecessor may end; wait until it has.  Its sockets that
 * are not used any more go.
 */
bool ivshmem_handover_confirm(IvshmemHandover *handover, GError **errp);

/* Closes what nobody wanted.  NULL is fine. */
void ivshmem_handover_free(IvshmemHandover *handover);

#endif /* IVSHMEM_SERVER_HANDOVER_H */
