/*
 * GError domain of the server's modules.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_ERROR_H
#define IVSHMEM_SERVER_ERROR_H

#include <stdbool.h>
#include <glib.h>

/* All that a caller ever does is to tell a person: there is one code. */
#define IVSHMEM_SERVER_ERROR g_quark_from_static_string("ivshmem-server")

#define ivshmem_error(errp, ...) \
    g_set_error(errp, IVSHMEM_SERVER_ERROR, 0, __VA_ARGS__)

#endif /* IVSHMEM_SERVER_ERROR_H */
