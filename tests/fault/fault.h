/*
 * What the fault shim and its driver share: a file that both have mapped, or
 * in one process a variable.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef FAULT_H
#define FAULT_H

#include <stdint.h>

#define FAULT_CALLS_MAX 64
#define FAULT_NAME_SIZE 20

typedef struct FaultCall {
    char name[FAULT_NAME_SIZE];
    uint32_t count;             /* calls while @on */
} FaultCall;

/* tests/e2e/fault.py has the same layout. */
typedef struct FaultControl {
    uint32_t calls;             /* used entries of @call, set by the shim */
    uint32_t on;                /* count and fail; else all calls pass */
    uint32_t which;             /* entry of @call that is to fail, ... */
    uint32_t nth;               /* ... the first being 1; 0: none */
    int32_t error;              /* with this errno; 0: SIGSTOP, and then call */
    uint32_t from;              /* not only that one, but all from it on */
    uint32_t hits;              /* calls that failed so */
    uint32_t unused;
    FaultCall call[FAULT_CALLS_MAX];
} FaultControl;

extern FaultControl *fault_control;

#endif /* FAULT_H */
