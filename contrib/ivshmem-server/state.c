/*
 * The state file: read after a crash, added to after joins and leaves, and now
 * and then replaced by a shorter one.
 *
 * Not responsible for what is done with ids and memory (region.c).
 *
 * It is to survive the server, not the machine: no fsync().  A server that is
 * killed while it writes leaves a last line without its end, which is ignored.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "error.h"
#include "ivshmem-fd.h"
#include "ivshmem-wire.h"
#include "log.h"
#include "state.h"

#define STATE_HEADER "ivshmem-server state 1"

/* More than a file with all ids has; what is larger is not ours. */
#define STATE_SIZE_MAX (16 * 1024 * 1024)

/*
 * Lines that may be added before the file is replaced, beside as many as it
 * started with: to replace a file costs as much as hundreds of lines.
 */
#define STATE_SLACK 1024

typedef struct StateClient {
    uint16_t id;
    IvshmemProcess process;
} StateClient;

struct IvshmemState {
    char *path;
    GArray *clients;            /* of StateClient: those still to come back */
    uint64_t memory_dev;
    uint64_t memory_ino;        /* 0: not known */
    GString *text;              /* lines to be written */
    int fd;                     /* to add them; -1: the file must be replaced */
    unsigned lines;             /* that may still be added */
};

IvshmemProcess ivshmem_process_seen(pid_t pid)
{
    const uint64_t tick = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
    struct timespec now = { 0 };

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (IvshmemProcess) {
        .pid = MAX(pid, 0),
        .seen = ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) /
            tick,
    };
}

/* When the process that has @pid now was started; no process: never. */
static uint64_t process_start(pid_t pid, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    uint64_t start;
    const char *end;

    if (pid <= 0 || !g_file_get_contents(path, &text, NULL, errp)) {
        return UINT64_MAX;
    }
    /* Field 22; the name, field 2, may contain anything but ends with ')'. */
    end = strrchr(text, ')');
    if (!end || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                       "%*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
                       &start) != 1) {
        return UINT64_MAX;
    }
    return start;
}

/*
 * Not another one that has got its pid since; unless there is no /proc, or one
 * that hides others.
 */
static bool process_is_alive(IvshmemProcess process)
{
    g_autoptr(GError) error = NULL;
    uint64_t start = process_start(process.pid, &error);

    if (error) {
        return kill(process.pid, 0) == 0 || errno != ESRCH;
    }
    return start <= process.seen;
}

/* Whatever was said about @id so far holds no more. */
static void state_void(IvshmemState *state, unsigned *index, unsigned id)
{
    if (index[id]) {
        g_array_index(state->clients, StateClient, index[id] - 1).process.pid =
            0;
        index[id] = 0;
    }
}

static void state_parse_line(IvshmemState *state, unsigned *index,
                             const char *line)
{
    StateClient client = { 0 };
    unsigned id;
    int pid;

    if (sscanf(line, "memory %" SCNu64 " %" SCNu64, &state->memory_dev,
               &state->memory_ino) == 2) {
        return;
    }
    if (sscanf(line, "client %u %d %" SCNu64, &id, &pid,
               &client.process.seen) == 3 && id <= IVSHMEM_ID_MAX) {
        client.id = (uint16_t)id;
        client.process.pid = pid;
        state_void(state, index, id);
        g_array_append_val(state->clients, client);
        index[id] = state->clients->len;
    } else if (sscanf(line, "left %u", &id) == 1 && id <= IVSHMEM_ID_MAX) {
        state_void(state, index, id);
    }
}

static void state_parse(IvshmemState *state, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    g_autofree unsigned *index = g_new0(unsigned, IVSHMEM_IDS);
    GArray *clients = state->clients;
    unsigned n = g_strv_length(lines);
    unsigned kept = 0;

    if (n == 0 || strcmp(lines[0], STATE_HEADER) != 0) {
        return;
    }
    /* What follows the last newline is not complete. */
    for (unsigned i = 1; i + 1 < n; i++) {
        state_parse_line(state, index, lines[i]);
    }
    for (unsigned i = 0; i < clients->len; i++) {
        StateClient client = g_array_index(clients, StateClient, i);

        if (client.process.pid) {
            g_array_index(clients, StateClient, kept++) = client;
        }
    }
    g_array_set_size(clients, kept);
}

/* Only what a server of the same user, or of root, wrote. */
static char *state_read(const char *path, uid_t user)
{
    IVSHMEM_FD_AUTO int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
                                  O_CLOEXEC);
    g_autofree char *text = NULL;
    struct stat st;
    ssize_t n = -1;

    if (fd < 0 && errno == ENOENT) {
        return NULL;
    }
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (!S_ISREG(st.st_mode) ||
            (st.st_uid != geteuid() && st.st_uid != 0 && st.st_uid != user) ||
            st.st_size > STATE_SIZE_MAX) {
            return NULL;
        }
        text = g_malloc0((gsize)st.st_size + 1);
        do {
            n = read(fd, text, (size_t)st.st_size);
        } while (n < 0 && errno == EINTR);
    }
    if (n < 0) {
        ivshmem_log(G_LOG_LEVEL_WARNING, "cannot read %s: %s; clients that "
                    "come back may get other ids and other memory", path,
                    g_strerror(errno));
    }
    return n >= 0 && n == st.st_size ? g_steal_pointer(&text) : NULL;
}

IvshmemState *ivshmem_state_open(const char *path, uid_t user)
{
    IvshmemState *state = g_new0(IvshmemState, 1);
    g_autofree char *text = path ? state_read(path, user) : NULL;

    state->fd = -1;
    state->path = g_strdup(path);
    state->clients = g_array_new(FALSE, FALSE, sizeof(StateClient));
    state->text = g_string_new(NULL);
    state_parse(state, text ? text : "");
    return state;
}

bool ivshmem_state_found(const IvshmemState *state)
{
    return state->memory_ino;
}

void ivshmem_state_close(IvshmemState *state, bool remove)
{
    if (!state) {
        return;
    }
    if (remove && state->path) {
        unlink(state->path);
    }
    ivshmem_fd_close(&state->fd);
    g_free(state->path);
    g_array_unref(state->clients);
    g_string_free(state->text, TRUE);
    g_free(state);
}

bool ivshmem_state_move(IvshmemState *state, const char *path)
{
    if (g_strcmp0(state->path, path) == 0) {
        return false;
    }
    if (state->path && state->fd >= 0) {
        unlink(state->path);
    }
    ivshmem_fd_close(&state->fd);
    g_free(state->path);
    state->path = g_strdup(path);
    return true;
}

void ivshmem_state_forget(IvshmemState *state)
{
    g_array_set_size(state->clients, 0);
}

int ivshmem_state_recall(IvshmemState *state, pid_t pid, int fixed)
{
    for (unsigned i = 0; i < state->clients->len; i++) {
        StateClient *client = &g_array_index(state->clients, StateClient, i);

        if (client->process.pid == pid &&
            (fixed < 0 || fixed == client->id) &&
            process_is_alive(client->process)) {
            int id = client->id;

            g_array_remove_index(state->clients, i);
            return id;
        }
    }
    return -1;
}

unsigned ivshmem_state_each(IvshmemState *state,
                            void (*func)(uint16_t id, bool alive, void *opaque),
                            void *opaque)
{
    for (unsigned i = state->clients->len; i-- > 0;) {
        StateClient client = g_array_index(state->clients, StateClient, i);
        bool alive = process_is_alive(client.process);

        if (!alive) {
            g_array_remove_index(state->clients, i);
        }
        func(client.id, alive, opaque);
    }
    return state->clients->len;
}

/* Memory */

/* The number of the descriptor under which @pid has the file, or -errno. */
static int state_find_fd(const IvshmemState *state, pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    int found = -ENOENT;

    if (!dir) {
        return -errno;
    }
    while (found < 0 && (entry = readdir(dir))) {
        struct stat st;

        if (fstatat(dirfd(dir), entry->d_name, &st, 0) < 0) {
            found = errno == ENOENT ? found : -errno;
        } else if (st.st_dev == state->memory_dev &&
                   st.st_ino == state->memory_ino) {
            found = atoi(entry->d_name);
        }
    }
    closedir(dir);
    return found;
}

/* The very open file that the client has, with the same rights, or -errno. */
static int state_take_fd(pid_t pid, int number)
{
    IVSHMEM_FD_AUTO int process = (int)syscall(SYS_pidfd_open, pid, 0);
    IVSHMEM_FD_AUTO int fd = -1;
    int flags;

    if (process < 0) {
        return -errno;
    }
    fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
    flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    if ((flags & O_ACCMODE) != O_RDWR) {
        return -EACCES;         /* a client that may only read */
    }
    return ivshmem_fd_steal(&fd);
}

int ivshmem_state_find_memory(const IvshmemState *state, int *lost)
{
    *lost = 0;
    for (unsigned i = 0; state->memory_ino && i < state->clients->len; i++) {
        IvshmemProcess process =
            g_array_index(state->clients, StateClient, i).process;
        int number, fd;

        if (!process_is_alive(process)) {
            continue;
        }
        number = state_find_fd(state, process.pid);
        fd = number < 0 ? number : state_take_fd(process.pid, number);
        if (fd >= 0) {
            return fd;
        }
        *lost = fd;
    }
    return -1;
}

/* Writing */

void ivshmem_state_add(IvshmemState *state, uint16_t id, IvshmemProcess process)
{
    if (process.pid) {
        g_string_append_printf(state->text, "client %u %d %" PRIu64 "\n", id,
                               (int)process.pid, process.seen);
    }
}

void ivshmem_state_remove(IvshmemState *state, uint16_t id)
{
    g_string_append_printf(state->text, "left %u\n", id);
}

static unsigned state_count_lines(const IvshmemState *state)
{
    unsigned n = 0;

    for (const char *p = state->text->str; (p = strchr(p, '\n')); p++) {
        n++;
    }
    return n;
}

static bool state_write_text(IvshmemState *state)
{
    ssize_t n = write(state->fd, state->text->str, state->text->len);

    if (n >= 0 && (size_t)n < state->text->len) {
        errno = ENOSPC;
        return false;
    }
    return n >= 0;
}

/* Nor if somebody has removed the file, as those do who tidy up. */
bool ivshmem_state_append(IvshmemState *state)
{
    unsigned lines = state_count_lines(state);
    struct stat st;

    if (state->fd < 0 || lines > state->lines || fstat(state->fd, &st) < 0 ||
        st.st_nlink == 0 || !state_write_text(state)) {
        ivshmem_fd_close(&state->fd);
        return false;
    }
    state->lines -= lines;
    g_string_truncate(state->text, 0);
    return true;
}

void ivshmem_state_begin(IvshmemState *state, int memory_fd)
{
    struct stat st;

    g_string_assign(state->text, STATE_HEADER "\n");
    if (fstat(memory_fd, &st) == 0) {
        g_string_append_printf(state->text, "memory %" PRIu64 " %" PRIu64 "\n",
                               (uint64_t)st.st_dev, (uint64_t)st.st_ino);
    }
    for (unsigned i = 0; i < state->clients->len; i++) {
        const StateClient *client =
            &g_array_index(state->clients, StateClient, i);

        ivshmem_state_add(state, client->id, client->process);
    }
}

bool ivshmem_state_end(IvshmemState *state, GError **errp)
{
    g_autofree char *temporary = NULL;
    int error;

    ivshmem_fd_close(&state->fd);
    if (!state->path) {
        return true;            /* nobody can come back */
    }
    temporary = g_strconcat(state->path, ".XXXXXX", NULL);
    state->fd = g_mkstemp_full(temporary, O_WRONLY | O_APPEND | O_CLOEXEC,
                               0600);
    if (state->fd >= 0 && state_write_text(state) &&
        rename(temporary, state->path) == 0) {
        state->lines = state_count_lines(state) + STATE_SLACK;
        g_string_truncate(state->text, 0);
        return true;
    }
    error = errno;
    if (state->fd >= 0) {
        unlink(temporary);
        ivshmem_fd_close(&state->fd);
    }
    ivshmem_error(errp, "cannot write %s: %s; after a crash, clients may "
                  "get other ids", state->path, g_strerror(error));
    return false;
}
