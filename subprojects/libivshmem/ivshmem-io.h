/*
 * Sockets that carry descriptors, and eventfds.
 *
 * All functions return >= 0 or -errno; -EAGAIN is a result, not a failure.
 * Every descriptor made or received here is close-on-exec and non-blocking
 * from birth.  Paths longer than sun_path give -ENAMETOOLONG.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_IO_H
#define IVSHMEM_IO_H

#include <sys/types.h>
#include "ivshmem-framer.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Frames handed to one sendmmsg().  Enough that the system call is noise
 * beside the messages in it, small enough to live on the stack.
 */
#define IVSHMEM_IO_BATCH 64

/*
 * Receive up to @len bytes, and the descriptor that came with them in *@fd
 * (-1: none), which the caller then owns.  @len must not go past the end of a
 * frame (ivshmem_framer_want()).  Returns the number of bytes, 0 at the end of
 * the stream, -EAGAIN, -EMFILE when a descriptor was lost because this process
 * has no room for it (MSG_CTRUNC), -EBADMSG when there was more than one.
 */
IVSHMEM_WARN_UNUSED
ssize_t ivshmem_io_recv(int sock, void *data, size_t len, int *fd);

/*
 * Send up to @n frames, as many as the socket takes; their fds stay the
 * caller's.  Returns how many whole frames were sent (>= 1), or -errno if none
 * was.
 */
IVSHMEM_WARN_UNUSED
ssize_t ivshmem_io_send(int sock, const IvshmemFrame *frames, size_t n);

/* Connect to the unix stream socket @path.  The caller owns the result. */
IVSHMEM_WARN_UNUSED
int ivshmem_io_connect(const char *path);

/*
 * Listen on a new unix stream socket at @path, which must not exist, with
 * permissions @mode (0: as umask has it) from the first moment on.  The caller
 * owns the result and removes @path.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_io_listen(const char *path, mode_t mode);

/* Accept one connection.  The caller owns the result. */
IVSHMEM_WARN_UNUSED
int ivshmem_io_accept(int listener);

/* A new eventfd with count 0.  The caller owns it. */
IVSHMEM_WARN_UNUSED
int ivshmem_io_eventfd(void);

/*
 * Ring: add 1 to the eventfd.  A counter that is full is rung already, which
 * is success.  Waits if it is full and another holder has made it blocking:
 * for those who can deal with that (IVSHMEM_IO_FULL).
 */
int ivshmem_io_ring(int eventfd);

/*
 * The same, but makes the eventfd non-blocking first if it is not, at the price
 * of one more system call.
 */
int ivshmem_io_ring_nowait(int eventfd);

/* What an eventfd counts to. */
#define IVSHMEM_IO_FULL (UINT64_MAX - 1)

/*
 * Take the rings off an eventfd.  Returns 0 with their number in @count (may
 * be NULL), -EAGAIN when there were none.
 */
int ivshmem_io_drain(int eventfd, uint64_t *count);

/*
 * Whether @fd is an eventfd: 1 or 0, or -errno when it is no descriptor at all.
 * A peer chooses what it sends, and KVM wants nothing but eventfds.
 */
int ivshmem_io_is_eventfd(int fd);

/* Set O_NONBLOCK, which all holders of the open file share. */
int ivshmem_io_set_nonblock(int fd);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_IO_H */
