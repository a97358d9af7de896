/*
 * ivshmem: ring an eventfd that a peer holds too.
 *
 * O_NONBLOCK belongs to the open file, which all its holders share.  A peer
 * that clears it and fills the counter makes those who ring it wait for ever,
 * vCPUs and maybe the big lock with them.  Looking at the flag before each ring
 * would double its cost and still leave a gap.  So a thread looks at rings that
 * take long, and takes the counter's contents off, which lets them go on.  It
 * sleeps unless rings come this way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-ring.h"
#include "trace.h"

/* Ticks without a ring after which the thread goes to sleep. */
#define RING_IDLE_TICKS 10

/* One for each thread that has ever rung; few, and never freed. */
typedef struct RingSlot {
    int eventfd;                /* being rung; -1: none */
    unsigned rings;
    unsigned seen;              /* @rings at the last tick */
    QSLIST_ENTRY(RingSlot) next;
} RingSlot;

static QSLIST_HEAD(, RingSlot) ring_slots;
static QemuEvent ring_wake;
static bool ring_awake;
static __thread RingSlot *ring_slot;

/*
 * Somebody has been ringing @eventfd for a tick.  If the counter is not full,
 * the machine is merely busy, and what was taken off must go back.
 */
static void ring_release(int eventfd)
{
    uint64_t count;

    if (ivshmem_io_drain(eventfd, &count) < 0) {
        return;
    }
    if (count < IVSHMEM_IO_FULL) {
        ivshmem_io_ring(eventfd);
        return;
    }
    trace_ivshmem_ring_stuck(eventfd);
    ivshmem_io_set_nonblock(eventfd);
}

/* Whether the thread that @slot belongs to has rung since the last tick. */
static bool ring_check(RingSlot *slot)
{
    unsigned rings = qatomic_read(&slot->rings);
    int eventfd = qatomic_load_acquire(&slot->eventfd);
    int copy;

    if (rings != slot->seen) {
        slot->seen = rings;
        return true;
    }
    if (eventfd < 0) {
        return false;
    }
    /* Once the ring is over, @eventfd may be closed and be another file. */
    copy = qemu_dup(eventfd);
    if (copy >= 0 && qatomic_load_acquire(&slot->eventfd) == eventfd &&
        qatomic_read(&slot->rings) == rings) {
        ring_release(copy);
    }
    ivshmem_fd_close(&copy);
    return true;
}

static bool ring_tick(void)
{
    RingSlot *slot;
    bool busy = false;

    RCU_READ_LOCK_GUARD();
    QSLIST_FOREACH(slot, &ring_slots, next) {
        busy |= ring_check(slot);
    }
    return busy;
}

static void *ring_thread(void *unused)
{
    rcu_register_thread();
    for (;;) {
        qemu_event_reset(&ring_wake);
        qatomic_set_mb(&ring_awake, false);
        /* Who rang before that did not wake us. */
        if (!ring_tick()) {
            qemu_event_wait(&ring_wake);
        }
        for (unsigned idle = 0; idle < RING_IDLE_TICKS; idle++) {
            g_usleep(IVSHMEM_RING_TICK_MS * 1000);
            if (ring_tick()) {
                idle = 0;
            }
        }
    }
    return NULL;
}

void ivshmem_ring_start(void)
{
    static bool started;
    QemuThread thread;

    if (!started) {
        started = true;
        qemu_event_init(&ring_wake, false);
        qemu_thread_create(&thread, "ivshmem-ring", ring_thread, NULL,
                           QEMU_THREAD_DETACHED);
    }
}

static RingSlot *ring_slot_new(void)
{
    RingSlot *slot = g_new0(RingSlot, 1);

    slot->eventfd = -1;
    QSLIST_INSERT_HEAD_ATOMIC(&ring_slots, slot, next);
    return slot;
}

void ivshmem_ring_eventfd(int eventfd)
{
    RingSlot *slot = ring_slot ?: (ring_slot = ring_slot_new());

    qatomic_set(&slot->rings, slot->rings + 1);
    qatomic_set_mb(&slot->eventfd, eventfd);
    if (!qatomic_read(&ring_awake)) {
        qatomic_set(&ring_awake, true);
        qemu_event_set(&ring_wake);
    }
    ivshmem_io_ring(eventfd);
    qatomic_store_release(&slot->eventfd, -1);
}
