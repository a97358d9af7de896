/*
 * Listening, connecting, and eventfds.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib.h>
#include <glib/gstdio.h>

#include "fd-leak.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "test-util.h"

static void assert_flags(int fd)
{
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    g_assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static char *dir_new(void)
{
    char *dir = g_dir_make_tmp("ivshmem-io-XXXXXX", NULL);

    g_assert_nonnull(dir);
    return dir;
}

static void test_connect(void)
{
    g_autofree char *dir = dir_new();
    g_autofree char *path = g_build_filename(dir, "sock", NULL);
    int listener, client, server, fd;
    char byte;

    g_assert_cmpint(ivshmem_io_connect(path), ==, -ENOENT);
    listener = ivshmem_io_listen(path, 0600);
    assert_flags(listener);
    g_assert_cmpint(ivshmem_io_accept(listener), ==, -EAGAIN);

    client = ivshmem_io_connect(path);
    assert_flags(client);
    server = ivshmem_io_accept(listener);
    assert_flags(server);
    g_assert_cmpint(ivshmem_io_accept(listener), ==, -EAGAIN);
    g_assert_cmpint(ivshmem_io_send(server, &(IvshmemFrame) { 65, -1 }, 1), ==,
                    1);
    g_assert_cmpint(ivshmem_io_recv(client, &byte, 1, &fd), ==, 1);
    g_assert_cmpint(byte, ==, 65);

    ivshmem_fd_close(&client);
    ivshmem_fd_close(&server);
    ivshmem_fd_close(&listener);

    /* Stale: nobody listens, and the path is not to be had either. */
    g_assert_cmpint(ivshmem_io_connect(path), ==, -ECONNREFUSED);
    g_assert_cmpint(ivshmem_io_listen(path, 0600), ==, -EADDRINUSE);
    g_assert_cmpint(access(path, F_OK), ==, 0);
    g_assert_cmpint(g_unlink(path), ==, 0);

    g_assert_true(g_file_set_contents(path, "file", -1, NULL));
    g_assert_cmpint(ivshmem_io_connect(path), ==, -ECONNREFUSED);
    g_assert_cmpint(ivshmem_io_listen(path, 0600), ==, -EADDRINUSE);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(ivshmem_io_accept(-1), ==, -EBADF);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* R-SRV-22 */
static void test_listen_modes(void)
{
    static const struct {
        mode_t umask, mode, want;
    } rows[] = {
        { 0077, 0666, 0666 }, { 0000, 0600, 0600 }, { 0777, 0660, 0660 },
        { 0022, 0000, 0755 }, { 0077, 0000, 0700 }, { 0000, 0000, 0777 },
    };
    g_autofree char *dir = dir_new();
    g_autofree char *path = g_build_filename(dir, "sock", NULL);
    mode_t saved = umask(0);

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct stat st;
        int fd;

        umask(rows[i].umask);
        fd = ivshmem_io_listen(path, rows[i].mode);
        g_assert_cmphex(umask(0), ==, rows[i].umask);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(stat(path, &st), ==, 0);
        g_assert_true(S_ISSOCK(st.st_mode));
        g_assert_cmphex(st.st_mode & 0777, ==, rows[i].want);
        ivshmem_fd_close(&fd);
        g_assert_cmpint(g_unlink(path), ==, 0);
    }
    umask(saved);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* The longest path that fits, one more, much more, and none at all. */
static void test_path_lengths(void)
{
    const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    g_autofree char *dir = dir_new();
    g_autofree char *fill = g_strnfill(max - strlen(dir) - 1, 'x');
    g_autofree char *fits = g_build_filename(dir, fill, NULL);
    g_autofree char *longer = g_strconcat(fits, "y", NULL);
    g_autofree char *huge = g_strnfill(100000, 'z');
    int listener, client;

    g_assert_cmpuint(strlen(fits), ==, max);
    listener = ivshmem_io_listen(fits, 0600);
    g_assert_cmpint(listener, >=, 0);
    client = ivshmem_io_connect(fits);
    g_assert_cmpint(client, >=, 0);
    ivshmem_fd_close(&client);
    ivshmem_fd_close(&listener);
    g_assert_cmpint(g_unlink(fits), ==, 0);

    g_assert_cmpint(ivshmem_io_listen(longer, 0600), ==, -ENAMETOOLONG);
    g_assert_cmpint(ivshmem_io_connect(longer), ==, -ENAMETOOLONG);
    g_assert_cmpint(ivshmem_io_listen(huge, 0600), ==, -ENAMETOOLONG);
    g_assert_cmpint(ivshmem_io_connect(huge), ==, -ENAMETOOLONG);
    /* Linux would take an empty one for an abstract address. */
    g_assert_cmpint(ivshmem_io_listen("", 0), ==, -ENOENT);
    g_assert_cmpint(ivshmem_io_listen("", 0600), ==, -ENOENT);
    g_assert_cmpint(ivshmem_io_connect(""), ==, -ENOENT);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* R-CLI-20, R-CLI-21, R-SRV-16 */
static void test_eventfd(void)
{
    const uint64_t full = UINT64_MAX - 1;
    uint64_t count = 99;
    int fd = ivshmem_io_eventfd();

    assert_flags(fd);
    g_assert_cmpint(ivshmem_io_drain(fd, &count), ==, -EAGAIN);
    g_assert_cmpuint(count, ==, 99);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(ivshmem_io_ring(fd), ==, 0);
    }
    g_assert_cmpint(ivshmem_io_drain(fd, &count), ==, 0);
    g_assert_cmpuint(count, ==, 3);
    g_assert_cmpint(ivshmem_io_drain(fd, NULL), ==, -EAGAIN);

    /* A full counter is rung already. */
    g_assert_cmpint(write(fd, &full, sizeof(full)), ==, sizeof(full));
    g_assert_cmpint(ivshmem_io_ring(fd), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(fd, &count), ==, 0);
    g_assert_cmpuint(count, ==, full);

    g_assert_cmpint(ivshmem_io_ring(fd), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(fd, NULL), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(fd, NULL), ==, -EAGAIN);
    ivshmem_fd_close(&fd);
    g_assert_cmpint(ivshmem_io_ring(fd), ==, -EBADF);
    g_assert_cmpint(ivshmem_io_drain(fd, NULL), ==, -EBADF);
}

/* Whoever else holds an eventfd can make it blocking, and empty it. */
/* R-CLI-22 */
static void test_drain_blocking(void)
{
    uint64_t count = 99;
    int fd = eventfd(0, EFD_CLOEXEC);

    alarm(60);                  /* ends a test that waits for ever */
    g_assert_cmpint(ivshmem_io_drain(fd, &count), ==, -EAGAIN);
    g_assert_cmpuint(count, ==, 99);
    g_assert_cmpint(ivshmem_io_ring(fd), ==, 0);
    g_assert_cmpint(ivshmem_io_drain(fd, &count), ==, 0);
    g_assert_cmpuint(count, ==, 1);
    alarm(0);
    ivshmem_fd_close(&fd);
}

/* Out of descriptors: an error each, and the path is left alone. */
static void test_no_descriptors(void)
{
    g_autofree char *dir = NULL, *path = NULL, *other = NULL;
    int listener, client, server;
    struct rlimit old, tight;

    if (test_skip_without_fd_limit()) {
        return;
    }
    dir = dir_new();
    path = g_build_filename(dir, "sock", NULL);
    other = g_build_filename(dir, "other", NULL);
    listener = ivshmem_io_listen(path, 0600);
    client = ivshmem_io_connect(path);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    tight = (struct rlimit) { 0, old.rlim_max };
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &tight), ==, 0);
    g_assert_cmpint(ivshmem_io_accept(listener), ==, -EMFILE);
    g_assert_cmpint(ivshmem_io_connect(path), ==, -EMFILE);
    g_assert_cmpint(ivshmem_io_listen(other, 0600), ==, -EMFILE);
    g_assert_cmpint(ivshmem_io_eventfd(), ==, -EMFILE);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);

    g_assert_cmpint(access(other, F_OK), ==, -1);
    /* The connection that could not be accepted is still there. */
    server = ivshmem_io_accept(listener);
    assert_flags(server);
    ivshmem_fd_close(&server);
    ivshmem_fd_close(&client);
    ivshmem_fd_close(&listener);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* What a peer passes for an eventfd may be something else. */
static void test_not_an_eventfd(void)
{
    uint64_t count = 99;
    int pipes[2];

    g_assert_cmpint(pipe(pipes), ==, 0);
    g_assert_cmpint(write(pipes[1], "abc", 3), ==, 3);
    g_assert_cmpint(ivshmem_io_drain(pipes[0], &count), ==, -EBADMSG);
    g_assert_cmpint(ivshmem_io_ring(pipes[0]), ==, -EBADF);     /* read end */
    ivshmem_fd_close(&pipes[1]);
    g_assert_cmpint(ivshmem_io_drain(pipes[0], &count), ==, -EBADMSG);
    g_assert_cmpuint(count, ==, 99);
    ivshmem_fd_close(&pipes[0]);
}

/* R-CLI-13 */
static void test_set_nonblock(void)
{
    int fd = eventfd(0, EFD_CLOEXEC), other = dup(fd);

    g_assert_false(fcntl(other, F_GETFL) & O_NONBLOCK);
    g_assert_cmpint(ivshmem_io_set_nonblock(fd), ==, 0);
    g_assert_true(fcntl(other, F_GETFL) & O_NONBLOCK);
    g_assert_cmpint(ivshmem_io_set_nonblock(fd), ==, 0);
    g_assert_cmpint(fcntl(fd, F_SETFL, O_APPEND), ==, 0);
    g_assert_cmpint(ivshmem_io_set_nonblock(fd), ==, 0);
    g_assert_cmphex(fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE),
                    ==, O_APPEND | O_NONBLOCK | O_RDWR);
    ivshmem_fd_close(&fd);
    ivshmem_fd_close(&other);
    g_assert_cmpint(ivshmem_io_set_nonblock(fd), ==, -EBADF);
}

/* Consumes @fd. */
static void assert_is_eventfd(int fd, int want)
{
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ivshmem_io_is_eventfd(fd), ==, want);
    ivshmem_fd_close(&fd);
}

static int eventfd_with(uint64_t count)
{
    int fd = eventfd(0, EFD_NONBLOCK);

    g_assert_cmpint(write(fd, &count, sizeof(count)), ==, sizeof(count));
    return fd;
}

/* To look must not be to ring: KVM would interrupt a guest. */
static void check_that_nobody_wakes_up(void)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd = ivshmem_io_eventfd();

    g_assert_cmpint(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), ==, 0);
    g_assert_cmpint(epoll_wait(epoll, &event, 1, 0), ==, 1);
    g_assert_cmpint(ivshmem_io_is_eventfd(fd), ==, 1);
    g_assert_cmpint(epoll_wait(epoll, &event, 1, 0), ==, 0);
    ivshmem_fd_close(&fd);
    ivshmem_fd_close(&epoll);
}

static void check_what_is_an_eventfd(const char *file)
{
    int pipes[2], rung = eventfd_with(5);
    uint64_t count;
    sigset_t signals;

    sigemptyset(&signals);
    assert_is_eventfd(ivshmem_io_eventfd(), 1);
    assert_is_eventfd(eventfd(3, EFD_SEMAPHORE), 1);
    assert_is_eventfd(eventfd_with(IVSHMEM_IO_FULL), 1);
    g_assert_cmpint(ivshmem_io_is_eventfd(rung), ==, 1);
    g_assert_cmpint(ivshmem_io_drain(rung, &count), ==, 0);
    g_assert_cmpuint(count, ==, 5);
    g_assert_cmpint(ivshmem_io_is_eventfd(rung), ==, 1);
    g_assert_cmpint(ivshmem_io_drain(rung, &count), ==, -EAGAIN);
    ivshmem_fd_close(&rung);
    check_that_nobody_wakes_up();

    assert_is_eventfd(open(file, O_RDWR), 0);
    assert_is_eventfd(open("/", O_RDONLY | O_DIRECTORY), 0);
    assert_is_eventfd(memfd_create("anon_inode:[eventfd]", 0), 0);
    assert_is_eventfd(socket(AF_UNIX, SOCK_STREAM, 0), 0);
    assert_is_eventfd(epoll_create1(0), 0);
    assert_is_eventfd(timerfd_create(CLOCK_MONOTONIC, 0), 0);
    assert_is_eventfd(signalfd(-1, &signals, 0), 0);
    assert_is_eventfd(inotify_init1(IN_NONBLOCK), 0);
    g_assert_cmpint(pipe(pipes), ==, 0);
    assert_is_eventfd(pipes[0], 0);
    assert_is_eventfd(pipes[1], 0);

    g_assert_cmpint(ivshmem_io_is_eventfd(-1), ==, -EBADF);
    g_assert_cmpint(ivshmem_io_is_eventfd(INT_MAX), ==, -EBADF);
}

static void test_is_eventfd(void)
{
    g_autofree char *dir = dir_new();
    /* A file that is called as the kernel calls eventfds. */
    g_autofree char *path = g_build_filename(dir, "anon_inode:[eventfd]",
                                             NULL);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    ivshmem_fd_close(&fd);
    check_what_is_an_eventfd(path);
    check_what_is_an_eventfd("/dev/null");
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

#define NO_CHROOT 77

/* As QEMU sees it with -run-with chroot=. */
static void test_is_eventfd_without_proc(void)
{
    g_autofree char *dir = dir_new();
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    /* Groups of fanotify resemble eventfds most. */
    int group = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK,
                              O_RDONLY);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        if ((geteuid() != 0 && unshare(CLONE_NEWUSER) < 0) || chroot(dir) < 0 ||
            chdir("/") < 0) {
            _exit(NO_CHROOT);
        }
        g_assert_cmpint(access("/proc/self", F_OK), ==, -1);
        check_what_is_an_eventfd("/file");
        g_assert_cmpint(group < 0 ? 0 : ivshmem_io_is_eventfd(group), ==, 0);
        g_free(g_steal_pointer(&path));     /* valgrind looks here, too */
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    ivshmem_fd_close(&group);
    ivshmem_fd_close(&fd);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_CHROOT) {
        g_test_skip("this user may not chroot");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

/* Close and steal leave -1 behind, and errno alone. */
static void test_fd_ownership(void)
{
    int fd = ivshmem_io_eventfd(), number = fd, stolen;

    stolen = ivshmem_fd_steal(&fd);
    g_assert_cmpint(stolen, ==, number);
    g_assert_cmpint(fd, ==, -1);
    ivshmem_fd_close(&fd);
    g_assert_cmpint(fcntl(stolen, F_GETFD), >=, 0);

    errno = ERANGE;
    ivshmem_fd_close(&stolen);
    g_assert_cmpint(errno, ==, ERANGE);
    g_assert_cmpint(stolen, ==, -1);
    g_assert_cmpint(fcntl(number, F_GETFD), ==, -1);
    {
        IVSHMEM_FD_AUTO int scoped = ivshmem_io_eventfd();

        g_assert_cmpint(scoped, ==, number);
    }
    g_assert_cmpint(fcntl(number, F_GETFD), ==, -1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fd_leak_add("/io/connect", test_connect);
    fd_leak_add("/io/listen-modes", test_listen_modes);
    fd_leak_add("/io/path-lengths", test_path_lengths);
    fd_leak_add("/io/eventfd", test_eventfd);
    fd_leak_add("/io/drain-blocking", test_drain_blocking);
    fd_leak_add("/io/no-descriptors", test_no_descriptors);
    fd_leak_add("/io/not-an-eventfd", test_not_an_eventfd);
    fd_leak_add("/io/set-nonblock", test_set_nonblock);
    fd_leak_add("/io/is-eventfd", test_is_eventfd);
    fd_leak_add("/io/is-eventfd-without-proc", test_is_eventfd_without_proc);
    fd_leak_add("/io/fd-ownership", test_fd_ownership);
    return g_test_run();
}
