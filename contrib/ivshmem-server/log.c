/*
 * The server's log: where lines go, what they look like, and how many of a
 * kind there may be.
 *
 * Not responsible for errors that end the program: main() prints those.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include "log.h"

/*
 * Enough for every client of an ordinary group to join at once; after that,
 * ten lines a second show that something goes on without filling a disk.
 */
#define LOG_BURST 1000
#define LOG_PER_SECOND 10

/* Bytes: a burst of lines is written with few system calls. */
#define LOG_BUFFER 16384

typedef struct LogBudget {
    double lines;
    gint64 last;
    unsigned left_out;
} LogBudget;

static struct {
    IvshmemLogTarget target;
    bool verbose;
    bool journal;
    LogBudget budgets[IVSHMEM_LOG_KINDS];
} log_state;

static int log_priority(GLogLevelFlags level)
{
    switch (level & G_LOG_LEVEL_MASK) {
    case G_LOG_LEVEL_ERROR:
    case G_LOG_LEVEL_CRITICAL:
        return LOG_ERR;
    case G_LOG_LEVEL_WARNING:
        return LOG_WARNING;
    case G_LOG_LEVEL_MESSAGE:
        return LOG_NOTICE;
    case G_LOG_LEVEL_INFO:
        return LOG_INFO;
    default:
        return LOG_DEBUG;
    }
}

static const char *log_field(const GLogField *fields, gsize n, const char *key)
{
    for (gsize i = 0; i < n; i++) {
        if (strcmp(fields[i].key, key) == 0 && fields[i].length == -1) {
            return fields[i].value;
        }
    }
    return NULL;
}

/* Not before ivshmem_log_flush(), where lines come in bursts. */
static void log_stderr(const char *text)
{
    static char second[sizeof("2000-01-01 00:00:00")];
    static time_t last = -1;
    struct timespec now;
    struct tm local;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != last && localtime_r(&now.tv_sec, &local)) {
        strftime(second, sizeof(second), "%F %T", &local);
        last = now.tv_sec;
    }
    fprintf(stderr, "%s.%03ld ivshmem-server: %s\n", second,
            now.tv_nsec / 1000000, text);
}

static GLogWriterOutput log_write(GLogLevelFlags level, const GLogField *fields,
                                  gsize n, gpointer opaque)
{
    const char *text = log_field(fields, n, "MESSAGE");

    if ((level & G_LOG_LEVEL_DEBUG) && !log_state.verbose) {
        return G_LOG_WRITER_HANDLED;
    }
    if (log_state.target == IVSHMEM_LOG_SYSLOG) {
        syslog(log_priority(level), "%s", text ? text : "");
        return G_LOG_WRITER_HANDLED;
    }
    if (log_state.journal && g_log_writer_journald(level, fields, n, opaque) ==
        G_LOG_WRITER_HANDLED) {
        return G_LOG_WRITER_HANDLED;
    }
    log_stderr(text ? text : "");
    return G_LOG_WRITER_HANDLED;
}

void ivshmem_log_init(IvshmemLogTarget target, bool verbose)
{
    static bool installed;

    log_state.target = target;
    log_state.verbose = verbose;
    if (target == IVSHMEM_LOG_STDERR) {
        setvbuf(stderr, NULL, _IOFBF, LOG_BUFFER);
    }
    log_state.journal = g_log_writer_is_journald(STDERR_FILENO);
    if (target == IVSHMEM_LOG_SYSLOG) {
        openlog("ivshmem-server", LOG_PID, LOG_DAEMON);
    }
    if (!installed) {
        installed = true;       /* GLib takes a writer once only */
        g_log_set_writer_func(log_write, NULL, NULL);
    }
}

/* Whether one more line of @kind may be written; counts those that may not. */
static bool log_spend(LogBudget *budget, unsigned *left_out)
{
    gint64 now = g_get_monotonic_time();

    if (budget->last == 0) {
        budget->lines = LOG_BURST;
    } else {
        budget->lines += (now - budget->last) * LOG_PER_SECOND / 1e6;
        budget->lines = MIN(budget->lines, LOG_BURST);
    }
    budget->last = now;
    if (budget->lines < 1) {
        budget->left_out++;
        return false;
    }
    budget->lines--;
    *left_out = budget->left_out;
    budget->left_out = 0;
    return true;
}

static GString *log_prefix(const IvshmemLogSubject *subject)
{
    GString *text = g_string_new(NULL);

    if (!subject) {
        return text;
    }
    if (subject->region) {
        g_string_append_printf(text, "region %s: ", subject->region);
    }
    if (subject->id >= 0) {
        g_string_append_printf(text, "client %d", subject->id);
    } else if (subject->pid > 0) {
        g_string_append(text, "client");
    }
    if (subject->pid > 0) {
        g_string_append_printf(text, " (pid %d)", (int)subject->pid);
    }
    if (subject->id >= 0 || subject->pid > 0) {
        g_string_append(text, ": ");
    }
    return text;
}

static void log_send(GLogLevelFlags level, const IvshmemLogSubject *subject,
                     const char *text)
{
    char priority[4], id[16] = "", pid[16] = "";
    GLogField fields[] = {
        { "MESSAGE", text, -1 },
        { "PRIORITY", priority, -1 },
        { "SYSLOG_IDENTIFIER", "ivshmem-server", -1 },
        { "IVSHMEM_REGION", "", -1 },
        { "IVSHMEM_CLIENT_ID", id, -1 },
        { "IVSHMEM_CLIENT_PID", pid, -1 },
    };
    gsize n = subject ? G_N_ELEMENTS(fields) : 3;

    snprintf(priority, sizeof(priority), "%d", log_priority(level));
    if (subject) {
        fields[3].value = subject->region ? subject->region : "";
        if (subject->id >= 0) {
            snprintf(id, sizeof(id), "%d", subject->id);
        }
        if (subject->pid > 0) {
            snprintf(pid, sizeof(pid), "%d", (int)subject->pid);
        }
    }
    g_log_structured_array(level, fields, n);
}

void ivshmem_log_flush(void)
{
    fflush(stderr);
}

/* Joins and leaves are written when the turn they happen in ends. */
static bool log_may_wait(IvshmemLogKind kind)
{
    return kind == IVSHMEM_LOG_JOIN || kind == IVSHMEM_LOG_LEAVE;
}

void ivshmem_log_event(GLogLevelFlags level, IvshmemLogKind kind,
                       const IvshmemLogSubject *subject,
                       const char *format, ...)
{
    g_autoptr(GString) text = NULL;
    unsigned left_out = 0;
    va_list ap;

    if ((level & G_LOG_LEVEL_DEBUG) && !log_state.verbose) {
        return;
    }
    if (kind != IVSHMEM_LOG_ALWAYS &&
        !log_spend(&log_state.budgets[kind], &left_out)) {
        return;
    }
    text = log_prefix(subject);
    va_start(ap, format);
    g_string_append_vprintf(text, format, ap);
    va_end(ap);
    if (left_out) {
        g_string_append_printf(text, " (%u more lines like this left out)",
                               left_out);
    }
    log_send(level, subject, text->str);
    if (!log_may_wait(kind)) {
        ivshmem_log_flush();
    }
}
