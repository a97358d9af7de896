/*
 * Packs: descriptors that wait in a socket, many to a message.
 *
 * For sockets of type SOCK_SEQPACKET.  All functions return >= 0 or -errno.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_IO_PACK_H
#define IVSHMEM_IO_PACK_H

#include "ivshmem-io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Linux passes no more descriptors with one message (SCM_MAX_FD). */
#define IVSHMEM_IO_PACK_MAX 253

/* Send @n descriptors, which stay the caller's, and their numbers here. */
IVSHMEM_WARN_UNUSED
int ivshmem_io_pack_send(int sock, const int *fds, size_t n);

/* Begin with the first message. */
IVSHMEM_WARN_UNUSED
int ivshmem_io_pack_rewind(int sock);

/*
 * The next message, which stays in the socket: descriptors, which the caller
 * then owns, in @fds, and what their sender had as @numbers.  Returns how many,
 * 0 after the last message, -EMFILE when this process has no room for all of
 * them, -EBADMSG when it is not a message of ivshmem_io_pack_send().
 */
IVSHMEM_WARN_UNUSED
int ivshmem_io_pack_peek(int sock, int numbers[IVSHMEM_IO_PACK_MAX],
                         int fds[IVSHMEM_IO_PACK_MAX]);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_IO_PACK_H */
