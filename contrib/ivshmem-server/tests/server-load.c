/*
 * server-load: many clients of one server, told what to do on stdin.
 *
 * One answer per command, on stdout: "ok KEY=VALUE ..." or "error REASON".
 * For tests and benchmarks; ivshmem-client is for people.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "load.h"

/* Clients that connect before those inside read again. */
#define JOIN_BURST 64

static double load_timeout = 60;

typedef struct Command {
    const char *name;
    unsigned args;
    const char *help;
    /* Returns the answer without its "ok", or NULL with the reason in @why. */
    char *(*run)(IvshmemLoad *load, const long *args, char **why);
} Command;

static IvshmemLoadClient *load_nth(const IvshmemLoad *load, long n)
{
    long last = (long)load->clients->len - 1;

    return g_ptr_array_index(load->clients, CLAMP(n, 0, last));
}

static char *cmd_join(IvshmemLoad *load, const long *args, char **why)
{
    for (long i = 0; i < args[0]; i++) {
        int ret = ivshmem_load_join(load, false);

        while (ret == -EAGAIN) {    /* the server's backlog is full */
            ivshmem_load_turn(load, 1);
            ret = ivshmem_load_join(load, false);
        }
        if (ret < 0) {
            *why = g_strdup_printf("client %ld: %s", i, ivshmem_strerror(ret));
            return NULL;
        }
        if (i % JOIN_BURST == JOIN_BURST - 1) {
            ivshmem_load_turn(load, 0);
        }
    }
    return g_strdup_printf("clients=%u", load->clients->len);
}

static char *cmd_mute(IvshmemLoad *load, const long *args, char **why)
{
    for (long i = 0; i < args[0]; i++) {
        int ret = ivshmem_load_join(load, true);

        if (ret < 0) {
            *why = g_strdup_printf("client %ld: %s", i, ivshmem_strerror(ret));
            return NULL;
        }
    }
    return g_strdup_printf("clients=%u", load->clients->len);
}

static char *load_why_not(const IvshmemLoad *load, size_t peers)
{
    for (unsigned i = 0; i < load->clients->len; i++) {
        const IvshmemLoadClient *client = load_nth(load, i);

        if (ivshmem_load_reads(client) &&
            !ivshmem_load_knows(load, client, peers)) {
            return g_strdup_printf("client %u knows %zu peers with %"
                                   G_GUINT64_FORMAT " vectors of %zu peers", i,
                                   ivshmem_session_peers(client->session),
                                   client->peer_vectors, peers);
        }
        if (client->sock >= 0 && !client->paused && client->error) {
            return g_strdup_printf("client %u: %s", i,
                                   ivshmem_strerror(client->error));
        }
    }
    return NULL;
}

/* All who read know all @peers; clients that lost their server are an error. */
static char *cmd_settle(IvshmemLoad *load, const long *args, char **why)
{
    gint64 start = g_get_monotonic_time();
    gint64 end = start + (gint64)(load_timeout * 1e6);
    uint64_t frames = 0;
    unsigned first = 0;

    while (first < load->clients->len) {
        const IvshmemLoadClient *client = load_nth(load, first);

        if (ivshmem_load_reads(client) &&
            !ivshmem_load_knows(load, client, (size_t)args[0])) {
            if (!ivshmem_load_turn(load, 100) &&
                g_get_monotonic_time() > end) {
                break;
            }
        } else if (++first == load->clients->len &&
                   ivshmem_load_turn(load, 0)) {
            first = 0;          /* one may know as many, but not yet all */
        }
    }
    *why = load_why_not(load, (size_t)args[0]);
    if (*why) {
        return NULL;
    }
    for (unsigned i = 0; i < load->clients->len; i++) {
        frames += load_nth(load, i)->frames;
    }
    return g_strdup_printf("frames=%" G_GUINT64_FORMAT " usec=%"
                           G_GINT64_FORMAT, frames,
                           g_get_monotonic_time() - start);
}

static char *cmd_rejoin(IvshmemLoad *load, const long *args, char **why)
{
    for (long i = args[0]; i <= args[1]; i++) {
        int ret = ivshmem_load_rejoin(load, (unsigned)i);

        if (ret < 0) {
            *why = g_strdup_printf("client %ld: %s", i, ivshmem_strerror(ret));
            return NULL;
        }
    }
    return g_strdup("");
}

static char *load_pause_range(IvshmemLoad *load, const long *args, bool paused)
{
    for (long i = args[0]; i <= args[1]; i++) {
        ivshmem_load_pause(load, load_nth(load, i), paused);
    }
    return g_strdup("");
}

static char *cmd_pause(IvshmemLoad *load, const long *args, char **why)
{
    return load_pause_range(load, args, true);
}

static char *cmd_resume(IvshmemLoad *load, const long *args, char **why)
{
    return load_pause_range(load, args, false);
}

static char *cmd_leave(IvshmemLoad *load, const long *args, char **why)
{
    for (long i = args[0]; i <= args[1]; i++) {
        ivshmem_load_leave(load_nth(load, i));
    }
    return g_strdup("");
}

static char *cmd_churn(IvshmemLoad *load, const long *args, char **why)
{
    for (long i = 0; i < args[0]; i++) {
        int sock = ivshmem_io_connect(load->path);

        while (sock == -EAGAIN) {
            ivshmem_load_turn(load, 1);
            sock = ivshmem_io_connect(load->path);
        }
        if (sock < 0) {
            *why = g_strdup_printf("connection %ld: %s", i,
                                   ivshmem_strerror(sock));
            return NULL;
        }
        ivshmem_fd_close(&sock);
    }
    return g_strdup("");
}

static char *cmd_chatter(IvshmemLoad *load, const long *args, char **why)
{
    IvshmemLoadClient *client = load_nth(load, args[0]);
    g_autofree char *bytes = g_malloc0((size_t)args[1]);
    ssize_t n = send(client->sock, bytes, (size_t)args[1], MSG_NOSIGNAL);

    return g_strdup_printf("sent=%zd", n);
}

/* Read until the server has closed the connection of all in the range. */
static char *cmd_closed(IvshmemLoad *load, const long *args, char **why)
{
    gint64 end = g_get_monotonic_time() + (gint64)(load_timeout * 1e6);

    for (long i = args[0]; i <= args[1]; i++) {
        IvshmemLoadClient *client = load_nth(load, i);

        ivshmem_load_pause(load, client, false);
        while (!client->error && g_get_monotonic_time() < end) {
            ivshmem_load_turn(load, 100);
        }
        if (!client->error) {
            *why = g_strdup_printf("client %ld is still connected", i);
            return NULL;
        }
    }
    return g_strdup("");
}

static char *cmd_verify(IvshmemLoad *load, const long *args, char **why)
{
    int64_t rings = ivshmem_load_verify(load);

    if (rings < 0) {
        *why = g_strdup("a ring got lost, or came out elsewhere");
        return NULL;
    }
    return g_strdup_printf("rings=%" G_GINT64_FORMAT, rings);
}

static char *cmd_ids(IvshmemLoad *load, const long *args, char **why)
{
    GString *text = g_string_new("ids=");

    for (unsigned i = 0; i < load->clients->len; i++) {
        g_string_append_printf(text, "%s%d", i ? "," : "",
                               ivshmem_session_id(load_nth(load, i)->session));
    }
    return g_string_free(text, FALSE);
}

static char *cmd_memory(IvshmemLoad *load, const long *args, char **why)
{
    struct stat st;

    if (fstat(load_nth(load, args[0])->shm_fd, &st) < 0) {
        *why = g_strdup(g_strerror(errno));
        return NULL;
    }
    return g_strdup_printf("size=%lld inode=%llu", (long long)st.st_size,
                           (unsigned long long)st.st_ino);
}

static const char *yes_no(bool yes)
{
    return yes ? "yes" : "no";
}

/* What a client can do with the memory it was given, if it tries hard. */
static char *cmd_tamper(IvshmemLoad *load, const long *args, char **why)
{
    int fd = load_nth(load, args[0])->shm_fd;
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", fd);
    IVSHMEM_FD_AUTO int again = open(self, O_RDWR | O_CLOEXEC);
    long page = sysconf(_SC_PAGESIZE);
    void *shared = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED,
                        fd, 0);
    void *read_map = mmap(NULL, (size_t)page, PROT_READ, MAP_SHARED, fd, 0);
    bool protect = read_map != MAP_FAILED &&
        mprotect(read_map, (size_t)page, PROT_READ | PROT_WRITE) == 0;
    bool mode = fchmod(fd, 0666) == 0;
    bool after = false;

    ivshmem_fd_close(&again);
    again = open(self, O_RDWR | O_CLOEXEC);
    after = again >= 0;
    return g_strdup_printf(
        "map=%s mprotect=%s write=%s reopen=%s reopen-mode=%s shrink=%s "
        "read=%s", yes_no(shared != MAP_FAILED), yes_no(protect),
        yes_no(pwrite(fd, "x", 1, 0) == 1), yes_no(after),
        yes_no(mode && after),
        yes_no(ftruncate(fd, 0) == 0),
        yes_no(read_map != MAP_FAILED));
}

static const Command commands[] = {
    { "join", 1, "N: connect N clients", cmd_join },
    { "mute", 1, "N: connect N clients that do not read", cmd_mute },
    { "settle", 1, "PEERS: wait until all know PEERS others", cmd_settle },
    { "pause", 2, "A B: clients A to B stop reading", cmd_pause },
    { "resume", 2, "A B: they go on", cmd_resume },
    { "leave", 2, "A B: they disconnect", cmd_leave },
    { "rejoin", 2, "A B: they connect anew", cmd_rejoin },
    { "churn", 1, "N: connect and close at once, N times", cmd_churn },
    { "chatter", 2, "A N: client A sends N bytes", cmd_chatter },
    { "closed", 2, "A B: wait until the server disconnects them", cmd_closed },
    { "verify", 0, "all ring each other (--keep)", cmd_verify },
    { "ids", 0, "the ids", cmd_ids },
    { "tamper", 1, "A: try to write or shrink its memory", cmd_tamper },
    { "memory", 1, "A: what client A was given", cmd_memory },
};

static const Command *command_find(char **words)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (g_strcmp0(words[0], commands[i].name) == 0 &&
            g_strv_length(words) == commands[i].args + 1) {
            return &commands[i];
        }
    }
    return NULL;
}

static bool command_run(IvshmemLoad *load, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", 0);
    const Command *command = command_find(words);
    g_autofree char *answer = NULL, *why = NULL;
    long args[2] = { 0 };

    for (unsigned i = 0; command && i < command->args; i++) {
        args[i] = strtol(words[i + 1], NULL, 10);
    }
    if (command) {
        answer = command->run(load, args, &why);
    } else {
        why = g_strdup("no such command");
    }
    printf("%s %s\n", answer ? "ok" : "error", answer ? answer : why);
    fflush(stdout);
    return answer != NULL;
}

static void run_lines(IvshmemLoad *load, GString *input)
{
    char *end;

    while ((end = strchr(input->str, '\n'))) {
        g_autofree char *line = g_strndup(input->str,
                                          (gsize)(end - input->str));

        g_string_erase(input, 0, end + 1 - input->str);
        command_run(load, line);
    }
}

/* The clients read while there is nothing to do, as real ones would. */
static void run_commands(IvshmemLoad *load)
{
    struct pollfd fds[] = {
        { .fd = STDIN_FILENO, .events = POLLIN },
        { .fd = load->epoll, .events = POLLIN },
    };
    g_autoptr(GString) input = g_string_new(NULL);
    char bytes[256];
    ssize_t n = 1;

    while (n > 0 && poll(fds, G_N_ELEMENTS(fds), -1) > 0) {
        if (fds[1].revents) {
            ivshmem_load_turn(load, 0);
        }
        if (fds[0].revents) {
            n = read(STDIN_FILENO, bytes, sizeof(bytes));
            g_string_append_len(input, bytes, MAX(n, 0));
            run_lines(load, input);
        }
    }
}

static char *commands_help(void)
{
    GString *text = g_string_new("Commands, one a line:\n");

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_string_append_printf(text, "  %s %s\n", commands[i].name,
                               commands[i].help);
    }
    return g_string_free(text, FALSE);
}

static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    g_autofree char *path = NULL, *help = commands_help();
    gboolean keep = FALSE;
    int vectors = 1;
    const GOptionEntry entries[] = {
        { "socket", 'S', 0, G_OPTION_ARG_FILENAME, &path, "Server", "PATH" },
        { "vectors", 'n', 0, G_OPTION_ARG_INT, &vectors,
          "Vectors of each client", "N" },
        { "keep", 0, 0, G_OPTION_ARG_NONE, &keep,
          "Keep all eventfds, for verify", NULL },
        { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &load_timeout,
          "For settle and closed", "SECONDS" },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("");
    g_autoptr(GError) error = NULL;
    IvshmemLoad load;

    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_description(context, help);
    if (!g_option_context_parse(context, &argc, &argv, &error) || !path ||
        vectors < 1 || vectors > IVSHMEM_VECTORS_MAX) {
        fprintf(stderr, "server-load: %s\n", error ? error->message :
                "give -S PATH, and -n from 1 to 2048");
        return EXIT_FAILURE;
    }
    raise_fd_limit();
    ivshmem_load_init(&load, path, (unsigned)vectors, keep);
    run_commands(&load);
    ivshmem_load_clear(&load);
    return EXIT_SUCCESS;
}
