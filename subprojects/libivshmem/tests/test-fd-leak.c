/*
 * The descriptor check checked: children that leak or close must fail, and
 * only those.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <unistd.h>
#include <sys/eventfd.h>
#include <glib.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"

static void test_clean(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    ivshmem_fd_close(&fd);
}

static void test_leak(void)
{
    g_assert_cmpint(eventfd(0, EFD_CLOEXEC), >=, 0);
}

static void test_close_foreign(void)
{
    int fd = STDIN_FILENO;

    ivshmem_fd_close(&fd);
}

static void test_replace(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    g_assert_cmpint(dup2(fd, STDIN_FILENO), ==, STDIN_FILENO);
    ivshmem_fd_close(&fd);
}

static void child(const char *path)
{
    g_test_trap_subprocess(path, 0, 0);
}

static void test_checker(void)
{
    child("/fd-leak/subprocess/clean");
    g_test_trap_assert_passed();

    child("/fd-leak/subprocess/leak");
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*leaked descriptor*eventfd*");

    child("/fd-leak/subprocess/close-foreign");
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*closed a foreign descriptor 0*");

    child("/fd-leak/subprocess/replace");
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*leaked descriptor 0*eventfd*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fd-leak/checker", test_checker);
    fd_leak_add("/fd-leak/subprocess/clean", test_clean);
    fd_leak_add("/fd-leak/subprocess/leak", test_leak);
    fd_leak_add("/fd-leak/subprocess/close-foreign", test_close_foreign);
    fd_leak_add("/fd-leak/subprocess/replace", test_replace);
    return g_test_run();
}
