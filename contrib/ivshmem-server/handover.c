/*
 * Handing over from process to process: the document that describes everything,
 * and the descriptors.
 *
 * Not responsible for who may ask for it (control.c), nor for what is done with
 * it (handover-parts.c).
 *
 * On the wire: frames as in the ivshmem protocol.  The first has the number of
 * those that follow and a descriptor of the document, a serialized GVariant;
 * the others a descriptor each, with the number by which the document calls it.
 * The successor answers with one byte, and then sees the end; or one byte, if
 * its predecessor goes on after all.  Either may be stopped at any moment: who
 * serves is decided by who reads the document's last byte, through the open
 * file that both have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client.h"
#include "control.h"
#include "handover-internal.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry-state.h"
#include "log.h"

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

static GVariant *give_memory(const IvshmemRegion *region, GArray *fds)
{
    const IvshmemMemoryConfig *config = &region->config->memory;
    GVariant *memory = ivshmem_memory_save(region->memory, fds);

    if (!region->closing) {
        return memory;
    }
    return g_variant_new(CLOSING_TYPE, (gboolean)region->keep_memory,
                         (gint32)config->kind, config->name, config->size,
                         config->page_size, (gboolean)config->prealloc,
                         (gint32)config->numa_node, memory);
}

static GVariant *give_region(IvshmemRegion *region, GArray *fds)
{
    GVariant *memory = give_memory(region, fds);

    ivshmem_region_reap(region);
    return g_variant_new("(svv@a" CLIENT_TYPE ")", region->config->name, memory,
                         ivshmem_registry_save(region->registry),
                         give_clients(region, fds));
}

GVariant *ivshmem_handover_document(IvshmemServer *server, GArray *fds)
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

int ivshmem_handover_write(GVariant *document)
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

/* 1: the one who asks decides; 0: the other one has decided; or -errno. */
static int handover_decide(int file)
{
    char last;
    ssize_t n;

    do {
        n = read(file, &last, 1);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
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

/* The document's file, or -errno. */
static int give_all(IvshmemServer *server, int sock)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(GVariant) document = ivshmem_handover_document(server, fds);
    IVSHMEM_FD_AUTO int file = ivshmem_handover_write(document);
    g_autofree IvshmemFrame *frames = g_new(IvshmemFrame, fds->len + 1);
    int ret;

    if (file >= 0 && lseek(file, -1, SEEK_END) < 0) {
        return -errno;
    }
    frames[0] = (IvshmemFrame) { fds->len, file };
    for (unsigned i = 0; i < fds->len; i++) {
        int fd = g_array_index(fds, int, i);

        frames[i + 1] = (IvshmemFrame) { fd, fd };
    }
    ret = file < 0 ? file : give_frames(sock, frames, fds->len + 1);
    return ret < 0 ? ret : ivshmem_fd_steal(&file);
}

static int give_and_wait(IvshmemServer *server, int sock)
{
    IVSHMEM_FD_AUTO int file = give_all(server, sock);
    ssize_t n = 0;
    char byte;
    int ret = MIN(file, 0);

    if (ret == 0) {
        ret = ivshmem_control_wait(sock, POLLIN);
    }
    if (ret == 0) {
        do {
            n = read(sock, &byte, 1);
        } while (n < 0 && errno == EINTR);
        ret = n < 0 ? -errno : n == 0 ? IVSHMEM_E_EOF : 0;
    }
    /* It may have confirmed long ago, and gone. */
    if (ret == 0) {
        ret = recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0
            ? 0 : handover_decide(file);
        ret = ret == 1 ? 0 : ret == 0 ? IVSHMEM_E_EOF : ret;
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

/* Taking */

static void take_close(gpointer value)
{
    int fd = GPOINTER_TO_INT(value);

    ivshmem_fd_close(&fd);
}

IvshmemHandover *ivshmem_handover_new(const IvshmemConfig *config, int sock)
{
    IvshmemHandover *handover = g_new0(IvshmemHandover, 1);

    handover->sock = sock;
    handover->file = -1;
    handover->user = config->user;
    handover->fds = g_hash_table_new_full(NULL, NULL, NULL, take_close);
    return handover;
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

GVariant *ivshmem_handover_read(int fd)
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
    handover->file = ivshmem_fd_steal(&frame.fd);
    handover->document = ivshmem_handover_read(handover->file);
    if (!handover->document) {
        ret = errno ? -errno : -EBADMSG;
    }
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

/* Whoever gives decides what is served, and which names go in the end. */
static bool take_trusts(int sock, const IvshmemConfig *config, GError **errp)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) {
        ivshmem_error(errp, "cannot tell whose the server to be replaced is: "
                      "%s", g_strerror(errno));
        return false;
    }
    if (who.uid != 0 && who.uid != geteuid() && who.uid != config->user) {
        ivshmem_error(errp, "the server to be replaced runs as another user; "
                      "stop it, or use another --control-socket");
        return false;
    }
    return true;
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
    if (!take_trusts(sock, config, errp)) {
        ivshmem_fd_close(&sock);
        return NULL;
    }
    handover = ivshmem_handover_new(config, sock);
    ret = take_all(handover);
    if (ret < 0) {
        ivshmem_error(errp, "the server to be replaced did not hand over: %s; "
                      "its log may say more, and it goes on",
                      ivshmem_strerror(ret));
    } else if (ivshmem_handover_check(handover, config, errp)) {
        return handover;
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
    ivshmem_fd_close(&handover->file);
    g_clear_pointer(&handover->document, g_variant_unref);
    g_clear_pointer(&handover->stored, g_ptr_array_unref);
    g_hash_table_unref(handover->fds);
    g_free(handover);
}

static bool take_confirm(IvshmemHandover *handover, GError **errp)
{
    char byte = 0;
    ssize_t n;
    int ret;

    do {
        n = send(handover->sock, &byte, 1, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        ivshmem_error(errp, "the server to be replaced does not wait for us, "
                      "and goes on: %s", g_strerror(errno));
        return false;
    }
    ret = ivshmem_control_wait(handover->sock, POLLIN);
    while (ret < 0 && handover_decide(handover->file) != 1) {
        /* It has decided to end, and is about to. */
        ret = ivshmem_control_wait(handover->sock, POLLIN);
    }
    if (ret < 0) {
        ivshmem_error(errp, "the server to be replaced does not end: %s; if "
                      "it is stopped (SIGSTOP), let it continue, or end it",
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

bool ivshmem_handover_confirm(IvshmemHandover *handover, GError **errp)
{
    if (handover->sock < 0) {
        ivshmem_handover_forget(handover);
    } else if (!take_confirm(handover, errp)) {
        return false;
    }
    ivshmem_handover_remove_rest(handover);
    return true;
}
