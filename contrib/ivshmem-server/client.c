/*
 * Clients: taking them in or turning them away, noticing that they are gone.
 *
 * Not responsible for what they are told (registry) and when (outbox).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "client.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "quota.h"
#include "outbox.h"

/*
 * Clients have nothing to say in this protocol.  A few bytes are forgiven to
 * whoever probes the socket; one that keeps writing costs us time that belongs
 * to the others.
 */
#define CLIENT_CHATTER_MAX 4096

/*
 * Descriptors that newcomers leave free, so that the server itself goes on:
 * accepting (to turn somebody away), reading its configuration, and so on.
 */
#define CLIENT_FD_RESERVE 8

IvshmemLogSubject ivshmem_client_subject(const IvshmemClient *client)
{
    return (IvshmemLogSubject) {
        .region = client->region->config->name,
        .id = client->member ? ivshmem_member_id(client->member) : -1,
        .pid = client->pid,
    };
}

/* Leaving */

static void client_disconnect(IvshmemClient *client)
{
    IvshmemRegion *region = client->region;

    ivshmem_outbox_remove(client);
    ivshmem_loop_remove(region->server->loop, &client->watch);
    ivshmem_fd_close(&client->watch.fd);
    if (client->member) {
        ivshmem_registry_leave(region->registry, client->member);
        client->member = NULL;
    }
}

void ivshmem_client_free(IvshmemClient *client)
{
    client_disconnect(client);
    g_free(client);
}

static void client_leave(IvshmemClient *client)
{
    IvshmemRegion *region = client->region;

    region->server->counters.leaves++;
    client_disconnect(client);
    ivshmem_region_set_changed(region);
    g_ptr_array_add(region->server->gone, client);
}

void ivshmem_client_drop(IvshmemClient *client, const char *reason, ...)
{
    IvshmemLogSubject subject = ivshmem_client_subject(client);
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, reason);
    text = g_strdup_vprintf(reason, ap);
    va_end(ap);
    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_DROP, &subject,
                      "disconnected: %s", text);
    client->region->server->counters.dropped++;
    client_leave(client);
}

void ivshmem_client_left(IvshmemClient *client, const char *how)
{
    IvshmemLogSubject subject = ivshmem_client_subject(client);

    ivshmem_log_event(G_LOG_LEVEL_INFO, IVSHMEM_LOG_LEAVE, &subject,
                      "left: %s", how);
    client_leave(client);
}

/* Being watched */

/* Descriptors that come with the bytes are closed by the kernel. */
static void client_read(IvshmemClient *client)
{
    IvshmemLogSubject subject = ivshmem_client_subject(client);
    uint8_t bytes[512];
    ssize_t n = read(client->watch.fd, bytes, sizeof(bytes));

    if (n == 0) {
        ivshmem_client_left(client, "closed the connection");
        return;
    }
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            ivshmem_client_left(client, g_strerror(errno));
        }
        return;
    }
    if (client->chatter == 0) {
        ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_CHATTER, &subject,
                          "sends data, which this protocol does not know; "
                          "ignored");
    }
    client->chatter += (size_t)n;
    if (client->chatter > CLIENT_CHATTER_MAX) {
        ivshmem_client_drop(client, "sent more than %d bytes, where it has "
                            "nothing to say", CLIENT_CHATTER_MAX);
    }
}

static void client_ready(IvshmemWatch *watch, uint32_t events)
{
    IvshmemClient *client = (IvshmemClient *)watch;

    G_STATIC_ASSERT(offsetof(IvshmemClient, watch) == 0);
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        ivshmem_client_left(client, "closed the connection");
        return;
    }
    if (events & EPOLLOUT) {
        ivshmem_outbox_unblock(client);
    }
    if (events & EPOLLIN) {
        client_read(client);
    }
}

/* Being taken in */

static void client_refuse(IvshmemDoor *door, pid_t pid, const char *reason)
{
    IvshmemLogSubject subject = { door->region->config->name, -1, pid };

    door->region->server->counters.refused++;
    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_REFUSE, &subject,
                      "refused: %s", reason);
}

static bool client_credentials(int sock, pid_t *pid, uid_t *uid)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) {
        return false;
    }
    *pid = who.pid;
    *uid = who.uid;
    return true;
}

/* Whoever has gone already need not be announced to everybody. */
static bool client_has_gone(int sock)
{
    struct pollfd pfd = { .fd = sock, .events = POLLRDHUP };

    return poll(&pfd, 1, 0) > 0;
}

/* The kernel gives the lowest free number, so a high one means few are left. */
static bool client_fd_fits(const IvshmemServer *server, int fd)
{
    return fd >= 0 && (unsigned)fd + CLIENT_FD_RESERVE < server->fd_limit;
}

unsigned ivshmem_client_capacity(const IvshmemServer *server, unsigned vectors)
{
    IVSHMEM_FD_AUTO int next = ivshmem_io_eventfd();
    unsigned used = next < 0 ? server->fd_limit : (unsigned)next;
    unsigned left = server->fd_limit - MIN(server->fd_limit,
                                           used + CLIENT_FD_RESERVE);

    return MIN(left / (vectors + 1), IVSHMEM_IDS);
}

static void client_close_all(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ivshmem_fd_close(&fds[i]);
    }
}

/* All of them or, with -errno, none. */
static int client_make_eventfds(const IvshmemServer *server, int *fds,
                                unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = ivshmem_io_eventfd();
        if (!client_fd_fits(server, fds[i])) {
            int error = fds[i] < 0 ? fds[i] : -EMFILE;

            client_close_all(fds, i + 1);
            return error;
        }
    }
    return 0;
}

static int client_join(IvshmemClient *client, const IvshmemDoor *door)
{
    IvshmemRegion *region = client->region;
    g_autofree int *fds = g_new(int, door->vectors);
    IvshmemJoin join = {
        .id = IVSHMEM_ID_ANY,
        .shm_fd = ivshmem_memory_fd(region->memory),
        .vector_fds = fds,
        .vectors = door->vectors,
        .opaque = client,
    };
    int ret;

    if (!client_fd_fits(region->server, client->watch.fd)) {
        return -EMFILE;
    }
    ret = client_make_eventfds(region->server, fds, door->vectors);
    if (ret < 0) {
        return ret;
    }
    ret = ivshmem_loop_add(region->server->loop, &client->watch);
    if (ret == 0) {
        ret = ivshmem_registry_join(region->registry, &join, &client->member);
    }
    if (ret < 0) {
        client_close_all(fds, door->vectors);
    }
    return ret;
}

static IvshmemClient *client_new(IvshmemRegion *region, int sock)
{
    IvshmemClient *client = g_new0(IvshmemClient, 1);

    client->watch.fd = sock;
    client->watch.events = EPOLLIN | EPOLLRDHUP;
    client->watch.ready = client_ready;
    client->link.data = client;
    client->region = region;
    ivshmem_quota_set_window(sock, region->server->window);
    return client;
}

void ivshmem_client_admit(IvshmemDoor *door, int sock)
{
    IvshmemRegion *region = door->region;
    IvshmemClient *client = client_new(region, sock);
    IvshmemLogSubject subject;
    int ret;

    if (!client_credentials(sock, &client->pid, &client->uid) ||
        client_has_gone(sock)) {
        client_refuse(door, client->pid, "it has gone already");
        ivshmem_client_free(client);
        return;
    }
    ret = client_join(client, door);
    if (ret < 0) {
        client_refuse(door, client->pid,
                      ret == -EMFILE ? "the server is out of descriptors; "
                      "a higher LimitNOFILE (ulimit -n) allows for more clients"
                      : ivshmem_strerror(ret));
        ivshmem_client_free(client);
        return;
    }
    region->server->counters.joins++;
    ivshmem_region_set_changed(region);
    subject = ivshmem_client_subject(client);
    ivshmem_log_event(G_LOG_LEVEL_INFO, IVSHMEM_LOG_JOIN, &subject,
                      "joined with %u vector%s (user %u)", door->vectors,
                      door->vectors == 1 ? "" : "s", (unsigned)client->uid);
}
