/*
 * Writing JSON: just enough of it for a status document.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_JSON_H
#define IVSHMEM_SERVER_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/*
 * @key is NULL inside arrays and for the document itself.  Commas come by
 * themselves.
 */
void ivshmem_json_open(GString *json, const char *key, char bracket);
void ivshmem_json_close(GString *json, char bracket);
void ivshmem_json_string(GString *json, const char *key, const char *value);
void ivshmem_json_number(GString *json, const char *key, int64_t value);
void ivshmem_json_bool(GString *json, const char *key, bool value);

#endif /* IVSHMEM_SERVER_JSON_H */
