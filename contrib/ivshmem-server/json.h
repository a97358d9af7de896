/*
 * JSON for the status document; without json-glib an error in its place.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_JSON_H
#define IVSHMEM_SERVER_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/* What an answer starts with that is none. */
#define IVSHMEM_JSON_ERROR "{\"error\":"

typedef struct _JsonBuilder IvshmemJson;

IvshmemJson *ivshmem_json_new(void);

/* One line, which is the caller's; @json is freed. */
GString *ivshmem_json_finish(IvshmemJson *json);

/* @key is NULL inside arrays and for the document itself. */
void ivshmem_json_object(IvshmemJson *json, const char *key);
void ivshmem_json_object_end(IvshmemJson *json);
void ivshmem_json_array(IvshmemJson *json, const char *key);
void ivshmem_json_array_end(IvshmemJson *json);
void ivshmem_json_string(IvshmemJson *json, const char *key, const char *value);
void ivshmem_json_number(IvshmemJson *json, const char *key, int64_t value);
void ivshmem_json_bool(IvshmemJson *json, const char *key, bool value);

#endif /* IVSHMEM_SERVER_JSON_H */
