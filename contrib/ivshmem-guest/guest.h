/*
 * ivshmem-guest: what its parts share - errors, options, numbers, time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IVSHMEM_GUEST_H
#define IVSHMEM_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define IVSHMEM_PRINTF(f, a) __attribute__((__format__(__printf__, f, a)))

/* Why something failed and what helps; main() prints it, once. */
typedef struct IvshmemError {
    char text[1024];
} IvshmemError;

/* Returns false, for "return ivshmem_error_set(...)". */
bool ivshmem_error_set(IvshmemError *err, const char *fmt, ...)
    IVSHMEM_PRINTF(2, 3);

typedef struct IvshmemOptions {
    const char *device;         /* address, or id=N; NULL: the only one */
    const char *via;            /* auto, vfio, sysfs, uio */
    const char *map;            /* auto, uc, wc */
    const char *sysfs;          /* where sysfs is mounted */
    bool json;
    bool verbose;
    bool no_iommu;
    bool answer;                /* ping: answer instead of asking */
    bool reply;                 /* chat: a line of input per message received */
    bool lead;                  /* the same, but the first line goes at once */
    uint64_t count;             /* 0: not given */
    uint64_t expect;            /* chat: messages that must arrive */
    uint64_t offset;            /* of the channel in the memory */
    uint64_t size;              /* bench: bytes per copy, 0: not given */
    uint16_t vector;
    int64_t timeout_ns;         /* -1: wait for ever */
} IvshmemOptions;

/* Decimal or 0x number with an optional suffix K, M, G or T. */
bool ivshmem_parse_size(const char *text, uint64_t *value);
/* Seconds by default; suffixes us, ms, s, m. */
bool ivshmem_parse_time(const char *text, int64_t *ns);
bool ivshmem_parse_u16(const char *text, const char *what, uint16_t *value,
                       IvshmemError *err);

int64_t ivshmem_now_ns(void);

/* A point in time for a wait of @ns from now; -1 stays -1, "for ever". */
int64_t ivshmem_deadline(int64_t ns);
/* What poll() takes: milliseconds left, rounded up; -1: for ever. */
int ivshmem_poll_ms(int64_t deadline);
bool ivshmem_expired(int64_t deadline);

/* Sorts @ns in place; the value below which @percent of them lie. */
int64_t ivshmem_percentile(int64_t *ns, uint64_t n, double percent);

#endif /* IVSHMEM_GUEST_H */
