/*
 * Tests that end with the descriptors they began with.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_TESTS_FD_LEAK_H
#define IVSHMEM_TESTS_FD_LEAK_H

/*
 * Register @func as the test @path, like g_test_add_func().  It fails when it
 * leaves a descriptor open, or closes one that was open when it began; the
 * message names the descriptor.
 */
void fd_leak_add(const char *path, void (*func)(void));

#endif /* IVSHMEM_TESTS_FD_LEAK_H */
