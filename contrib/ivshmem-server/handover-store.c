/*
 * Handing over by way of the service manager, which keeps everything from the
 * stop to the start.
 *
 * Not responsible for what it is (handover.c).
 *
 * It keeps packs: sockets in which descriptors lie as messages.  Of those there
 * are few, whatever the number of clients: it passes the names of all that it
 * keeps in one environment variable, which must not have more than 128 KiB.
 * The first descriptor of the first pack is the document.  A pack is looked at
 * but not emptied, so that a start that fails changes nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "handover-internal.h"
#include "ivshmem-fd.h"
#include "ivshmem-io-pack.h"
#include "log.h"
#include "systemd.h"

#define STORE_PACK "ivshmem-pack-"
#define STORE_PACK_NAME STORE_PACK "%u-of-%u"

/* The version before had each descriptor kept by itself, and the document. */
#define STORE_FD "ivshmem-fd-"
#define STORE_DOCUMENT "ivshmem-document"

/* Messages of one pack: a third of what fits into a socket as it is made. */
#define STORE_PACK_MESSAGES 32

/*
 * Descriptors to be had when there are none left: the document, both ends of a
 * pack, the way to the manager.  And one for each other pack.
 */
#define STORE_SPARE 4

static GArray *store_spare;     /* of int */

void ivshmem_handover_reserve(const IvshmemServer *server)
{
    unsigned n = STORE_SPARE + server->fd_limit /
        (STORE_PACK_MESSAGES * IVSHMEM_IO_PACK_MAX);

    store_spare = g_array_new(FALSE, FALSE, sizeof(int));
    for (unsigned i = 0; i < n; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (fd >= 0) {
            g_array_append_val(store_spare, fd);
        }
    }
}

static void store_close_all(GArray *fds)
{
    for (unsigned i = 0; fds && i < fds->len; i++) {
        ivshmem_fd_close(&g_array_index(fds, int, i));
    }
    g_clear_pointer(&fds, g_array_unref);
}

/* A new pack in @packs; returns the end to fill it by, or -errno. */
static int store_new_pack(GArray *packs)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   ends) < 0) {
        return -errno;
    }
    g_array_append_val(packs, ends[0]);
    return ends[1];
}

/* 0, or -errno. */
static int store_pack(const GArray *fds, GArray *packs)
{
    IVSHMEM_FD_AUTO int end = store_new_pack(packs);
    unsigned messages = 0, done = 0;

    while (end >= 0 && done < fds->len) {
        unsigned n = MIN(fds->len - done, IVSHMEM_IO_PACK_MAX);
        int ret = messages == STORE_PACK_MESSAGES ? -EAGAIN
            : ivshmem_io_pack_send(end, &g_array_index(fds, int, done), n);

        if (ret == -EAGAIN && messages) {
            ivshmem_fd_close(&end);
            end = store_new_pack(packs);
            messages = 0;
        } else if (ret < 0) {
            return ret;
        } else {
            done += n;
            messages++;
        }
    }
    return MIN(end, 0);
}

bool ivshmem_handover_store(IvshmemServer *server)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(GVariant) document = ivshmem_handover_document(server, fds);
    GArray *packs = g_array_new(FALSE, FALSE, sizeof(int));
    IVSHMEM_FD_AUTO int file = -1;
    int ret;

    g_clear_pointer(&store_spare, store_close_all);
    file = ivshmem_handover_write(document);
    g_array_prepend_val(fds, file);
    ret = file < 0 ? file : store_pack(fds, packs);
    for (unsigned i = 0; ret == 0 && i < packs->len; i++) {
        g_autofree char *name = g_strdup_printf(STORE_PACK_NAME, i, packs->len);

        ivshmem_systemd_store(name, g_array_index(packs, int, i));
    }
    store_close_all(packs);
    if (ret < 0) {
        ivshmem_log(G_LOG_LEVEL_CRITICAL, "cannot leave %u descriptors with "
                    "the service manager: %s; clients have to connect again",
                    fds->len, ivshmem_strerror(ret));
        return false;
    }
    ivshmem_log(G_LOG_LEVEL_MESSAGE, "left everything with the service "
                "manager, for the successor");
    return true;
}

/* Dropping */

static void store_warn(unsigned n)
{
    if (n) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "closed what a former server has left "
                    "with the service manager: not all of it is there "
                    "(FileDescriptorStoreMax=), or --fdstore is not given; its "
                    "clients have to connect again");
    }
}

/* At once, whenever the manager does its part. */
static void store_drop(const char *name, int fd, void *opaque)
{
    unsigned *n = opaque;
    char byte;

    while (recv(fd, &byte, 1, MSG_DONTWAIT) > 0) {
        /* With no place to put them, the descriptors are closed. */
    }
    shutdown(fd, SHUT_RDWR);
    ivshmem_systemd_forget(name);
    ivshmem_fd_close(&fd);
    (*n)++;
}

void ivshmem_handover_drop(void)
{
    unsigned n = 0;

    ivshmem_systemd_take_all(STORE_PACK, store_drop, &n);
    ivshmem_systemd_take_all(STORE_DOCUMENT, store_drop, &n);
    ivshmem_systemd_take_all(STORE_FD, store_drop, &n);
    store_warn(n);
}

/* Taking */

typedef struct StoreTaking {
    IvshmemHandover *handover;
    GArray *packs;              /* of int */
    unsigned first;             /* of them */
    unsigned of;                /* as many as there should be */
    int document;               /* number of its descriptor; -1: not there */
} StoreTaking;

static void store_take_pack(const char *name, int fd, void *opaque)
{
    StoreTaking *taking = opaque;
    unsigned number = 0;

    if (sscanf(name, STORE_PACK_NAME, &number, &taking->of) == 2 &&
        number == 0) {
        taking->first = taking->packs->len;
    }
    g_array_append_val(taking->packs, fd);
    g_ptr_array_add(taking->handover->stored, g_strdup(name));
}

static void store_take_fd(const char *name, int fd, void *opaque)
{
    StoreTaking *taking = opaque;
    int number = atoi(name + strlen(STORE_FD));

    g_hash_table_insert(taking->handover->fds, GINT_TO_POINTER(number),
                        GINT_TO_POINTER(fd));
    g_ptr_array_add(taking->handover->stored, g_strdup(name));
}

/* 0, or -errno. */
static int store_unpack(StoreTaking *taking, unsigned i)
{
    int numbers[IVSHMEM_IO_PACK_MAX], fds[IVSHMEM_IO_PACK_MAX];
    int pack = g_array_index(taking->packs, int, i);
    int n = ivshmem_io_pack_rewind(pack);

    while (n == 0 && (n = ivshmem_io_pack_peek(pack, numbers, fds)) > 0) {
        if (i == taking->first && taking->document < 0) {
            taking->document = numbers[0];
        }
        while (n > 0) {
            n--;
            g_hash_table_insert(taking->handover->fds,
                                GINT_TO_POINTER(numbers[n]),
                                GINT_TO_POINTER(fds[n]));
        }
    }
    return n;
}

/* The document's file, or -errno. */
static int store_take_packs(StoreTaking *taking)
{
    unsigned dropped = 0;
    int ret = 0;

    ivshmem_systemd_take_all(STORE_PACK, store_take_pack, taking);
    for (unsigned i = 0; i < taking->packs->len; i++) {
        if (taking->packs->len != taking->of) {
            store_drop(g_ptr_array_index(taking->handover->stored, i),
                       ivshmem_fd_steal(&g_array_index(taking->packs, int, i)),
                       &dropped);
        } else if (ret == 0) {
            ret = store_unpack(taking, i);
        }
    }
    store_warn(dropped);
    return ret < 0 ? ret
        : taking->document < 0 ? -ENOENT
        : ivshmem_handover_fd(taking->document, taking->handover);
}

static int store_take_all(StoreTaking *taking)
{
    int file = ivshmem_systemd_take(STORE_DOCUMENT);

    if (file < 0) {
        return store_take_packs(taking);
    }
    g_ptr_array_add(taking->handover->stored, g_strdup(STORE_DOCUMENT));
    ivshmem_systemd_take_all(STORE_FD, store_take_fd, taking);
    return file;
}

IvshmemHandover *ivshmem_handover_from_store(const IvshmemConfig *config,
                                             GError **errp)
{
    IvshmemHandover *handover = ivshmem_handover_new(config, -1);
    StoreTaking taking = {
        .handover = handover, .document = -1,
        .packs = g_array_new(FALSE, FALSE, sizeof(int)),
    };
    IVSHMEM_FD_AUTO int file = -1;

    handover->stored = g_ptr_array_new_with_free_func(g_free);
    file = store_take_all(&taking);
    store_close_all(taking.packs);
    handover->document = ivshmem_handover_read(file);
    if (handover->document && ivshmem_handover_check(handover, config, errp)) {
        return handover;
    }
    if (!handover->document && file != -ENOENT) {
        ivshmem_error(errp, "cannot take what the service manager has kept: "
                      "%s; raise LimitNOFILE=",
                      ivshmem_strerror(file < 0 ? file : -EBADMSG));
    }
    ivshmem_handover_free(handover);
    return NULL;
}

void ivshmem_handover_forget(const IvshmemHandover *handover)
{
    for (unsigned i = 0; i < handover->stored->len; i++) {
        ivshmem_systemd_forget(g_ptr_array_index(handover->stored, i));
    }
}
