/*
 * Fuzz target: a server that sends anything, in pieces of any size.
 *
 * The first byte is the local limit of vectors.  Then steps, each with a
 * control byte:
 *   0x80: a whole frame with the value of the next byte, signed, if the
 *         stream is between frames
 *   else: bits 2..0: length of a piece - 1, of bytes that follow
 *   0x08: an fd comes with it
 *   0x10: the piece ignores how much is wanted
 *
 * The oracle is a count of vectors per id, and FakeFds.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include <glib.h>

#include "fuzz.h"
#include "ivshmem-session.h"
#include "test-util.h"

typedef struct Fuzz {
    IvshmemSession *session;
    FakeFds fds;
    unsigned max_vectors;
    bool shm;
    GHashTable *vectors;        /* id -> vectors told, up to the limit */
} Fuzz;

static unsigned fuzz_told(const Fuzz *fuzz, unsigned id)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(fuzz->vectors,
                                                GUINT_TO_POINTER(id)));
}

static void fuzz_vector(Fuzz *fuzz, const IvshmemEvent *event)
{
    unsigned told = fuzz_told(fuzz, event->id);
    bool self = event->id == ivshmem_session_id(fuzz->session);

    g_assert_cmpuint(event->vector, ==, told);
    if (told == fuzz->max_vectors) {
        g_assert_cmpint(event->type, ==, IVSHMEM_EVENT_EXCESS_VECTOR);
        return;
    }
    g_assert_cmpint(event->type, ==, self ? IVSHMEM_EVENT_SELF_VECTOR
                                          : IVSHMEM_EVENT_PEER_VECTOR);
    g_hash_table_insert(fuzz->vectors, GUINT_TO_POINTER(event->id),
                        GUINT_TO_POINTER(told + 1));
}

static void fuzz_event(Fuzz *fuzz, const IvshmemEvent *event)
{
    bool with_fd = true;

    switch (event->type) {
    case IVSHMEM_EVENT_NONE:
        with_fd = false;
        break;
    case IVSHMEM_EVENT_SELF_ID:
        g_assert_cmpint(ivshmem_session_id(fuzz->session), ==, event->id);
        with_fd = false;
        break;
    case IVSHMEM_EVENT_SHM:
        g_assert_false(fuzz->shm);
        fuzz->shm = true;
        break;
    case IVSHMEM_EVENT_PEER_GONE:
        g_assert_cmpint(event->id, !=, ivshmem_session_id(fuzz->session));
        g_hash_table_remove(fuzz->vectors, GUINT_TO_POINTER(event->id));
        with_fd = false;
        break;
    default:
        fuzz_vector(fuzz, event);
    }
    g_assert_true((event->fd >= 0) == with_fd);
    if (with_fd) {
        fake_fd_take(&fuzz->fds, event->fd);
    }
    g_assert_cmpuint(ivshmem_session_vectors(fuzz->session, event->id), ==,
                     fuzz_told(fuzz, event->id));
    g_assert_true(ivshmem_session_has_shm(fuzz->session) == fuzz->shm);
}

static void fuzz_push(Fuzz *fuzz, const uint8_t *bytes, size_t len, bool fd)
{
    bool broken = ivshmem_session_state(fuzz->session) ==
                  IVSHMEM_SESSION_BROKEN;
    size_t want = ivshmem_session_want(fuzz->session);
    int sent = fd ? fake_fd_new(&fuzz->fds) : -1;
    IvshmemEvent event;
    int ret = ivshmem_session_push(fuzz->session, bytes, len, sent, &event);

    g_assert_cmpuint(want, >=, 1);
    g_assert_cmpuint(want, <=, IVSHMEM_FRAME_SIZE);
    if (broken) {
        g_assert_cmpint(ret, ==, IVSHMEM_E_BROKEN);
    } else if (len > want) {
        g_assert_cmpint(ret, ==, IVSHMEM_E_RANGE);
    }
    if (ret < 0) {
        g_assert_cmpint(event.type, ==, IVSHMEM_EVENT_NONE);
        g_assert_cmpint(event.fd, ==, -1);
        g_assert_cmpint(ivshmem_session_state(fuzz->session), ==,
                        IVSHMEM_SESSION_BROKEN);
        return;
    }
    g_assert_cmpint(ret, ==, 0);
    if (fd) {
        fake_fd_give(&fuzz->fds, sent);
    }
    fuzz_event(fuzz, &event);
}

static void fuzz_step(Fuzz *fuzz, FuzzInput *in)
{
    uint8_t control = fuzz_byte(in);
    bool fd = control & 0x08;
    size_t len = (control & 0x07) + 1, have = MIN(len, in->left);
    uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };

    if (control & 0x80) {
        ivshmem_wire_encode(bytes, (int8_t)fuzz_byte(in));
        len = IVSHMEM_FRAME_SIZE;
    } else {
        memcpy(bytes, in->data, have);
        in->data += have;
        in->left -= have;
    }
    if (!(control & 0x10)) {
        len = MIN(len, ivshmem_session_want(fuzz->session));
    }
    fuzz_push(fuzz, bytes, len, fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    Fuzz fuzz = { .vectors = g_hash_table_new(NULL, NULL) };
    unsigned limit = fuzz_byte(&in);
    int self, fd;
    size_t peers;

    fake_fds_init(&fuzz.fds);
    fuzz.session = ivshmem_session_new(limit);
    fuzz.max_vectors = MAX(limit, 1);
    while (in.left) {
        fuzz_step(&fuzz, &in);
    }

    self = ivshmem_session_id(fuzz.session);
    peers = g_hash_table_size(fuzz.vectors);
    if (self >= 0 && fuzz_told(&fuzz, self)) {
        peers--;
    }
    g_assert_cmpuint(ivshmem_session_peers(fuzz.session), ==, peers);

    g_assert_cmpint(ivshmem_session_end(fuzz.session, &fd), <, 0);
    if (fd >= 0) {
        fake_fd_take(&fuzz.fds, fd);
    }
    ivshmem_session_free(fuzz.session);
    fake_fds_finish(&fuzz.fds);
    g_hash_table_unref(fuzz.vectors);
    return 0;
}
