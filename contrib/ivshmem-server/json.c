/*
 * JSON, by json-glib.
 *
 * Not responsible for what is written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-glib/json-glib.h>
#include "json.h"

IvshmemJson *ivshmem_json_new(void)
{
    return json_builder_new();
}

GString *ivshmem_json_finish(IvshmemJson *json)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_builder_get_root(json);
    g_autofree char *text = NULL;
    GString *line;

    json_generator_set_root(generator, root);
    text = json_generator_to_data(generator, NULL);
    line = g_string_new(text);
    g_string_append_c(line, '\n');
    g_object_unref(json);
    return line;
}

static void json_key(IvshmemJson *json, const char *key)
{
    if (key) {
        json_builder_set_member_name(json, key);
    }
}

void ivshmem_json_object(IvshmemJson *json, const char *key)
{
    json_key(json, key);
    json_builder_begin_object(json);
}

void ivshmem_json_object_end(IvshmemJson *json)
{
    json_builder_end_object(json);
}

void ivshmem_json_array(IvshmemJson *json, const char *key)
{
    json_key(json, key);
    json_builder_begin_array(json);
}

void ivshmem_json_array_end(IvshmemJson *json)
{
    json_builder_end_array(json);
}

/* JSON wants UTF-8; a path need not be. */
void ivshmem_json_string(IvshmemJson *json, const char *key, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value ? value : "", -1);

    json_key(json, key);
    json_builder_add_string_value(json, valid);
}

void ivshmem_json_number(IvshmemJson *json, const char *key, int64_t value)
{
    json_key(json, key);
    json_builder_add_int_value(json, value);
}

void ivshmem_json_bool(IvshmemJson *json, const char *key, bool value)
{
    json_key(json, key);
    json_builder_add_boolean_value(json, value);
}
