/*
 * The state table of "Client-server protocol" in docs/specs/ivshmem-spec.rst,
 * row by row.  How the bytes arrive is test-stream.c's part.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-session.h"
#include "test-util.h"

#define MAX_VECTORS 2           /* local limit of the sessions below */
#define NO_ID (-1)

#define VERSION IVSHMEM_SESSION_VERSION
#define ID      IVSHMEM_SESSION_ID
#define RUN     IVSHMEM_SESSION_RUN
#define BROKEN  IVSHMEM_SESSION_BROKEN

/*
 * Frames are written as the number, with a "+" when an fd comes with it.  Most
 * sessions below have id 5; IVSHMEM_ID_MAX is 65535.
 */
typedef struct Accepted {
    const char *before;         /* frames that lead to the state */
    const char *frame;
    IvshmemEventType event;
    int id;
    unsigned vector;
    IvshmemSessionState after;
} Accepted;

static const Accepted accepted[] = {
    /* VERSION */
    { "", "0", IVSHMEM_EVENT_NONE, 0, 0, ID },

    /* ID */
    { "0", "5", IVSHMEM_EVENT_SELF_ID, 5, 0, RUN },
    { "0", "0", IVSHMEM_EVENT_SELF_ID, 0, 0, RUN },
    { "0", "65535", IVSHMEM_EVENT_SELF_ID, 65535, 0, RUN },

    /* RUN, -1: the shared memory, at any time but once */
    { "0 5", "-1+", IVSHMEM_EVENT_SHM, 0, 0, RUN },
    { "0 5 5+ 7+", "-1+", IVSHMEM_EVENT_SHM, 0, 0, RUN },

    /* RUN, own id with fd: own vectors, counted */
    { "0 5 -1+", "5+", IVSHMEM_EVENT_SELF_VECTOR, 5, 0, RUN },
    { "0 5", "5+", IVSHMEM_EVENT_SELF_VECTOR, 5, 0, RUN },
    { "0 5 5+", "5+", IVSHMEM_EVENT_SELF_VECTOR, 5, 1, RUN },
    { "0 5 7+ 5+ 7+", "5+", IVSHMEM_EVENT_SELF_VECTOR, 5, 1, RUN },
    { "0 5 5+ 5+", "5+", IVSHMEM_EVENT_EXCESS_VECTOR, 5, 2, RUN },
    { "0 0", "0+", IVSHMEM_EVENT_SELF_VECTOR, 0, 0, RUN },

    /* RUN, another id with fd: its vectors, counted since it joined */
    { "0 5", "7+", IVSHMEM_EVENT_PEER_VECTOR, 7, 0, RUN },
    { "0 5", "0+", IVSHMEM_EVENT_PEER_VECTOR, 0, 0, RUN },
    { "0 5", "65535+", IVSHMEM_EVENT_PEER_VECTOR, 65535, 0, RUN },
    { "0 5 7+", "7+", IVSHMEM_EVENT_PEER_VECTOR, 7, 1, RUN },
    { "0 5 7+ 8+ 8+", "7+", IVSHMEM_EVENT_PEER_VECTOR, 7, 1, RUN },
    { "0 5 7+ 7+", "7+", IVSHMEM_EVENT_EXCESS_VECTOR, 7, 2, RUN },
    { "0 5 7+ 7+ 7+ 7+", "8+", IVSHMEM_EVENT_PEER_VECTOR, 8, 0, RUN },
    { "0 5 7+ 7+ 7", "7+", IVSHMEM_EVENT_PEER_VECTOR, 7, 0, RUN },
    { "0 5 7+ 7+ 7+ 7", "7+", IVSHMEM_EVENT_PEER_VECTOR, 7, 0, RUN },

    /* RUN, another id without fd: it has left, known or not, even twice */
    { "0 5 7+", "7", IVSHMEM_EVENT_PEER_GONE, 7, 0, RUN },
    { "0 5", "7", IVSHMEM_EVENT_PEER_GONE, 7, 0, RUN },
    { "0 5 7+ 7", "7", IVSHMEM_EVENT_PEER_GONE, 7, 0, RUN },
};

typedef struct Refused {
    const char *before;
    const char *frame;
    int error;
} Refused;

static const Refused refused[] = {
    /* VERSION */
    { "", "1", IVSHMEM_E_VERSION },
    { "", "-1", IVSHMEM_E_VERSION },
    { "", "65536", IVSHMEM_E_VERSION },
    { "", "-2", IVSHMEM_E_VERSION },
    { "", "0+", IVSHMEM_E_FD },

    /* ID */
    { "0", "65536", IVSHMEM_E_RANGE },
    { "0", "-1", IVSHMEM_E_RANGE },
    { "0", "-1+", IVSHMEM_E_RANGE },
    { "0", "-2", IVSHMEM_E_RANGE },
    { "0", "5+", IVSHMEM_E_FD },

    /* RUN, -1: the shared memory, at any time but once */
    { "0 5", "-1", IVSHMEM_E_FD },
    { "0 5 -1+", "-1+", IVSHMEM_E_DUP_SHM },
    { "0 5 -1+", "-1", IVSHMEM_E_FD },

    /* RUN, own id without fd */
    { "0 5", "5", IVSHMEM_E_SELF_GONE },
    { "0 5 5+", "5", IVSHMEM_E_SELF_GONE },

    /* RUN, no id */
    { "0 5", "65536", IVSHMEM_E_RANGE },
    { "0 5", "65536+", IVSHMEM_E_RANGE },
    { "0 5", "-2", IVSHMEM_E_RANGE },
    { "0 5", "-2+", IVSHMEM_E_RANGE },
    { "0 5", "4294967301", IVSHMEM_E_RANGE }, /* 5 + 2^32 */
    { "0 5", "9223372036854775807", IVSHMEM_E_RANGE },
    { "0 5", "-9223372036854775808+", IVSHMEM_E_RANGE },
};

static IvshmemFrame frame_parse(FakeFds *fds, const char *text)
{
    return (IvshmemFrame) {
        .value = g_ascii_strtoll(text, NULL, 10),
        .fd = strchr(text, '+') ? fake_fd_new(fds) : -1,
    };
}

/* Frames that are all accepted. */
static void push_text(IvshmemSession *session, const char *text)
{
    g_auto(GStrv) frames = g_strsplit(text, " ", -1);    /* "": none */
    FakeFds fds;

    fake_fds_init(&fds);
    for (char **text_frame = frames; *text_frame; text_frame++) {
        IvshmemFrame frame = frame_parse(&fds, *text_frame);
        IvshmemEvent event;

        g_assert_cmpint(ivshmem_session_frame(session, &frame, &event), ==, 0);
    }
    fake_fds_finish(&fds);
}

/* BROKEN absorbs everything, and consumes nothing. */
static void check_broken(IvshmemSession *session)
{
    static const IvshmemFrame frames[] = {
        { 0, -1 }, { 5, -1 }, { -1, 4711 }, { 5, 4712 }, { 7, 4713 },
        { 7, -1 }, { 1 << 20, -1 },
    };
    uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };
    IvshmemEvent event;
    int fd;

    for (unsigned i = 0; i < G_N_ELEMENTS(frames); i++) {
        g_assert_cmpint(ivshmem_session_frame(session, &frames[i], &event), ==,
                        IVSHMEM_E_BROKEN);
        g_assert_cmpint(event.type, ==, IVSHMEM_EVENT_NONE);
        g_assert_cmpint(event.fd, ==, -1);
        g_assert_cmpint(ivshmem_session_state(session), ==, BROKEN);
    }
    g_assert_cmpint(ivshmem_session_push(session, bytes, 1, 4714, &event), ==,
                    IVSHMEM_E_BROKEN);
    g_assert_cmpint(event.fd, ==, -1);
    g_assert_cmpint(ivshmem_session_end(session, &fd), ==, IVSHMEM_E_BROKEN);
    g_assert_cmpint(fd, ==, -1);
}

static void check_accepted(const Accepted *row)
{
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
    IvshmemFrame frame;
    IvshmemEvent event;
    FakeFds fds;
    int fd;

    g_test_message("after \"%s\": %s", row->before, row->frame);
    fake_fds_init(&fds);
    push_text(session, row->before);
    frame = frame_parse(&fds, row->frame);
    g_assert_cmpint(ivshmem_session_frame(session, &frame, &event), ==, 0);
    g_assert_cmpint(event.type, ==, row->event);
    g_assert_cmpint(event.fd, ==, frame.fd);
    g_assert_cmpint(event.id, ==, row->id);
    g_assert_cmpuint(event.vector, ==, row->vector);
    g_assert_cmpint(ivshmem_session_state(session), ==, row->after);

    g_assert_cmpint(ivshmem_session_end(session, &fd), ==, IVSHMEM_E_EOF);
    g_assert_cmpint(fd, ==, -1);
    check_broken(session);
    ivshmem_session_free(session);
    fake_fds_finish(&fds);
}

static void check_refused(const Refused *row)
{
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
    IvshmemFrame frame;
    IvshmemEvent event;
    FakeFds fds;

    g_test_message("after \"%s\": %s", row->before, row->frame);
    fake_fds_init(&fds);
    push_text(session, row->before);
    frame = frame_parse(&fds, row->frame);
    g_assert_cmpint(ivshmem_session_frame(session, &frame, &event), ==,
                    row->error);
    g_assert_cmpint(event.type, ==, IVSHMEM_EVENT_NONE);
    g_assert_cmpint(event.fd, ==, -1);          /* still the caller's */
    check_broken(session);
    ivshmem_session_free(session);
    fake_fds_finish(&fds);
}

/* R-CLI-5 */
static void test_table(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(accepted); i++) {
        check_accepted(&accepted[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        check_refused(&refused[i]);
    }
}

/* What a session says about itself and its peers. */
static void test_accessors(void)
{
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);

    g_assert_cmpint(ivshmem_session_state(session), ==, VERSION);
    g_assert_cmpint(ivshmem_session_id(session), ==, NO_ID);
    g_assert_false(ivshmem_session_has_shm(session));
    g_assert_cmpuint(ivshmem_session_peers(session), ==, 0);
    g_assert_cmpuint(ivshmem_session_want(session), ==, IVSHMEM_FRAME_SIZE);

    push_text(session, "0");
    g_assert_cmpint(ivshmem_session_id(session), ==, NO_ID);
    push_text(session, "5");
    g_assert_cmpint(ivshmem_session_id(session), ==, 5);
    push_text(session, "7+ 7+ 7+ 8+");
    g_assert_cmpuint(ivshmem_session_peers(session), ==, 2);
    g_assert_cmpuint(ivshmem_session_vectors(session, 7), ==, MAX_VECTORS);
    g_assert_cmpuint(ivshmem_session_vectors(session, 8), ==, 1);
    g_assert_cmpuint(ivshmem_session_vectors(session, 5), ==, 0);
    push_text(session, "5+ -1+ 5+ 5+");
    g_assert_true(ivshmem_session_has_shm(session));
    g_assert_cmpuint(ivshmem_session_peers(session), ==, 2);
    g_assert_cmpuint(ivshmem_session_vectors(session, 5), ==, MAX_VECTORS);
    push_text(session, "7 9 7");
    g_assert_cmpuint(ivshmem_session_peers(session), ==, 1);
    g_assert_cmpuint(ivshmem_session_vectors(session, 7), ==, 0);
    ivshmem_session_free(session);
    ivshmem_session_free(NULL);
}

/* The limit is clamped to what any device can have. */
/* R-CLI-5: excess vectors */
static void test_vector_limit(void)
{
    static const struct {
        unsigned asked, got;
    } limits[] = {
        { 0, 1 }, { 1, 1 }, { 7, 7 }, { 2048, 2048 }, { 2049, 2048 },
        { UINT_MAX, 2048 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        IvshmemSession *session = ivshmem_session_new(limits[i].asked);
        const IvshmemFrame frame = { .value = 7, .fd = 4711 };
        IvshmemEvent event;
        unsigned n = 0;

        push_text(session, "0 5");
        for (; n < 5000; n++) {
            g_assert_cmpint(ivshmem_session_frame(session, &frame, &event),
                            ==, 0);
            g_assert_cmpint(event.fd, ==, 4711);
            if (event.type != IVSHMEM_EVENT_PEER_VECTOR) {
                break;
            }
            g_assert_cmpuint(event.vector, ==, n);
        }
        g_assert_cmpint(event.type, ==, IVSHMEM_EVENT_EXCESS_VECTOR);
        g_assert_cmpuint(n, ==, limits[i].got);
        g_assert_cmpuint(ivshmem_session_vectors(session, 7), ==, n);
        ivshmem_session_free(session);
    }
}

/* Every id there is joins and leaves, twice. */
static void test_all_ids(void)
{
    IvshmemSession *session = ivshmem_session_new(1);

    push_text(session, "0 5 -1+ 5+");
    for (unsigned pass = 0; pass < 4; pass++) {
        bool join = pass % 2 == 0;

        for (int64_t id = 0; id <= IVSHMEM_ID_MAX; id++) {
            IvshmemFrame frame = { .value = id, .fd = join ? 4711 : -1 };
            IvshmemEvent event;

            if (id == 5) {
                continue;
            }
            g_assert_cmpint(ivshmem_session_frame(session, &frame, &event),
                            ==, 0);
            g_assert_cmpint(event.type, ==, join ? IVSHMEM_EVENT_PEER_VECTOR
                                                 : IVSHMEM_EVENT_PEER_GONE);
            g_assert_cmpuint(event.vector, ==, 0);
        }
        g_assert_cmpuint(ivshmem_session_peers(session), ==,
                         join ? IVSHMEM_ID_MAX : 0);
    }
    ivshmem_session_free(session);
}

/* All errors have a text of their own, and so do those of the system. */
static void test_strerror(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (int error = IVSHMEM_E_VERSION; error >= IVSHMEM_E_SHM_CHANGED;
         error--) {
        const char *text = ivshmem_strerror(error);

        g_assert_cmpstr(text, !=, ivshmem_strerror(-99999));
        g_assert_true(g_hash_table_add(seen, (char *)text));
    }
    g_assert_cmpstr(ivshmem_strerror(-EMFILE), ==, g_strerror(EMFILE));
    g_assert_nonnull(ivshmem_strerror(0));
    g_assert_nonnull(ivshmem_strerror(INT_MIN));
    g_assert_nonnull(ivshmem_strerror(INT_MAX));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/session/table", test_table);
    fd_leak_add("/session/accessors", test_accessors);
    fd_leak_add("/session/vector-limit", test_vector_limit);
    fd_leak_add("/session/all-ids", test_all_ids);
    fd_leak_add("/session/strerror", test_strerror);
    return g_test_run();
}
