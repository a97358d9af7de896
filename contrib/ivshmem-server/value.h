/*
 * Values that people write: sizes, numbers, modes, users.  The same for
 * options and for the configuration file.
 *
 * Each returns false with an error that names @what, the value, and what would
 * be right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_VALUE_H
#define IVSHMEM_SERVER_VALUE_H

#include <stdint.h>
#include <sys/types.h>
#include "error.h"

/* A whole decimal number from @min to @max. */
bool ivshmem_value_number(const char *what, const char *text, uint64_t min,
                          uint64_t max, uint64_t *number, GError **errp);

/* Bytes, or with one of the suffixes K, M, G, T, P (powers of 1024). */
bool ivshmem_value_size(const char *what, const char *text, uint64_t *size,
                        GError **errp);

/* The size of a region: a power of two, one page at least. */
bool ivshmem_value_region_size(const char *what, const char *text,
                               uint64_t *size, GError **errp);

/* Octal permissions of a socket or file, up to 0777. */
bool ivshmem_value_mode(const char *what, const char *text, mode_t *mode,
                        GError **errp);

bool ivshmem_value_bool(const char *what, const char *text, bool *yes,
                        GError **errp);

/* A name or a number. */
bool ivshmem_value_user(const char *what, const char *text, uid_t *uid,
                        GError **errp);
bool ivshmem_value_group(const char *what, const char *text, gid_t *gid,
                         GError **errp);

/* The absolute form of @text, which must fit into a socket address. */
char *ivshmem_value_socket_path(const char *what, const char *text,
                                GError **errp);

/* @size as people write it: 4M, 1G, or bytes if it is not that even. */
char *ivshmem_value_format_size(uint64_t size);

#endif /* IVSHMEM_SERVER_VALUE_H */
