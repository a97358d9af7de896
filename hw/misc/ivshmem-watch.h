/*
 * ivshmem: a thread that waits for rings, where KVM does not deliver them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MISC_IVSHMEM_WATCH_H
#define HW_MISC_IVSHMEM_WATCH_H

typedef struct IvshmemWatcher IvshmemWatcher;
typedef struct IvshmemWatch IvshmemWatch;
typedef void IvshmemRung(void *opaque);

/*
 * A thread that serves watches.  With @poll_max_ns > 0 it looks at their
 * eventfds for up to so many nanoseconds before it sleeps, as long as that
 * pays.  NULL if there can be no such thread.
 */
IvshmemWatcher *ivshmem_watcher_new(uint32_t poll_max_ns);

/* All watches must have been removed.  NULL is fine. */
void ivshmem_watcher_free(IvshmemWatcher *watcher);

/*
 * While it is on, which it is not at first, call @rung, under the big lock,
 * whenever @eventfd is readable.  @eventfd stays the caller's, who may close it
 * at any time.  NULL: there is no descriptor left for a copy of it.
 */
IvshmemWatch *ivshmem_watch_new(IvshmemWatcher *watcher, int eventfd,
                                IvshmemRung *rung, void *opaque);

/* Once it is off, @rung is not called any more. */
void ivshmem_watch_set(IvshmemWatch *watch, bool on);

/* NULL is fine. */
void ivshmem_watch_free(IvshmemWatch *watch);

#endif /* HW_MISC_IVSHMEM_WATCH_H */
