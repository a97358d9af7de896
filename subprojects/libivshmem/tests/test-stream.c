/*
 * However the bytes of a stream arrive, the events are the same and so is who
 * owns which descriptor.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-session.h"
#include "test-util.h"

#define MAX_VECTORS 2
#define OWN_ID 5
#define FRAMES 24
#define BYTES (FRAMES * IVSHMEM_FRAME_SIZE)

typedef struct Stream {
    FakeFds fds;
    IvshmemFrame frames[FRAMES];
    IvshmemEvent events[FRAMES];        /* what each frame means */
    uint8_t bytes[BYTES];
    size_t fd_at[FRAMES];               /* byte with which the fd comes */
} Stream;

static void stream_finish(Stream *stream)
{
    fake_fds_finish(&stream->fds);
}

/*
 * A legal stream, an fd on every frame that may have one (@leaves: and some
 * departures).  Its events come from whole frames, so that test-session.c has
 * proved them.
 */
static void stream_init(Stream *stream, GRand *rand, bool leaves)
{
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);

    fake_fds_init(&stream->fds);
    for (unsigned i = 0; i < FRAMES; i++) {
        IvshmemFrame *frame = &stream->frames[i];
        int64_t id = g_rand_int_range(rand, 3, 8);
        bool leave = leaves && id != OWN_ID && !g_rand_int_range(rand, 0, 4);

        frame->value = i == 0 ? IVSHMEM_PROTOCOL_VERSION
                     : i == 1 ? OWN_ID
                     : i == 6 ? IVSHMEM_VALUE_SHM : id;
        frame->fd = i < 2 || (leave && i != 6) ? -1
                                               : fake_fd_new(&stream->fds);
        ivshmem_wire_encode(stream->bytes + i * IVSHMEM_FRAME_SIZE,
                            frame->value);
        stream->fd_at[i] = i * IVSHMEM_FRAME_SIZE;
        g_assert_cmpint(ivshmem_session_frame(session, frame,
                                              &stream->events[i]), ==, 0);
    }
    ivshmem_session_free(session);
}

/*
 * Push bytes @from to @to.  Returns what the session does; checks its event
 * when they complete a frame.
 */
static void stream_push(Stream *stream, IvshmemSession *session, size_t from,
                        size_t to)
{
    size_t n = from / IVSHMEM_FRAME_SIZE;
    bool with_fd = stream->frames[n].fd >= 0 &&
                   from <= stream->fd_at[n] && stream->fd_at[n] < to;
    const IvshmemEvent *want = &stream->events[n];
    IvshmemEvent event;

    g_assert_cmpint(ivshmem_session_push(session, stream->bytes + from,
                                         to - from,
                                         with_fd ? stream->frames[n].fd : -1,
                                         &event), ==, 0);
    if (with_fd) {
        fake_fd_give(&stream->fds, stream->frames[n].fd);
    }
    if (to % IVSHMEM_FRAME_SIZE) {
        g_assert_cmpint(event.type, ==, IVSHMEM_EVENT_NONE);
        g_assert_cmpint(event.fd, ==, -1);
        return;
    }
    g_assert_cmpint(event.type, ==, want->type);
    g_assert_cmpint(event.fd, ==, want->fd);
    g_assert_cmpint(event.id, ==, want->id);
    g_assert_cmpuint(event.vector, ==, want->vector);
    if (event.fd >= 0) {
        fake_fd_take(&stream->fds, event.fd);
    }
}

/* As long as can be, but never across @cut: what a reader would do. */
static void stream_push_to(Stream *stream, IvshmemSession *session,
                           size_t *at, size_t cut)
{
    while (*at < cut) {
        size_t want = ivshmem_session_want(session);
        size_t to = MIN(*at + want, cut);

        g_assert_cmpuint(want, ==,
                         IVSHMEM_FRAME_SIZE - *at % IVSHMEM_FRAME_SIZE);
        stream_push(stream, session, *at, to);
        *at = to;
    }
}

static void stream_end(Stream *stream, IvshmemSession *session, size_t at)
{
    size_t n = at / IVSHMEM_FRAME_SIZE;
    bool inside = at % IVSHMEM_FRAME_SIZE;
    int held = inside && stream->fd_at[n] < at ? stream->frames[n].fd : -1;
    IvshmemEvent event;
    int fd;

    g_assert_cmpint(ivshmem_session_end(session, &fd), ==,
                    inside ? IVSHMEM_E_TRUNCATED : IVSHMEM_E_EOF);
    g_assert_cmpint(fd, ==, held);
    if (fd >= 0) {
        fake_fd_take(&stream->fds, fd);
    }
    g_assert_cmpint(ivshmem_session_push(session, "", 1, -1, &event), ==,
                    IVSHMEM_E_BROKEN);
    g_assert_cmpint(ivshmem_session_end(session, &fd), ==, IVSHMEM_E_BROKEN);
    g_assert_cmpint(fd, ==, -1);
    ivshmem_session_free(session);
}

/* R-CLI-3 */
static void test_cut_everywhere(void)
{
    g_autoptr(GRand) rand = test_rand_new();
    Stream stream;

    stream_init(&stream, rand, false);
    for (size_t cut = 0; cut <= BYTES; cut++) {
        IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
        size_t at = 0;

        stream_push_to(&stream, session, &at, cut);
        stream_push_to(&stream, session, &at, BYTES);
        stream_end(&stream, session, at);
    }
    stream_finish(&stream);
}

/* R-CLI-6 */
static void test_eof_everywhere(void)
{
    g_autoptr(GRand) rand = test_rand_new();
    Stream stream;

    stream_init(&stream, rand, true);
    for (size_t cut = 0; cut <= BYTES; cut++) {
        IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
        size_t at = 0;

        stream_push_to(&stream, session, &at, cut);
        stream_end(&stream, session, at);
    }
    stream_finish(&stream);
}

static void test_byte_by_byte(void)
{
    g_autoptr(GRand) rand = test_rand_new();
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
    Stream stream;

    stream_init(&stream, rand, false);
    for (size_t at = 0; at < BYTES; at++) {
        stream_push(&stream, session, at, at + 1);
    }
    stream_end(&stream, session, BYTES);
    stream_finish(&stream);
}

/* Thousands of streams, each cut at random, the fds at random bytes. */
static void test_cut_at_random(void)
{
    g_autoptr(GRand) rand = test_rand_new();

    for (unsigned i = 0; i < 8191; i++) {
        IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
        Stream stream;
        size_t at = 0, end = g_rand_int_range(rand, 0, BYTES + 1);

        stream_init(&stream, rand, true);
        for (unsigned n = 0; n < FRAMES; n++) {
            stream.fd_at[n] += g_rand_int_range(rand, 0, IVSHMEM_FRAME_SIZE);
        }
        while (at < end) {
            size_t step = g_rand_int_range(rand, 1, 2 * IVSHMEM_FRAME_SIZE);

            stream_push_to(&stream, session, &at, MIN(at + step, end));
        }
        stream_end(&stream, session, at);
        stream_finish(&stream);
    }
}

/* Handshake up to RUN, and then @cut bytes of a frame, with fd 7. */
static IvshmemSession *session_inside_frame(const uint8_t *bytes, size_t cut)
{
    static const uint8_t handshake[2][IVSHMEM_FRAME_SIZE] = { { 0 }, { 5 } };
    IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
    IvshmemEvent event;

    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(ivshmem_session_push(session, handshake[i],
                                             IVSHMEM_FRAME_SIZE, -1, &event),
                        ==, 0);
    }
    g_assert_cmpint(ivshmem_session_push(session, bytes, cut, 7, &event), ==,
                    0);
    g_assert_cmpint(event.fd, ==, -1);
    return session;
}

/* The error is final; fd 7 comes out of the end, once. */
static void check_held(IvshmemSession *session)
{
    IvshmemEvent event;
    int fd;

    g_assert_cmpint(ivshmem_session_state(session), ==,
                    IVSHMEM_SESSION_BROKEN);
    g_assert_cmpint(ivshmem_session_push(session, "", 1, -1, &event), ==,
                    IVSHMEM_E_BROKEN);
    g_assert_cmpint(ivshmem_session_end(session, &fd), ==, IVSHMEM_E_BROKEN);
    g_assert_cmpint(fd, ==, 7);
    g_assert_cmpint(ivshmem_session_end(session, &fd), ==, IVSHMEM_E_BROKEN);
    g_assert_cmpint(fd, ==, -1);
    ivshmem_session_free(session);
}

static void test_second_fd(void)
{
    static const uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 9 };

    for (size_t cut = 1; cut < IVSHMEM_FRAME_SIZE; cut++) {
        for (size_t len = 1; len <= IVSHMEM_FRAME_SIZE - cut; len++) {
            IvshmemSession *session = session_inside_frame(bytes, cut);
            IvshmemEvent event;

            g_assert_cmpint(ivshmem_session_push(session, bytes + cut, len, 8,
                                                 &event), ==, IVSHMEM_E_FD);
            g_assert_cmpint(event.fd, ==, -1);
            check_held(session);
        }
    }
}

/* A frame that is refused when complete, its fd having come before the end. */
static void test_refused_with_held_fd(void)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];

    ivshmem_wire_encode(bytes, -2);
    for (size_t cut = 1; cut < IVSHMEM_FRAME_SIZE; cut++) {
        IvshmemSession *session = session_inside_frame(bytes, cut);
        IvshmemEvent event;

        g_assert_cmpint(ivshmem_session_push(session, bytes + cut,
                                             IVSHMEM_FRAME_SIZE - cut, -1,
                                             &event), ==, IVSHMEM_E_RANGE);
        g_assert_cmpint(event.fd, ==, -1);
        check_held(session);
    }
}

/* A frame that is refused in the call that brought its fd. */
static void test_refused_with_fd(void)
{
    static const uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };

    for (size_t cut = 0; cut < IVSHMEM_FRAME_SIZE; cut++) {
        IvshmemSession *session = ivshmem_session_new(MAX_VECTORS);
        IvshmemEvent event;
        int fd;

        if (cut) {
            g_assert_cmpint(ivshmem_session_push(session, bytes, cut, -1,
                                                 &event), ==, 0);
        }
        g_assert_cmpint(ivshmem_session_push(session, bytes + cut,
                                             IVSHMEM_FRAME_SIZE - cut, 8,
                                             &event), ==, IVSHMEM_E_FD);
        g_assert_cmpint(event.fd, ==, -1);
        g_assert_cmpint(ivshmem_session_end(session, &fd), ==,
                        IVSHMEM_E_BROKEN);
        g_assert_cmpint(fd, ==, -1);            /* 8 is ours */
        ivshmem_session_free(session);
    }
}

/* A reader that takes more than it may is told, and is not obeyed. */
/* R-CLI-2 */
static void test_too_much(void)
{
    static const uint8_t bytes[2 * IVSHMEM_FRAME_SIZE] = { 0 };

    for (size_t cut = 1; cut < IVSHMEM_FRAME_SIZE; cut++) {
        for (unsigned zero = 0; zero < 2; zero++) {
            IvshmemSession *session = session_inside_frame(bytes, cut);
            IvshmemEvent event;
            size_t len = zero ? 0 : IVSHMEM_FRAME_SIZE - cut + 1;

            g_assert_cmpint(ivshmem_session_push(session, bytes, len, -1,
                                                 &event), ==, IVSHMEM_E_RANGE);
            check_held(session);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/stream/cut-everywhere", test_cut_everywhere);
    fd_leak_add("/stream/eof-everywhere", test_eof_everywhere);
    fd_leak_add("/stream/byte-by-byte", test_byte_by_byte);
    fd_leak_add("/stream/cut-at-random", test_cut_at_random);
    fd_leak_add("/stream/second-fd", test_second_fd);
    fd_leak_add("/stream/refused-with-held-fd", test_refused_with_held_fd);
    fd_leak_add("/stream/refused-with-fd", test_refused_with_fd);
    fd_leak_add("/stream/too-much", test_too_much);
    return g_test_run();
}
