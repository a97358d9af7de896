/*
 * ivshmem: the peers a guest may ring.
 *
 * Owns the peers' event notifiers and, under KVM, their ioeventfds.  Not
 * responsible for how peers are learnt (ivshmem-link.c), nor for our own
 * vectors (ivshmem-msix.c).
 *
 * The guest's vCPUs read the table under RCU; everything else runs under the
 * big lock.  Changes to ioeventfds are collected for IVSHMEM_PEERS_FLUSH_MS,
 * so that all vectors of a peer, and all peers that come or go together, cost
 * one memory transaction.  Until then, and past IVSHMEM_PEERS_EAGER until it is
 * rung for the first time, a vector's doorbell takes the slower path through
 * ivshmem_peers_ring(), which reaches the same eventfd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/qht.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "hw/misc/ivshmem.h"
#include "ivshmem-peers.h"
#include "ivshmem-ring.h"
#include "trace.h"

/* A few hundred peers arrive in this time; nobody notices it otherwise. */
#define IVSHMEM_PEERS_FLUSH_MS 1

/*
 * Vectors in one memory transaction, unless a single peer has more.  KVM waits
 * for its readers with each ioeventfd, up to a tenth of a millisecond, and the
 * main loop with it.
 */
#define IVSHMEM_PEERS_BATCH 8

/*
 * Vectors that get an ioeventfd before anybody rings them.  KVM copies its
 * list of them with every new one, so that thousands cost it seconds, and few
 * guests ring thousands of peers.
 */
#define IVSHMEM_PEERS_EAGER 256

/* Only VECTOR_IDLE may change outside of the big lock, to VECTOR_RUNG. */
typedef enum PeerVectorState {
    VECTOR_IDLE,                /* an ioeventfd once it is rung */
    VECTOR_RUNG,                /* in @rung */
    VECTOR_TO_MAP,              /* in @to_map */
    VECTOR_MAPPED,              /* an ioeventfd */
    VECTOR_GONE,
} PeerVectorState;

typedef struct PeerVector {
    struct rcu_head rcu;
    EventNotifier notifier;
    int users;                  /* us, and vCPUs that are ringing */
    uint32_t doorbell;          /* the value that rings it */
    int state;
    QTAILQ_ENTRY(PeerVector) change;
    QSLIST_ENTRY(PeerVector) rung;
} PeerVector;

typedef QTAILQ_HEAD(, PeerVector) PeerVectorList;

/* What a vCPU reads: @n changes, @vector[] does not move. */
typedef struct PeerSlots {
    struct rcu_head rcu;
    unsigned n;
    unsigned allocated;
    PeerVector *vector[];
} PeerSlots;

typedef struct Peer {
    struct rcu_head rcu;
    uint16_t id;
    PeerSlots *slots;
    unsigned listed;            /* vectors announced since it was listed */
    unsigned generation;        /* of that list */
    int64_t expires;            /* ms: what is past @listed goes; 0: nothing */
    QTAILQ_ENTRY(Peer) next;
} Peer;

struct IvshmemPeers {
    struct rcu_head rcu;
    struct qht table;
    QTAILQ_HEAD(, Peer) list;
    MemoryRegion *doorbell;
    PeerVectorList to_map;
    PeerVectorList to_unmap;
    unsigned mapped;            /* and to be mapped */
    QSLIST_HEAD(, PeerVector) rung;     /* filled by vCPUs, without a lock */
    QEMUBH *map_rung;
    QEMUTimer *flush;
    QEMUTimer *linger;
    unsigned generation;
};

static bool peer_equal(const void *a, const void *b)
{
    return ((const Peer *)a)->id == ((const Peer *)b)->id;
}

static bool peer_has_id(const void *peer, const void *id)
{
    return ((const Peer *)peer)->id == *(const uint16_t *)id;
}

/* Ids are dense: a multiplicative hash spreads them over the buckets. */
static uint32_t peer_hash(uint16_t id)
{
    return id * 0x9e3779b1u;
}

static Peer *peers_find(const IvshmemPeers *peers, uint16_t id)
{
    return qht_lookup_custom(&peers->table, &id, peer_hash(id), peer_has_id);
}

/* Vectors */

/*
 * The descriptor is closed by its last user and not by RCU, whose callbacks
 * wait for the big lock: peers that come and go faster would use up all that
 * QEMU may have.
 */
static void peer_vector_put(PeerVector *vector)
{
    if (qatomic_fetch_dec(&vector->users) == 1) {
        event_notifier_cleanup(&vector->notifier);
        g_free_rcu(vector, rcu);
    }
}

static void peers_schedule_flush(IvshmemPeers *peers)
{
    if (!timer_pending(peers->flush)) {
        timer_mod(peers->flush, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                IVSHMEM_PEERS_FLUSH_MS);
    }
}

/* Whether @n vectors are enough for a transaction, @last being the last. */
static bool peers_batch_full(unsigned n, const PeerVector *last,
                             const PeerVector *next)
{
    return n >= IVSHMEM_PEERS_BATCH && next &&
           ivshmem_doorbell_peer(last->doorbell) !=
           ivshmem_doorbell_peer(next->doorbell);
}

static unsigned peers_unmap(IvshmemPeers *peers)
{
    PeerVectorList done = QTAILQ_HEAD_INITIALIZER(done);
    PeerVector *v, *next;
    unsigned n = 0;

    memory_region_transaction_begin();
    QTAILQ_FOREACH_SAFE(v, &peers->to_unmap, change, next) {
        QTAILQ_REMOVE(&peers->to_unmap, v, change);
        QTAILQ_INSERT_TAIL(&done, v, change);
        memory_region_del_eventfd(peers->doorbell, IVSHMEM_REG_DOORBELL,
                                  IVSHMEM_REG_SIZE, true, v->doorbell,
                                  &v->notifier);
        if (peers_batch_full(++n, v, next)) {
            break;
        }
    }
    memory_region_transaction_commit();
    QTAILQ_FOREACH_SAFE(v, &done, change, next) {
        peer_vector_put(v);
    }
    return n;
}

static unsigned peers_map(IvshmemPeers *peers)
{
    PeerVector *v, *next;
    unsigned n = 0;

    memory_region_transaction_begin();
    QTAILQ_FOREACH_SAFE(v, &peers->to_map, change, next) {
        QTAILQ_REMOVE(&peers->to_map, v, change);
        memory_region_add_eventfd(peers->doorbell, IVSHMEM_REG_DOORBELL,
                                  IVSHMEM_REG_SIZE, true, v->doorbell,
                                  &v->notifier);
        qatomic_set(&v->state, VECTOR_MAPPED);
        if (peers_batch_full(++n, v, next)) {
            break;
        }
    }
    memory_region_transaction_commit();
    return n;
}

/*
 * Nothing is mapped before all that is to go has gone: KVM refuses the
 * ioeventfd of an id that is used again as long as it has the former one, and
 * then QEMU aborts.
 */
static void peers_flush(void *opaque)
{
    IvshmemPeers *peers = opaque;
    unsigned mapped = 0, unmapped = 0;

    if (!QTAILQ_EMPTY(&peers->to_unmap)) {
        unmapped = peers_unmap(peers);
    } else if (!QTAILQ_EMPTY(&peers->to_map)) {
        mapped = peers_map(peers);
    }
    trace_ivshmem_ioeventfds(mapped, unmapped);
    if (!QTAILQ_EMPTY(&peers->to_unmap) || !QTAILQ_EMPTY(&peers->to_map)) {
        peers_schedule_flush(peers);
    }
}

static void peer_vector_map(IvshmemPeers *peers, PeerVector *v)
{
    qatomic_set(&v->state, VECTOR_TO_MAP);
    QTAILQ_INSERT_TAIL(&peers->to_map, v, change);
    peers->mapped++;
    peers_schedule_flush(peers);
}

static void peers_map_rung(void *opaque)
{
    IvshmemPeers *peers = opaque;
    QSLIST_HEAD(, PeerVector) rung;
    PeerVector *v;

    QSLIST_MOVE_ATOMIC(&rung, &peers->rung);
    while ((v = QSLIST_FIRST(&rung))) {
        QSLIST_REMOVE_HEAD(&rung, rung);
        if (qatomic_read(&v->state) == VECTOR_GONE) {
            peer_vector_put(v);
        } else {
            peer_vector_map(peers, v);
        }
    }
}

static PeerVector *peer_vector_new(IvshmemPeers *peers, uint32_t doorbell,
                                   int fd)
{
    PeerVector *v = g_new0(PeerVector, 1);

    event_notifier_init_fd(&v->notifier, fd);
    v->users = 1;
    v->doorbell = doorbell;
    if (peers->doorbell && peers->mapped < IVSHMEM_PEERS_EAGER) {
        peer_vector_map(peers, v);
    }
    return v;
}

static void peer_vector_drop(IvshmemPeers *peers, PeerVector *v)
{
    if (!v) {
        return;
    }
    switch (qatomic_xchg(&v->state, VECTOR_GONE)) {
    case VECTOR_MAPPED:
        peers->mapped--;
        QTAILQ_INSERT_TAIL(&peers->to_unmap, v, change);
        peers_schedule_flush(peers);
        return;
    case VECTOR_RUNG:
        return;                 /* peers_map_rung() frees it */
    case VECTOR_TO_MAP:
        peers->mapped--;
        QTAILQ_REMOVE(&peers->to_map, v, change);
        break;
    default:
        break;
    }
    peer_vector_put(v);
}

/* Within an RCU read-side section.  False if @v has gone. */
static bool peer_vector_ring(IvshmemPeers *peers, PeerVector *v)
{
    if (!qatomic_fetch_inc_nonzero(&v->users)) {
        return false;
    }
    ivshmem_ring_eventfd(event_notifier_get_fd(&v->notifier));
    if (peers->doorbell &&
        qatomic_cmpxchg(&v->state, VECTOR_IDLE, VECTOR_RUNG) == VECTOR_IDLE) {
        QSLIST_INSERT_HEAD_ATOMIC(&peers->rung, v, rung);
        qemu_bh_schedule(peers->map_rung);
    }
    peer_vector_put(v);
    return true;
}

/* Slots */

static PeerSlots *peer_slots_new(unsigned allocated)
{
    PeerSlots *slots = g_malloc0(sizeof(*slots) +
                                 allocated * sizeof(slots->vector[0]));

    slots->allocated = allocated;
    return slots;
}

static PeerSlots *peer_slots_reserve(Peer *peer, unsigned n)
{
    PeerSlots *old = peer->slots, *slots;

    if (n <= old->allocated) {
        return old;
    }
    slots = peer_slots_new(MAX(n, 2 * old->allocated));
    memcpy(slots->vector, old->vector, old->n * sizeof(old->vector[0]));
    slots->n = old->n;
    qatomic_rcu_set(&peer->slots, slots);
    g_free_rcu(old, rcu);
    return slots;
}

static void peer_truncate(IvshmemPeers *peers, Peer *peer, unsigned n)
{
    PeerSlots *slots = peer->slots;
    unsigned old = slots->n;

    if (n >= old) {
        return;
    }
    qatomic_set(&slots->n, n);
    for (unsigned i = n; i < old; i++) {
        PeerVector *v = slots->vector[i];

        qatomic_rcu_set(&slots->vector[i], NULL);
        peer_vector_drop(peers, v);
    }
}

/* Peers */

static Peer *peers_add(IvshmemPeers *peers, uint16_t id)
{
    Peer *peer = g_new0(Peer, 1);

    peer->id = id;
    peer->slots = peer_slots_new(1);
    QTAILQ_INSERT_TAIL(&peers->list, peer, next);
    qht_insert(&peers->table, peer, peer_hash(id), NULL);
    return peer;
}

static void peers_remove(IvshmemPeers *peers, Peer *peer)
{
    qht_remove(&peers->table, peer, peer_hash(peer->id));
    QTAILQ_REMOVE(&peers->list, peer, next);
    peer_truncate(peers, peer, 0);
    g_free_rcu(peer->slots, rcu);
    g_free_rcu(peer, rcu);
}

bool ivshmem_peers_set_vector(IvshmemPeers *peers, uint16_t id,
                              uint32_t vector, int fd)
{
    Peer *known = peers_find(peers, id);
    Peer *peer = known ?: peers_add(peers, id);
    bool joined = !known || !known->listed;
    PeerSlots *slots = peer_slots_reserve(peer, vector + 1);
    PeerVector *old = slots->vector[vector];

    qatomic_rcu_set(&slots->vector[vector],
                    peer_vector_new(peers, ivshmem_doorbell_value(id, vector),
                                    fd));
    if (vector >= slots->n) {
        qatomic_store_release(&slots->n, vector + 1);
    }
    peer_vector_drop(peers, old);
    peer->generation = peers->generation;
    peer->listed = vector + 1;
    return joined;
}

bool ivshmem_peers_leave(IvshmemPeers *peers, uint16_t id)
{
    Peer *peer = peers_find(peers, id);

    if (!peer) {
        return false;
    }
    peers_remove(peers, peer);
    return true;
}

bool ivshmem_peers_ring(IvshmemPeers *peers, uint16_t id, uint16_t vector)
{
    Peer *peer;
    PeerSlots *slots;
    PeerVector *v = NULL;

    RCU_READ_LOCK_GUARD();
    peer = peers_find(peers, id);
    if (!peer) {
        return false;
    }
    slots = qatomic_rcu_read(&peer->slots);
    if (vector < qatomic_load_acquire(&slots->n)) {
        v = qatomic_rcu_read(&slots->vector[vector]);
    }
    return v && peer_vector_ring(peers, v);
}

/* Lists after a reconnection */

void ivshmem_peers_list_begin(IvshmemPeers *peers)
{
    peers->generation++;
}

static void peer_expire(IvshmemPeers *peers, Peer *peer)
{
    peer->expires = 0;
    if (peer->listed) {
        peer_truncate(peers, peer, peer->listed);
    } else {
        trace_ivshmem_peer_expired(peer->id);
        peers_remove(peers, peer);
    }
}

static void peers_expire(void *opaque)
{
    IvshmemPeers *peers = opaque;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    int64_t first = INT64_MAX;
    Peer *peer, *next;

    QTAILQ_FOREACH_SAFE(peer, &peers->list, next, next) {
        if (peer->expires && peer->expires <= now) {
            peer_expire(peers, peer);
        } else if (peer->expires) {
            first = MIN(first, peer->expires);
        }
    }
    if (first != INT64_MAX) {
        timer_mod(peers->linger, first);
    }
}

void ivshmem_peers_list_end(IvshmemPeers *peers, IvshmemPeersVisitor *unlisted,
                            void *opaque)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    Peer *peer;

    QTAILQ_FOREACH(peer, &peers->list, next) {
        if (peer->generation == peers->generation) {
            peer->expires = 0;
            peer_truncate(peers, peer, peer->listed);
        } else if (peer->listed) {
            peer->listed = 0;
            peer->expires = now + IVSHMEM_PEERS_LINGER_MS;
            unlisted(peer->id, peer->slots->n, opaque);
        }
    }
    peers_expire(peers);
}

void ivshmem_peers_foreach(IvshmemPeers *peers, IvshmemPeersVisitor *visit,
                           void *opaque)
{
    Peer *peer;

    QTAILQ_FOREACH(peer, &peers->list, next) {
        if (peer->listed) {
            visit(peer->id, peer->expires ? peer->listed : peer->slots->n,
                  opaque);
        }
    }
}

/* Life */

IvshmemPeers *ivshmem_peers_new(MemoryRegion *doorbell)
{
    IvshmemPeers *peers = g_new0(IvshmemPeers, 1);

    qht_init(&peers->table, peer_equal, 16, QHT_MODE_AUTO_RESIZE);
    QTAILQ_INIT(&peers->list);
    QTAILQ_INIT(&peers->to_map);
    QTAILQ_INIT(&peers->to_unmap);
    QSLIST_INIT(&peers->rung);
    peers->doorbell = doorbell;
    ivshmem_ring_start();
    peers->map_rung = qemu_bh_new(peers_map_rung, peers);
    peers->flush = timer_new_ms(QEMU_CLOCK_REALTIME, peers_flush, peers);
    peers->linger = timer_new_ms(QEMU_CLOCK_REALTIME, peers_expire, peers);
    return peers;
}

/* Whatever a vCPU still put into @rung meanwhile has left the table. */
static void peers_reclaim(IvshmemPeers *peers)
{
    PeerVector *v;

    while ((v = QSLIST_FIRST(&peers->rung))) {
        QSLIST_REMOVE_HEAD(&peers->rung, rung);
        peer_vector_put(v);
    }
    qemu_bh_delete(peers->map_rung);
    qht_destroy(&peers->table);
    g_free(peers);
}

void ivshmem_peers_free(IvshmemPeers *peers)
{
    Peer *peer, *next;

    if (!peers) {
        return;
    }
    QTAILQ_FOREACH_SAFE(peer, &peers->list, next, next) {
        peers_remove(peers, peer);
    }
    peers_map_rung(peers);
    while (!QTAILQ_EMPTY(&peers->to_unmap)) {
        peers_unmap(peers);
    }
    timer_free(peers->flush);
    timer_free(peers->linger);
    call_rcu(peers, peers_reclaim, rcu);
}
