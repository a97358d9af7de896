/*
 * The ivshmem client-server protocol, version 0: constants and limits.
 *
 * The only definition of both.  "Client-server protocol" in
 * docs/specs/ivshmem-spec.rst is the text these numbers belong to.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_WIRE_H
#define IVSHMEM_WIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* First frame of every connection. */
#define IVSHMEM_PROTOCOL_VERSION 0

/* A frame is one little-endian signed 64-bit number, with at most one fd. */
#define IVSHMEM_FRAME_SIZE 8

/* The value that comes with the fd of the shared memory. */
#define IVSHMEM_VALUE_SHM (-1)

/* The doorbell register has 16 bits for the peer id. */
#define IVSHMEM_ID_MAX 65535
#define IVSHMEM_IDS (IVSHMEM_ID_MAX + 1)

/*
 * Vectors of one peer.  The doorbell register has 16 bits for the vector, but
 * an MSI-X table ends at 2048 entries, so no device can receive on more.
 */
#define IVSHMEM_VECTORS_MAX 2048

/*
 * Errors.  Disjoint from -errno, so that one negative int carries either;
 * ivshmem_strerror() explains both.
 */
enum {
    IVSHMEM_E_VERSION   = -10001, /* the server speaks another version */
    IVSHMEM_E_FD        = -10002, /* an fd is missing, or where none belongs */
    IVSHMEM_E_RANGE     = -10003, /* a value that is neither an id nor -1 */
    IVSHMEM_E_DUP_SHM   = -10004, /* the shared memory was announced twice */
    IVSHMEM_E_SELF_GONE = -10005, /* the server announced our own departure */
    IVSHMEM_E_BROKEN    = -10006, /* the session failed before; start anew */
    IVSHMEM_E_TRUNCATED = -10007, /* the connection ended inside a frame */
    IVSHMEM_E_FULL      = -10008, /* all ids are in use */
    IVSHMEM_E_ID_TAKEN  = -10009, /* that id is in use or reserved */
    IVSHMEM_E_VECTORS   = -10010, /* number of vectors not in 1..2048 */
    IVSHMEM_E_EOF       = -10011, /* the other side closed the connection */
    IVSHMEM_E_NO_PEER   = -10012, /* no such peer or vector */
    IVSHMEM_E_TIMEOUT   = -10013, /* nothing arrived in the time given */
    IVSHMEM_E_NO_SHM    = -10014, /* the shared memory is not there yet */
    IVSHMEM_E_NOT_EVENTFD = -10015, /* a peer's fd is not an eventfd */
    IVSHMEM_E_SHM_CHANGED = -10016, /* reconnected to other shared memory */
};

/* Static text for an IVSHMEM_E_* or -errno; never NULL. */
const char *ivshmem_strerror(int error);

static inline void ivshmem_wire_encode(uint8_t bytes[IVSHMEM_FRAME_SIZE],
                                       int64_t value)
{
    uint64_t u = (uint64_t)value;

    for (int i = 0; i < IVSHMEM_FRAME_SIZE; i++) {
        bytes[i] = (uint8_t)(u >> (8 * i));
    }
}

static inline int64_t
ivshmem_wire_decode(const uint8_t bytes[IVSHMEM_FRAME_SIZE])
{
    uint64_t u = 0;

    for (int i = 0; i < IVSHMEM_FRAME_SIZE; i++) {
        u |= (uint64_t)bytes[i] << (8 * i);
    }
    return (int64_t)u;
}

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_WIRE_H */
