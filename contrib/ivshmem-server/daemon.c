/*
 * Being a daemon: fork, pid file, readiness.
 *
 * Not responsible for signals and for what is served.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon.h"
#include "ivshmem-fd.h"
#include "log.h"

/* Writing end of a pipe to the parent, who waits for a byte. */
static int daemon_parent = -1;

static void G_GNUC_NORETURN daemon_wait_for(pid_t child, int child_ready)
{
    char byte;
    ssize_t n;

    do {
        n = read(child_ready, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        g_printerr("ivshmem-server: cannot tell whether it has started: %s\n",
                   g_strerror(errno));
        kill(child, SIGTERM);
        waitpid(child, NULL, 0);
    }
    /* The child has said why; without its last words it was killed. */
    _exit(n == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

bool ivshmem_daemon_start(GError **errp)
{
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC) < 0) {
        ivshmem_error(errp, "pipe: %s", g_strerror(errno));
        return false;
    }
    child = fork();
    if (child < 0) {
        ivshmem_error(errp, "cannot go to the background: %s",
                      g_strerror(errno));
        ivshmem_fd_close(&ends[0]);
        ivshmem_fd_close(&ends[1]);
        return false;
    }
    if (child > 0) {
        ivshmem_fd_close(&ends[1]);
        daemon_wait_for(child, ends[0]);
    }
    ivshmem_fd_close(&ends[0]);
    daemon_parent = ends[1];
    setsid();
    return true;
}

static void daemon_leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++) {
        dup2(null, fd);
    }
    if (null > STDERR_FILENO) {
        ivshmem_fd_close(&null);
    }
}

void ivshmem_daemon_ready(void)
{
    if (daemon_parent < 0) {
        return;
    }
    if (chdir("/") < 0) {
        /* Keeps a file system busy, no more. */
    }
    daemon_leave_terminal();
    ivshmem_daemon_notify(&daemon_parent);
}

bool ivshmem_daemon_drop(uid_t user, gid_t group, GError **errp)
{
    const struct passwd *entry = user == (uid_t)-1 ? NULL : getpwuid(user);
    bool ok = true;

    if (group == (gid_t)-1 && user != (uid_t)-1) {
        group = entry ? entry->pw_gid : (gid_t)user;
    }
    if (group != (gid_t)-1) {
        ok = (entry ? initgroups(entry->pw_name, group)
                    : setgroups(1, &group)) == 0 && setgid(group) == 0;
    }
    if (ok && user != (uid_t)-1) {
        ok = setuid(user) == 0;
    }
    if (!ok) {
        ivshmem_error(errp, "cannot become user %d, group %d: %s; only root "
                      "can", (int)user, (int)group, g_strerror(errno));
    }
    return ok;
}

void ivshmem_daemon_notify(int *fd)
{
    ssize_t n;

    if (*fd < 0) {
        return;
    }
    do {
        n = write(*fd, "\n", 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EPIPE) {      /* who does not read does not care */
        ivshmem_log(G_LOG_LEVEL_WARNING, "cannot tell that we are ready: %s",
                    g_strerror(errno));
    }
    ivshmem_fd_close(fd);
}

/* Pid file */

struct IvshmemPidFile {
    char *path;
    int fd;                     /* locked as long as we run */
};

/* The pid of the server that holds @path, or 0. */
static int pid_file_holder(const char *path)
{
    IVSHMEM_FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW |
                                  O_NONBLOCK);
    char text[32] = "";

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) {
        return 0;
    }
    return read(fd, text, sizeof(text) - 1) > 0 ? MAX(atoi(text), 1) : 1;
}

static bool pid_file_write(IvshmemPidFile *pid_file, const char *temporary)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

    return fchmod(pid_file->fd, 0644) == 0 &&
        flock(pid_file->fd, LOCK_EX | LOCK_NB) == 0 &&
        write(pid_file->fd, text, (size_t)len) == len &&
        rename(temporary, pid_file->path) == 0;
}

bool ivshmem_daemon_check(const char *pid_file, uid_t user, gid_t group,
                          GError **errp)
{
    g_autofree char *temporary =
        pid_file ? g_strconcat(pid_file, ".XXXXXX", NULL) : NULL;
    IVSHMEM_FD_AUTO int fd = pid_file ? g_mkstemp_full(temporary, O_RDWR |
                                                       O_CLOEXEC, 0600) : -1;

    if (pid_file && fd < 0) {
        ivshmem_error(errp, "cannot write the pid file %s: %s; choose another "
                      "place with -p", pid_file, g_strerror(errno));
        return false;
    }
    if (pid_file) {
        unlink(temporary);
    }
    if ((user != (uid_t)-1 || group != (gid_t)-1) && geteuid() != 0) {
        ivshmem_error(errp, "cannot become user %d, group %d: only root can",
                      (int)user, (int)group);
        return false;
    }
    return true;
}

IvshmemPidFile *ivshmem_pid_file_new(const char *path, GError **errp)
{
    g_autofree char *temporary = g_strconcat(path, ".XXXXXX", NULL);
    IvshmemPidFile *pid_file;
    int holder = pid_file_holder(path);

    if (holder) {
        ivshmem_error(errp, "the pid file %s belongs to another server that is "
                      "running (pid %d); use another one (-p)", path, holder);
        return NULL;
    }
    pid_file = g_new0(IvshmemPidFile, 1);
    pid_file->path = g_strdup(path);
    pid_file->fd = g_mkstemp_full(temporary, O_RDWR | O_CLOEXEC, 0600);
    if (pid_file->fd < 0 || !pid_file_write(pid_file, temporary)) {
        ivshmem_error(errp, "cannot write the pid file %s: %s; choose another "
                      "place with -p", path, g_strerror(errno));
        if (pid_file->fd >= 0) {
            unlink(temporary);
        }
        ivshmem_pid_file_free(pid_file);
        return NULL;
    }
    return pid_file;
}

static bool pid_file_is_ours(const IvshmemPidFile *pid_file)
{
    struct stat ours, theirs;

    return fstat(pid_file->fd, &ours) == 0 &&
        lstat(pid_file->path, &theirs) == 0 &&
        ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

void ivshmem_pid_file_free(IvshmemPidFile *pid_file)
{
    if (!pid_file) {
        return;
    }
    if (pid_file->fd >= 0 && pid_file_is_ours(pid_file)) {
        unlink(pid_file->path);
    }
    ivshmem_fd_close(&pid_file->fd);
    g_free(pid_file->path);
    g_free(pid_file);
}
