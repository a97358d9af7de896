/*
 * Writing JSON.
 *
 * Not responsible for what is written, nor for reading any.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "json.h"

static void json_quote(GString *json, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    g_string_append_c(json, '"');
    for (const char *p = valid; *p; p++) {
        if ((unsigned char)*p < ' ') {
            g_string_append_printf(json, "\\u%04x", *p);
        } else {
            if (*p == '"' || *p == '\\') {
                g_string_append_c(json, '\\');
            }
            g_string_append_c(json, *p);
        }
    }
    g_string_append_c(json, '"');
}

static void json_key(GString *json, const char *key)
{
    if (json->len && !strchr("{[", json->str[json->len - 1])) {
        g_string_append_c(json, ',');
    }
    if (key) {
        json_quote(json, key);
        g_string_append_c(json, ':');
    }
}

void ivshmem_json_open(GString *json, const char *key, char bracket)
{
    json_key(json, key);
    g_string_append_c(json, bracket);
}

void ivshmem_json_close(GString *json, char bracket)
{
    g_string_append_c(json, bracket);
}

void ivshmem_json_string(GString *json, const char *key, const char *value)
{
    json_key(json, key);
    json_quote(json, value ? value : "");
}

void ivshmem_json_number(GString *json, const char *key, int64_t value)
{
    json_key(json, key);
    g_string_append_printf(json, "%" G_GINT64_FORMAT, value);
}

void ivshmem_json_bool(GString *json, const char *key, bool value)
{
    json_key(json, key);
    g_string_append(json, value ? "true" : "false");
}
