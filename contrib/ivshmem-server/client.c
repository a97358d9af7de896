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
#include "error.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry-state.h"
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
    g_free(client->name);
    g_free(client);
}

static void client_leave(IvshmemClient *client)
{
    IvshmemRegion *region = client->region;

    region->server->counters.leaves++;
    ivshmem_state_remove(region->state, ivshmem_member_id(client->member));
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

static void client_refuse(IvshmemDoor *door, pid_t pid, IvshmemRefusal kind,
                          const char *reason)
{
    IvshmemLogSubject subject = { door->region->config->name, -1, pid };

    door->region->server->counters.refused[kind]++;
    ivshmem_log_event(G_LOG_LEVEL_WARNING, IVSHMEM_LOG_REFUSE, &subject,
                      "refused: %s", reason);
}

static int client_credentials(int sock, pid_t *pid, uid_t *uid)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) {
        return -errno;
    }
    *pid = who.pid;
    *uid = who.uid;
    return 0;
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

unsigned ivshmem_client_free_fds(const IvshmemServer *server)
{
    IVSHMEM_FD_AUTO int next = ivshmem_io_eventfd();
    unsigned used = next < 0 ? server->fd_limit : (unsigned)next;

    return server->fd_limit - MIN(server->fd_limit, used + CLIENT_FD_RESERVE);
}

unsigned ivshmem_client_capacity(const IvshmemServer *server, unsigned vectors)
{
    return MIN(ivshmem_client_free_fds(server) / (vectors + 1), IVSHMEM_IDS);
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

/* The door's, or the one that the process had before a crash, or any. */
static int client_choose_id(IvshmemClient *client, const IvshmemDoor *door)
{
    IvshmemRegion *region = client->region;
    int old = ivshmem_state_recall(region->state, client->pid,
                                   door->config->id);

    if (door->config->id != IVSHMEM_ID_ANY) {
        return door->config->id;
    }
    if (old < 0 || ivshmem_region_id_is_fixed(region, (uint16_t)old) ||
        ivshmem_registry_find(region->registry, (uint16_t)old)) {
        return IVSHMEM_ID_ANY;
    }
    ivshmem_registry_reserve(region->registry, (uint16_t)old, false);
    return old;
}

static int client_join(IvshmemClient *client, const IvshmemDoor *door,
                       int shm_fd)
{
    IvshmemRegion *region = client->region;
    unsigned vectors = ivshmem_door_vectors(door);
    g_autofree int *fds = g_new(int, vectors);
    IvshmemJoin join = {
        .id = client_choose_id(client, door),
        .reserved_ok = true,    /* for this door, or for this process */
        .shm_fd = shm_fd,
        .vector_fds = fds,
        .vectors = vectors,
        .opaque = client,
    };
    int ret;

    if (!client_fd_fits(region->server, client->watch.fd)) {
        return -EMFILE;
    }
    ret = client_make_eventfds(region->server, fds, vectors);
    if (ret < 0) {
        return ret;
    }
    ret = ivshmem_loop_add(region->server->loop, &client->watch);
    if (ret == 0) {
        ret = ivshmem_registry_join(region->registry, &join, &client->member);
    }
    if (ret < 0) {
        client_close_all(fds, vectors);
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
    client->since = g_get_real_time() / G_USEC_PER_SEC;
    ivshmem_quota_set_window(sock, region->server->window);
    return client;
}

static bool client_may_enter(const IvshmemDoor *door, uid_t uid)
{
    const GArray *users = door->config->socket.users;

    for (unsigned i = 0; users && i < users->len; i++) {
        if (g_array_index(users, uid_t, i) == uid) {
            return true;
        }
    }
    return !users;
}

/* Room for the one who comes, if the id of this door is in use. */
static void client_make_room(const IvshmemDoor *door)
{
    int id = door->config->id;
    IvshmemMember *member = id == IVSHMEM_ID_ANY ? NULL :
        ivshmem_registry_find(door->region->registry, (uint16_t)id);

    if (member && door->config->replace) {
        ivshmem_client_drop(ivshmem_member_opaque(member),
                            "replaced by a new connection");
    }
}

static const char *client_explain(int error, IvshmemRefusal *kind)
{
    switch (error) {
    case -EMFILE:
        *kind = IVSHMEM_REFUSED_DESCRIPTORS;
        return "the server is out of descriptors; a higher LimitNOFILE "
               "(ulimit -n) allows for more clients";
    case IVSHMEM_E_ID_TAKEN:
        *kind = IVSHMEM_REFUSED_ID;
        return "its id is in use, and a second connection is refused";
    case IVSHMEM_E_FULL:
        *kind = IVSHMEM_REFUSED_ID;
        return ivshmem_strerror(error);
    default:
        *kind = IVSHMEM_REFUSED_OTHER;
        return ivshmem_strerror(error);
    }
}

/* Returns why not, which the caller frees, or NULL. */
static char *client_enter(IvshmemClient *client, const IvshmemDoor *door,
                          IvshmemRefusal *kind)
{
    IvshmemMemory *memory = client->region->memory;
    int shm_fd = ivshmem_memory_fd(memory);
    int ret;

    ret = client_credentials(client->watch.fd, &client->pid, &client->uid);
    if (ret < 0) {
        return g_strdup_printf("cannot tell who it is: %s",
                               ivshmem_strerror(ret));
    }
    if (client_has_gone(client->watch.fd)) {
        *kind = IVSHMEM_REFUSED_GONE;
        return g_strdup("it has gone already");
    }
    if (!client_may_enter(door, client->uid)) {
        *kind = IVSHMEM_REFUSED_USER;
        return g_strdup_printf("user %u is not in allow-users",
                               (unsigned)client->uid);
    }
    if (door->config->read_only) {
        g_autoptr(GError) error = NULL;

        *kind = IVSHMEM_REFUSED_READ_ONLY;
        shm_fd = ivshmem_memory_read_only_fd(memory, client->uid, &error);
        if (shm_fd < 0) {
            return g_strdup(error->message);
        }
    }
    client->process = ivshmem_process_seen(client->pid);
    client_make_room(door);
    ret = client_join(client, door, shm_fd);
    return ret < 0 ? g_strdup(client_explain(ret, kind)) : NULL;
}

void ivshmem_client_admit(IvshmemDoor *door, int sock)
{
    IvshmemRegion *region = door->region;
    IvshmemClient *client = client_new(region, sock);
    IvshmemRefusal kind = IVSHMEM_REFUSED_OTHER;
    g_autofree char *reason = client_enter(client, door, &kind);
    unsigned vectors = ivshmem_door_vectors(door);
    IvshmemLogSubject subject;

    if (reason) {
        client_refuse(door, client->pid, kind, reason);
        ivshmem_client_free(client);
        return;
    }
    client->name = g_strdup(door->config->name);
    client->read_only = door->config->read_only;
    region->server->counters.joins++;
    ivshmem_state_add(region->state, ivshmem_member_id(client->member),
                      client->process);
    ivshmem_region_set_changed(region);
    subject = ivshmem_client_subject(client);
    ivshmem_log_event(G_LOG_LEVEL_INFO, IVSHMEM_LOG_JOIN, &subject,
                      "joined%s%s with %u vector%s (user %u)%s",
                      client->name ? " as " : "",
                      client->name ? client->name : "", vectors,
                      vectors == 1 ? "" : "s", (unsigned)client->uid,
                      client->read_only ? ", may only read" : "");
}

bool ivshmem_client_resume(IvshmemRegion *region,
                           const IvshmemClientHanded *handed, GError **errp)
{
    IvshmemMember *member = ivshmem_registry_find(region->registry, handed->id);
    IvshmemClient *client = client_new(region, handed->sock);
    int shm_fd = ivshmem_memory_fd(region->memory);
    int ret = 0;

    client->pid = handed->pid;
    client->process = (IvshmemProcess) { handed->pid, handed->seen };
    client->uid = handed->uid;
    client->read_only = handed->read_only;
    client->name = *handed->name ? g_strdup(handed->name) : NULL;
    client->since = handed->since;
    if (client->read_only) {
        shm_fd = ivshmem_memory_read_only_fd(region->memory, client->uid, errp);
    }
    if (!member || ivshmem_member_opaque(member)) {
        ivshmem_error(errp, "client %u was not handed over as it should be",
                      handed->id);
        shm_fd = -1;
    } else if (shm_fd >= 0) {
        ret = ivshmem_loop_add(region->server->loop, &client->watch);
        if (ret < 0) {
            ivshmem_error(errp, "cannot watch client %u: %s", handed->id,
                          ivshmem_strerror(ret));
        }
    }
    if (shm_fd < 0 || ret < 0) {
        ivshmem_client_free(client);
        return false;
    }
    client->member = member;
    ivshmem_member_attach(member, shm_fd, client);
    return true;
}
