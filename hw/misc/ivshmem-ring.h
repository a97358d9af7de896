/*
 * ivshmem: ring an eventfd that a peer holds too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_RING_H
#define HW_MISC_IVSHMEM_RING_H

/*
 * Before the first ring, and not from a vCPU, whose CPU affinity the thread
 * would have.  Any number of times.
 */
void ivshmem_ring_start(void);

/*
 * Add 1 to @eventfd.  From any thread, within an RCU read-side critical section
 * that keeps @eventfd open.  Waits for at most a few IVSHMEM_RING_TICK_MS,
 * whatever other holders of the eventfd do to it.
 */
void ivshmem_ring_eventfd(int eventfd);

#define IVSHMEM_RING_TICK_MS 100

#endif /* HW_MISC_IVSHMEM_RING_H */
