/*
 * Telling the clients: who has frames to be sent, and when to send them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_OUTBOX_H
#define IVSHMEM_SERVER_OUTBOX_H

#include "client.h"

/* After joins and leaves: everybody in @region has something to be told. */
void ivshmem_outbox_add_region(IvshmemRegion *region);

/* The client's socket has room again. */
void ivshmem_outbox_unblock(IvshmemClient *client);

/* The client leaves: forget it. */
void ivshmem_outbox_remove(IvshmemClient *client);

/* Send what can be sent without waiting, a fair share to everybody. */
void ivshmem_outbox_flush(IvshmemServer *server);

/* SIGHUP may have changed it. */
void ivshmem_outbox_new_timeout(IvshmemServer *server);

/* Before @server goes. */
void ivshmem_outbox_stop(IvshmemServer *server);

#endif /* IVSHMEM_SERVER_OUTBOX_H */
