/*
 * Bytes and descriptors in, frames out.
 *
 * Not responsible for what a frame means (ivshmem-session.c), nor for reading
 * (ivshmem-io.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include "ivshmem-framer.h"

void ivshmem_framer_init(IvshmemFramer *framer)
{
    framer->fill = 0;
    framer->fd = -1;
}

size_t ivshmem_framer_want(const IvshmemFramer *framer)
{
    return IVSHMEM_FRAME_SIZE - framer->fill;
}

int ivshmem_framer_push(IvshmemFramer *framer, const void *data, size_t len,
                        int fd, IvshmemFrame *frame)
{
    if (len == 0 || len > ivshmem_framer_want(framer)) {
        return IVSHMEM_E_RANGE;
    }
    if (fd >= 0 && framer->fd >= 0) {
        return IVSHMEM_E_FD;
    }

    memcpy(framer->bytes + framer->fill, data, len);
    framer->fill += len;
    if (fd >= 0) {
        framer->fd = fd;
    }
    if (framer->fill < IVSHMEM_FRAME_SIZE) {
        return 0;
    }

    frame->value = ivshmem_wire_decode(framer->bytes);
    frame->fd = ivshmem_framer_reset(framer);
    return 1;
}

bool ivshmem_framer_idle(const IvshmemFramer *framer)
{
    return framer->fill == 0;
}

int ivshmem_framer_reset(IvshmemFramer *framer)
{
    int fd = framer->fd;

    ivshmem_framer_init(framer);
    return fd;
}
