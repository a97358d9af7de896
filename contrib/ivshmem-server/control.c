/*
 * The control socket: one request, one answer, and the end.
 *
 * Not responsible for what is in the answers (status.c, handover.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control.h"
#include "handover.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "log.h"
#include "status.h"

/* Longer than any request. */
#define CONTROL_REQUEST_MAX 32

/* Conversations at a time; others wait, as a status is written in no time. */
#define CONTROL_MAX 16

/* Without control-mode= and control-group=. */
#define CONTROL_MODE 0600

/* How long others wait when the system cannot accept anybody. */
#define CONTROL_PAUSE_MS 100

/* For the one who hands over and the one who takes over, who wait. */
#define CONTROL_PATIENCE_MS 10000

typedef struct Conversation {
    IvshmemWatch watch;
    IvshmemControl *control;
    char request[CONTROL_REQUEST_MAX];
    size_t got;
    GString *answer;            /* NULL: the request is not complete */
    size_t sent;
} Conversation;

struct IvshmemControl {
    IvshmemWatch watch;
    IvshmemListener listener;
    mode_t mode;                /* of the file, as configured */
    gid_t group;
    IvshmemServer *server;
    guint pause_timer;          /* while nobody can be accepted */
    GPtrArray *conversations;
    GPtrArray *ended;           /* freed later, not in their own event */
};

char *ivshmem_control_path(const IvshmemConfig *config)
{
    const IvshmemRegionConfig *region = g_ptr_array_index(config->regions, 0);
    const IvshmemClientConfig *first = region->common;

    if (config->control_path) {
        return g_strdup(config->control_path);
    }
    if (!first->socket.path) {
        first = g_ptr_array_index(region->clients, 0);
    }
    return g_strconcat(first->socket.path, ".ctl", NULL);
}

/* All of it; only its own user, or its group where there is one. */
static IvshmemSocketConfig control_socket(const IvshmemConfig *config,
                                          char *path)
{
    IvshmemSocketConfig socket = config->control;

    socket.path = path;
    if (!socket.mode && socket.group == (gid_t)-1) {
        socket.mode = CONTROL_MODE;
    }
    return socket;
}

static void conversation_free(Conversation *c)
{
    ivshmem_loop_remove(c->control->server->loop, &c->watch);
    ivshmem_fd_close(&c->watch.fd);
    if (c->answer) {
        g_string_free(c->answer, TRUE);
    }
    g_free(c);
}

static void conversation_end(Conversation *c)
{
    ivshmem_loop_remove(c->control->server->loop, &c->watch);
    ivshmem_fd_close(&c->watch.fd);
    g_ptr_array_remove(c->control->conversations, c);
    g_ptr_array_add(c->control->ended, c);
}

static void control_failed(const char *what, int error)
{
    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_REFUSE, NULL,
                      "control socket: %s: %s", what, ivshmem_strerror(error));
}

static void conversation_write(Conversation *c)
{
    ssize_t n = send(c->watch.fd, c->answer->str + c->sent,
                     c->answer->len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        if (errno != EPIPE) {
            control_failed("cannot answer", -errno);
        }
        conversation_end(c);
        return;
    }
    c->sent += n > 0 ? (size_t)n : 0;
    if (c->sent == c->answer->len) {
        conversation_end(c);
    } else {
        ivshmem_loop_set_events(c->control->server->loop, &c->watch, EPOLLOUT);
    }
}

/* Why it may not, or NULL. */
static const char *conversation_why_not_replace(const Conversation *c)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    if (getsockopt(c->watch.fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) {
        return g_strerror(errno);
    }
    return who.uid == 0 || who.uid == geteuid() ? NULL : "another user";
}

static void conversation_answer(Conversation *c)
{
    IvshmemServer *server = c->control->server;

    if (strcmp(c->request, IVSHMEM_CONTROL_STATUS) == 0) {
        c->answer = ivshmem_status_json(server);
    } else if (strcmp(c->request, IVSHMEM_CONTROL_METRICS) == 0) {
        c->answer = ivshmem_status_metrics(server);
    } else if (strcmp(c->request, IVSHMEM_CONTROL_TEXT) == 0) {
        c->answer = ivshmem_status_text(server);
    } else if (strcmp(c->request, IVSHMEM_CONTROL_REPLACE) == 0) {
        const char *why_not = conversation_why_not_replace(c);

        if (why_not) {
            ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_REFUSE, NULL,
                              "refused to hand over to another user: %s",
                              why_not);
        } else {
            ivshmem_handover_give(server, c->watch.fd);
        }
        conversation_end(c);
        return;
    } else {
        c->answer = g_string_new("unknown request; there are: status, "
                                 "text, metrics, replace\n");
    }
    conversation_write(c);
}

static void conversation_ready(IvshmemWatch *watch, uint32_t events)
{
    Conversation *c = (Conversation *)watch;
    char *end;
    ssize_t n;

    if (c->answer) {
        conversation_write(c);
        return;
    }
    n = read(watch->fd, c->request + c->got, sizeof(c->request) - 1 - c->got);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n < 0 && errno != ECONNRESET) {
        control_failed("cannot read the request", -errno);
    }
    c->got += n > 0 ? (size_t)n : 0;
    end = memchr(c->request, '\n', c->got);
    if (end) {
        *end = '\0';
        conversation_answer(c);
    } else if (n <= 0 || c->got == sizeof(c->request) - 1) {
        conversation_end(c);
    }
}

static gboolean control_resume(gpointer opaque)
{
    IvshmemControl *control = opaque;

    control->pause_timer = 0;
    ivshmem_loop_set_events(control->server->loop, &control->watch, EPOLLIN);
    return G_SOURCE_REMOVE;
}

static void control_ready(IvshmemWatch *watch, uint32_t events)
{
    IvshmemControl *control = (IvshmemControl *)watch;
    Conversation *c;
    int sock, ret;

    g_ptr_array_set_size(control->ended, 0);
    if (control->conversations->len >= CONTROL_MAX) {
        /* The oldest had its time. */
        conversation_end(g_ptr_array_index(control->conversations, 0));
    }
    sock = ivshmem_io_accept(control->listener.fd);
    if (sock == -EAGAIN) {
        return;
    }
    if (sock < 0) {
        control_failed("accept", sock);
        ivshmem_loop_set_events(control->server->loop, &control->watch, 0);
        control->pause_timer = g_timeout_add(CONTROL_PAUSE_MS, control_resume,
                                             control);
        return;
    }
    c = g_new0(Conversation, 1);
    c->control = control;
    c->watch = (IvshmemWatch) {
        .fd = sock, .events = EPOLLIN, .ready = conversation_ready,
    };
    g_ptr_array_add(control->conversations, c);
    ret = ivshmem_loop_add(control->server->loop, &c->watch);
    if (ret < 0) {
        control_failed("cannot watch", ret);
        conversation_end(c);
    }
}

IvshmemControl *ivshmem_control_new(IvshmemServer *server,
                                    IvshmemListener *handed, GError **errp)
{
    IvshmemControl *control = g_new0(IvshmemControl, 1);
    g_autofree char *path = ivshmem_control_path(server->config);
    IvshmemSocketConfig config = control_socket(server->config, path);
    int ret;

    control->server = server;
    control->conversations = g_ptr_array_new();
    control->ended = g_ptr_array_new_with_free_func(
        (GDestroyNotify)conversation_free);
    control->listener.fd = -1;
    control->mode = config.mode;
    control->group = config.group;
    if (handed) {
        control->listener = *handed;
        *handed = (IvshmemListener) { .fd = -1 };
    } else if (!ivshmem_listener_open(&control->listener, &config, errp)) {
        ivshmem_control_free(control);
        return NULL;
    }
    control->watch = (IvshmemWatch) {
        .fd = control->listener.fd, .events = EPOLLIN, .ready = control_ready,
    };
    ret = ivshmem_loop_add(server->loop, &control->watch);
    if (ret < 0) {
        ivshmem_error(errp, "cannot watch %s: %s", path, ivshmem_strerror(ret));
        ivshmem_control_free(control);
        return NULL;
    }
    return control;
}

void ivshmem_control_free(IvshmemControl *control)
{
    if (!control) {
        return;
    }
    while (control->conversations->len) {
        conversation_end(g_ptr_array_index(control->conversations, 0));
    }
    g_clear_handle_id(&control->pause_timer, g_source_remove);
    g_ptr_array_unref(control->conversations);
    g_ptr_array_unref(control->ended);
    ivshmem_loop_remove(control->server->loop, &control->watch);
    ivshmem_listener_close(&control->listener);
    g_free(control);
}

bool ivshmem_control_renew(IvshmemControl *control)
{
    const IvshmemListener *listener = &control->listener;
    g_autofree char *path = ivshmem_control_path(control->server->config);
    IvshmemSocketConfig config = control_socket(control->server->config, path);
    g_autoptr(GError) error = NULL;

    if (strcmp(listener->path, path) != 0) {
        return false;
    }
    if (config.mode == control->mode && config.group == control->group) {
        return true;
    }
    control->mode = config.mode;
    control->group = config.group;
    if (!ivshmem_listener_renew(listener, &config, &error)) {
        ivshmem_log(G_LOG_LEVEL_CRITICAL, "control socket: %s", error->message);
    }
    return true;
}

const IvshmemListener *ivshmem_control_listener(const IvshmemControl *control)
{
    return &control->listener;
}

int ivshmem_control_ask(const IvshmemConfig *config, const char *request)
{
    g_autofree char *path = ivshmem_control_path(config);
    g_autofree char *line = g_strconcat(request, "\n", NULL);
    IVSHMEM_FD_AUTO int sock = ivshmem_io_connect(path);

    if (sock < 0) {
        return ivshmem_fd_steal(&sock);
    }
    if (send(sock, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
        return -errno;
    }
    return ivshmem_fd_steal(&sock);
}

int ivshmem_control_wait(int sock, short events)
{
    struct pollfd pfd = { .fd = sock, .events = events };
    int ret;

    do {
        ret = poll(&pfd, 1, CONTROL_PATIENCE_MS);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret == 0 ? IVSHMEM_E_TIMEOUT : 0;
}
