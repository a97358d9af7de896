/*
 * ivshmem: a thread that waits for rings, where KVM does not deliver them.
 *
 * It wakes up faster than the main loop, and may poll.  An IOThread, but not
 * one that the user provides: delivering an interrupt takes the big lock, and
 * whoever holds that may be waiting for an IOThread that block devices use.
 * For the same reason nobody waits for this one until it is idle for good.
 *
 * What the thread has to release waits for it, and guests can be faster: so one
 * that masks and unmasks finds the same watch again, and its handler, which is
 * removed only when it is called for nothing.
 *
 * Not responsible for what a ring means (ivshmem-msix.c).  All functions that
 * others call run under the big lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "system/iothread.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-watch.h"

/* What an IOThread takes: epoll, event notifier and a wake-up of GLib's. */
#define WATCHER_DESCRIPTORS 4

struct IvshmemWatcher {
    IOThread *thread;
    AioContext *context;
};

struct IvshmemWatch {
    IvshmemWatcher *watcher;
    EventNotifier notifier;
    bool on;
    bool listening;             /* has a handler in the thread */
    IvshmemRung *rung;
    void *opaque;
};

static void watch_listen(IvshmemWatch *watch, bool on);

static void watch_read(EventNotifier *notifier)
{
    IvshmemWatch *watch = container_of(notifier, IvshmemWatch, notifier);

    BQL_LOCK_GUARD();
    if (watch->on) {
        watch->rung(watch->opaque);
    } else {
        watch_listen(watch, false);
    }
}

/* Whoever is about to ring may be waiting for the CPU that polls. */
static bool watch_poll(void *opaque)
{
    GPollFD eventfd = {
        .fd = event_notifier_get_fd(opaque),
        .events = G_IO_IN,
    };

    sched_yield();
    return g_poll(&eventfd, 1, 0) > 0;
}

static void watch_listen(IvshmemWatch *watch, bool on)
{
    if (watch->listening != on) {
        watch->listening = on;
        aio_set_event_notifier(watch->watcher->context, &watch->notifier,
                               on ? watch_read : NULL, on ? watch_poll : NULL,
                               on ? watch_read : NULL);
    }
}

void ivshmem_watch_set(IvshmemWatch *watch, bool on)
{
    watch->on = on;
    if (on) {
        watch_listen(watch, true);
    }
}

IvshmemWatch *ivshmem_watch_new(IvshmemWatcher *watcher, int eventfd,
                                IvshmemRung *rung, void *opaque)
{
    int copy = qemu_dup(eventfd);
    IvshmemWatch *watch;

    if (copy < 0) {
        return NULL;
    }
    watch = g_new0(IvshmemWatch, 1);
    watch->watcher = watcher;
    watch->rung = rung;
    watch->opaque = opaque;
    event_notifier_init_fd(&watch->notifier, copy);
    return watch;
}

/* In the thread, hence not in the middle of a handler. */
static void watch_release(void *opaque)
{
    IvshmemWatch *watch = opaque;

    event_notifier_cleanup(&watch->notifier);
    g_free(watch);
}

void ivshmem_watch_free(IvshmemWatch *watch)
{
    if (watch) {
        watch->on = false;
        watch_listen(watch, false);
        aio_bh_schedule_oneshot(watch->watcher->context, watch_release, watch);
    }
}

/* GLib ends the program when it has none for a new thread's context. */
static bool watcher_has_descriptors(void)
{
    int fds[WATCHER_DESCRIPTORS];
    bool ok = true;

    for (int i = 0; i < WATCHER_DESCRIPTORS; i++) {
        fds[i] = ivshmem_io_eventfd();
        ok &= fds[i] >= 0;
    }
    for (int i = 0; i < WATCHER_DESCRIPTORS; i++) {
        ivshmem_fd_close(&fds[i]);
    }
    return ok;
}

IvshmemWatcher *ivshmem_watcher_new(uint32_t poll_max_ns)
{
    g_autofree char *ns = g_strdup_printf("%" PRIu32, poll_max_ns);
    Object *thread = NULL;
    IvshmemWatcher *watcher;

    if (watcher_has_descriptors()) {
        thread = object_new_with_props(TYPE_IOTHREAD,
                                       object_get_internal_root(),
                                       "ivshmem[*]", NULL,
                                       "poll-max-ns", ns, NULL);
    }
    if (!thread) {
        return NULL;
    }
    watcher = g_new0(IvshmemWatcher, 1);
    watcher->thread = IOTHREAD(thread);
    watcher->context = iothread_get_aio_context(watcher->thread);
    return watcher;
}

static void watcher_join(void *opaque)
{
    IvshmemWatcher *watcher = opaque;

    iothread_destroy(watcher->thread);
    g_free(watcher);
}

/* In the thread: no handler of its will wait for the big lock any more. */
static void watcher_idle(void *opaque)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), watcher_join, opaque);
}

void ivshmem_watcher_free(IvshmemWatcher *watcher)
{
    if (watcher) {
        aio_bh_schedule_oneshot(watcher->context, watcher_idle, watcher);
    }
}
