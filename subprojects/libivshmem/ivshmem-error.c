/*
 * Texts for IVSHMEM_E_* and -errno.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include "ivshmem-wire.h"

const char *ivshmem_strerror(int error)
{
    switch (error) {
    case IVSHMEM_E_VERSION:
        return "the server speaks another protocol version (expected 0)";
    case IVSHMEM_E_FD:
        return "a message lacks its descriptor, or carries one too many";
    case IVSHMEM_E_RANGE:
        return "a message is neither -1 nor a peer id (0..65535)";
    case IVSHMEM_E_DUP_SHM:
        return "the server announced the shared memory twice";
    case IVSHMEM_E_SELF_GONE:
        return "the server announced our own departure";
    case IVSHMEM_E_BROKEN:
        return "the session has failed before";
    case IVSHMEM_E_TRUNCATED:
        return "the connection ended in the middle of a message";
    case IVSHMEM_E_FULL:
        return "all peer ids are in use";
    case IVSHMEM_E_ID_TAKEN:
        return "the peer id is in use or reserved";
    case IVSHMEM_E_VECTORS:
        return "the number of vectors is not in 1..2048";
    case IVSHMEM_E_EOF:
        return "the other side closed the connection";
    case IVSHMEM_E_NO_PEER:
        return "no such peer or vector";
    case IVSHMEM_E_TIMEOUT:
        return "nothing arrived in time";
    case IVSHMEM_E_NO_SHM:
        return "the shared memory has not arrived yet";
    case IVSHMEM_E_NOT_EVENTFD:
        return "a vector's descriptor is not an eventfd";
    case IVSHMEM_E_SHM_CHANGED:
        return "the server came back with different shared memory";
    default:
        return error < 0 && error > IVSHMEM_E_VERSION ? strerror(-error)
                                                      : "unknown error";
    }
}
