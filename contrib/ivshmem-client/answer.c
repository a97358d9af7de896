/*
 * Collects an answer and prints it in one piece.
 *
 * Not responsible for what the answers say.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>
#include "answer.h"

void answer_init(Answer *answer, gboolean json)
{
    answer->json = json;
    answer->text = g_string_new(NULL);
    answer->fields = g_string_new(NULL);
}

void answer_clear(Answer *answer)
{
    g_string_free(answer->text, TRUE);
    g_string_free(answer->fields, TRUE);
}

void answer_text(Answer *answer, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_vprintf(answer->text, format, ap);
    va_end(ap);
}

/* JSON wants UTF-8; a path need not be. */
static void answer_quote(GString *out, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    g_string_append_c(out, '"');
    for (const char *p = valid; *p; p++) {
        if (*p == '"' || *p == '\\') {
            g_string_append_printf(out, "\\%c", *p);
        } else if ((guchar)*p < 0x20) {
            g_string_append_printf(out, "\\u%04x", *p);
        } else {
            g_string_append_c(out, *p);
        }
    }
    g_string_append_c(out, '"');
}

/* A comma where one belongs, then the key. */
static void answer_key(Answer *answer, const char *key)
{
    GString *out = answer->fields;

    if (out->len && !strchr("{[", out->str[out->len - 1])) {
        g_string_append_c(out, ',');
    }
    if (key) {
        answer_quote(out, key);
        g_string_append_c(out, ':');
    }
}

void answer_number(Answer *answer, const char *key, guint64 value)
{
    answer_key(answer, key);
    g_string_append_printf(answer->fields, "%" G_GUINT64_FORMAT, value);
}

void answer_boolean(Answer *answer, const char *key, gboolean value)
{
    answer_key(answer, key);
    g_string_append(answer->fields, value ? "true" : "false");
}

void answer_string(Answer *answer, const char *key, const char *value)
{
    answer_key(answer, key);
    answer_quote(answer->fields, value);
}

void answer_object(Answer *answer)
{
    answer_key(answer, NULL);
    g_string_append_c(answer->fields, '{');
}

void answer_object_end(Answer *answer)
{
    g_string_append_c(answer->fields, '}');
}

void answer_array(Answer *answer, const char *key)
{
    answer_key(answer, key);
    g_string_append_c(answer->fields, '[');
}

void answer_array_end(Answer *answer)
{
    g_string_append_c(answer->fields, ']');
}

gboolean answer_print(Answer *answer)
{
    if (answer->json) {
        printf("{%s}\n", answer->fields->str);
    } else {
        fwrite(answer->text->str, 1, answer->text->len, stdout);
    }
    g_string_truncate(answer->text, 0);
    g_string_truncate(answer->fields, 0);
    return fflush(stdout) == 0;
}
