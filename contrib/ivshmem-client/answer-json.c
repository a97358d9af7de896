/*
 * The JSON form of an answer, by json-glib.
 *
 * Not responsible for printing it (answer.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-glib/json-glib.h>
#include "answer.h"

gboolean answer_json_check(GError **error)
{
    return TRUE;
}

void answer_json_begin(Answer *answer)
{
    answer->fields = json_builder_new();
    json_builder_begin_object(answer->fields);
}

char *answer_json_end(Answer *answer)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = NULL;

    json_builder_end_object(answer->fields);
    root = json_builder_get_root(answer->fields);
    json_generator_set_root(generator, root);
    return json_generator_to_data(generator, NULL);
}

void answer_json_clear(Answer *answer)
{
    g_clear_object(&answer->fields);
}

static gboolean answer_key(Answer *answer, const char *key)
{
    if (answer->fields && key) {
        json_builder_set_member_name(answer->fields, key);
    }
    return answer->fields != NULL;
}

void answer_number(Answer *answer, const char *key, guint64 value)
{
    if (answer_key(answer, key)) {
        json_builder_add_int_value(answer->fields, (gint64)value);
    }
}

void answer_boolean(Answer *answer, const char *key, gboolean value)
{
    if (answer_key(answer, key)) {
        json_builder_add_boolean_value(answer->fields, value);
    }
}

/* JSON wants UTF-8; a path need not be. */
void answer_string(Answer *answer, const char *key, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    if (answer_key(answer, key)) {
        json_builder_add_string_value(answer->fields, valid);
    }
}

void answer_object(Answer *answer)
{
    if (answer->fields) {
        json_builder_begin_object(answer->fields);
    }
}

void answer_object_end(Answer *answer)
{
    if (answer->fields) {
        json_builder_end_object(answer->fields);
    }
}

void answer_array(Answer *answer, const char *key)
{
    if (answer_key(answer, key)) {
        json_builder_begin_array(answer->fields);
    }
}

void answer_array_end(Answer *answer)
{
    if (answer->fields) {
        json_builder_end_array(answer->fields);
    }
}
