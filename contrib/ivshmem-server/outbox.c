/*
 * Sending: which client is served next, what a full socket or a short system
 * means, and who is too far behind.
 *
 * Not responsible for the order of frames (registry) or the system calls (io).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include "ivshmem-io.h"
#include "outbox.h"

/*
 * Batches for one client in one turn.  About what a socket buffer holds: a
 * client that keeps up is done, and nobody waits long for his turn.
 */
#define OUTBOX_BATCHES 4

/*
 * Frames in one turn, some 20 ms of work: newcomers, requests for the status
 * and the watchdog do not wait longer, however many clients are to be told.
 */
#define OUTBOX_TURN_FRAMES 16384

/*
 * How often a server looks at those who do not read.  Time in which it did not
 * run itself is not held against them: they may have been stopped with it.
 */
#define OUTBOX_STALL_TICK_MS 1000

/* Pauses while the system is short of something: from, doubling, to. */
#define OUTBOX_RETRY_MIN_MS 5
#define OUTBOX_RETRY_MAX_MS 500

static void outbox_watch_room(IvshmemClient *client, bool on)
{
    uint32_t events = client->watch.events & ~(uint32_t)EPOLLOUT;

    ivshmem_loop_set_events(client->region->server->loop, &client->watch,
                            on ? events | EPOLLOUT : events);
}

static void outbox_move(IvshmemClient *client, GQueue *queue)
{
    GQueue *blocked = &client->region->server->blocked;

    if (client->queue == queue) {
        return;
    }
    if (client->queue) {
        g_queue_unlink(client->queue, &client->link);
    }
    if ((client->queue == blocked) != (queue == blocked)) {
        outbox_watch_room(client, queue == blocked);
    }
    client->queue = queue;
    if (queue) {
        g_queue_push_tail_link(queue, &client->link);
    }
}

void ivshmem_outbox_remove(IvshmemClient *client)
{
    outbox_move(client, NULL);
}

void ivshmem_outbox_unblock(IvshmemClient *client)
{
    IvshmemServer *server = client->region->server;

    if (client->queue == &server->blocked) {
        outbox_move(client, &server->pending);
    }
}

/* True if it was so far behind that it has been disconnected. */
static bool outbox_check_backlog(IvshmemClient *client)
{
    uint64_t limit = client->region->server->config->queue_limit;
    uint64_t backlog = ivshmem_member_backlog(client->member);

    if (backlog <= limit) {
        return false;
    }
    client->region->server->counters.slow++;
    ivshmem_client_drop(client, "does not read: %" G_GUINT64_FORMAT
                        " messages behind, and the limit (--queue-limit) is %"
                        G_GUINT64_FORMAT, backlog, limit);
    return true;
}

void ivshmem_outbox_add_region(IvshmemRegion *region)
{
    IvshmemMember *member = ivshmem_registry_next(region->registry, NULL);

    while (member) {
        IvshmemClient *client = ivshmem_member_opaque(member);

        member = ivshmem_registry_next(region->registry, member);
        if (!client->queue) {
            outbox_move(client, &region->server->pending);
        } else if (client->queue != &region->server->pending) {
            outbox_check_backlog(client);
        }
    }
}

/* Stalled clients */

static gboolean outbox_stalled(gpointer opaque);

static void outbox_set_stall_timer(IvshmemServer *server)
{
    const IvshmemClient *first = g_queue_peek_head(&server->blocked);
    gint64 left;

    if (!server->config->stall_timeout_ms || server->stall_timer || !first) {
        return;
    }
    left = first->blocked_since / 1000 +
        (gint64)server->config->stall_timeout_ms -
        g_get_monotonic_time() / 1000;
    left = CLAMP(left + 1, 1, OUTBOX_STALL_TICK_MS);
    server->stall_due = g_get_monotonic_time() + left * 1000;
    server->stall_timer = g_timeout_add((guint)left, outbox_stalled, server);
}

static void outbox_forgive(IvshmemServer *server)
{
    gint64 now = g_get_monotonic_time();

    for (GList *l = server->blocked.head; l; l = l->next) {
        IvshmemClient *client = l->data;

        client->blocked_since = MIN(now, client->blocked_since + now -
                                    server->stall_due);
    }
}

static gboolean outbox_stalled(gpointer opaque)
{
    IvshmemServer *server = opaque;
    gint64 limit_us = (gint64)server->config->stall_timeout_ms * 1000;
    IvshmemClient *client;

    server->stall_timer = 0;
    outbox_forgive(server);
    while ((client = g_queue_peek_head(&server->blocked)) &&
           g_get_monotonic_time() - client->blocked_since >= limit_us) {
        if (ivshmem_member_queued(client->member) == 0) {
            outbox_move(client, NULL);  /* what it missed was taken back */
            continue;
        }
        server->counters.slow++;
        ivshmem_client_drop(client, "has not read for %" G_GUINT64_FORMAT
                            " s (--stall-timeout), with messages waiting",
                            server->config->stall_timeout_ms / 1000);
    }
    outbox_set_stall_timer(server);
    return G_SOURCE_REMOVE;
}

void ivshmem_outbox_new_timeout(IvshmemServer *server)
{
    g_clear_handle_id(&server->stall_timer, g_source_remove);
    outbox_set_stall_timer(server);
}

static void outbox_block(IvshmemClient *client)
{
    IvshmemServer *server = client->region->server;

    if (outbox_check_backlog(client)) {
        return;
    }
    client->blocked_since = g_get_monotonic_time();
    outbox_move(client, &server->blocked);
    outbox_set_stall_timer(server);
}

/* A system short of something */

static gboolean outbox_retry(gpointer opaque)
{
    IvshmemServer *server = opaque;
    IvshmemClient *client;

    server->retry_timer = 0;
    while ((client = g_queue_peek_head(&server->waiting))) {
        outbox_move(client, &server->pending);
    }
    ivshmem_loop_wake(server->loop);
    return G_SOURCE_REMOVE;
}

static void outbox_wait(IvshmemClient *client, int error)
{
    IvshmemServer *server = client->region->server;
    IvshmemLogSubject subject = ivshmem_client_subject(client);
    bool known = server->retry_ms;

    outbox_move(client, &server->waiting);
    if (server->retry_timer) {
        return;
    }
    server->retry_ms = CLAMP(server->retry_ms * 2, OUTBOX_RETRY_MIN_MS,
                             OUTBOX_RETRY_MAX_MS);
    server->retry_timer = g_timeout_add(server->retry_ms, outbox_retry, server);
    server->counters.waits++;
    if (known) {
        return;
    }
    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_WAIT, &subject,
                      "cannot be told at the moment: %s; trying again%s",
                      ivshmem_strerror(error), error == -ETOOMANYREFS ?
                      " (clients that do not read hold too many descriptors; "
                      "a higher LimitNOFILE allows for more)" : "");
}

static void outbox_failed(IvshmemClient *client, int error)
{
    switch (error) {
    case -EAGAIN:
        outbox_block(client);
        break;
    case -ETOOMANYREFS:
    case -ENOBUFS:
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
        outbox_wait(client, error);
        break;
    case -EPIPE:
    case -ECONNRESET:
        ivshmem_client_left(client, "closed the connection");
        break;
    default:
        ivshmem_client_drop(client, "cannot send: %s", ivshmem_strerror(error));
    }
}

static void outbox_count(IvshmemServer *server, const IvshmemFrame *frames,
                         size_t n)
{
    server->counters.frames += n;
    for (size_t i = 0; i < n; i++) {
        server->counters.descriptors += frames[i].fd >= 0;
    }
    server->retry_ms = 0;
}

static void outbox_send(IvshmemClient *client)
{
    IvshmemRegion *region = client->region;
    IvshmemFrame frames[IVSHMEM_IO_BATCH];

    for (int i = 0; i < OUTBOX_BATCHES; i++) {
        size_t n = ivshmem_member_peek(client->member, frames,
                                       IVSHMEM_IO_BATCH);
        ssize_t sent;

        if (n == 0) {
            outbox_move(client, NULL);
            return;
        }
        sent = ivshmem_io_send(client->watch.fd, frames, n);
        if (sent < 0) {
            outbox_failed(client, (int)sent);
            return;
        }
        outbox_count(region->server, frames, (size_t)sent);
        ivshmem_member_sent(region->registry, client->member, (size_t)sent);
    }
    if (ivshmem_member_queued(client->member) == 0) {
        outbox_move(client, NULL);
    }
}

void ivshmem_outbox_flush(IvshmemServer *server)
{
    IvshmemClient *last = g_queue_peek_tail(&server->pending);
    uint64_t enough = server->counters.frames + OUTBOX_TURN_FRAMES;

    while (last) {
        IvshmemClient *client = g_queue_pop_head_link(&server->pending)->data;

        /* At the end again, for whatever is left after this turn's share. */
        g_queue_push_tail_link(&server->pending, &client->link);
        outbox_send(client);
        if (client == last || server->counters.frames >= enough) {
            break;
        }
    }
    if (!g_queue_is_empty(&server->pending)) {
        ivshmem_loop_wake(server->loop);
    }
}

void ivshmem_outbox_stop(IvshmemServer *server)
{
    g_clear_handle_id(&server->retry_timer, g_source_remove);
    g_clear_handle_id(&server->stall_timer, g_source_remove);
}
