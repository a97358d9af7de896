/*
 * Collects an answer and prints it in one piece.
 *
 * Not responsible for what the answers say, nor for JSON (answer-json.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include "answer.h"

void answer_init(Answer *answer, gboolean json)
{
    *answer = (Answer) { .json = json, .text = g_string_new(NULL) };
    answer_reset(answer);
}

void answer_clear(Answer *answer)
{
    g_string_free(answer->text, TRUE);
    answer_json_clear(answer);
}

void answer_reset(Answer *answer)
{
    g_string_truncate(answer->text, 0);
    answer_json_clear(answer);
    if (answer->json) {
        answer_json_begin(answer);
    }
}

void answer_text(Answer *answer, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_vprintf(answer->text, format, ap);
    va_end(ap);
}

gboolean answer_print(Answer *answer)
{
    if (answer->json) {
        g_autofree char *line = answer_json_end(answer);

        printf("%s\n", line);
    } else {
        fwrite(answer->text->str, 1, answer->text->len, stdout);
    }
    answer_reset(answer);
    return fflush(stdout) == 0;
}
