/*
 * ivshmem: the connection to the server.
 *
 * Reads frames from the chardev, passes them through libivshmem's session and
 * announces what they mean.  Survives everything a server can do: a connection
 * that goes wrong is dropped, what it announced before stays.  Knows nothing
 * of PCI, nor of what descriptors are used for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "chardev/char.h"
#include "chardev/char-socket.h"
#include "io/task.h"
#include "ivshmem-link.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-session.h"
#include "trace.h"

/* A fraction of a millisecond of the main loop. */
#define IVSHMEM_LINK_FRAMES_PER_TURN 32

/* Nobody tells when a chardev's attempt to connect has come to an end. */
#define IVSHMEM_LINK_CONNECT_TICK_MS 1
#define IVSHMEM_LINK_ATTEMPT_TICK_MS 20

/*
 * So much is counted of a wait in the handshake: the server is not to blame for
 * the time in which QEMU was stopped, or did not get to run.
 */
#define IVSHMEM_LINK_WAIT_MS 100

/* A reader of the log finds it; a server that flaps does not fill it. */
#define IVSHMEM_LINK_REPORT_MS 10000

#define IVSHMEM_LINK_CLOSED \
    "the server closed the connection during the handshake"

struct IvshmemLink {
    CharBackend *chr;
    char *name;
    unsigned max_vectors;
    const IvshmemLinkOps *ops;
    void *opaque;
    IvshmemSession *session;    /* NULL: not connected */
    bool has_memory;            /* of this connection */
    bool listed;
    bool turned_away;           /* in the first handshake */
    Error **errp;               /* of realize, while it waits */
    char *reported;             /* why the connection was lost */
    int64_t reported_at;        /* ms */
    bool worked;                /* a connection, since then */
    QEMUBH *closed;
};

static SocketChardev *link_socket(const IvshmemLink *link)
{
    return SOCKET_CHARDEV(qemu_chr_fe_get_driver(link->chr));
}

/* Dropping the connection */

/* Whether there was one to end. */
static bool link_end_session(IvshmemLink *link)
{
    IvshmemSession *session = g_steal_pointer(&link->session);
    int fd, ret;

    if (!session) {
        return false;
    }
    ret = ivshmem_session_end(session, &fd);
    trace_ivshmem_link_down(link->name, ivshmem_strerror(ret));
    ivshmem_fd_close(&fd);
    ivshmem_session_free(session);
    return true;
}

static void link_down(IvshmemLink *link)
{
    if (link_end_session(link)) {
        link->ops->down(link->opaque);
    }
}

/*
 * QEMU aborts if a socket is disconnected that is about to connect.  For one
 * that reconnects, this arms the timer for the next attempt, if none is armed.
 */
static void link_disconnect(IvshmemLink *link)
{
    if (link_socket(link)->state != TCP_CHARDEV_STATE_CONNECTING) {
        qemu_chr_fe_disconnect(link->chr);
    }
}

static void socket_stop_timer(SocketChardev *socket)
{
    if (socket->reconnect_timer) {
        g_source_destroy(socket->reconnect_timer);
        g_clear_pointer(&socket->reconnect_timer, g_source_unref);
    }
}

/*
 * Says why the connection was lost; consumes @err.  The same is not said again
 * before a connection has worked, nor at once, for servers may come and go.
 */
static void link_report(IvshmemLink *link, Error *err)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    bool again = link->worked &&
                 now - link->reported_at >= IVSHMEM_LINK_REPORT_MS;

    trace_ivshmem_link_error(link->name, error_get_pretty(err));
    if (!again && !g_strcmp0(link->reported, error_get_pretty(err))) {
        error_free(err);
        return;
    }
    g_free(link->reported);
    link->reported = g_strdup(error_get_pretty(err));
    link->reported_at = now;
    link->worked = false;
    warn_reportf_err(err, "%s: connection to the ivshmem server lost, memory "
                     "and known peers stay: ", link->name);
}

/* Where an error goes: to realize if that waits for it, else to @local. */
static Error **link_errp(IvshmemLink *link, Error **local)
{
    return link->errp ?: local;
}

static void link_drop(IvshmemLink *link, Error *local)
{
    if (local) {
        link_report(link, local);
    }
    link_down(link);
    link_disconnect(link);
}

static void link_drop_for(IvshmemLink *link, int code)
{
    Error *local = NULL, **errp = link_errp(link, &local);

    error_setg(errp, "%s", ivshmem_strerror(code));
    if (code == IVSHMEM_E_VERSION || code == IVSHMEM_E_RANGE) {
        error_append_hint(errp, "Is there an ivshmem server behind the "
                          "chardev?\n");
    } else if (code == -EMFILE) {
        error_append_hint(errp, "Raise QEMU's limit of open files "
                          "(RLIMIT_NOFILE).\n");
    }
    link_drop(link, local);
}

/* Frames */

/*
 * The chardev does not tell when a descriptor was lost for lack of room, and
 * then a connection looks like a departure.  So no departure counts while
 * there is no room.
 */
static bool link_out_of_descriptors(void)
{
    int fd = ivshmem_io_eventfd();
    bool out = fd == -EMFILE || fd == -ENFILE;

    ivshmem_fd_close(&fd);
    return out;
}

/* Rings would block or be refused by KVM if @fd were something else. */
static bool link_vector_ok(IvshmemLink *link, const IvshmemEvent *event)
{
    if (ivshmem_io_is_eventfd(event->fd) > 0) {
        return true;
    }
    trace_ivshmem_vector_refused(link->name, event->id, event->vector);
    warn_report_once("%s: vector %" PRIu32 " of peer %u has a descriptor that "
                     "is not an eventfd, ignoring the vector",
                     link->name, event->vector, event->id);
    return false;
}

static void link_self_vector(IvshmemLink *link, IvshmemEvent *event)
{
    if (!link->listed) {
        link->listed = true;
        link->ops->listed(link->opaque);
    }
    if (link_vector_ok(link, event)) {
        link->ops->self_vector(link->opaque, event->vector,
                               ivshmem_fd_steal(&event->fd));
    }
}

static void link_peer_vector(IvshmemLink *link, IvshmemEvent *event)
{
    if (link_vector_ok(link, event)) {
        link->ops->peer_vector(link->opaque, event->id, event->vector,
                               ivshmem_fd_steal(&event->fd));
    }
}

static void link_memory(IvshmemLink *link, IvshmemEvent *event)
{
    Error *local = NULL;

    if (!link->ops->memory(link->opaque, event->fd,
                           link_errp(link, &local))) {
        link_drop(link, local);
        return;
    }
    event->fd = -1;
    link->has_memory = true;
    link->worked = true;
}

static void link_peer_gone(IvshmemLink *link, const IvshmemEvent *event)
{
    if (link_out_of_descriptors()) {
        link_drop_for(link, -EMFILE);
        return;
    }
    link->ops->peer_gone(link->opaque, event->id);
}

static void link_dispatch(IvshmemLink *link, IvshmemEvent *event)
{
    switch (event->type) {
    case IVSHMEM_EVENT_NONE:
        break;
    case IVSHMEM_EVENT_SELF_ID:
        link->ops->self_id(link->opaque, event->id);
        break;
    case IVSHMEM_EVENT_SHM:
        link_memory(link, event);
        break;
    case IVSHMEM_EVENT_SELF_VECTOR:
        link_self_vector(link, event);
        break;
    case IVSHMEM_EVENT_PEER_VECTOR:
        link_peer_vector(link, event);
        break;
    case IVSHMEM_EVENT_EXCESS_VECTOR:
        trace_ivshmem_vector_excess(link->name, event->id, event->vector);
        break;
    case IVSHMEM_EVENT_PEER_GONE:
        link_peer_gone(link, event);
        break;
    }
    ivshmem_fd_close(&event->fd);
}

/*
 * The descriptor that came with what the chardev read: -1 if none, or
 * IVSHMEM_E_FD if there was more than one.
 */
static int link_take_fd(IvshmemLink *link)
{
    int fds[2] = { -1, -1 };
    int n = qemu_chr_fe_get_msgfds(link->chr, fds, ARRAY_SIZE(fds));

    if (n > 1) {
        ivshmem_fd_close(&fds[0]);
        ivshmem_fd_close(&fds[1]);
        return IVSHMEM_E_FD;
    }
    /* QEMU's sockets clear the flag, which all holders of the file share. */
    if (n == 1) {
        ivshmem_io_set_nonblock(fds[0]);
    }
    return n == 1 ? fds[0] : -1;
}

/* Takes @fd.  False when the connection has been dropped. */
static bool link_push(IvshmemLink *link, const uint8_t *data, int size, int fd)
{
    IvshmemEvent event;
    int ret = ivshmem_session_push(link->session, data, size, fd, &event);

    if (ret < 0) {
        ivshmem_fd_close(&fd);
        link_drop_for(link, ret);
        return false;
    }
    trace_ivshmem_frame(link->name, event.type, event.id, event.vector);
    link_dispatch(link, &event);
    return link->session != NULL;
}

/*
 * The chardev reads one frame per turn of the main loop.  What is there
 * already is read without such turns, up to a bound that keeps them short.
 * The end of the stream is left to the chardev.
 */
static void link_read_ahead(IvshmemLink *link)
{
    QIOChannelSocket *socket = link_socket(link)->sioc;

    for (unsigned i = 0; i < IVSHMEM_LINK_FRAMES_PER_TURN; i++) {
        uint8_t data[IVSHMEM_FRAME_SIZE];
        int fd;
        ssize_t got = ivshmem_io_recv(socket->fd, data,
                                      ivshmem_session_want(link->session),
                                      &fd);

        /* The frame is lost, and with it the count of everything after it. */
        if (got < 0 && got != -EAGAIN) {
            link_drop_for(link, got == -EBADMSG ? IVSHMEM_E_FD : got);
            return;
        }
        if (got <= 0 || !link_push(link, data, got, fd)) {
            return;
        }
    }
}

static int link_can_read(void *opaque)
{
    IvshmemLink *link = opaque;

    return link->session ? ivshmem_session_want(link->session) : 0;
}

static void link_read(void *opaque, const uint8_t *data, int size)
{
    IvshmemLink *link = opaque;
    int fd = link_take_fd(link);

    if (fd == IVSHMEM_E_FD) {
        link_drop_for(link, IVSHMEM_E_FD);
    } else if (link_push(link, data, size, fd)) {
        link_read_ahead(link);
    }
}

/* Connections */

static void link_opened(IvshmemLink *link)
{
    link_down(link);
    link->session = ivshmem_session_new(link->max_vectors);
    link->has_memory = false;
    link->listed = false;
    trace_ivshmem_link_up(link->name);
    link->ops->begin(link->opaque);
}

static void link_report_closed(void *opaque)
{
    Error *err = NULL;

    error_setg(&err, "the server closed the connection");
    link_report(opaque, err);
}

/*
 * A first handshake waits for the next attempt if there will be one.  Later,
 * the report waits for the main loop, so that QEMU's own end, when chardevs
 * close as well, is not reported.
 */
static void link_closed(IvshmemLink *link)
{
    if (!link->session) {
        return;
    }
    if (!link->errp) {
        qemu_bh_schedule(link->closed);
    } else if (!link_socket(link)->reconnect_time_ms) {
        error_setg(link->errp, IVSHMEM_LINK_CLOSED);
    }
    link->turned_away = true;
    link_down(link);
}

static void link_event(void *opaque, QEMUChrEvent event)
{
    switch (event) {
    case CHR_EVENT_OPENED:
        link_opened(opaque);
        break;
    case CHR_EVENT_CLOSED:
        link_closed(opaque);
        break;
    default:
        break;
    }
}

static void link_listen(IvshmemLink *link, GMainContext *context,
                        bool tell_if_open)
{
    qemu_chr_fe_set_handlers_full(link->chr, link_can_read, link_read,
                                  link_event, NULL, link, context, true,
                                  tell_if_open);
}

/* The first handshake */

/*
 * During the handshake the chardev is served from a main context of its own,
 * so that nothing else of QEMU runs in the middle of realize.  There is one
 * for all devices, for ever: after a failed handshake an attempt to connect may
 * be under way that ends in it.
 */
static GMainContext *link_handshake_context(void)
{
    static GMainContext *context;

    if (!context) {
        context = g_main_context_new();
    }
    return context;
}

/* The vCPUs run while nothing happens. */
static gint link_poll_unlocked(GPollFD *fds, guint n, gint timeout)
{
    gint ret;

    bql_unlock();
    ret = g_poll(fds, n, timeout);
    bql_lock();
    return ret;
}

static gboolean link_tick(gpointer unused)
{
    return G_SOURCE_REMOVE;
}

/* Serves @context, waiting for at most @ms. */
static void link_iterate(GMainContext *context, unsigned ms)
{
    GSource *timer = g_timeout_source_new(ms);

    g_source_set_callback(timer, link_tick, NULL, NULL);
    g_source_attach(timer, context);
    g_main_context_iteration(context, TRUE);
    g_source_destroy(timer);
    g_source_unref(timer);
}

/*
 * A chardev that reconnects starts its first attempt when it is created, and
 * would report the outcome to the main loop, which does not run now: the task
 * is then the data of a source there.  It may never end, if the server does
 * not accept connections.
 */
static bool link_connecting(const IvshmemLink *link)
{
    QIOTask *task = link_socket(link)->connect_task;

    if (!task) {
        return false;
    }
    if (!g_main_context_find_source_by_user_data(NULL, task)) {
        return true;
    }
    qio_task_wait_thread(task);
    return false;
}

/*
 * A timer for the next attempt, if there is one, belongs to the context in
 * which it was armed.  Tries at once, from the chardev's context of now.
 */
static void link_retry(IvshmemLink *link)
{
    SocketChardev *socket = link_socket(link);

    if (socket->state == TCP_CHARDEV_STATE_DISCONNECTED &&
        socket->reconnect_time_ms) {
        socket_stop_timer(socket);
        link_disconnect(link);
        g_source_set_ready_time(socket->reconnect_timer, 0);
    }
}

static bool link_handshake(IvshmemLink *link, uint32_t timeout_ms,
                           bool unlocked, Error **errp)
{
    ERRP_GUARD();
    GMainContext *context = link_handshake_context();
    int64_t left = timeout_ms * INT64_C(1000);

    g_main_context_set_poll_func(context,
                                 unlocked ? link_poll_unlocked : g_poll);
    link->errp = errp;
    link_listen(link, context, true);
    link_retry(link);
    while (!link->has_memory && !*errp && left > 0) {
        int64_t begin = g_get_monotonic_time();

        link_iterate(context, link_connecting(link)
                              ? IVSHMEM_LINK_CONNECT_TICK_MS
                              : MIN(DIV_ROUND_UP(left, 1000),
                                    IVSHMEM_LINK_WAIT_MS));
        left -= MIN(g_get_monotonic_time() - begin,
                    IVSHMEM_LINK_WAIT_MS * 1000);
    }
    link->errp = NULL;

    if (!link->has_memory && !*errp) {
        error_setg(errp, link->turned_away
                   ? IVSHMEM_LINK_CLOSED ", each time within %" PRIu32 " ms"
                   : link->session
                   ? "the server did not complete the handshake within %"
                     PRIu32 " ms"
                   : "no server to connect to within %" PRIu32 " ms",
                   timeout_ms);
        error_append_hint(errp, "Check that an ivshmem server is at the other "
                          "end, or raise handshake-timeout.\n");
    }
    if (*errp) {
        error_prepend(errp, "chardev '%s': ",
                      qemu_chr_fe_get_driver(link->chr)->label);
    }
    return !*errp;
}

static bool link_chardev_ok(CharBackend *chr, Error **errp)
{
    Chardev *driver = qemu_chr_fe_get_driver(chr);
    SocketChardev *socket;

    if (!object_dynamic_cast(OBJECT(driver), TYPE_CHARDEV_SOCKET)) {
        error_setg(errp, "chardev '%s' cannot pass file descriptors",
                   driver->label);
        error_append_hint(errp, "Use -chardev socket,path=PATH,id=ID with the "
                          "path of an ivshmem server.\n");
        return false;
    }
    socket = SOCKET_CHARDEV(driver);
    if (!qemu_chr_fe_backend_open(chr) && !socket->is_listen &&
        !socket->reconnect_time_ms) {
        error_setg(errp, "chardev '%s' is not connected to an ivshmem server "
                   "any more", driver->label);
        error_append_hint(errp, "Remove and add it again, or give it "
                          "reconnect-ms.\n");
        return false;
    }
    return true;
}

IvshmemLink *ivshmem_link_new(CharBackend *chr, const char *name,
                              unsigned max_vectors, uint32_t timeout_ms,
                              bool unlocked, const IvshmemLinkOps *ops,
                              void *opaque, Error **errp)
{
    IvshmemLink *link;

    if (!link_chardev_ok(chr, errp)) {
        return NULL;
    }
    link = g_new0(IvshmemLink, 1);
    link->chr = chr;
    link->name = g_strdup(name);
    link->max_vectors = max_vectors;
    link->ops = ops;
    link->opaque = opaque;
    link->closed = qemu_bh_new(link_report_closed, link);

    if (!link_handshake(link, timeout_ms, unlocked, errp)) {
        ivshmem_link_free(link);
        return NULL;
    }
    link_listen(link, NULL, false);
    return link;
}

/* Until the attempt to connect has come to an end. */
static gboolean link_serve_attempt(gpointer opaque)
{
    Chardev *chr = opaque;
    SocketChardev *socket = SOCKET_CHARDEV(chr);

    g_main_context_iteration(link_handshake_context(), FALSE);
    if (socket->connect_task) {
        return G_SOURCE_CONTINUE;
    }
    if (!chr->be) {
        if (socket->state == TCP_CHARDEV_STATE_CONNECTED) {
            CHARDEV_GET_CLASS(chr)->chr_disconnect(chr);
        }
        socket_stop_timer(socket);
    }
    object_unref(OBJECT(chr));
    return G_SOURCE_REMOVE;
}

/* Without a device the chardev must not be a client that never answers. */
static void link_let_go(IvshmemLink *link)
{
    SocketChardev *socket = link_socket(link);

    if (socket->state == TCP_CHARDEV_STATE_CONNECTING) {
        g_timeout_add(IVSHMEM_LINK_ATTEMPT_TICK_MS, link_serve_attempt,
                      object_ref(OBJECT(socket)));
        return;
    }
    link_disconnect(link);
    socket_stop_timer(socket);
}

void ivshmem_link_free(IvshmemLink *link)
{
    if (!link) {
        return;
    }
    qemu_chr_fe_set_handlers(link->chr, NULL, NULL, NULL, NULL, NULL, NULL,
                             true);
    link_end_session(link);
    link_let_go(link);
    qemu_bh_delete(link->closed);
    g_free(link->reported);
    g_free(link->name);
    g_free(link);
}

bool ivshmem_link_connected(const IvshmemLink *link)
{
    return link->session != NULL;
}
