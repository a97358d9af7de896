/*
 * All sockets of the server in one epoll instance, which is one source of the
 * GLib main loop: idle clients cost nothing at a wake-up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_LOOP_H
#define IVSHMEM_SERVER_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <glib.h>

typedef struct IvshmemLoop IvshmemLoop;

/*
 * A descriptor being watched; a member of what it belongs to.  It must stay
 * valid until the end of the turn in which it was removed, as the events of
 * that turn have been fetched already.
 */
typedef struct IvshmemWatch IvshmemWatch;
struct IvshmemWatch {
    int fd;
    uint32_t events;            /* EPOLLIN and so on, level-triggered */
    void (*ready)(IvshmemWatch *watch, uint32_t events);
    bool active;
};

/* @turn_end is called after the events of each turn have been handled. */
IvshmemLoop *ivshmem_loop_new(void (*turn_end)(void *opaque), void *opaque,
                              GError **errp);
void ivshmem_loop_free(IvshmemLoop *loop);

/* Returns 0 or -errno.  The fd stays the caller's. */
int ivshmem_loop_add(IvshmemLoop *loop, IvshmemWatch *watch);
void ivshmem_loop_set_events(IvshmemLoop *loop, IvshmemWatch *watch,
                             uint32_t events);
void ivshmem_loop_remove(IvshmemLoop *loop, IvshmemWatch *watch);

/* There is work for another turn, even if no descriptor has anything. */
void ivshmem_loop_wake(IvshmemLoop *loop);

#endif /* IVSHMEM_SERVER_LOOP_H */
