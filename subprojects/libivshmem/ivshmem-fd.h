/*
 * File descriptor ownership: the only close() in the project.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_FD_H
#define IVSHMEM_FD_H

#include <errno.h>
#include <unistd.h>

/* Closes *@fd unless it is negative, and makes it -1.  Keeps errno. */
static inline void ivshmem_fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0) {
        close(*fd);             /* EINTR: Linux has closed it all the same */
    }
    *fd = -1;
    errno = saved;
}

/* The caller takes over *@fd, which becomes -1. */
static inline int ivshmem_fd_steal(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

/* A variable so declared is closed when it goes out of scope. */
#define IVSHMEM_FD_AUTO __attribute__((__cleanup__(ivshmem_fd_close)))

#endif /* IVSHMEM_FD_H */
