/*
 * Handing over: the document that describes everything, and the descriptors.
 *
 * Not responsible for who may ask for it (control.c).
 *
 * On the wire: frames as in the ivshmem protocol.  The first has the number of
 * those that follow and a descriptor of the document, a serialized GVariant;
 * the others a descriptor each, with the number by which the document calls it.
 * The successor answers with one byte, and then sees the end; or one byte, if
 * its predecessor goes on after all.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client.h"
#include "control.h"
#include "handover.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry-state.h"
#include "log.h"
#include "systemd.h"

/* path, descriptor, device and inode of the file */
#define LISTENER_TYPE "(sitt)"
/* id, socket, pid and when it was seen, user, read-only, name, since */
#define CLIENT_TYPE "(qiitubsx)"
/* name, memory, registry, clients */
#define REGION_TYPE "(svva" CLIENT_TYPE ")"
#define DOCUMENT_TYPE "(a" LISTENER_TYPE "a" REGION_TYPE ")"

/* A document of 64 Ki clients with 2 Ki vectors is smaller. */
#define DOCUMENT_MAX (1024 * 1024 * 1024)

/* Giving */

static void give_listener(GVariantBuilder *listeners, GArray *fds,
                          const IvshmemListener *listener)
{
    g_array_append_val(fds, listener->fd);
    g_variant_builder_add(listeners, LISTENER_TYPE, listener->path,
                          listener->fd, (guint64)listener->dev,
                          (guint64)listener->ino);
}

static GVariant *give_clients(const IvshmemRegion *region, GArray *fds)
{
    IvshmemMember *member = NULL;
    GVariantBuilder clients;

    g_variant_builder_init(&clients, G_VARIANT_TYPE("a" CLIENT_TYPE));
    while ((member = ivshmem_registry_next(region->registry, member))) {
        const IvshmemClient *client = ivshmem_member_opaque(member);

        g_array_append_val(fds, client->watch.fd);
        for (unsigned v = 0; v < ivshmem_member_vectors(member); v++) {
            int fd = ivshmem_member_vector_fd(member, v);

            g_array_append_val(fds, fd);
        }
        g_variant_builder_add(&clients, CLIENT_TYPE, ivshmem_member_id(member),
                              client->watch.fd, (gint32)client->pid,
                              client->process.seen, (guint32)client->uid,
                              (gboolean)client->read_only,
                              client->name ? client->name : "",
                              client->since);
    }
    return g_variant_builder_end(&clients);
}

static GVariant *give_region(IvshmemRegion *region, GArray *fds)
{
    GVariant *memory = ivshmem_memory_save(region->memory, fds);

    ivshmem_region_reap(region);
    return g_variant_new("(svv@a" CLIENT_TYPE ")", region->config->name, memory,
                         ivshmem_registry_save(region->registry),
                         give_clients(region, fds));
}

static GVariant *give_document(IvshmemServer *server, GArray *fds)
{
    GVariantBuilder listeners, regions;

    g_variant_builder_init(&listeners, G_VARIANT_TYPE("a" LISTENER_TYPE));
    g_variant_builder_init(&regions, G_VARIANT_TYPE("a" REGION_TYPE));
    if (server->control) {
        give_listener(&listeners, fds,
                      ivshmem_control_listener(server->control));
    }
    for (unsigned i = 0; i < server->regions->len; i++) {
        IvshmemRegion *region = g_ptr_array_index(server->regions, i);

        for (unsigned d = 0; d < region->doors->len; d++) {
            const IvshmemDoor *door = g_ptr_array_index(region->doors, d);

            give_listener(&listeners, fds, &door->listener);
        }
        g_variant_builder_add_value(&regions, give_region(region, fds));
    }
    return g_variant_ref_sink(g_variant_new(DOCUMENT_TYPE, &listeners,
                                            &regions));
}

static int give_file(GVariant *document)
{
    IVSHMEM_FD_AUTO int fd = memfd_create("ivshmem-handover", MFD_CLOEXEC);
    const char *data = g_variant_get_data(document);
    size_t left = g_variant_get_size(document);

    while (fd >= 0 && left > 0) {
        ssize_t n = write(fd, data, left);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        data += n;
        left -= (size_t)n;
    }
    return fd < 0 ? -errno : ivshmem_fd_steal(&fd);
}

/* Others wait meanwhile: it is a matter of milliseconds. */
static int give_frames(int sock, const IvshmemFrame *frames, size_t n)
{
    while (n > 0) {
        ssize_t sent = ivshmem_io_send(sock, frames, n);

        if (sent == -EAGAIN) {
            sent = ivshmem_control_wait(sock, POLLOUT);
        }
        if (sent < 0) {
            return (int)sent;
        }
        frames += sent;
        n -= (size_t)sent;
    }
    return 0;
}

static int give_all(IvshmemServer *server, int sock)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(GVariant) document = give_document(server, fds);
    IVSHMEM_FD_AUTO int file = give_file(document);
    g_autofree IvshmemFrame *frames = g_new(IvshmemFrame, fds->len + 1);

    frames[0] = (IvshmemFrame) { fds->len, file };
    for (unsigned i = 0; i < fds->len; i++) {
        int fd = g_array_index(fds, int, i);

        frames[i + 1] = (IvshmemFrame) { fd, fd };
    }
    return file < 0 ? file : give_frames(sock, frames, fds->len + 1);
}

static int give_and_wait(IvshmemServer *server, int sock)
{
    int ret = give_all(server, sock);
    ssize_t n = 0;
    char byte;

    if (ret == 0) {
        ret = ivshmem_control_wait(sock, POLLIN);
    }
    if (ret == 0) {
        do {
            n = read(sock, &byte, 1);
        } while (n < 0 && errno == EINTR);
        ret = n < 0 ? -errno : n == 0 ? IVSHMEM_E_EOF : 0;
    }
    return ret;
}

void ivshmem_handover_give(IvshmemServer *server, int sock)
{
    int ret;

    ivshmem_log(G_LOG_LEVEL_MESSAGE, "handing over to a successor");
    ret = give_and_wait(server, sock);
    if (ret == 0) {
        ivshmem_log(G_LOG_LEVEL_MESSAGE, "handed over");
        server->handed_over(server->handed_over_opaque);
    }
    ivshmem_log(G_LOG_LEVEL_WARNING, "the successor did not confirm (%s); "
                "going on as before", ivshmem_strerror(ret));
    if (send(sock, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* It has gone, too. */
    }
}

/* Names under which the service manager keeps things. */
#define STORE_DOCUMENT "ivshmem-document"
#define STORE_FD "ivshmem-fd-"

void ivshmem_handover_store(IvshmemServer *server)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(GVariant) document = give_document(server, fds);
    IVSHMEM_FD_AUTO int file = give_file(document);

    /* It keeps an open file once: under the name that it has already. */
    for (unsigned i = 0; i < server->regions->len; i++) {
        ivshmem_region_unstore(g_ptr_array_index(server->regions, i));
    }
    for (unsigned i = 0; i < fds->len; i++) {
        int fd = g_array_index(fds, int, i);
        g_autofree char *name = g_strdup_printf(STORE_FD "%d", fd);

        ivshmem_systemd_store(name, fd);
    }
    ivshmem_systemd_store(STORE_DOCUMENT, file);
    ivshmem_log(G_LOG_LEVEL_MESSAGE, "left everything with the service "
                "manager, for the successor");
}

/* Taking */

struct IvshmemHandover {
    int sock;                   /* -1: it came from the service manager */
    GVariant *document;
    GHashTable *fds;            /* number in the document -> descriptor */
    GPtrArray *stored;          /* names the service manager has, or NULL */
};

static void take_close(gpointer value)
{
    int fd = GPOINTER_TO_INT(value);

    ivshmem_fd_close(&fd);
}

/* Each descriptor is given away once; -1 for one that is not there. */
static int take_fd(int saved, void *opaque)
{
    IvshmemHandover *handover = opaque;
    gpointer value;

    return g_hash_table_steal_extended(handover->fds, GINT_TO_POINTER(saved),
                                       NULL, &value)
        ? GPOINTER_TO_INT(value) : -1;
}

/* 0 with a frame, or why there is none. */
static int take_frame(int sock, IvshmemFrame *frame)
{
    IvshmemFramer framer;
    int ret = 0, left;

    ivshmem_framer_init(&framer);
    while (ret == 0) {
        uint8_t bytes[IVSHMEM_FRAME_SIZE];
        int fd = -1;
        ssize_t n = ivshmem_io_recv(sock, bytes, ivshmem_framer_want(&framer),
                                    &fd);

        if (n == -EAGAIN) {
            ret = ivshmem_control_wait(sock, POLLIN);
        } else if (n <= 0) {
            ret = n < 0 ? (int)n : IVSHMEM_E_EOF;
        } else {
            ret = ivshmem_framer_push(&framer, bytes, (size_t)n, fd, frame);
        }
        if (ret < 0) {
            ivshmem_fd_close(&fd);
        }
    }
    if (ret > 0) {
        return 0;
    }
    left = ivshmem_framer_reset(&framer);
    ivshmem_fd_close(&left);
    return ret;
}

/* NULL: it is none, or cannot be read, and then errno says why. */
static GVariant *take_document(int fd)
{
    struct stat st;
    g_autofree char *data = NULL;
    GVariant *document;

    errno = 0;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > DOCUMENT_MAX) {
        return NULL;
    }
    data = g_malloc((gsize)st.st_size + 1);
    if (pread(fd, data, (size_t)st.st_size, 0) != st.st_size) {
        return NULL;
    }
    document = g_variant_ref_sink(g_variant_new_from_data(
        G_VARIANT_TYPE(DOCUMENT_TYPE), data, (gsize)st.st_size, FALSE, g_free,
        data));
    data = NULL;
    return document;
}

/* 0, or why not all has come. */
static int take_all(IvshmemHandover *handover)
{
    IvshmemFrame frame = { .fd = -1 };
    int64_t count;
    int ret = take_frame(handover->sock, &frame);

    if (ret < 0) {
        return ret;
    }
    handover->document = take_document(frame.fd);
    if (!handover->document) {
        ret = errno ? -errno : -EBADMSG;
    }
    ivshmem_fd_close(&frame.fd);
    for (count = frame.value; ret == 0 && count > 0; count--) {
        ret = take_frame(handover->sock, &frame);
        if (ret < 0) {
            return ret;
        }
        g_hash_table_insert(handover->fds, GINT_TO_POINTER((int)frame.value),
                            GINT_TO_POINTER(frame.fd));
    }
    return ret;
}

/* What is handed over must have a place in the configuration. */
static bool take_check(const IvshmemHandover *handover,
                       const IvshmemConfig *config, GError **errp)
{
    g_autoptr(GVariant) regions =
        g_variant_get_child_value(handover->document, 1);

    for (gsize i = 0; i < g_variant_n_children(regions); i++) {
        const char *name;

        g_variant_get_child(regions, i, "(&svv@a" CLIENT_TYPE ")", &name, NULL,
                            NULL, NULL);
        if (!ivshmem_config_find(config, name)) {
            ivshmem_error(errp, "the server that runs has a region %s, which "
                          "is not in the configuration; it goes on", name);
            return false;
        }
    }
    return true;
}

/* Whoever gives decides what is served, and which names go in the end. */
static bool take_trusts(int sock, const IvshmemConfig *config)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
        (who.uid == 0 || who.uid == geteuid() || who.uid == config->user);
}

IvshmemHandover *ivshmem_handover_take(const IvshmemConfig *config,
                                       GError **errp)
{
    IvshmemHandover *handover;
    int ret, sock = ivshmem_control_ask(config, IVSHMEM_CONTROL_REPLACE);

    if (sock == -ENOENT || sock == -ECONNREFUSED) {
        ivshmem_log(G_LOG_LEVEL_MESSAGE, "there is no server to replace");
        return NULL;
    }
    if (sock < 0) {
        ivshmem_error(errp, "cannot reach the server to be replaced: %s",
                      ivshmem_strerror(sock));
        return NULL;
    }
    if (!take_trusts(sock, config)) {
        ivshmem_error(errp, "the server to be replaced runs as another user; "
                      "stop it, or use another --control-socket");
        ivshmem_fd_close(&sock);
        return NULL;
    }
    handover = g_new0(IvshmemHandover, 1);
    handover->sock = sock;
    handover->fds = g_hash_table_new_full(NULL, NULL, NULL, take_close);
    ret = take_all(handover);
    if (ret < 0) {
        ivshmem_error(errp, "the server to be replaced did not hand over: %s; "
                      "its log may say more, and it goes on",
                      ivshmem_strerror(ret));
    } else if (take_check(handover, config, errp)) {
        return handover;
    }
    ivshmem_handover_free(handover);
    return NULL;
}

static void store_take(const char *name, int fd, void *opaque)
{
    IvshmemHandover *handover = opaque;
    int number = atoi(name + strlen(STORE_FD));

    g_hash_table_insert(handover->fds, GINT_TO_POINTER(number),
                        GINT_TO_POINTER(fd));
    g_ptr_array_add(handover->stored, g_strdup(name));
}

IvshmemHandover *ivshmem_handover_from_store(const IvshmemConfig *config,
                                             GError **errp)
{
    IVSHMEM_FD_AUTO int file = ivshmem_systemd_take(STORE_DOCUMENT);
    IvshmemHandover *handover = g_new0(IvshmemHandover, 1);

    handover->sock = -1;
    handover->fds = g_hash_table_new_full(NULL, NULL, NULL, take_close);
    handover->document = take_document(file);
    if (handover->document) {
        handover->stored = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(handover->stored, g_strdup(STORE_DOCUMENT));
        ivshmem_systemd_take_all(STORE_FD, store_take, handover);
        if (take_check(handover, config, errp)) {
            return handover;
        }
    }
    ivshmem_handover_free(handover);
    return NULL;
}

void ivshmem_handover_free(IvshmemHandover *handover)
{
    if (!handover) {
        return;
    }
    ivshmem_fd_close(&handover->sock);
    g_clear_pointer(&handover->document, g_variant_unref);
    g_clear_pointer(&handover->stored, g_ptr_array_unref);
    g_hash_table_unref(handover->fds);
    g_free(handover);
}

/* The region's part of the document: memory, registry, clients. */
static bool take_region(const IvshmemHandover *handover, const char *name,
                        GVariant **memory, GVariant **registry,
                        GVariant **clients)
{
    g_autoptr(GVariant) regions = NULL;

    if (!handover) {
        return false;
    }
    regions = g_variant_get_child_value(handover->document, 1);
    for (gsize i = 0; i < g_variant_n_children(regions); i++) {
        g_autoptr(GVariant) region = g_variant_get_child_value(regions, i);
        const char *other;

        g_variant_get_child(region, 0, "&s", &other);
        if (g_strcmp0(other, name) == 0) {
            g_variant_get(region, "(&svv@a" CLIENT_TYPE ")", NULL, memory,
                          registry, clients);
            return true;
        }
    }
    return false;
}

bool ivshmem_handover_has_region(const IvshmemHandover *handover,
                                 const char *region)
{
    return take_region(handover, region, NULL, NULL, NULL);
}

IvshmemRegistry *ivshmem_handover_registry(IvshmemHandover *handover,
                                           const IvshmemRegionConfig *config,
                                           GError **errp)
{
    g_autoptr(GVariant) saved = NULL;
    IvshmemRegistry *registry = NULL;

    if (take_region(handover, config->name, NULL, &saved, NULL)) {
        registry = ivshmem_registry_restore(saved, config->first_id, take_fd,
                                            handover);
    }
    if (!registry) {
        ivshmem_error(errp, "region %s was not handed over as it should be",
                      config->name);
    }
    return registry;
}

IvshmemMemory *ivshmem_handover_memory(IvshmemHandover *handover,
                                       const IvshmemRegionConfig *config,
                                       GError **errp)
{
    g_autoptr(GVariant) saved = NULL;
    IvshmemMemory *memory = NULL;

    if (take_region(handover, config->name, &saved, NULL, NULL)) {
        memory = ivshmem_memory_restore(saved, take_fd, handover);
    }
    if (!memory || (ivshmem_memory_size(memory) != config->memory.size &&
                    config->memory.kind != IVSHMEM_MEMORY_HUGETLB &&
                    config->memory.kind != IVSHMEM_MEMORY_DIR)) {
        ivshmem_error(errp, "region %s: the server that runs has memory of "
                      "another size; it goes on", config->name);
        ivshmem_memory_close(memory, false);
        return NULL;
    }
    return memory;
}

bool ivshmem_handover_clients(IvshmemHandover *handover, IvshmemRegion *region,
                              GError **errp)
{
    g_autoptr(GVariant) clients = NULL;
    IvshmemClientHanded c;
    GVariantIter iter;
    gboolean read_only;
    int sock;

    take_region(handover, region->config->name, NULL, NULL, &clients);
    g_variant_iter_init(&iter, clients);
    while (g_variant_iter_next(&iter, "(qiitub&sx)", &c.id, &sock, &c.pid,
                               &c.seen, &c.uid, &read_only, &c.name,
                               &c.since)) {
        c.read_only = read_only;
        c.sock = take_fd(sock, handover);
        if (!ivshmem_client_resume(region, &c, errp)) {
            g_prefix_error(errp, "region %s: ", region->config->name);
            return false;
        }
    }
    return true;
}

bool ivshmem_handover_listener(IvshmemHandover *handover, const char *path,
                               IvshmemListener *listener)
{
    g_autoptr(GVariant) listeners = NULL;
    const char *other;
    guint64 dev, ino;
    GVariantIter iter;
    int fd;

    if (!handover) {
        return false;
    }
    listeners = g_variant_get_child_value(handover->document, 0);
    g_variant_iter_init(&iter, listeners);
    while (g_variant_iter_next(&iter, "(&sitt)", &other, &fd, &dev, &ino)) {
        if (g_strcmp0(other, path) == 0) {
            *listener = (IvshmemListener) {
                .fd = take_fd(fd, handover), .path = g_strdup(path),
                .dev = (dev_t)dev, .ino = (ino_t)ino,
            };
            return listener->fd >= 0;
        }
    }
    return false;
}

bool ivshmem_handover_confirm(IvshmemHandover *handover, GError **errp)
{
    char byte = 0;
    ssize_t n;
    int ret;

    if (handover->sock < 0) {
        for (unsigned i = 0; i < handover->stored->len; i++) {
            ivshmem_systemd_forget(g_ptr_array_index(handover->stored, i));
        }
        return true;
    }
    do {
        n = send(handover->sock, &byte, 1, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    ret = n < 0 ? -errno : ivshmem_control_wait(handover->sock, POLLIN);
    if (n < 0 || ret == IVSHMEM_E_TIMEOUT) {
        ivshmem_error(errp, "the server to be replaced does not end: %s",
                      ivshmem_strerror(ret));
        return false;
    }
    do {
        n = read(handover->sock, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        ivshmem_error(errp, "the server to be replaced goes on; its log says "
                      "why");
    }
    return n <= 0;
}
