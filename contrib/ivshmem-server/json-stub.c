/*
 * No JSON but an error: built without json-glib.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "json.h"

IvshmemJson *ivshmem_json_new(void)
{
    return NULL;
}

GString *ivshmem_json_finish(IvshmemJson *json)
{
    return g_string_new(IVSHMEM_JSON_ERROR "\"this server was built without "
                        "json-glib; --status and --metrics work\"}\n");
}

void ivshmem_json_object(IvshmemJson *json, const char *key)
{
}

void ivshmem_json_object_end(IvshmemJson *json)
{
}

void ivshmem_json_array(IvshmemJson *json, const char *key)
{
}

void ivshmem_json_array_end(IvshmemJson *json)
{
}

void ivshmem_json_string(IvshmemJson *json, const char *key, const char *value)
{
}

void ivshmem_json_number(IvshmemJson *json, const char *key, int64_t value)
{
}

void ivshmem_json_bool(IvshmemJson *json, const char *key, bool value)
{
}
