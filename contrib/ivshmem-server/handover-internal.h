/*
 * What the parts of handing over share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_HANDOVER_INTERNAL_H
#define IVSHMEM_SERVER_HANDOVER_INTERNAL_H

#include "handover.h"

/* path, descriptor, device and inode of the file */
#define LISTENER_TYPE "(sitt)"
/* id, socket, pid and when it was seen, user, read-only, name, since */
#define CLIENT_TYPE "(qiitubsx)"
/* name, memory, registry, clients */
#define REGION_TYPE "(svva" CLIENT_TYPE ")"
#define DOCUMENT_TYPE "(a" LISTENER_TYPE "a" REGION_TYPE ")"

/*
 * The memory of a region that is out of the configuration, after all that was
 * configured: persistent, kind, name, size, page size, prealloc, node.
 */
#define CLOSING_TYPE "(bimsttbiv)"

struct IvshmemHandover {
    int sock;                   /* -1: it came from the service manager */
    int file;                   /* of the document, with @sock */
    uid_t user;                 /* that the predecessor may have become */
    GVariant *document;
    GHashTable *fds;            /* number in the document -> descriptor */
    GPtrArray *stored;          /* names the service manager has, or NULL */
};

/* What there is, with the numbers of all descriptors in @fds (of int). */
GVariant *ivshmem_handover_document(IvshmemServer *server, GArray *fds);

/* A descriptor of a file with @document in it, or -errno. */
int ivshmem_handover_write(GVariant *document);

/* NULL: it is none, or cannot be read, and then errno says why. */
GVariant *ivshmem_handover_read(int file);

/* With nothing in it so far. */
IvshmemHandover *ivshmem_handover_new(const IvshmemConfig *config, int sock);

/* Whether what is handed over has a place in @config. */
bool ivshmem_handover_check(const IvshmemHandover *handover,
                            const IvshmemConfig *config, GError **errp);

/* The descriptor for a number, which is given away once; or -1. */
int ivshmem_handover_fd(int number, void *handover);

/* Let the service manager close what it has kept. */
void ivshmem_handover_forget(const IvshmemHandover *handover);

/* The predecessor's sockets that nobody has taken go, and their state files. */
void ivshmem_handover_remove_rest(IvshmemHandover *handover);

#endif /* IVSHMEM_SERVER_HANDOVER_INTERNAL_H */
