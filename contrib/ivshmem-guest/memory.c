/*
 * ivshmem-guest: read, write, dump, fill and cat of the shared memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "access.h"
#include "command.h"

#define IVSHMEM_CHUNK 65536

static bool ivshmem_memory_number(const char *text, const char *what, uint64_t *value,
                                  IvshmemError *err)
{
    return ivshmem_parse_size(text, value) ||
           ivshmem_error_set(err, "%s '%s' is not a number like 4096, 0x1000 or 4K",
                             what, text);
}

static bool ivshmem_memory_check(const IvshmemAccess *access, uint64_t offset,
                                 uint64_t length, IvshmemError *err)
{
    if (offset <= access->shm_size && length <= access->shm_size - offset) {
        return true;
    }
    return ivshmem_error_set(err, "offset %" PRIu64 " and length %" PRIu64 " reach past "
                             "the end: the memory of %s has %" PRIu64 " bytes", offset,
                             length, access->dev.address, access->shm_size);
}

/*
 * Offset and length from the arguments; a missing length is @def, at most what
 * there is (@def 0: all there is).
 */
static bool ivshmem_memory_range(const IvshmemAccess *access, int argc, char **argv,
                                 uint64_t def, uint64_t *offset, uint64_t *length,
                                 IvshmemError *err)
{
    *offset = 0;
    if (argc > 0 && !ivshmem_memory_number(argv[0], "offset", offset, err)) {
        return false;
    }
    if (argc > 1) {
        return ivshmem_memory_number(argv[1], "length", length, err) &&
               ivshmem_memory_check(access, *offset, *length, err);
    }
    if (!ivshmem_memory_check(access, *offset, 0, err)) {
        return false;
    }
    *length = access->shm_size - *offset;
    if (def && *length > def) {
        *length = def;
    }
    return true;
}

static bool ivshmem_memory_flush(IvshmemError *err)
{
    return (!fflush(stdout) && !ferror(stdout)) ||
           ivshmem_error_set(err, "cannot write to standard output: %s",
                             strerror(errno));
}

bool ivshmem_command_read(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    uint8_t chunk[4096];
    uint64_t offset, length;
    IvshmemAccess access;
    bool ok;

    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    ok = ivshmem_memory_range(&access, argc, argv, 4, &offset, &length, err);
    while (ok && length) {
        size_t n = length < sizeof(chunk) ? length : sizeof(chunk);

        ivshmem_copy_in(chunk, access.shm + offset, n);
        for (size_t i = 0; i < n; i++) {
            printf("%02x", chunk[i]);
        }
        offset += n;
        length -= n;
    }
    if (ok) {
        putchar('\n');
        ok = ivshmem_memory_flush(err);
    }
    ivshmem_access_close(&access);
    return ok;
}

static void ivshmem_memory_dump_line(uint64_t offset, const uint8_t *bytes, size_t n)
{
    printf("%08" PRIx64 " ", offset);
    for (size_t i = 0; i < 16; i++) {
        if (i < n) {
            printf("%s%02x", i == 8 ? "  " : " ", bytes[i]);
        } else {
            printf("%s  ", i == 8 ? "  " : " ");
        }
    }
    printf("  |");
    for (size_t i = 0; i < n; i++) {
        putchar(isprint(bytes[i]) ? bytes[i] : '.');
    }
    printf("|\n");
}

bool ivshmem_command_dump(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    uint8_t line[16], last[16];
    uint64_t offset, length;
    bool have_last = false, skipping = false, ok;
    IvshmemAccess access;

    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    ok = ivshmem_memory_range(&access, argc, argv, 256, &offset, &length, err);
    while (ok && length) {
        size_t n = length < sizeof(line) ? length : sizeof(line);
        bool same;

        ivshmem_copy_in(line, access.shm + offset, n);
        same = have_last && n == sizeof(line) && !memcmp(line, last, n) && length > n;
        if (!same) {
            ivshmem_memory_dump_line(offset, line, n);
        } else if (!skipping) {
            puts("*");
        }
        skipping = same;
        memcpy(last, line, sizeof(last));
        have_last = true;
        offset += n;
        length -= n;
    }
    ok = ok && ivshmem_memory_flush(err);
    ivshmem_access_close(&access);
    return ok;
}

bool ivshmem_command_cat(const IvshmemOptions *opt, int argc, char **argv,
                         IvshmemError *err)
{
    static uint8_t chunk[IVSHMEM_CHUNK];
    uint64_t offset, length;
    IvshmemAccess access;
    bool ok;

    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    ok = ivshmem_memory_range(&access, argc, argv, 0, &offset, &length, err);
    while (ok && length) {
        size_t n = length < sizeof(chunk) ? length : sizeof(chunk);

        ivshmem_copy_in(chunk, access.shm + offset, n);
        if (fwrite(chunk, 1, n, stdout) != n) {
            break;
        }
        offset += n;
        length -= n;
    }
    ok = ok && ivshmem_memory_flush(err);
    ivshmem_access_close(&access);
    return ok;
}

bool ivshmem_command_fill(const IvshmemOptions *opt, int argc, char **argv,
                          IvshmemError *err)
{
    static uint8_t chunk[IVSHMEM_CHUNK];
    uint64_t offset, length, value;
    IvshmemAccess access;
    bool ok;

    if (!ivshmem_parse_size(argv[2], &value) || value > UINT8_MAX) {
        return ivshmem_error_set(err, "fill byte '%s' is not a number from 0 to 255",
                                 argv[2]);
    }
    if (!ivshmem_access_open(&access, opt, IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    memset(chunk, value, sizeof(chunk));
    ok = ivshmem_memory_range(&access, argc, argv, 0, &offset, &length, err);
    while (ok && length) {
        size_t n = length < sizeof(chunk) ? length : sizeof(chunk);

        ivshmem_copy_out(access.shm + offset, chunk, n);
        offset += n;
        length -= n;
    }
    ivshmem_barrier();
    ivshmem_access_close(&access);
    return ok;
}

/* "0x..." to bytes, in place of the text; -1: not that. */
static ssize_t ivshmem_memory_unhex(const char *text, uint8_t *bytes)
{
    size_t n = strlen(text) - 2;

    if (!n || n % 2 || strspn(text + 2, "0123456789abcdefABCDEF") != n) {
        return -1;
    }
    for (size_t i = 0; i < n / 2; i++) {
        unsigned byte;

        sscanf(text + 2 + 2 * i, "%2x", &byte);
        bytes[i] = byte;
    }
    return n / 2;
}

static bool ivshmem_memory_write_stdin(IvshmemAccess *access, uint64_t offset,
                                       IvshmemError *err)
{
    static uint8_t chunk[IVSHMEM_CHUNK];
    uint64_t room = access->shm_size - offset;
    size_t n;

    while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        if (n > room) {
            return ivshmem_error_set(err, "the input is longer than the memory of %s "
                                     "from that offset on; its first %" PRIu64
                                     " bytes were written", access->dev.address,
                                     access->shm_size - offset - room);
        }
        ivshmem_copy_out(access->shm + access->shm_size - room, chunk, n);
        room -= n;
    }
    return !ferror(stdin) ||
           ivshmem_error_set(err, "cannot read standard input: %s", strerror(errno));
}

static bool ivshmem_memory_write_text(IvshmemAccess *access, uint64_t offset,
                                      char *text, IvshmemError *err)
{
    size_t n = strlen(text);

    if (!strncasecmp(text, "0x", 2)) {
        ssize_t bytes = ivshmem_memory_unhex(text, (uint8_t *)text);

        if (bytes < 0) {
            return ivshmem_error_set(err, "'%s' is not pairs of hexadecimal digits; for "
                                     "text that begins with 0x use a pipe: "
                                     "write OFFSET -", text);
        }
        n = bytes;
    }
    if (!ivshmem_memory_check(access, offset, n, err)) {
        return false;
    }
    ivshmem_copy_out(access->shm + offset, text, n);
    return true;
}

bool ivshmem_command_write(const IvshmemOptions *opt, int argc, char **argv,
                           IvshmemError *err)
{
    IvshmemAccess access;
    uint64_t offset;
    bool ok;

    (void)argc;
    if (!ivshmem_memory_number(argv[0], "offset", &offset, err) ||
        !ivshmem_access_open(&access, opt, IVSHMEM_NEED_SHM, err)) {
        return false;
    }
    ok = ivshmem_memory_check(&access, offset, 0, err);
    if (ok && !strcmp(argv[1], "-")) {
        ok = ivshmem_memory_write_stdin(&access, offset, err);
    } else if (ok) {
        ok = ivshmem_memory_write_text(&access, offset, argv[1], err);
    }
    ivshmem_barrier();
    ivshmem_access_close(&access);
    return ok;
}
