/*
 * ivshmem-guest: errors, numbers, times and percentiles.
 *
 * Knows nothing of devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "guest.h"

bool ivshmem_error_set(IvshmemError *err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return false;
}

bool ivshmem_parse_size(const char *text, uint64_t *value)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    unsigned shift = 0;
    char *end;

    if (!isdigit((unsigned char)text[0])) {
        return false;           /* strtoull() takes signs and blanks */
    }
    errno = 0;
    *value = strtoull(text, &end, strncasecmp(text, "0x", 2) ? 10 : 16);
    if (errno || end == text) {
        return false;
    }
    if (*end) {
        suffix = strchr(suffixes, toupper((unsigned char)*end));
        if (!suffix || end[1]) {
            return false;
        }
        shift = 10 * (suffix - suffixes + 1);
    }
    if (*value > UINT64_MAX >> shift) {
        return false;
    }
    *value <<= shift;
    return true;
}

bool ivshmem_parse_time(const char *text, int64_t *ns)
{
    static const struct { const char *suffix; double ns; } units[] = {
        { "", 1e9 }, { "s", 1e9 }, { "ms", 1e6 }, { "us", 1e3 }, { "m", 60e9 },
    };
    double value;
    char *end;

    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    value = strtod(text, &end);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (!strcmp(end, units[i].suffix)) {
            value *= units[i].ns;
            if (!(value < 1e18)) {
                return false;
            }
            *ns = value;
            return true;
        }
    }
    return false;
}

bool ivshmem_parse_u16(const char *text, const char *what, uint16_t *value,
                       IvshmemError *err)
{
    uint64_t number;

    if (!ivshmem_parse_size(text, &number) || number > UINT16_MAX) {
        return ivshmem_error_set(err, "%s '%s' is not a number from 0 to %u",
                                 what, text, UINT16_MAX);
    }
    *value = number;
    return true;
}

int64_t ivshmem_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int64_t ivshmem_deadline(int64_t ns)
{
    return ns < 0 ? -1 : ivshmem_now_ns() + ns;
}

int ivshmem_poll_ms(int64_t deadline)
{
    int64_t ms;

    if (deadline < 0) {
        return -1;
    }
    ms = (deadline - ivshmem_now_ns() + 999999) / 1000000;
    return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : ms;
}

bool ivshmem_expired(int64_t deadline)
{
    return deadline >= 0 && ivshmem_now_ns() >= deadline;
}

static int ivshmem_compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

int64_t ivshmem_percentile(int64_t *ns, uint64_t n, double percent)
{
    double at = (n - 1) * percent / 100;
    uint64_t i = at;

    qsort(ns, n, sizeof(*ns), ivshmem_compare_ns);
    return ns[at - i < 0.5 ? i : i + 1];
}
