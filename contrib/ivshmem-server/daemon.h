/*
 * Being a daemon: the background, the pid file, telling who started us.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_DAEMON_H
#define IVSHMEM_SERVER_DAEMON_H

#include <sys/types.h>
#include "error.h"

/*
 * Go to the background.  Returns in the child only; the parent waits for
 * ivshmem_daemon_ready() and exits with status 0, or with 1 if the child ends
 * before that.
 */
bool ivshmem_daemon_start(GError **errp);

/*
 * The daemon serves: let the parent go, and leave its directory and terminal.
 * Does nothing if ivshmem_daemon_start() was not called.
 */
void ivshmem_daemon_ready(void);

/* Whether ivshmem_pid_file_new() and ivshmem_daemon_drop() can work. */
bool ivshmem_daemon_check(const char *pid_file, uid_t user, gid_t group,
                          GError **errp);

/*
 * Become @user, and @group or else that user's own; (uid_t)-1 and (gid_t)-1
 * stand for no change.  There is no way back.
 */
bool ivshmem_daemon_drop(uid_t user, gid_t group, GError **errp);

/* Write a newline to *@fd and close it; -1 is fine. */
void ivshmem_daemon_notify(int *fd);

typedef struct IvshmemPidFile IvshmemPidFile;

/*
 * Write our pid to @path, in one step.  Fails when another server that runs
 * has written it.
 */
IvshmemPidFile *ivshmem_pid_file_new(const char *path, GError **errp);

/* Removes the file if it still is ours.  NULL is fine. */
void ivshmem_pid_file_free(IvshmemPidFile *pid_file);

#endif /* IVSHMEM_SERVER_DAEMON_H */
