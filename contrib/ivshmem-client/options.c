/*
 * The command line: what may stand there, and the defaults.
 *
 * Not responsible for the commands themselves (command.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "answer.h"
#include "command.h"
#include "options.h"

/* How long connecting may take without --timeout. */
#define OPTIONS_TIMEOUT_MS 5000

static GOptionContext *options_context(Options *o, char **timeout)
{
    const GOptionEntry entries[] = {
        { "socket", 'S', 0, G_OPTION_ARG_FILENAME, &o->socket,
          "the server's socket (default: /tmp/ivshmem_socket)", "PATH" },
        { "fd", 0, 0, G_OPTION_ARG_INT, &o->fd,
          "an inherited, connected socket instead", "N" },
        { "command", 'c', 0, G_OPTION_ARG_STRING_ARRAY, &o->commands,
          "run COMMAND and then end; may be repeated", "COMMAND" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &o->json,
          "answer with one JSON object per line", NULL },
        { "events", 0, 0, G_OPTION_ARG_NONE, &o->events,
          "print joins, leaves and rings as they come (default at a terminal)",
          NULL },
        { "reconnect", 0, 0, G_OPTION_ARG_NONE, &o->reconnect,
          "wait for a server that goes away to come back (default at a "
          "terminal)", NULL },
        { "timeout", 0, 0, G_OPTION_ARG_STRING, timeout,
          "how long connecting may take (default: 5s)", "TIME" },
        { "verbose", 'v', 0, G_OPTION_ARG_NONE, &o->verbose,
          "say more on stderr", NULL },
        { "version", 0, 0, G_OPTION_ARG_NONE, &o->version,
          "print the version and end", NULL },
        { NULL },
    };
    GOptionContext *context = g_option_context_new(NULL);

    g_option_context_set_summary(context,
        "A peer on the host: rings others, is rung, and reads and writes the "
        "memory.\nWithout -c, commands come from standard input; try help.");
    g_option_context_add_main_entries(context, entries, NULL);
    return context;
}

gboolean options_parse(Options *o, int argc, char **argv, GError **error)
{
    g_autofree char *timeout = NULL;
    g_autoptr(GOptionContext) context = options_context(o, &timeout);

    *o = (Options) { .fd = -1, .timeout_ms = OPTIONS_TIMEOUT_MS };
    if (!g_option_context_parse(context, &argc, &argv, error)) {
        return FALSE;
    }
    if (argc > 1) {
        return command_error(error, "unexpected argument \"%s\"; commands "
                             "follow -c", argv[1]);
    }
    if (o->json && !answer_json_check(error)) {
        return FALSE;
    }
    return !timeout || command_parse_time(timeout, &o->timeout_ms, error);
}

void options_clear(Options *o)
{
    g_free(o->socket);
    g_strfreev(o->commands);
    *o = (Options) { .fd = -1 };
}
