/*
 * One epoll instance as one GLib source.
 *
 * Not responsible for what the descriptors are.
 *
 * Level-triggered: a handler may leave work for the next turn, which keeps
 * turns short and clients equal.  EPOLLOUT is asked for only while a socket is
 * full, so that a client that reads wakes nobody.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include "error.h"
#include "ivshmem-fd.h"
#include "loop.h"

/* Events fetched with one system call; the others come next turn. */
#define LOOP_BATCH 256

struct IvshmemLoop {
    GSource source;
    gpointer tag;
    int epoll;
    bool again;
    void (*turn_end)(void *opaque);
    void *opaque;
};

static gboolean loop_prepare(GSource *source, gint *timeout)
{
    *timeout = -1;
    return ((IvshmemLoop *)source)->again;
}

static gboolean loop_check(GSource *source)
{
    IvshmemLoop *loop = (IvshmemLoop *)source;

    return loop->again || g_source_query_unix_fd(source, loop->tag);
}

static gboolean loop_dispatch(GSource *source, GSourceFunc func, gpointer data)
{
    IvshmemLoop *loop = (IvshmemLoop *)source;
    struct epoll_event events[LOOP_BATCH];
    int n = epoll_wait(loop->epoll, events, LOOP_BATCH, 0);

    loop->again = false;
    for (int i = 0; i < n; i++) {
        IvshmemWatch *watch = events[i].data.ptr;

        if (watch->active) {
            watch->ready(watch, events[i].events);
        }
    }
    loop->turn_end(loop->opaque);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs loop_funcs = {
    .prepare = loop_prepare,
    .check = loop_check,
    .dispatch = loop_dispatch,
};

IvshmemLoop *ivshmem_loop_new(void (*turn_end)(void *opaque), void *opaque,
                              GError **errp)
{
    GSource *source;
    IvshmemLoop *loop;
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0) {
        ivshmem_error(errp, "epoll_create1: %s", g_strerror(errno));
        return NULL;
    }
    source = g_source_new(&loop_funcs, sizeof(IvshmemLoop));
    loop = (IvshmemLoop *)source;
    loop->epoll = epoll;
    loop->turn_end = turn_end;
    loop->opaque = opaque;
    loop->tag = g_source_add_unix_fd(source, epoll, G_IO_IN);
    /* It does not; but else GLib wakes itself twice in every turn. */
    g_source_set_can_recurse(source, TRUE);
    g_source_attach(source, NULL);
    return loop;
}

void ivshmem_loop_free(IvshmemLoop *loop)
{
    if (!loop) {
        return;
    }
    g_source_destroy(&loop->source);
    ivshmem_fd_close(&loop->epoll);
    g_source_unref(&loop->source);
}

static int loop_control(IvshmemLoop *loop, int operation, IvshmemWatch *watch)
{
    struct epoll_event event = { .events = watch->events, .data.ptr = watch };

    if (epoll_ctl(loop->epoll, operation, watch->fd, &event) < 0) {
        return -errno;
    }
    return 0;
}

int ivshmem_loop_add(IvshmemLoop *loop, IvshmemWatch *watch)
{
    int ret = loop_control(loop, EPOLL_CTL_ADD, watch);

    watch->active = ret == 0;
    return ret;
}

void ivshmem_loop_set_events(IvshmemLoop *loop, IvshmemWatch *watch,
                             uint32_t events)
{
    if (watch->active && watch->events != events) {
        watch->events = events;
        loop_control(loop, EPOLL_CTL_MOD, watch);
    }
}

void ivshmem_loop_remove(IvshmemLoop *loop, IvshmemWatch *watch)
{
    if (watch->active) {
        watch->active = false;
        loop_control(loop, EPOLL_CTL_DEL, watch);
    }
}

void ivshmem_loop_wake(IvshmemLoop *loop)
{
    loop->again = true;
}
