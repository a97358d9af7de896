/*
 * Bytes and descriptors in, frames out.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_FRAMER_H
#define IVSHMEM_FRAMER_H

#include <stdbool.h>
#include "ivshmem-wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define IVSHMEM_WARN_UNUSED __attribute__((__warn_unused_result__))

typedef struct IvshmemFrame {
    int64_t value;
    int fd;                     /* -1: none */
} IvshmemFrame;

/* Zero-copy to move; contents are private to the framer. */
typedef struct IvshmemFramer {
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    size_t fill;
    int fd;
} IvshmemFramer;

void ivshmem_framer_init(IvshmemFramer *framer);

/*
 * How many bytes may be read next: 1 to IVSHMEM_FRAME_SIZE.  Whoever reads
 * more than this loses track of which frame a descriptor came with.
 */
size_t ivshmem_framer_want(const IvshmemFramer *framer);

/*
 * Take @len bytes (1..want), and @fd if it came with them (-1: none).
 *
 * Returns 1 and fills @frame when it completes a frame, 0 when more bytes are
 * needed, IVSHMEM_E_FD for a second fd within one frame, IVSHMEM_E_RANGE for a
 * @len out of range.  On success the framer keeps @fd until the frame is
 * complete, and then the reader of @frame owns it.  On error the caller still
 * owns @fd.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_framer_push(IvshmemFramer *framer, const void *data, size_t len,
                        int fd, IvshmemFrame *frame);

/* True between frames: the only place where a connection may end. */
bool ivshmem_framer_idle(const IvshmemFramer *framer);

/*
 * Forget a partial frame.  Returns its fd, which the caller then owns, or -1.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_framer_reset(IvshmemFramer *framer);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_FRAMER_H */
