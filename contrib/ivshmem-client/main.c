/*
 * ivshmem-client: a peer on the host, for people and for scripts.
 *
 * Lines of input from -c, a terminal or a pipe.  Not responsible for options
 * (options.c), nor for what commands do (command.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "command.h"
#include "options.h"

/* A longer line is not meant for us. */
#define MAIN_LINE_MAX (1024 * 1024)

enum {
    STATUS_OK,
    STATUS_FAILED,              /* a command did */
    STATUS_USAGE,
    STATUS_NO_SERVER,           /* not there, or gone */
};

/* Every vector of every peer is a descriptor. */
static void main_raise_nofile(gboolean verbose)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (verbose) {
        g_printerr("ivshmem-client: at most %llu descriptors\n",
                   (unsigned long long)limit.rlim_cur);
    }
}

/* Commands check the memory's size first; there is no way back from here. */
static void main_on_sigbus(int sig G_GNUC_UNUSED)
{
    static const char text[] = "ivshmem-client: there is nothing behind this "
                               "part of the shared memory: its file system is "
                               "full (df), or another peer has shrunk it\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

    (void)ignored;
    _exit(STATUS_FAILED);
}

static int main_commands(Client *client, char **commands)
{
    int status = STATUS_OK;

    for (; *commands && !client->lost; commands++) {
        CommandResult result = command_run(client, *commands);

        if (result == COMMAND_QUIT) {
            return status;
        }
        if (result == COMMAND_FAILED) {
            status = STATUS_FAILED;
        }
    }
    return *commands || (client->lost && status) ? STATUS_NO_SERVER : status;
}

typedef struct Input {
    GString *buffer;
    gboolean prompt;
    gboolean end;
    int status;
} Input;

static void input_prompt(const Input *input)
{
    if (input->prompt && !input->end) {
        fputs("ivshmem> ", stdout);
        fflush(stdout);
    }
}

static void input_run(Input *input, Client *client, const char *line)
{
    CommandResult result = command_run(client, line);

    if (result == COMMAND_QUIT) {
        input->end = TRUE;
    } else if (result == COMMAND_FAILED && !input->prompt) {
        input->status = STATUS_FAILED;
    }
}

static void input_read(Input *input, Client *client)
{
    char data[4096];
    ssize_t got = read(STDIN_FILENO, data, sizeof(data));
    char *newline;

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    g_string_append_len(input->buffer, data, MAX(got, 0));
    while (!input->end && !client->lost &&
           (newline = memchr(input->buffer->str, '\n', input->buffer->len))) {
        *newline = '\0';
        input_run(input, client, input->buffer->str);
        g_string_erase(input->buffer, 0, newline - input->buffer->str + 1);
        input_prompt(input);
    }
    if (input->buffer->len > MAIN_LINE_MAX) {
        g_printerr("ivshmem-client: a line of input is longer than %d bytes\n",
                   MAIN_LINE_MAX);
        input->status = STATUS_FAILED;
        input->end = TRUE;
    }
    if (got <= 0 && !input->end && !client->lost) {
        input_run(input, client, input->buffer->str);
        input->end = TRUE;
    }
}

static int main_input(Client *client, gboolean terminal)
{
    Input input = { .buffer = g_string_new(NULL), .prompt = terminal };

    input_prompt(&input);
    while (!input.end && !client->lost) {
        struct pollfd fds[] = {
            { .fd = STDIN_FILENO, .events = POLLIN },
            { .fd = ivshmem_peer_fd(client->peer), .events = POLLIN },
        };

        if (poll(fds, G_N_ELEMENTS(fds), client_poll_timeout(client)) < 0 &&
            errno != EINTR) {
            break;
        }
        client_poll(client);
        if (fds[0].revents && !client->lost) {
            input_read(&input, client);
        }
    }
    g_string_free(input.buffer, TRUE);
    return client->lost && !input.end ? STATUS_NO_SERVER : input.status;
}

static int main_run(Client *client, const Options *options)
{
    gboolean terminal = !options->commands && isatty(STDIN_FILENO);
    g_autoptr(GError) error = NULL;

    client->path = options->fd >= 0 ? "the inherited socket"
        : options->socket ? options->socket : "/tmp/ivshmem_socket";
    client->json = options->json;
    client->verbose = options->verbose;
    client->events = options->events || terminal;
    client->reconnect = (options->reconnect || terminal) && options->fd < 0;
    if (!client_open(client, options->fd, options->timeout_ms, &error)) {
        g_printerr("ivshmem-client: %s\n", error->message);
        return STATUS_NO_SERVER;
    }
    return options->commands ? main_commands(client, options->commands)
                             : main_input(client, terminal);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Client client = { NULL };
    Options options;
    int status = STATUS_OK;

    if (!options_parse(&options, argc, argv, &error)) {
        g_printerr("ivshmem-client: %s; try --help\n", error->message);
        status = STATUS_USAGE;
    } else if (options.version) {
        puts("ivshmem-client " IVSHMEM_VERSION);
    } else {
        main_raise_nofile(options.verbose);
        sigaction(SIGBUS, &(struct sigaction) { .sa_handler = main_on_sigbus },
                  NULL);
        status = main_run(&client, &options);
        client_close(&client);
    }
    options_clear(&options);
    return status;
}
