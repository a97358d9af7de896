/*
 * Listening sockets: taking the path, also from a server that died, and
 * giving it back.
 *
 * Not responsible for accepting.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "listener.h"
#include "log.h"

/* Between bind() and the right owner: nobody but ourselves. */
#define LISTENER_PRIVATE_MODE 0600
#define LISTENER_GROUP_MODE 0660

/* A server that starts holds the lock for well under a millisecond. */
#define LISTENER_LOCK_TRIES 200
#define LISTENER_LOCK_PAUSE_US 10000

/*
 * Two servers that start at once must not both find the socket dead.  They
 * exclude each other by a lock on the directory, which leaves nothing behind.
 * Somebody who holds it for ever only costs us that exclusion.
 */
static int listener_lock(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return -1;
    }
    for (int i = 0; i < LISTENER_LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return fd;
        }
        g_usleep(LISTENER_LOCK_PAUSE_US);
    }
    ivshmem_log(G_LOG_LEVEL_WARNING, "somebody holds a lock on %s; "
                "going on without", dir);
    return fd;
}

/*
 * Whether some process has the socket at @path open: 1, 0 or -errno.
 * Connecting with another type of socket tells, and is not noticed by that
 * process.
 */
static int listener_is_alive(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    IVSHMEM_FD_AUTO int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int ret;

    if (probe < 0) {
        return -errno;
    }
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    do {
        ret = connect(probe, (struct sockaddr *)&address, sizeof(address));
    } while (ret < 0 && errno == EINTR);
    if (ret == 0 || errno == EPROTOTYPE) {
        return 1;
    }
    return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
}

static bool listener_clear_path(const char *path, GError **errp)
{
    struct stat st;
    int alive;

    if (lstat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR) {
            return true;        /* bind() finds the words */
        }
        ivshmem_error(errp, "cannot examine %s: %s", path, g_strerror(errno));
        return false;
    }
    if (!S_ISSOCK(st.st_mode)) {
        ivshmem_error(errp, "%s exists and is not a socket; remove it, or use "
                      "another path", path);
        return false;
    }
    alive = listener_is_alive(path);
    if (alive < 0) {
        ivshmem_error(errp, "cannot tell whether a server is running on %s: "
                      "%s; if none is, remove it", path,
                      ivshmem_strerror(alive));
        return false;
    }
    if (alive) {
        ivshmem_error(errp, "another server is running on %s; stop it, or use "
                      "another path", path);
        return false;
    }
    if (unlink(path) < 0) {
        ivshmem_error(errp, "cannot remove the socket %s, which a dead server "
                      "left behind: %s", path, g_strerror(errno));
        return false;
    }
    ivshmem_log(G_LOG_LEVEL_MESSAGE, "replaced the socket %s, which a dead "
                "server left behind", path);
    return true;
}

static mode_t listener_mode(const IvshmemSocketConfig *config)
{
    if (config->mode || config->group == (gid_t)-1) {
        return config->mode;
    }
    return LISTENER_GROUP_MODE;
}

/* The file is private so far. */
static bool listener_give(const IvshmemSocketConfig *config, gid_t group,
                          GError **errp)
{
    mode_t mode = listener_mode(config);

    if (lchown(config->path, config->owner, group) < 0 ||
        (mode && chmod(config->path, mode) < 0)) {
        ivshmem_error(errp, "cannot set owner and mode of %s: %s",
                      config->path, g_strerror(errno));
        return false;
    }
    return true;
}

static bool listener_bind(IvshmemListener *listener,
                          const IvshmemSocketConfig *config, GError **errp)
{
    bool given = config->owner != (uid_t)-1 || config->group != (gid_t)-1;
    mode_t mode = listener_mode(config);
    struct stat st;

    listener->fd = ivshmem_io_listen(config->path,
                                     given ? LISTENER_PRIVATE_MODE : mode);
    if (listener->fd < 0) {
        ivshmem_error(errp, "cannot listen on %s: %s", config->path,
                      ivshmem_strerror(listener->fd));
        return false;
    }
    if (lstat(config->path, &st) == 0) {
        listener->dev = st.st_dev;
        listener->ino = st.st_ino;
    }
    return !given || listener_give(config, config->group, errp);
}

bool ivshmem_listener_open(IvshmemListener *listener,
                           const IvshmemSocketConfig *config, GError **errp)
{
    G_GNUC_UNUSED IVSHMEM_FD_AUTO int lock = listener_lock(config->path);

    listener->path = g_strdup(config->path);
    if (!listener_clear_path(config->path, errp) ||
        !listener_bind(listener, config, errp)) {
        ivshmem_listener_close(listener);
        return false;
    }
    return true;
}

static bool listener_has_file(const IvshmemListener *listener)
{
    struct stat st;

    return listener->fd >= 0 && lstat(listener->path, &st) == 0 &&
        st.st_dev == listener->dev && st.st_ino == listener->ino;
}

bool ivshmem_listener_renew(const IvshmemListener *listener,
                            const IvshmemSocketConfig *config, GError **errp)
{
    gid_t group = config->group == (gid_t)-1 ? getegid() : config->group;

    if (!listener_has_file(listener)) {
        ivshmem_error(errp, "%s is not a file of this server: whoever made it "
                      "sets its mode and group", listener->path);
        return false;
    }
    if (chmod(listener->path, LISTENER_PRIVATE_MODE) < 0) {
        ivshmem_error(errp, "cannot set the mode of %s: %s", listener->path,
                      g_strerror(errno));
        return false;
    }
    return listener_give(config, group, errp);
}

void ivshmem_listener_close(IvshmemListener *listener)
{
    if (listener_has_file(listener)) {
        unlink(listener->path);
    }
    ivshmem_fd_close(&listener->fd);
    g_clear_pointer(&listener->path, g_free);
}
