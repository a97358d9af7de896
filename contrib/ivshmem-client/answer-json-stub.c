/*
 * No JSON: built without json-glib.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "answer.h"

gboolean answer_json_check(GError **error)
{
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "--json: built "
                "without json-glib; build with it, or read the text");
    return FALSE;
}

void answer_json_begin(Answer *answer)
{
}

char *answer_json_end(Answer *answer)
{
    return g_strdup("");
}

void answer_json_clear(Answer *answer)
{
}

void answer_number(Answer *answer, const char *key, guint64 value)
{
}

void answer_boolean(Answer *answer, const char *key, gboolean value)
{
}

void answer_string(Answer *answer, const char *key, const char *value)
{
}

void answer_object(Answer *answer)
{
}

void answer_object_end(Answer *answer)
{
}

void answer_array(Answer *answer, const char *key)
{
}

void answer_array_end(Answer *answer)
{
}
