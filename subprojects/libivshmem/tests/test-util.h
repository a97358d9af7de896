/*
 * What the core's tests and fuzz targets share: seeds, and descriptors that
 * are only numbers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_TESTS_TEST_UTIL_H
#define IVSHMEM_TESTS_TEST_UTIL_H

#include <glib.h>

/*
 * A random generator.  Its seed is new in every run, and printed;
 * IVSHMEM_TEST_SEED=NUMBER repeats a run.
 */
GRand *test_rand_new(void);

/*
 * True, and the test is skipped, under valgrind: it keeps descriptor limits of
 * its own and the kernel's stay as they were.
 */
gboolean test_skip_without_fd_limit(void);

/* Above any RLIMIT_NOFILE: closing one by mistake does no harm. */
#define FAKE_FD_BASE (1 << 30)

/*
 * An ownership oracle.  The core makes no system calls, so any number will do
 * as a descriptor; these are out of the kernel's reach, and every one of them
 * is at each moment either ours or the core's.
 */
typedef struct FakeFds {
    GByteArray *inside;         /* per number: whether the core owns it */
    unsigned n_inside;
} FakeFds;

void fake_fds_init(FakeFds *fds);

/* Everything must have come back. */
void fake_fds_finish(FakeFds *fds);

/* A new number, ours. */
int fake_fd_new(FakeFds *fds);

/* The core has taken @fd over, or given it back. */
void fake_fd_give(FakeFds *fds, int fd);
void fake_fd_take(FakeFds *fds, int fd);

gboolean fake_fd_inside(const FakeFds *fds, int fd);

#endif /* IVSHMEM_TESTS_TEST_UTIL_H */
