/*
 * Raw clients: the library's own session and io under one epoll loop.
 *
 * Not responsible for what to do with them (server-load.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/epoll.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "load.h"

#define LOAD_EVENTS 256

/* Frames read from one client before the others get a turn. */
#define LOAD_FRAMES 512

static gpointer load_key(uint16_t id, unsigned vector)
{
    return GUINT_TO_POINTER((guint)id << 16 | vector);
}

static void load_close_value(gpointer value)
{
    int fd = GPOINTER_TO_INT(value);

    ivshmem_fd_close(&fd);
}

static void load_client_free(IvshmemLoadClient *client)
{
    ivshmem_load_leave(client);
    ivshmem_fd_close(&client->shm_fd);
    ivshmem_session_free(client->session);
    g_free(client->own_fds);
    g_hash_table_unref(client->peer_fds);
    g_free(client);
}

void ivshmem_load_init(IvshmemLoad *load, const char *path, unsigned vectors,
                       bool keep)
{
    load->path = path;
    load->vectors = vectors;
    load->keep = keep;
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->clients = g_ptr_array_new_with_free_func(
        (GDestroyNotify)load_client_free);
}

void ivshmem_load_clear(IvshmemLoad *load)
{
    g_ptr_array_unref(load->clients);
    ivshmem_fd_close(&load->epoll);
}

void ivshmem_load_pause(IvshmemLoad *load, IvshmemLoadClient *client,
                        bool paused)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };
    bool watch = !paused && client->sock >= 0 && !client->error;

    client->paused = paused;
    if (watch != client->watched && client->sock >= 0) {
        epoll_ctl(load->epoll, watch ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                  client->sock, &event);
        client->watched = watch;
    }
}

int ivshmem_load_join(IvshmemLoad *load, bool paused)
{
    int sock = ivshmem_io_connect(load->path);
    IvshmemLoadClient *client;

    if (sock < 0) {
        return sock;
    }
    client = g_new0(IvshmemLoadClient, 1);
    client->sock = sock;
    client->shm_fd = -1;
    client->session = ivshmem_session_new(load->vectors);
    ivshmem_framer_init(&client->framer);
    client->own_fds = g_new(int, load->vectors);
    for (unsigned i = 0; i < load->vectors; i++) {
        client->own_fds[i] = -1;
    }
    client->peer_fds = g_hash_table_new_full(NULL, NULL, NULL,
                                             load_close_value);
    g_ptr_array_add(load->clients, client);
    ivshmem_load_pause(load, client, paused);
    return 0;
}

int ivshmem_load_rejoin(IvshmemLoad *load, unsigned n)
{
    IvshmemLoadClient *old = g_ptr_array_index(load->clients, n);
    int ret;

    ivshmem_load_leave(old);
    ret = ivshmem_load_join(load, false);
    if (ret == 0) {
        IvshmemLoadClient *new = g_ptr_array_index(load->clients,
                                                   load->clients->len - 1);

        /* A device keeps its memory until it gets it again. */
        new->shm_fd = ivshmem_fd_steal(&old->shm_fd);
        g_ptr_array_remove_index_fast(load->clients, n);
    }
    return ret;
}

void ivshmem_load_leave(IvshmemLoadClient *client)
{
    int fd = ivshmem_framer_reset(&client->framer);

    ivshmem_fd_close(&fd);
    ivshmem_fd_close(&client->sock);
    client->watched = false;
    for (unsigned v = 0; v < ivshmem_session_vectors(client->session,
             (uint16_t)ivshmem_session_id(client->session)); v++) {
        ivshmem_fd_close(&client->own_fds[v]);
    }
    g_hash_table_remove_all(client->peer_fds);
}

bool ivshmem_load_reads(const IvshmemLoadClient *client)
{
    return client->sock >= 0 && !client->paused && !client->error;
}

bool ivshmem_load_knows(const IvshmemLoad *load,
                        const IvshmemLoadClient *client, size_t peers)
{
    int id = ivshmem_session_id(client->session);

    /* The session keeps at most @vectors of each, so the sum says it all. */
    return id >= 0 && ivshmem_session_has_shm(client->session) &&
        ivshmem_session_vectors(client->session, (uint16_t)id) ==
            load->vectors &&
        ivshmem_session_peers(client->session) == peers &&
        client->peer_vectors == peers * load->vectors;
}

static void load_forget_peer(const IvshmemLoad *load, IvshmemLoadClient *client,
                             uint16_t id, unsigned vectors)
{
    client->peer_vectors -= vectors;
    for (unsigned v = 0; load->keep && v < vectors; v++) {
        g_hash_table_remove(client->peer_fds, load_key(id, v));
    }
}

/* Consumes the event's fd. */
static void load_event(const IvshmemLoad *load, IvshmemLoadClient *client,
                       IvshmemEvent *event, unsigned vectors_before)
{
    switch (event->type) {
    case IVSHMEM_EVENT_SHM:
        ivshmem_fd_close(&client->shm_fd);
        client->shm_fd = ivshmem_fd_steal(&event->fd);
        break;
    case IVSHMEM_EVENT_SELF_VECTOR:
        if (load->keep) {
            client->own_fds[event->vector] = ivshmem_fd_steal(&event->fd);
        }
        break;
    case IVSHMEM_EVENT_PEER_VECTOR:
        client->peer_vectors++;
        if (load->keep) {
            g_hash_table_insert(client->peer_fds,
                                load_key(event->id, event->vector),
                                GINT_TO_POINTER(ivshmem_fd_steal(&event->fd)));
        }
        break;
    case IVSHMEM_EVENT_PEER_GONE:
        load_forget_peer(load, client, event->id, vectors_before);
        break;
    case IVSHMEM_EVENT_EXCESS_VECTOR:
        client->error = IVSHMEM_E_VECTORS;  /* one told twice */
        break;
    default:
        break;
    }
    ivshmem_fd_close(&event->fd);
}

/* Consumes the frame's fd. */
static int load_frame(const IvshmemLoad *load, IvshmemLoadClient *client,
                      IvshmemFrame *frame)
{
    IvshmemEvent event;
    unsigned before = 0;
    int ret;

    if (frame->value >= 0 && frame->value <= IVSHMEM_ID_MAX) {
        before = ivshmem_session_vectors(client->session,
                                         (uint16_t)frame->value);
    }
    ret = ivshmem_session_frame(client->session, frame, &event);
    if (ret < 0) {
        ivshmem_fd_close(&frame->fd);
        return ret;
    }
    client->frames++;
    load_event(load, client, &event, before);
    return client->error;
}

/* Returns 1 when there may be more, 0, or why the connection ended. */
static int load_read(const IvshmemLoad *load, IvshmemLoadClient *client)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    IvshmemFrame frame;
    int fd, ret;
    ssize_t n = ivshmem_io_recv(client->sock, bytes,
                                ivshmem_framer_want(&client->framer), &fd);

    if (n == -EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        return n == 0 ? IVSHMEM_E_EOF : (int)n;
    }
    ret = ivshmem_framer_push(&client->framer, bytes, (size_t)n, fd, &frame);
    if (ret < 0) {
        ivshmem_fd_close(&fd);
        return ret;
    }
    if (ret > 0) {
        ret = load_frame(load, client, &frame);
    }
    return ret < 0 ? ret : 1;
}

static void load_read_all(IvshmemLoad *load, IvshmemLoadClient *client)
{
    int ret = 1;

    for (int i = 0; i < LOAD_FRAMES && ret > 0; i++) {
        ret = load_read(load, client);
    }
    if (ret < 0) {
        client->error = ret;
        ivshmem_load_pause(load, client, client->paused);   /* unwatch */
    }
}

bool ivshmem_load_turn(IvshmemLoad *load, int timeout_ms)
{
    struct epoll_event events[LOAD_EVENTS];
    int n = epoll_wait(load->epoll, events, LOAD_EVENTS, timeout_ms);

    for (int i = 0; i < n; i++) {
        load_read_all(load, events[i].data.ptr);
    }
    return n > 0;
}

/* Rings all vectors of @id from @client.  Returns how many, or -1. */
static int64_t load_ring(const IvshmemLoad *load, IvshmemLoadClient *client,
                         uint16_t id)
{
    for (unsigned v = 0; v < load->vectors; v++) {
        gpointer fd;

        if (!g_hash_table_lookup_extended(client->peer_fds, load_key(id, v),
                                          NULL, &fd) ||
            ivshmem_io_ring(GPOINTER_TO_INT(fd)) < 0) {
            return -1;
        }
    }
    return load->vectors;
}

/* Whether exactly one ring has come to each vector of @client. */
static bool load_was_rung_once(const IvshmemLoad *load,
                               const IvshmemLoadClient *client)
{
    for (unsigned v = 0; v < load->vectors; v++) {
        uint64_t count = 0;

        if (ivshmem_io_drain(client->own_fds[v], &count) < 0 || count != 1) {
            return false;
        }
    }
    return true;
}

int64_t ivshmem_load_verify(IvshmemLoad *load)
{
    int64_t rings = 0;

    for (unsigned i = 0; i < load->clients->len; i++) {
        IvshmemLoadClient *from = g_ptr_array_index(load->clients, i);

        for (unsigned j = 0; j < load->clients->len; j++) {
            IvshmemLoadClient *to = g_ptr_array_index(load->clients, j);
            int id = ivshmem_session_id(to->session);

            if (i == j || !ivshmem_load_reads(from) ||
                !ivshmem_load_reads(to)) {
                continue;
            }
            if (load_ring(load, from, (uint16_t)id) < 0 ||
                !load_was_rung_once(load, to)) {
                return -1;
            }
            rings += load->vectors;
        }
    }
    return rings;
}
