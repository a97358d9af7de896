/*
 * The server: its regions, its clients, and what they share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_SERVER_H
#define IVSHMEM_SERVER_SERVER_H

#include "config.h"
#include "loop.h"

/* Why somebody was turned away. */
typedef enum IvshmemRefusal {
    IVSHMEM_REFUSED_DESCRIPTORS,
    IVSHMEM_REFUSED_USER,
    IVSHMEM_REFUSED_ID,
    IVSHMEM_REFUSED_READ_ONLY,
    IVSHMEM_REFUSED_GONE,       /* before it was taken in */
    IVSHMEM_REFUSED_OTHER,
    IVSHMEM_REFUSALS,
} IvshmemRefusal;

/* Everything that was counted since the start. */
typedef struct IvshmemCounters {
    uint64_t joins;
    uint64_t leaves;
    uint64_t refused[IVSHMEM_REFUSALS];
    uint64_t dropped;           /* disconnected by us */
    uint64_t slow;              /* for being too slow */
    uint64_t frames;
    uint64_t descriptors;
    uint64_t waits;             /* the system had no room for a message */
} IvshmemCounters;

typedef struct IvshmemControl IvshmemControl;
typedef struct IvshmemHandover IvshmemHandover;

typedef struct IvshmemServer {
    const IvshmemConfig *config;    /* borrowed */
    IvshmemLoop *loop;
    GPtrArray *regions;         /* of IvshmemRegion */
    unsigned fd_limit;          /* RLIMIT_NOFILE */
    unsigned window;            /* see quota.h */
    IvshmemCounters counters;

    /*
     * A client that has something to be told is in one of these: its socket
     * has room; its socket is full, longest first; the system is short of
     * something, a timer will try again.
     */
    GQueue pending;
    GQueue blocked;
    GQueue waiting;
    unsigned retry_ms;
    unsigned retry_timer;
    unsigned stall_timer;
    unsigned status_timer;      /* the service manager will be told */
    gint64 stall_due;           /* when @stall_timer is to fire */

    IvshmemControl *control;
    IvshmemHandover *handover;  /* at start: where to take over from */
    void (*handed_over)(void *opaque);  /* ends the program */
    void *handed_over_opaque;
    gint64 start_time;          /* seconds since 1970 */

    GPtrArray *gone;            /* clients to be freed when the turn ends */
} IvshmemServer;

/*
 * Opens everything that @config (borrowed) names, or nothing.  What @handover
 * (borrowed, may be NULL) has is taken from there; then a failure must end the
 * program without further ado, as the paths are still the predecessor's.
 */
IvshmemServer *ivshmem_server_new(const IvshmemConfig *config,
                                  IvshmemHandover *handover, GError **errp);

/* Disconnects all, and removes what was made.  NULL is fine. */
void ivshmem_server_free(IvshmemServer *server);

/*
 * Go over to @config (borrowed): new regions and sockets appear, removed ones
 * take in nobody any more, sessions stay.  What cannot be done is logged.
 */
void ivshmem_server_reconfigure(IvshmemServer *server,
                                const IvshmemConfig *config);

/*
 * The process is whose it will be, which may mean other limits; files that are
 * made from now on have the right owner.
 */
void ivshmem_server_settled(IvshmemServer *server);

/* One line per region, and how many clients there may be. */
void ivshmem_server_announce(const IvshmemServer *server);

#endif /* IVSHMEM_SERVER_SERVER_H */
