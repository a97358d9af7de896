/*
 * Client side of the protocol: the state machine of "Client-server protocol"
 * in docs/specs/ivshmem-spec.rst.
 *
 * Knows ids, vectors and their number, but not what a descriptor is good for:
 * whether it is an eventfd or can be mapped is the business of those who read
 * the events.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>
#include "ivshmem-session.h"

struct IvshmemSession {
    IvshmemFramer framer;
    IvshmemSessionState state;
    int id;
    bool has_shm;
    unsigned max_vectors;
    GHashTable *vectors;        /* id -> vectors announced, up to the limit */
};

IvshmemSession *ivshmem_session_new(unsigned max_vectors)
{
    IvshmemSession *session = g_new0(IvshmemSession, 1);

    ivshmem_framer_init(&session->framer);
    session->state = IVSHMEM_SESSION_VERSION;
    session->id = -1;
    session->max_vectors = CLAMP(max_vectors, 1, IVSHMEM_VECTORS_MAX);
    session->vectors = g_hash_table_new(NULL, NULL);
    return session;
}

void ivshmem_session_free(IvshmemSession *session)
{
    if (session) {
        g_hash_table_unref(session->vectors);
        g_free(session);
    }
}

size_t ivshmem_session_want(const IvshmemSession *session)
{
    return ivshmem_framer_want(&session->framer);
}

static int session_version(IvshmemSession *session, const IvshmemFrame *frame)
{
    if (frame->fd >= 0) {
        return IVSHMEM_E_FD;
    }
    if (frame->value != IVSHMEM_PROTOCOL_VERSION) {
        return IVSHMEM_E_VERSION;
    }
    session->state = IVSHMEM_SESSION_ID;
    return 0;
}

static int session_self_id(IvshmemSession *session, const IvshmemFrame *frame,
                           IvshmemEvent *event)
{
    if (frame->value < 0) {
        return IVSHMEM_E_RANGE;
    }
    if (frame->fd >= 0) {
        return IVSHMEM_E_FD;
    }
    session->id = (int)frame->value;
    session->state = IVSHMEM_SESSION_RUN;
    event->type = IVSHMEM_EVENT_SELF_ID;
    event->id = (uint16_t)session->id;
    return 0;
}

static int session_shm(IvshmemSession *session, const IvshmemFrame *frame,
                       IvshmemEvent *event)
{
    if (frame->fd < 0) {
        return IVSHMEM_E_FD;
    }
    if (session->has_shm) {
        return IVSHMEM_E_DUP_SHM;
    }
    session->has_shm = true;
    event->type = IVSHMEM_EVENT_SHM;
    return 0;
}

static int session_gone(IvshmemSession *session, IvshmemEvent *event)
{
    if (event->id == session->id) {
        return IVSHMEM_E_SELF_GONE;
    }
    g_hash_table_remove(session->vectors, GUINT_TO_POINTER(event->id));
    event->type = IVSHMEM_EVENT_PEER_GONE;
    return 0;
}

static int session_vector(IvshmemSession *session, IvshmemEvent *event)
{
    unsigned n = ivshmem_session_vectors(session, event->id);

    event->vector = n;
    if (n == session->max_vectors) {
        event->type = IVSHMEM_EVENT_EXCESS_VECTOR;
        return 0;
    }
    g_hash_table_insert(session->vectors, GUINT_TO_POINTER(event->id),
                        GUINT_TO_POINTER(n + 1));
    event->type = event->id == session->id ? IVSHMEM_EVENT_SELF_VECTOR
                                           : IVSHMEM_EVENT_PEER_VECTOR;
    return 0;
}

static int session_step(IvshmemSession *session, const IvshmemFrame *frame,
                        IvshmemEvent *event)
{
    if (session->state == IVSHMEM_SESSION_BROKEN) {
        return IVSHMEM_E_BROKEN;
    }
    if (session->state == IVSHMEM_SESSION_VERSION) {
        return session_version(session, frame);
    }
    if (frame->value < IVSHMEM_VALUE_SHM || frame->value > IVSHMEM_ID_MAX) {
        return IVSHMEM_E_RANGE;
    }
    if (session->state == IVSHMEM_SESSION_ID) {
        return session_self_id(session, frame, event);
    }
    if (frame->value == IVSHMEM_VALUE_SHM) {
        return session_shm(session, frame, event);
    }
    event->id = (uint16_t)frame->value;
    return frame->fd < 0 ? session_gone(session, event)
                         : session_vector(session, event);
}

int ivshmem_session_frame(IvshmemSession *session, const IvshmemFrame *frame,
                          IvshmemEvent *event)
{
    int ret;

    *event = (IvshmemEvent) { .type = IVSHMEM_EVENT_NONE, .fd = -1 };
    ret = session_step(session, frame, event);
    if (ret < 0) {
        session->state = IVSHMEM_SESSION_BROKEN;
        event->type = IVSHMEM_EVENT_NONE;
        return ret;
    }
    event->fd = frame->fd;
    return 0;
}

/*
 * A frame is complete only with its last bytes, and its fd may have come with
 * earlier ones.  When it is refused, "the caller still owns @fd" holds for an
 * fd of this very call; an earlier one goes back into the framer, from where
 * ivshmem_session_end() gives it to the caller.
 */
int ivshmem_session_push(IvshmemSession *session, const void *data, size_t len,
                         int fd, IvshmemEvent *event)
{
    IvshmemFrame frame;
    int ret;

    *event = (IvshmemEvent) { .type = IVSHMEM_EVENT_NONE, .fd = -1 };
    if (session->state == IVSHMEM_SESSION_BROKEN) {
        return IVSHMEM_E_BROKEN;
    }
    ret = ivshmem_framer_push(&session->framer, data, len, fd, &frame);
    if (ret <= 0) {
        if (ret < 0) {
            session->state = IVSHMEM_SESSION_BROKEN;
        }
        return ret;
    }
    ret = ivshmem_session_frame(session, &frame, event);
    if (ret < 0 && fd < 0) {
        session->framer.fd = frame.fd;
    }
    return ret;
}

int ivshmem_session_end(IvshmemSession *session, int *fd)
{
    bool idle = ivshmem_framer_idle(&session->framer);
    bool broken = session->state == IVSHMEM_SESSION_BROKEN;

    *fd = ivshmem_framer_reset(&session->framer);
    session->state = IVSHMEM_SESSION_BROKEN;
    if (broken) {
        return IVSHMEM_E_BROKEN;
    }
    return idle ? IVSHMEM_E_EOF : IVSHMEM_E_TRUNCATED;
}

IvshmemSessionState ivshmem_session_state(const IvshmemSession *session)
{
    return session->state;
}

int ivshmem_session_id(const IvshmemSession *session)
{
    return session->id;
}

bool ivshmem_session_has_shm(const IvshmemSession *session)
{
    return session->has_shm;
}

unsigned ivshmem_session_vectors(const IvshmemSession *session, uint16_t id)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(session->vectors,
                                                GUINT_TO_POINTER(id)));
}

size_t ivshmem_session_peers(const IvshmemSession *session)
{
    size_t n = g_hash_table_size(session->vectors);

    if (session->id >= 0 && ivshmem_session_vectors(session, session->id)) {
        n--;
    }
    return n;
}
