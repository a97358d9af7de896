/*
 * What the fuzz targets share.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef IVSHMEM_FUZZ_H
#define IVSHMEM_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Called by libFuzzer, or by replay.c for each file of the corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct FuzzInput {
    const uint8_t *data;
    size_t left;
} FuzzInput;

/* The next byte, 0 at the end. */
static inline uint8_t fuzz_byte(FuzzInput *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->data++;
}

#endif /* IVSHMEM_FUZZ_H */
