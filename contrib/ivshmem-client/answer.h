/*
 * Answers on stdout: text for people, or one JSON object per line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_CLIENT_ANSWER_H
#define IVSHMEM_CLIENT_ANSWER_H

#include <glib.h>

typedef struct Answer {
    gboolean json;
    GString *text;
    struct _JsonBuilder *fields;    /* NULL: not as JSON */
} Answer;

/* Whether there is JSON at all. */
gboolean answer_json_check(GError **error);

void answer_init(Answer *answer, gboolean json);
void answer_clear(Answer *answer);

/* Forget what was collected. */
void answer_reset(Answer *answer);

/* For people only. */
void answer_text(Answer *answer, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* For programs only. */
void answer_number(Answer *answer, const char *key, guint64 value);
void answer_boolean(Answer *answer, const char *key, gboolean value);
void answer_string(Answer *answer, const char *key, const char *value);
void answer_object(Answer *answer);
void answer_object_end(Answer *answer);
void answer_array(Answer *answer, const char *key);
void answer_array_end(Answer *answer);

/*
 * Print what was collected, and start anew.  Returns FALSE when stdout takes
 * no more.
 */
gboolean answer_print(Answer *answer);

/* For the above only; the caller frees the line. */
void answer_json_begin(Answer *answer);
char *answer_json_end(Answer *answer);
void answer_json_clear(Answer *answer);

#endif /* IVSHMEM_CLIENT_ANSWER_H */
