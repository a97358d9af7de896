/*
 * Public API for host programs that are peers.
 *
 * Joins the session (what frames mean) with io (how they arrive) and owns the
 * memory and all eventfds.  Not responsible for what is in the memory, for
 * when to try to reconnect, or for event loops: one epoll fd joins in any.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-memory.h"
#include "ivshmem-peer.h"
#include "ivshmem-roster.h"
#include "ivshmem-session.h"

/*
 * Frames and wake-ups without an event of their own that one call takes before
 * it returns: a server that sends nothing else must not keep the caller.
 */
#define PEER_STEPS_MAX 256

/* What an epoll event is about; the vector is in the lower half. */
enum {
    PEER_FD_SOCK,
    PEER_FD_MORE,              /* never acted upon: for ivshmem_peer_fd() */
    PEER_FD_OWN,
    PEER_FD_FORMER,
};

struct IvshmemPeer {
    char *path;                 /* NULL: attached */
    int sock;                   /* -1: not connected */
    int epoll;
    int more;                   /* eventfd: events are queued */
    bool more_set;
    bool ready;
    int error;                  /* why the last connection ended */
    IvshmemSession *session;
    GQueue events;              /* of IvshmemPeerEvent */

    IvshmemMemory memory;

    GRWLock lock;               /* for what follows, against ring() */
    int id;
    IvshmemRoster *others;
    GArray *own;                /* of int, by vector */
    GArray *former;             /* the same, of the connection before */
};

static void peer_queue(IvshmemPeer *peer, const IvshmemPeerEvent *event)
{
    IvshmemPeerEvent *copy = g_new(IvshmemPeerEvent, 1);

    *copy = *event;
    g_queue_push_tail(&peer->events, copy);
}

static void peer_queue_id(IvshmemPeer *peer, IvshmemPeerEventType type,
                          int id, uint32_t vector)
{
    peer_queue(peer, &(IvshmemPeerEvent) {
        .type = type, .id = (uint16_t)id, .vector = vector,
    });
}

static int peer_watch(IvshmemPeer *peer, int fd, unsigned kind, uint32_t vector)
{
    struct epoll_event event = {
        .events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | vector,
    };

    return epoll_ctl(peer->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/*
 * Others hold the same eventfds and sockets, so closing alone would not take
 * them out of the epoll set.
 */
static void peer_unwatch(IvshmemPeer *peer, int fd)
{
    epoll_ctl(peer->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* @error 0: the server closed the connection. */
static void peer_fail(IvshmemPeer *peer, int error)
{
    IVSHMEM_FD_AUTO int partial = -1;
    int end = ivshmem_session_end(peer->session, &partial);

    peer_unwatch(peer, peer->sock);
    ivshmem_fd_close(&peer->sock);
    peer->ready = false;
    peer->error = error ? error : end;
    peer_queue(peer, &(IvshmemPeerEvent) {
        .type = IVSHMEM_PEER_CLOSED, .error = peer->error,
    });
}

static void peer_forget(IvshmemPeer *peer, uint16_t id)
{
    g_rw_lock_writer_lock(&peer->lock);
    if (ivshmem_roster_remove(peer->others, id)) {
        peer_queue_id(peer, IVSHMEM_PEER_LEFT, id, 0);
    }
    g_rw_lock_writer_unlock(&peer->lock);
}

/*
 * Consumes @fd.  Our id is taken over at the same time, so that a connection
 * to the wrong memory changes nothing.
 */
static int peer_take_memory(IvshmemPeer *peer, int fd)
{
    int id = ivshmem_session_id(peer->session);
    int ret = ivshmem_memory_take(&peer->memory, fd);

    if (ret < 0) {
        return ret;
    }
    g_rw_lock_writer_lock(&peer->lock);
    peer->id = id;
    g_rw_lock_writer_unlock(&peer->lock);
    peer_forget(peer, (uint16_t)id);
    return 0;
}

/* The rings of an eventfd of ours become an event.  0, -EAGAIN or why not. */
static int peer_count_rings(IvshmemPeer *peer, int fd, uint32_t vector)
{
    IvshmemPeerEvent event = { .type = IVSHMEM_PEER_RUNG, .vector = vector };
    int ret = ivshmem_io_drain(fd, &event.count);

    if (ret == 0) {
        peer_queue(peer, &event);
    }
    return ret;
}

/* Our vectors become the former ones; those before are drained and closed. */
static void peer_retire_vectors(IvshmemPeer *peer)
{
    GArray *oldest = peer->former;

    for (unsigned i = 0; i < oldest->len; i++) {
        int fd = g_array_index(oldest, int, i);

        peer_unwatch(peer, fd);
        peer_count_rings(peer, fd, i);
    }
    ivshmem_fds_truncate(oldest, 0);
    for (unsigned i = 0; i < peer->own->len; i++) {
        struct epoll_event event = {
            .events = EPOLLIN, .data.u64 = (uint64_t)PEER_FD_FORMER << 32 | i,
        };

        /* Fails for those taken: they remain their taker's business. */
        epoll_ctl(peer->epoll, EPOLL_CTL_MOD,
                  g_array_index(peer->own, int, i), &event);
    }
    g_rw_lock_writer_lock(&peer->lock);
    peer->former = peer->own;
    peer->own = oldest;
    g_rw_lock_writer_unlock(&peer->lock);
}

/* Takes *@fd on success. */
static int peer_take_own_vector(IvshmemPeer *peer, const IvshmemEvent *event,
                                int *fd)
{
    int ret = peer_watch(peer, *fd, PEER_FD_OWN, event->vector);

    if (ret < 0) {
        return ret;
    }
    if (event->vector == 0 && peer->own->len) {
        peer_retire_vectors(peer);
    }
    g_rw_lock_writer_lock(&peer->lock);
    g_array_append_val(peer->own, *fd);
    g_rw_lock_writer_unlock(&peer->lock);
    ivshmem_fd_steal(fd);
    peer_queue_id(peer, IVSHMEM_PEER_VECTOR, event->id, event->vector);
    return 0;
}

/* Takes *@fd. */
static void peer_take_vector(IvshmemPeer *peer, const IvshmemEvent *event,
                             int *fd)
{
    IvshmemRosterChange change;

    g_rw_lock_writer_lock(&peer->lock);
    change = ivshmem_roster_set(peer->others, event->id, event->vector,
                                ivshmem_fd_steal(fd));
    g_rw_lock_writer_unlock(&peer->lock);
    if (change == IVSHMEM_ROSTER_NEW_PEER) {
        peer_queue_id(peer, IVSHMEM_PEER_JOINED, event->id, 0);
    } else if (change == IVSHMEM_ROSTER_NEW_VECTOR) {
        peer_queue_id(peer, IVSHMEM_PEER_VECTOR, event->id, event->vector);
    }
}

/* What an earlier connection told and this one did not is no longer true. */
static void peer_forget_stale(IvshmemPeer *peer)
{
    int id = -1;

    while ((id = ivshmem_roster_next(peer->others, id, true)) >= 0) {
        peer_forget(peer, (uint16_t)id);
    }
    g_rw_lock_writer_lock(&peer->lock);
    ivshmem_roster_trim(peer->others);
    g_rw_lock_writer_unlock(&peer->lock);
}

static void peer_check_ready(IvshmemPeer *peer)
{
    if (!peer->ready && ivshmem_session_has_shm(peer->session) &&
        ivshmem_session_vectors(peer->session, (uint16_t)peer->id)) {
        peer->ready = true;
        peer_forget_stale(peer);
        peer_queue_id(peer, IVSHMEM_PEER_READY, peer->id, 0);
    }
}

/* What is not taken out of *@fd is the caller's to close. */
static int peer_handle(IvshmemPeer *peer, const IvshmemEvent *event, int *fd)
{
    bool vector = event->type == IVSHMEM_EVENT_PEER_VECTOR ||
                  event->type == IVSHMEM_EVENT_SELF_VECTOR;

    /* Writing to something else could block or raise SIGPIPE. */
    if (vector && ivshmem_io_is_eventfd(*fd) <= 0) {
        return IVSHMEM_E_NOT_EVENTFD;
    }
    switch (event->type) {
    case IVSHMEM_EVENT_SHM:
        return peer_take_memory(peer, ivshmem_fd_steal(fd));
    case IVSHMEM_EVENT_SELF_VECTOR:
        return peer_take_own_vector(peer, event, fd);
    case IVSHMEM_EVENT_PEER_VECTOR:
        peer_take_vector(peer, event, fd);
        break;
    case IVSHMEM_EVENT_PEER_GONE:
        peer_forget(peer, event->id);
        break;
    case IVSHMEM_EVENT_SELF_ID:         /* peer_take_memory() asks for it */
    case IVSHMEM_EVENT_EXCESS_VECTOR:
    case IVSHMEM_EVENT_NONE:
        break;
    }
    return 0;
}

static void peer_receive(IvshmemPeer *peer)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    IVSHMEM_FD_AUTO int fd = -1;
    IvshmemEvent event;
    ssize_t got = ivshmem_io_recv(peer->sock, bytes,
                                  ivshmem_session_want(peer->session), &fd);
    int ret;

    if (got == -EAGAIN) {
        return;
    }
    if (got <= 0) {
        peer_fail(peer, (int)got);
        return;
    }
    ret = ivshmem_session_push(peer->session, bytes, (size_t)got, fd, &event);
    if (ret == 0) {
        fd = event.fd;          /* this one or an earlier one, or none */
        ret = peer_handle(peer, &event, &fd);
    }
    if (ret < 0) {
        peer_fail(peer, ret);
        return;
    }
    peer_check_ready(peer);
}

static void peer_rung(IvshmemPeer *peer, int fd, uint32_t vector)
{
    int ret = peer_count_rings(peer, fd, vector);

    if (ret < 0 && ret != -EAGAIN) {
        /* Not an eventfd after all: it would be readable for ever. */
        peer_unwatch(peer, fd);
        if (peer->sock >= 0) {
            peer_fail(peer, ret);
        }
    }
}

/* Waits for one thing and deals with it.  1, 0 after the time, or -errno. */
static int peer_step(IvshmemPeer *peer, int timeout_ms)
{
    struct epoll_event event;
    uint32_t vector;
    int n = epoll_wait(peer->epoll, &event, 1, timeout_ms);

    if (n <= 0) {
        return n < 0 ? -errno : 0;
    }
    vector = (uint32_t)event.data.u64;
    switch (event.data.u64 >> 32) {
    case PEER_FD_SOCK:
        peer_receive(peer);
        break;
    case PEER_FD_OWN:
        peer_rung(peer, g_array_index(peer->own, int, vector), vector);
        break;
    case PEER_FD_FORMER:
        peer_rung(peer, g_array_index(peer->former, int, vector), vector);
        break;
    }
    return 1;
}

/* Keeps the promise of ivshmem_peer_fd(). */
static void peer_show_queue(IvshmemPeer *peer)
{
    bool set = !g_queue_is_empty(&peer->events);

    if (set && !peer->more_set) {
        ivshmem_io_ring(peer->more);
    } else if (!set && peer->more_set) {
        ivshmem_io_drain(peer->more, NULL);
    }
    peer->more_set = set;
}

static bool peer_pop(IvshmemPeer *peer, IvshmemPeerEvent *event)
{
    IvshmemPeerEvent *first = g_queue_pop_head(&peer->events);

    *event = first ? *first : (IvshmemPeerEvent) { .type = IVSHMEM_PEER_NONE };
    g_free(first);
    peer_show_queue(peer);
    return first != NULL;
}

static int64_t peer_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? -1 : g_get_monotonic_time() + timeout_ms * 1000LL;
}

/* Rounded up: nobody wakes up a moment early and has to wait again. */
static int peer_left_ms(int64_t deadline)
{
    int64_t left = deadline - g_get_monotonic_time();

    return deadline < 0 ? -1 : left <= 0 ? 0 : (int)((left + 999) / 1000);
}

int ivshmem_peer_next(IvshmemPeer *peer, IvshmemPeerEvent *event)
{
    for (int i = 0; i < PEER_STEPS_MAX; i++) {
        int ret;

        if (peer_pop(peer, event)) {
            return 1;
        }
        ret = peer_step(peer, 0);
        if (ret <= 0) {
            return ret;
        }
    }
    return peer_pop(peer, event);
}

int ivshmem_peer_wait(IvshmemPeer *peer, int timeout_ms,
                      IvshmemPeerEvent *event)
{
    int64_t deadline = peer_deadline(timeout_ms);

    int left, ret;

    do {
        if (peer_pop(peer, event)) {
            return 1;
        }
        left = peer_left_ms(deadline);
        ret = peer_step(peer, left);
        if (ret < 0) {
            return ret;
        }
    } while (left != 0);
    ret = ivshmem_peer_next(peer, event);
    return ret ? ret : IVSHMEM_E_TIMEOUT;
}

int ivshmem_peer_wait_ready(IvshmemPeer *peer, int timeout_ms)
{
    int64_t deadline = peer_deadline(timeout_ms);
    int ret = 0, late = 0;

    while (!peer->ready && peer->sock >= 0) {
        struct pollfd pollfd = { .fd = peer->sock, .events = POLLIN };
        int left = peer_left_ms(deadline);
        int n = poll(&pollfd, 1, left);

        if (n < 0) {
            ret = -errno;
            break;
        }
        if (n > 0) {
            peer_receive(peer);
        }
        /* What is there already may only have waited for us. */
        if (left == 0 && !peer->ready && peer->sock >= 0 &&
            (n == 0 || ++late == PEER_STEPS_MAX)) {
            ret = IVSHMEM_E_TIMEOUT;
            break;
        }
    }
    peer_show_queue(peer);
    return ret < 0 || peer->sock >= 0 ? ret : peer->error;
}

/* Consumes @sock on success. */
static int peer_begin(IvshmemPeer *peer, int sock)
{
    int ret = peer_watch(peer, sock, PEER_FD_SOCK, 0);

    if (ret < 0) {
        return ret;
    }
    ivshmem_session_free(peer->session);
    peer->session = ivshmem_session_new(IVSHMEM_VECTORS_MAX);
    peer->sock = sock;
    peer->error = 0;
    return 0;
}

static int peer_new(int sock, IvshmemPeer **result)
{
    IvshmemPeer *peer = g_new0(IvshmemPeer, 1);
    int ret;

    peer->sock = peer->more = peer->id = -1;
    ivshmem_memory_init(&peer->memory);
    g_rw_lock_init(&peer->lock);
    g_queue_init(&peer->events);
    peer->others = ivshmem_roster_new();
    peer->own = g_array_new(FALSE, FALSE, sizeof(int));
    peer->former = g_array_new(FALSE, FALSE, sizeof(int));

    peer->epoll = epoll_create1(EPOLL_CLOEXEC);
    ret = peer->epoll < 0 ? -errno : 0;
    if (ret == 0) {
        ret = peer->more = ivshmem_io_eventfd();
    }
    if (ret >= 0) {
        ret = peer_watch(peer, peer->more, PEER_FD_MORE, 0);
    }
    if (ret == 0) {
        ret = peer_begin(peer, sock);
    }
    if (ret < 0) {
        ivshmem_peer_free(peer);
        return ret;
    }
    *result = peer;
    return 0;
}

int ivshmem_peer_connect(const char *path, IvshmemPeer **peer)
{
    IVSHMEM_FD_AUTO int sock = ivshmem_io_connect(path);
    int ret = sock < 0 ? sock : peer_new(sock, peer);

    if (ret == 0) {
        ivshmem_fd_steal(&sock);
        (*peer)->path = g_strdup(path);
    }
    return ret;
}

int ivshmem_peer_attach(int sock, IvshmemPeer **peer)
{
    struct sockaddr_storage address = { 0 };
    socklen_t address_len = sizeof(address), type_len = sizeof(int);
    int type = 0;

    if (getsockname(sock, (struct sockaddr *)&address, &address_len) < 0 ||
        getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 ||
        fcntl(sock, F_SETFD, FD_CLOEXEC) < 0) {
        return -errno;
    }
    if (address.ss_family != AF_UNIX || type != SOCK_STREAM) {
        return -EPROTOTYPE;
    }
    return peer_new(sock, peer);
}

int ivshmem_peer_reconnect(IvshmemPeer *peer)
{
    IVSHMEM_FD_AUTO int sock = -1;
    int ret;

    if (peer->sock >= 0) {
        return -EISCONN;
    }
    if (!peer->path) {
        return -EDESTADDRREQ;
    }
    sock = ivshmem_io_connect(peer->path);
    ret = sock < 0 ? sock : peer_begin(peer, sock);
    if (ret < 0) {
        return ret;
    }
    ivshmem_fd_steal(&sock);
    ivshmem_roster_age(peer->others);
    peer_show_queue(peer);
    return 0;
}

void ivshmem_peer_free(IvshmemPeer *peer)
{
    if (!peer) {
        return;
    }
    if (peer->sock >= 0) {
        peer_fail(peer, 0);
    }
    ivshmem_session_free(peer->session);
    ivshmem_memory_clear(&peer->memory);
    ivshmem_roster_free(peer->others);
    ivshmem_fds_truncate(peer->own, 0);
    g_array_unref(peer->own);
    ivshmem_fds_truncate(peer->former, 0);
    g_array_unref(peer->former);
    ivshmem_fd_close(&peer->more);
    ivshmem_fd_close(&peer->epoll);
    g_queue_clear_full(&peer->events, g_free);
    g_rw_lock_clear(&peer->lock);
    g_free(peer->path);
    g_free(peer);
}

int ivshmem_peer_fd(const IvshmemPeer *peer)
{
    return peer->epoll;
}

bool ivshmem_peer_connected(const IvshmemPeer *peer)
{
    return peer->sock >= 0;
}

int ivshmem_peer_id(const IvshmemPeer *peer)
{
    return peer->id;
}

unsigned ivshmem_peer_vectors(const IvshmemPeer *peer)
{
    return peer->own->len;
}

uint64_t ivshmem_peer_size(const IvshmemPeer *peer)
{
    return ivshmem_memory_size(&peer->memory);
}

int ivshmem_peer_shm_fd(const IvshmemPeer *peer)
{
    return peer->memory.fd;
}

int ivshmem_peer_map(IvshmemPeer *peer, bool writable, void **address,
                     uint64_t *size)
{
    void *map;
    int ret = ivshmem_memory_map(&peer->memory, writable, &map);

    if (ret == 0 && address) {
        *address = map;
    }
    if (ret == 0 && size) {
        *size = ivshmem_memory_size(&peer->memory);
    }
    return ret;
}

/* The eventfds of @id, or NULL. */
static const GArray *peer_fds_of(const IvshmemPeer *peer, uint16_t id)
{
    return id == peer->id ? peer->own : ivshmem_roster_get(peer->others, id);
}

int ivshmem_peer_ring_fd(const IvshmemPeer *peer, uint16_t id, uint32_t vector)
{
    const GArray *fds = peer_fds_of(peer, id);

    if (!fds || vector >= fds->len) {
        return IVSHMEM_E_NO_PEER;
    }
    return g_array_index(fds, int, vector);
}

/*
 * Other holders of the eventfd may have cleared O_NONBLOCK since we set it
 * (QEMU's sockets do), and a peer with bad intentions may fill the counter.
 */
int ivshmem_peer_ring(IvshmemPeer *peer, uint16_t id, uint32_t vector)
{
    int fd, ret;

    g_rw_lock_reader_lock(&peer->lock);
    fd = ret = ivshmem_peer_ring_fd(peer, id, vector);
    if (fd >= 0) {
        ret = ivshmem_io_ring_nowait(fd);
    }
    g_rw_lock_reader_unlock(&peer->lock);
    return ret;
}

unsigned ivshmem_peer_vectors_of(const IvshmemPeer *peer, uint16_t id)
{
    const GArray *fds = peer_fds_of(peer, id);

    return fds ? fds->len : 0;
}

int ivshmem_peer_next_id(const IvshmemPeer *peer, int after)
{
    return ivshmem_roster_next(peer->others, after, false);
}

int ivshmem_peer_take_vector(IvshmemPeer *peer, uint32_t vector)
{
    int fd;

    if (vector >= peer->own->len) {
        return IVSHMEM_E_NO_PEER;
    }
    fd = g_array_index(peer->own, int, vector);
    peer_unwatch(peer, fd);
    return fd;
}
