/*
 * Example: a log in the shared memory.
 *
 *   logger SOCKET            follow the log, print what is written to it
 *   logger SOCKET --write    append standard input to the log
 *
 * The log is a ring of bytes behind a counter.  One writer appends and rings
 * everybody; any number of readers follow, each at its own pace, and say so
 * when the writer has overtaken them.  The memory must be zero at first, as a
 * new server has it.  Shows connecting, mapping, waiting for
 * rings, ringing all peers.
 *
 * Not responsible for several writers at once: that would take a lock.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "ivshmem-peer.h"

/* How long the server may take. */
#define LOG_CONNECT_MS 5000

/* Bytes appended, or copied out, at a time. */
#define LOG_CHUNK 4096

typedef struct Log {
    uint64_t written;           /* bytes ever; only grows */
    char bytes[];
} Log;

typedef struct Logger {
    IvshmemPeer *peer;
    Log *log;
    uint64_t room;              /* bytes in the ring */
    uint64_t safe;              /* of these, not about to be overwritten */
} Logger;

static int log_fail(const char *what, int error)
{
    fprintf(stderr, "logger: %s: %s\n", what, ivshmem_strerror(error));
    return 1;
}

static void log_ring_everybody(Logger *logger)
{
    int id = -1;

    while ((id = ivshmem_peer_next_id(logger->peer, id)) >= 0) {
        ivshmem_peer_ring(logger->peer, (uint16_t)id, 0);
    }
}

static void log_append(Logger *logger, const char *text, size_t len)
{
    Log *log = logger->log;
    uint64_t at = log->written;

    for (size_t i = 0; i < len; i++) {
        log->bytes[(at + i) % logger->room] = text[i];
    }
    /* The bytes before the counter, and the counter before the ring. */
    __atomic_store_n(&log->written, at + len, __ATOMIC_RELEASE);
    log_ring_everybody(logger);
}

static int log_write(Logger *logger)
{
    char text[LOG_CHUNK];
    ssize_t got;

    while ((got = read(STDIN_FILENO, text, sizeof(text))) > 0) {
        IvshmemPeerEvent event;

        /* Learn who has joined and left since the last time. */
        while (ivshmem_peer_next(logger->peer, &event) == 1) {
            if (event.type == IVSHMEM_PEER_CLOSED) {
                return log_fail("the server is gone", event.error);
            }
        }
        log_append(logger, text, (size_t)got);
    }
    return got < 0;
}

/* Print from @from on; returns where to go on. */
static uint64_t log_print(const Logger *logger, uint64_t from)
{
    const Log *log = logger->log;
    uint64_t to = __atomic_load_n(&log->written, __ATOMIC_ACQUIRE);
    uint64_t begin = from;

    while (from < to) {
        uint64_t n = to - from;
        uint64_t at = from % logger->room;
        char text[LOG_CHUNK];

        if (n > logger->safe) {
            fprintf(stderr, "logger: missed %" PRIu64 " bytes\n",
                    n - logger->safe);
            from = to - logger->safe;
            continue;
        }
        n = n > sizeof(text) ? sizeof(text) : n;
        n = n > logger->room - at ? logger->room - at : n;
        memcpy(text, log->bytes + at, n);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        to = __atomic_load_n(&log->written, __ATOMIC_ACQUIRE);
        if (to - from > logger->safe) {
            continue;           /* overtaken while we copied */
        }
        fwrite(text, 1, n, stdout);
        from += n;
    }
    if (from != begin) {
        fflush(stdout);
    }
    return from;
}

static int log_follow(Logger *logger)
{
    uint64_t at = log_print(logger, 0);

    for (;;) {
        IvshmemPeerEvent event;
        int ret = ivshmem_peer_wait(logger->peer, -1, &event);

        if (ret < 0 && ret != -EINTR) {
            return log_fail("cannot wait", ret);
        }
        if (ret < 0) {
            continue;
        }
        if (event.type == IVSHMEM_PEER_RUNG) {
            at = log_print(logger, at);
        } else if (event.type == IVSHMEM_PEER_CLOSED) {
            return log_fail("the server is gone", event.error);
        }
    }
}

static int log_open(Logger *logger, const char *path)
{
    uint64_t size;
    void *address;
    int ret = ivshmem_peer_connect(path, &logger->peer);

    if (ret == 0) {
        ret = ivshmem_peer_wait_ready(logger->peer, LOG_CONNECT_MS);
    }
    if (ret == 0) {
        ret = ivshmem_peer_map(logger->peer, true, &address, &size);
    }
    if (ret < 0) {
        return log_fail(path, ret);
    }
    if (size <= sizeof(Log) + 4 * LOG_CHUNK) {
        fprintf(stderr, "logger: %s: %" PRIu64 " bytes are no room for a log\n",
                path, size);
        return 1;
    }
    logger->log = address;
    logger->room = size - sizeof(Log);
    /* The append under way, and one whose counter we have not seen yet. */
    logger->safe = logger->room - 2 * LOG_CHUNK;
    return 0;
}

int main(int argc, char **argv)
{
    bool writer = argc == 3 && strcmp(argv[2], "--write") == 0;
    Logger logger = { NULL };
    int status;

    if (argc != 2 && !writer) {
        fprintf(stderr, "usage: logger SOCKET [--write]\n");
        return 2;
    }
    status = log_open(&logger, argv[1]);
    if (status == 0) {
        status = writer ? log_write(&logger) : log_follow(&logger);
    }
    ivshmem_peer_free(logger.peer);
    return status;
}
