/*
 * The command line of ivshmem-client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_CLIENT_OPTIONS_H
#define IVSHMEM_CLIENT_OPTIONS_H

#include <glib.h>

typedef struct Options {
    char *socket;               /* NULL: the default */
    char **commands;            /* NULL: from standard input */
    int fd;                     /* -1: none */
    int timeout_ms;
    gboolean json, events, reconnect, verbose, version;
} Options;

/* Fills @options; what it holds is options_clear()'s even after an error. */
gboolean options_parse(Options *options, int argc, char **argv,
                       GError **error);
void options_clear(Options *options);

#endif /* IVSHMEM_CLIENT_OPTIONS_H */
