/*
 * A well-behaved ivshmem server in a thread, for tests: libivshmem's registry
 * and io joined by poll().  Misbehaving is ivshmem-server-script.c's part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry.h"
#include "ivshmem-server-script.h"

struct IvshmemGroup {
    char *dir;
    char *path;
    int listener;
    int wake;
    int shm;
    unsigned vectors;
    bool stop;
    GMutex lock;                /* all below, and the registry */
    IvshmemRegistry *registry;
    GPtrArray *clients;
    GThread *thread;
};

typedef struct GroupClient {
    int sock;
    bool blocked;
    IvshmemMember *member;
} GroupClient;

static void group_reap(IvshmemGroup *group)
{
    int fd;

    while ((fd = ivshmem_registry_reap(group->registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
}

static void group_remove(IvshmemGroup *group, GroupClient *client)
{
    ivshmem_registry_leave(group->registry, client->member);
    group_reap(group);
    ivshmem_fd_close(&client->sock);
    g_ptr_array_remove(group->clients, client);
    g_free(client);
}

static void group_admit(IvshmemGroup *group)
{
    GroupClient *client;
    g_autofree int *fds = g_new(int, group->vectors);
    IvshmemJoin join = {
        .id = IVSHMEM_ID_ANY,
        .shm_fd = group->shm,
        .vector_fds = fds,
        .vectors = group->vectors,
    };
    int sock = ivshmem_io_accept(group->listener);

    if (sock == -EAGAIN) {
        return;
    }
    g_assert_cmpint(sock, >=, 0);
    client = g_new0(GroupClient, 1);
    client->sock = sock;
    join.opaque = client;
    ivshmem_eventfds_new(fds, group->vectors);
    g_assert_cmpint(ivshmem_registry_join(group->registry, &join,
                                          &client->member), ==, 0);
    g_ptr_array_add(group->clients, client);
}

static bool group_flush_client(IvshmemGroup *group, GroupClient *client)
{
    IvshmemFrame frames[IVSHMEM_IO_BATCH];
    size_t n;

    while ((n = ivshmem_member_peek(client->member, frames,
                                    IVSHMEM_IO_BATCH)) > 0) {
        ssize_t sent = ivshmem_io_send(client->sock, frames, n);

        client->blocked = sent == -EAGAIN;
        if (sent < 0) {
            return client->blocked;
        }
        ivshmem_member_sent(group->registry, client->member, sent);
    }
    return true;
}

static void group_flush(IvshmemGroup *group)
{
    for (unsigned i = 0; i < group->clients->len;) {
        GroupClient *client = g_ptr_array_index(group->clients, i);

        if (group_flush_client(group, client)) {
            i++;
        } else {
            group_remove(group, client);
            i = 0;              /* the others have to be told */
        }
    }
    group_reap(group);
}

/* A client says nothing: what can be read is its end. */
static void group_hangups(IvshmemGroup *group, const GPollFD *pfds, unsigned n)
{
    for (unsigned i = n; i-- > 0;) {
        GroupClient *client = g_ptr_array_index(group->clients, i);

        if (client->sock == pfds[i].fd &&
            pfds[i].revents & (G_IO_IN | G_IO_HUP | G_IO_ERR)) {
            group_remove(group, client);
        }
    }
}

/* One round: sends, waits without the lock, then looks who came and went. */
static void group_round(IvshmemGroup *group)
{
    unsigned n = group->clients->len;
    g_autofree GPollFD *pfds = g_new0(GPollFD, n + 2);

    for (unsigned i = 0; i < n; i++) {
        GroupClient *client = g_ptr_array_index(group->clients, i);

        pfds[i].fd = client->sock;
        pfds[i].events = client->blocked ? G_IO_IN | G_IO_OUT : G_IO_IN;
    }
    pfds[n] = (GPollFD) { .fd = group->listener, .events = G_IO_IN };
    pfds[n + 1] = (GPollFD) { .fd = group->wake, .events = G_IO_IN };

    g_mutex_unlock(&group->lock);
    g_poll(pfds, n + 2, -1);
    g_mutex_lock(&group->lock);

    ivshmem_eventfd_take(group->wake);
    if (group->clients->len == n) {
        group_hangups(group, pfds, n);
    }
    group_admit(group);
    group_flush(group);
}

static void *group_thread(void *opaque)
{
    IvshmemGroup *group = opaque;

    g_mutex_lock(&group->lock);
    while (!group->stop) {
        group_round(group);
    }
    while (group->clients->len) {
        group_remove(group, g_ptr_array_index(group->clients, 0));
    }
    g_mutex_unlock(&group->lock);
    return NULL;
}

IvshmemGroup *ivshmem_group_new(unsigned vectors, uint64_t size,
                                uint16_t first_id, int shm)
{
    IvshmemGroup *group = g_new0(IvshmemGroup, 1);

    group->dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    g_assert_nonnull(group->dir);
    group->path = g_build_filename(group->dir, "socket", NULL);
    group->listener = ivshmem_io_listen(group->path, 0600);
    g_assert_cmpint(group->listener, >=, 0);
    ivshmem_eventfds_new(&group->wake, 1);
    group->shm = shm < 0 ? ivshmem_memfd_new(size) : dup(shm);
    group->vectors = vectors;
    g_mutex_init(&group->lock);
    group->registry = ivshmem_registry_new(first_id);
    group->clients = g_ptr_array_new();
    group->thread = g_thread_new("ivshmem-server", group_thread, group);
    return group;
}

void ivshmem_group_free(IvshmemGroup *group)
{
    g_mutex_lock(&group->lock);
    group->stop = true;
    g_mutex_unlock(&group->lock);
    ivshmem_io_ring(group->wake);
    g_thread_join(group->thread);

    ivshmem_registry_free(group->registry);
    g_ptr_array_free(group->clients, true);
    g_mutex_clear(&group->lock);
    ivshmem_fd_close(&group->wake);
    ivshmem_fd_close(&group->listener);
    ivshmem_fd_close(&group->shm);
    g_unlink(group->path);
    g_rmdir(group->dir);
    g_free(group->path);
    g_free(group->dir);
    g_free(group);
}

const char *ivshmem_group_path(const IvshmemGroup *group)
{
    return group->path;
}

int ivshmem_group_shm(const IvshmemGroup *group)
{
    return group->shm;
}

size_t ivshmem_group_members(IvshmemGroup *group)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&group->lock);

    g_assert_nonnull(locker);
    return ivshmem_registry_members(group->registry);
}

bool ivshmem_group_ring(IvshmemGroup *group, uint16_t id, unsigned vector)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&group->lock);
    IvshmemMember *member = ivshmem_registry_find(group->registry, id);

    g_assert_nonnull(locker);
    return member &&
           ivshmem_io_ring(ivshmem_member_vector_fd(member, vector)) == 0;
}

void ivshmem_group_kick(IvshmemGroup *group, uint16_t id)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&group->lock);
    IvshmemMember *member = ivshmem_registry_find(group->registry, id);

    g_assert_nonnull(locker);
    g_assert_nonnull(member);
    group_remove(group, ivshmem_member_opaque(member));
    ivshmem_io_ring(group->wake);
}
