/*
 * ivshmem-server --status: asking a server that runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_QUERY_H
#define IVSHMEM_SERVER_QUERY_H

#include "config.h"

/* Print what the server says on stdout; with --watch, again and again. */
bool ivshmem_query_run(const IvshmemConfig *config, GError **errp);

#endif /* IVSHMEM_SERVER_QUERY_H */
