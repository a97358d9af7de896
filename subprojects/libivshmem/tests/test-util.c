/*
 * Seeds and fake descriptors, see test-util.h.  Holds no test of its own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-util.h"

GRand *test_rand_new(void)
{
    const char *wish = g_getenv("IVSHMEM_TEST_SEED");
    guint32 seed = wish ? (guint32)g_ascii_strtoull(wish, NULL, 0)
                        : g_random_int();

    g_test_message("IVSHMEM_TEST_SEED=%u", seed);
    return g_rand_new_with_seed(seed);
}

gboolean test_skip_without_fd_limit(void)
{
    const char *preload = g_getenv("LD_PRELOAD");
    gboolean valgrind = preload && g_strrstr(preload, "vgpreload");

    if (valgrind) {
        g_test_skip("valgrind does not pass RLIMIT_NOFILE on to the kernel");
    }
    return valgrind;
}

void fake_fds_init(FakeFds *fds)
{
    fds->inside = g_byte_array_new();
    fds->n_inside = 0;
}

void fake_fds_finish(FakeFds *fds)
{
    g_assert_cmpuint(fds->n_inside, ==, 0);
    g_byte_array_unref(fds->inside);
    fds->inside = NULL;
}

int fake_fd_new(FakeFds *fds)
{
    const guint8 ours = 0;

    g_byte_array_append(fds->inside, &ours, 1);
    return FAKE_FD_BASE + (int)fds->inside->len - 1;
}

static guint8 *fake_fd_slot(const FakeFds *fds, int fd)
{
    g_assert_cmpint(fd, >=, FAKE_FD_BASE);
    g_assert_cmpuint(fd - FAKE_FD_BASE, <, fds->inside->len);
    return &fds->inside->data[fd - FAKE_FD_BASE];
}

void fake_fd_give(FakeFds *fds, int fd)
{
    guint8 *inside = fake_fd_slot(fds, fd);

    g_assert_false(*inside);
    *inside = 1;
    fds->n_inside++;
}

void fake_fd_take(FakeFds *fds, int fd)
{
    guint8 *inside = fake_fd_slot(fds, fd);

    g_assert_true(*inside);
    *inside = 0;
    fds->n_inside--;
}

gboolean fake_fd_inside(const FakeFds *fds, int fd)
{
    return *fake_fd_slot(fds, fd);
}
