/*
 * The commands of ivshmem-client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_CLIENT_COMMAND_H
#define IVSHMEM_CLIENT_COMMAND_H

#include "answer.h"
#include "client.h"

typedef enum CommandResult {
    COMMAND_OK,
    COMMAND_FAILED,
    COMMAND_QUIT,
} CommandResult;

/* Run one line of input and print the answer; an empty line is fine. */
CommandResult command_run(Client *client, const char *line);

/* What follows is for the files that implement commands. */

typedef struct Command {
    Client *client;
    Answer *answer;
    unsigned argc;              /* without the command's name */
    char **argv;                /* a quoted string still begins with its " */
} Command;

typedef gboolean CommandFunc(Command *cmd, GError **error);

/* memory.c */
CommandFunc command_peek, command_poke, command_fill, command_cat;

/* measure.c */
CommandFunc command_ping, command_pong;

/* Fails with a message that begins with what was wrong; returns FALSE. */
gboolean command_error(GError **error, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/*
 * Argument @i, called @name, as a number up to @max: decimal or 0x.., and K, M,
 * G, T behind it.  Leaves @value alone if there is no such argument.
 */
gboolean command_number(const Command *cmd, unsigned i, const char *name,
                        guint64 max, guint64 *value, GError **error);

/* The same for a time: 2s, 500ms, 1m, a number of seconds, or "forever". */
gboolean command_time(const Command *cmd, unsigned i, int *ms, GError **error);

/* A time as above, also for the program's options. */
gboolean command_parse_time(const char *text, int *ms, GError **error);

#endif /* IVSHMEM_CLIENT_COMMAND_H */
