/*
 * Connecting, reconnecting, and keeping account of events.
 *
 * Not responsible for commands, nor for the protocol (libivshmem).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include "answer.h"
#include "client.h"
#include "ivshmem-fd.h"

/*
 * The protocol does not say where our own vectors end.  The server sends them
 * in one go, so a pause of this length is taken for it.
 */
#define CLIENT_SETTLE_MS 20
#define CLIENT_SETTLE_MAX 4096

/* Pauses between attempts to reconnect: doubled from the first to the last. */
#define CLIENT_RETRY_FIRST_MS 1000
#define CLIENT_RETRY_LAST_MS 30000

/* Between attempts while too many others wait to be accepted. */
#define CLIENT_BUSY_US 10000

GQuark client_error_quark(void)
{
    return g_quark_from_static_string("ivshmem-client-error");
}

char *client_time_string(int ms)
{
    return ms % 1000 ? g_strdup_printf("%d ms", ms)
                     : g_strdup_printf("%d s", ms / 1000);
}

/* What to do about it, or "". */
static const char *client_remedy(int error)
{
    switch (error) {
    case -ENOENT:
        return "; start ivshmem-server, or give its socket with -S";
    case -ECONNREFUSED:
        return ": nobody listens there; start ivshmem-server again";
    case -EACCES:
    case -EPERM:
        return "; ask for access to the socket, for instance to its group";
    case -ENAMETOOLONG:
        return ": a unix socket's path has at most 107 bytes";
    case -EAGAIN:
        return ": too many clients wait to be accepted; is the server alive?";
    case -EMFILE:
        return "; raise the limit with ulimit -n";
    case -EPROTOTYPE:
        return ": a unix stream socket is wanted";
    case IVSHMEM_E_EOF:
        return "; the server's log may tell why";
    case IVSHMEM_E_TIMEOUT:
        return "; is it an ivshmem server, and alive?";
    case IVSHMEM_E_SHM_CHANGED:
        return "; start ivshmem-client again to use the new one";
    default:
        return "";
    }
}

static gboolean client_fail(const Client *client, const char *what, int code,
                            GError **error)
{
    const char *text = code == -EMFILE ? "out of file descriptors"
                                       : ivshmem_strerror(code);

    g_set_error(error, CLIENT_ERROR, code, "%s %s: %s%s", what, client->path,
                text, client_remedy(code));
    return FALSE;
}

static void client_count(Client *client, const IvshmemPeerEvent *event)
{
    guint64 *count;

    if (event->vector >= client->rings->len) {
        g_array_set_size(client->rings, event->vector + 1);
    }
    count = &g_array_index(client->rings, guint64, event->vector);
    *count = event->count > G_MAXUINT64 - *count ? G_MAXUINT64
                                                 : *count + event->count;
}

static void client_tell_event(Client *client, Answer *answer,
                              const IvshmemPeerEvent *event)
{
    unsigned others;

    switch (event->type) {
    case IVSHMEM_PEER_READY:
        answer_string(answer, "event", "connected");
        answer_number(answer, "id", event->id);
        others = client_peers(client);
        answer_text(answer, "connected as peer %u, with %u other%s\n",
                    event->id, others, others == 1 ? "" : "s");
        break;
    case IVSHMEM_PEER_JOINED:
    case IVSHMEM_PEER_LEFT:
        answer_string(answer, "event",
                      event->type == IVSHMEM_PEER_JOINED ? "joined" : "left");
        answer_number(answer, "peer", event->id);
        if (client->ready) {    /* else there may be hundreds: dump lists */
            answer_text(answer, "peer %u has %s\n", event->id,
                        event->type == IVSHMEM_PEER_JOINED ? "joined" : "left");
        }
        break;
    case IVSHMEM_PEER_RUNG:
        answer_string(answer, "event", "rung");
        answer_number(answer, "vector", event->vector);
        answer_number(answer, "count", event->count);
        answer_text(answer, "rung: vector %u, count %" G_GUINT64_FORMAT "\n",
                    event->vector, event->count);
        break;
    case IVSHMEM_PEER_CLOSED:
        answer_string(answer, "event", "disconnected");
        answer_string(answer, "error", ivshmem_strerror(event->error));
        answer_text(answer, "disconnected\n");
        break;
    case IVSHMEM_PEER_VECTOR:
    case IVSHMEM_PEER_NONE:
        break;
    }
}

static void client_tell(Client *client, const IvshmemPeerEvent *event)
{
    Answer answer;

    if (client->verbose && event->type == IVSHMEM_PEER_VECTOR) {
        g_printerr("ivshmem-client: peer %u has vector %u\n", event->id,
                   event->vector);
    }
    if (!client->events || event->type == IVSHMEM_PEER_VECTOR) {
        return;
    }
    answer_init(&answer, client->json);
    client_tell_event(client, &answer, event);
    if (!answer_print(&answer)) {
        client->lost = TRUE;    /* nobody reads what we have to say */
    }
    answer_clear(&answer);
}

static void client_retry_later(Client *client)
{
    g_autofree char *pause = NULL;

    client->retry_ms = client->retry_ms
        ? MIN(client->retry_ms * 2, CLIENT_RETRY_LAST_MS)
        : CLIENT_RETRY_FIRST_MS;
    client->retry_at = g_get_monotonic_time() + client->retry_ms * 1000LL;
    pause = client_time_string((int)client->retry_ms);
    g_printerr("ivshmem-client: trying again in %s\n", pause);
}

static void client_closed(Client *client, int code)
{
    g_autoptr(GError) error = NULL;

    client_fail(client, "lost the connection to", code, &error);
    g_printerr("ivshmem-client: %s\n", error->message);
    if (client->reconnect) {
        client_retry_later(client);
    } else {
        client->lost = TRUE;
    }
}

static void client_event(Client *client, const IvshmemPeerEvent *event)
{
    client_tell(client, event);
    switch (event->type) {
    case IVSHMEM_PEER_RUNG:
        client_count(client, event);
        break;
    case IVSHMEM_PEER_READY:
        client->ready = TRUE;
        client->retry_ms = 0;
        break;
    case IVSHMEM_PEER_CLOSED:
        client->ready = FALSE;
        client_closed(client, event->error);
        break;
    default:
        break;
    }
}

static void client_retry(Client *client)
{
    g_autoptr(GError) error = NULL;
    int ret;

    if (!client->retry_at || g_get_monotonic_time() < client->retry_at) {
        return;
    }
    client->retry_at = 0;
    ret = ivshmem_peer_reconnect(client->peer);
    if (ret < 0) {
        client_fail(client, "cannot reconnect to", ret, &error);
        g_printerr("ivshmem-client: %s\n", error->message);
        client_retry_later(client);
    }
}

int client_step(Client *client, int timeout_ms)
{
    IvshmemPeerEvent event;
    int ret = ivshmem_peer_wait(client->peer, timeout_ms, &event);

    if (ret == 1) {
        client_event(client, &event);
    }
    return ret == IVSHMEM_E_TIMEOUT || ret == -EINTR ? 0 : ret;
}

void client_poll(Client *client)
{
    int ret;

    client_retry(client);
    do {
        ret = client_step(client, 0);
    } while (ret == 1 && !client->lost);
    if (ret < 0) {
        client_closed(client, ret);
    }
}

int client_poll_timeout(const Client *client)
{
    gint64 left;

    if (!client->retry_at) {
        return CLIENT_FOREVER;
    }
    left = client->retry_at - g_get_monotonic_time();
    return left <= 0 ? 0 : (int)((left + 999) / 1000);
}

gboolean client_wait(Client *client, int timeout_ms, ClientTest *test,
                     const void *opaque, const char *what, GError **error)
{
    gint64 end = g_get_monotonic_time() + timeout_ms * 1000LL;

    client_poll(client);
    while (!test(client, opaque)) {
        struct pollfd pollfd = {
            .fd = ivshmem_peer_fd(client->peer), .events = POLLIN,
        };
        int pause = client_poll_timeout(client);

        if (client->lost) {
            g_set_error(error, CLIENT_ERROR, IVSHMEM_E_EOF,
                        "the server went away before %s", what);
            return FALSE;
        }
        if (timeout_ms >= 0) {
            gint64 left = end - g_get_monotonic_time();

            if (left <= 0) {
                g_autofree char *time = client_time_string(timeout_ms);

                g_set_error(error, CLIENT_ERROR, IVSHMEM_E_TIMEOUT,
                            "timeout: %s passed before %s", time, what);
                return FALSE;
            }
            left = (left + 999) / 1000;
            pause = pause < 0 ? (int)left : MIN(pause, (int)left);
        }
        poll(&pollfd, 1, pause);
        client_poll(client);
    }
    return TRUE;
}

static int client_connect(Client *client, int timeout_ms)
{
    gint64 end = g_get_monotonic_time() + timeout_ms * 1000LL;
    int ret = ivshmem_peer_connect(client->path, &client->peer);

    while (ret == -EAGAIN &&
           (timeout_ms < 0 || g_get_monotonic_time() < end)) {
        g_usleep(CLIENT_BUSY_US);
        ret = ivshmem_peer_connect(client->path, &client->peer);
    }
    return ret;
}

gboolean client_open(Client *client, int fd, int timeout_ms, GError **error)
{
    IVSHMEM_FD_AUTO int sock = fd;
    int ret;

    client->rings = g_array_new(FALSE, TRUE, sizeof(guint64));
    ret = sock < 0 ? client_connect(client, timeout_ms)
                   : ivshmem_peer_attach(sock, &client->peer);
    if (ret < 0) {
        return client_fail(client, "cannot connect to", ret, error);
    }
    ivshmem_fd_steal(&sock);
    do {
        ret = ivshmem_peer_wait_ready(client->peer, timeout_ms);
    } while (ret == -EINTR);
    if (ret == IVSHMEM_E_TIMEOUT && ivshmem_peer_size(client->peer)) {
        g_printerr("ivshmem-client: %s gives us no vector: nobody can ring "
                   "us\n", client->path);
    } else if (ret < 0) {
        return client_fail(client, "cannot connect to", ret, error);
    }
    client_poll(client);
    for (int i = 0; i < CLIENT_SETTLE_MAX && !client->lost; i++) {
        if (client_step(client, CLIENT_SETTLE_MS) != 1) {
            break;
        }
    }
    return TRUE;
}

void client_close(Client *client)
{
    ivshmem_peer_free(client->peer);
    client->peer = NULL;
    if (client->rings) {
        g_array_unref(client->rings);
        client->rings = NULL;
    }
}

guint64 client_rings(const Client *client, unsigned vector)
{
    return vector < client->rings->len
        ? g_array_index(client->rings, guint64, vector) : 0;
}

void client_forget_rings(Client *client, unsigned vector)
{
    if (vector < client->rings->len) {
        g_array_index(client->rings, guint64, vector) = 0;
    }
}

unsigned client_peers(const Client *client)
{
    unsigned n = 0;
    int id = -1;

    while ((id = ivshmem_peer_next_id(client->peer, id)) >= 0) {
        n++;
    }
    return n;
}
