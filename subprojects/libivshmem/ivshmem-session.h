/*
 * Client side of the protocol: what each frame means.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_SESSION_H
#define IVSHMEM_SESSION_H

#include "ivshmem-framer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum IvshmemSessionState {
    IVSHMEM_SESSION_VERSION,    /* waiting for the protocol version */
    IVSHMEM_SESSION_ID,         /* waiting for our id */
    IVSHMEM_SESSION_RUN,
    IVSHMEM_SESSION_BROKEN,     /* absorbing */
} IvshmemSessionState;

typedef enum IvshmemEventType {
    IVSHMEM_EVENT_NONE,          /* nothing to act on (yet) */
    IVSHMEM_EVENT_SELF_ID,       /* id */
    IVSHMEM_EVENT_SHM,           /* fd */
    IVSHMEM_EVENT_PEER_VECTOR,   /* id, vector, fd */
    IVSHMEM_EVENT_SELF_VECTOR,   /* id, vector, fd */
    IVSHMEM_EVENT_EXCESS_VECTOR, /* id, vector, fd: to be closed */
    IVSHMEM_EVENT_PEER_GONE,     /* id, which may be unknown */
} IvshmemEventType;

/* The reader of an event owns its fd (-1: none). */
typedef struct IvshmemEvent {
    IvshmemEventType type;
    uint16_t id;
    uint32_t vector;
    int fd;
} IvshmemEvent;

typedef struct IvshmemSession IvshmemSession;

/*
 * @max_vectors: vectors kept per peer and for ourselves; those past it become
 * EXCESS_VECTOR.  1..IVSHMEM_VECTORS_MAX, clamped.
 */
IvshmemSession *ivshmem_session_new(unsigned max_vectors);

/*
 * Frees @session (NULL is fine).  The fd of a partial frame must have been
 * taken with ivshmem_session_end() before.
 */
void ivshmem_session_free(IvshmemSession *session);

/* How many bytes may be read next, see ivshmem_framer_want(). */
size_t ivshmem_session_want(const IvshmemSession *session);

/*
 * Take @len bytes (1..want) and the fd that came with them, or -1.
 *
 * Returns 0 and fills @event (type NONE when nothing is to be done), or
 * IVSHMEM_E_*, after which the session is BROKEN.  On success the reader of
 * @event owns its fd; on error the caller still owns @fd.  Either way an fd
 * of a partial frame stays with the session until ivshmem_session_end().
 */
IVSHMEM_WARN_UNUSED
int ivshmem_session_push(IvshmemSession *session, const void *data, size_t len,
                         int fd, IvshmemEvent *event);

/*
 * One whole frame, for those who have frames rather than bytes: the state
 * table of the specification.  Same ownership as ivshmem_session_push().
 */
IVSHMEM_WARN_UNUSED
int ivshmem_session_frame(IvshmemSession *session, const IvshmemFrame *frame,
                          IvshmemEvent *event);

/*
 * The connection has ended.  Stores in @fd an fd the caller then owns, or -1.
 * Returns IVSHMEM_E_TRUNCATED inside a frame, IVSHMEM_E_BROKEN if the session
 * had failed, else IVSHMEM_E_EOF.  The session is BROKEN afterwards.
 */
IVSHMEM_WARN_UNUSED
int ivshmem_session_end(IvshmemSession *session, int *fd);

IvshmemSessionState ivshmem_session_state(const IvshmemSession *session);

/* Our id, or -1 before SELF_ID. */
int ivshmem_session_id(const IvshmemSession *session);

bool ivshmem_session_has_shm(const IvshmemSession *session);

/*
 * Vectors announced so far for @id, ourselves included: 0 for an unknown id.
 * Those past the limit do not count.
 */
unsigned ivshmem_session_vectors(const IvshmemSession *session, uint16_t id);

/* Connected peers, without ourselves. */
size_t ivshmem_session_peers(const IvshmemSession *session);

#ifdef __cplusplus
}
#endif

#endif /* IVSHMEM_SESSION_H */
