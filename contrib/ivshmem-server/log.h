/*
 * The server's log: one line per event, with region, client and pid.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_SERVER_LOG_H
#define IVSHMEM_SERVER_LOG_H

#include <stdbool.h>
#include <sys/types.h>
#include <glib.h>

typedef enum IvshmemLogTarget {
    IVSHMEM_LOG_STDERR,         /* the journal, when stderr leads there */
    IVSHMEM_LOG_SYSLOG,
} IvshmemLogTarget;

/*
 * What an outsider can make happen as often as he likes.  Each kind has a
 * budget of lines of its own, so that one flood hides nothing else.
 */
typedef enum IvshmemLogKind {
    IVSHMEM_LOG_ALWAYS,         /* not limited */
    IVSHMEM_LOG_JOIN,
    IVSHMEM_LOG_LEAVE,
    IVSHMEM_LOG_REFUSE,
    IVSHMEM_LOG_DROP,
    IVSHMEM_LOG_WAIT,
    IVSHMEM_LOG_CHATTER,
    IVSHMEM_LOG_KINDS,
} IvshmemLogKind;

/* Whom a line is about; NULL or -1 where that is not known. */
typedef struct IvshmemLogSubject {
    const char *region;
    int id;
    pid_t pid;
} IvshmemLogSubject;

void ivshmem_log_init(IvshmemLogTarget target, bool verbose);

/* @level: G_LOG_LEVEL_CRITICAL, _WARNING, _MESSAGE, _INFO, _DEBUG (-v only). */
void ivshmem_log_event(GLogLevelFlags level, IvshmemLogKind kind,
                       const IvshmemLogSubject *subject,
                       const char *format, ...) G_GNUC_PRINTF(4, 5);

/* Lines about joins and leaves wait for this.  At the end of every turn. */
void ivshmem_log_flush(void);

/* A line about the server itself. */
#define ivshmem_log(level, ...) \
    ivshmem_log_event(level, IVSHMEM_LOG_ALWAYS, NULL, __VA_ARGS__)

#endif /* IVSHMEM_SERVER_LOG_H */
