/*
 * Bytes to frames, and who owns a descriptor on the way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-framer.h"
#include "test-util.h"

static const struct {
    int64_t value;
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
} codec_rows[] = {
    { 0,         { 0, 0, 0, 0, 0, 0, 0, 0 } },
    { 1,         { 1, 0, 0, 0, 0, 0, 0, 0 } },
    { -1,        { 255, 255, 255, 255, 255, 255, 255, 255 } },
    { 65535,     { 255, 255, 0, 0, 0, 0, 0, 0 } },
    { 0x0807060504030201, { 1, 2, 3, 4, 5, 6, 7, 8 } },
    { INT64_MAX, { 255, 255, 255, 255, 255, 255, 255, 127 } },
    { INT64_MIN, { 0, 0, 0, 0, 0, 0, 0, 128 } },
};

static void test_codec(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(codec_rows); i++) {
        uint8_t bytes[IVSHMEM_FRAME_SIZE];

        ivshmem_wire_encode(bytes, codec_rows[i].value);
        g_assert_cmpmem(bytes, sizeof(bytes), codec_rows[i].bytes,
                        sizeof(bytes));
        g_assert_cmpint(ivshmem_wire_decode(bytes), ==, codec_rows[i].value);
    }
}

static void test_limits(void)
{
    IvshmemFramer framer;
    IvshmemFrame frame;
    uint8_t bytes[IVSHMEM_FRAME_SIZE + 1] = { 42 };
    FakeFds fds;

    fake_fds_init(&fds);
    ivshmem_framer_init(&framer);
    for (size_t fill = 0; fill < IVSHMEM_FRAME_SIZE; fill++) {
        int fd = fake_fd_new(&fds);
        size_t want = ivshmem_framer_want(&framer);

        /* Refused, and nothing has changed: the caller still owns fd. */
        g_assert_cmpuint(want, ==, IVSHMEM_FRAME_SIZE - fill);
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes, 0, fd, &frame), ==,
                        IVSHMEM_E_RANGE);
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes, want + 1, fd,
                                            &frame), ==, IVSHMEM_E_RANGE);
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes, SIZE_MAX, fd,
                                            &frame), ==, IVSHMEM_E_RANGE);
        g_assert_cmpuint(ivshmem_framer_want(&framer), ==, want);
        g_assert_true(ivshmem_framer_idle(&framer) == (fill == 0));

        g_assert_cmpint(ivshmem_framer_push(&framer, bytes + fill, 1, -1,
                                            &frame), ==,
                        fill == IVSHMEM_FRAME_SIZE - 1);
    }
    g_assert_cmpint(frame.value, ==, 42);
    g_assert_cmpint(frame.fd, ==, -1);
    fake_fds_finish(&fds);
}

/* One frame in two pieces, cut at every byte, the fd with either piece. */
/* R-CLI-3 */
static void test_split(void)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];

    ivshmem_wire_encode(bytes, 0x0123456789abcdef);
    for (unsigned i = 0; i < 2 * IVSHMEM_FRAME_SIZE; i++) {
        size_t cut = i / 2;
        int first = i % 2 ? 77 : -1, second = i % 2 ? -1 : 77;
        IvshmemFramer framer;
        IvshmemFrame frame;

        ivshmem_framer_init(&framer);
        if (cut) {
            g_assert_cmpint(ivshmem_framer_push(&framer, bytes, cut, first,
                                                &frame), ==, 0);
            g_assert_false(ivshmem_framer_idle(&framer));
        } else {
            second = 77;
        }
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes + cut,
                                            sizeof(bytes) - cut, second,
                                            &frame), ==, 1);
        g_assert_cmpint(frame.value, ==, 0x0123456789abcdef);
        g_assert_cmpint(frame.fd, ==, 77);
        g_assert_true(ivshmem_framer_idle(&framer));
        g_assert_cmpint(ivshmem_framer_reset(&framer), ==, -1);
    }
}

/* R-CLI-4 */
static void test_second_fd(void)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };

    for (size_t cut = 1; cut < sizeof(bytes); cut++) {
        IvshmemFramer framer;
        IvshmemFrame frame;

        ivshmem_framer_init(&framer);
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes, cut, 7, &frame),
                        ==, 0);
        g_assert_cmpint(ivshmem_framer_push(&framer, bytes, 1, 8, &frame), ==,
                        IVSHMEM_E_FD);
        /* 8 is still ours; 7 comes out once. */
        g_assert_cmpint(ivshmem_framer_reset(&framer), ==, 7);
        g_assert_cmpint(ivshmem_framer_reset(&framer), ==, -1);
        g_assert_true(ivshmem_framer_idle(&framer));
        g_assert_cmpuint(ivshmem_framer_want(&framer), ==, IVSHMEM_FRAME_SIZE);
    }
}

/* Fd 0 is a descriptor like any other. */
static void test_fd_zero(void)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE] = { 0 };
    IvshmemFramer framer;
    IvshmemFrame frame;

    ivshmem_framer_init(&framer);
    g_assert_cmpint(ivshmem_framer_push(&framer, bytes, 4, 0, &frame), ==, 0);
    g_assert_cmpint(ivshmem_framer_push(&framer, bytes, 4, 0, &frame), ==,
                    IVSHMEM_E_FD);
    g_assert_cmpint(ivshmem_framer_push(&framer, bytes, 4, -1, &frame), ==, 1);
    g_assert_cmpint(frame.fd, ==, 0);
}

/* A long stream in random pieces: every frame keeps its own fd. */
static void test_random(void)
{
    g_autoptr(GRand) rand = test_rand_new();
    IvshmemFramer framer;
    FakeFds fds;

    fake_fds_init(&fds);
    ivshmem_framer_init(&framer);
    for (unsigned i = 0; i < 50000; i++) {
        int64_t value = (int64_t)(((uint64_t)g_rand_int(rand) << 32) |
                                  g_rand_int(rand));
        uint8_t bytes[IVSHMEM_FRAME_SIZE];
        int fd = fake_fd_new(&fds), ret = 0;
        size_t at = 0, fd_at = g_rand_int_range(rand, 0, sizeof(bytes));
        IvshmemFrame frame;

        ivshmem_wire_encode(bytes, value);
        while (at < sizeof(bytes)) {
            size_t want = ivshmem_framer_want(&framer);
            size_t len = g_rand_int_range(rand, 1, (int)want + 1);
            gboolean here = at <= fd_at && fd_at < at + len;

            g_assert_cmpint(ret, ==, 0);
            g_assert_cmpuint(want, ==, sizeof(bytes) - at);
            ret = ivshmem_framer_push(&framer, bytes + at, len, here ? fd : -1,
                                      &frame);
            if (here) {
                fake_fd_give(&fds, fd);
            }
            at += len;
        }
        g_assert_cmpint(ret, ==, 1);
        g_assert_cmpint(frame.value, ==, value);
        g_assert_cmpint(frame.fd, ==, fd);
        fake_fd_take(&fds, frame.fd);
    }
    fake_fds_finish(&fds);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/framer/codec", test_codec);
    fd_leak_add("/framer/limits", test_limits);
    fd_leak_add("/framer/split", test_split);
    fd_leak_add("/framer/second-fd", test_second_fd);
    fd_leak_add("/framer/fd-zero", test_fd_zero);
    fd_leak_add("/framer/random", test_random);
    return g_test_run();
}
