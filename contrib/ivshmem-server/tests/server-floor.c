/*
 * server-floor CLIENTS VECTORS: what it costs at least to tell that many
 * clients of each other, on this machine.
 *
 * The frames a server would send, over socket pairs, with the library's own
 * sendmmsg() and nothing around it; a child receives them.  Prints the frames
 * and the CPU time of the sender.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <glib.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"

#define FLOOR_EVENTS 256

typedef struct FloorPair {
    int ends[2];
} FloorPair;

typedef struct Floor {
    size_t clients;
    size_t frames;              /* of each client */
    FloorPair *socks;
    IvshmemFrame *script;
} Floor;

static void floor_raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool floor_init(Floor *floor, size_t clients, size_t vectors)
{
    floor->clients = clients;
    floor->frames = clients * vectors;
    floor->socks = g_new(FloorPair, clients);
    floor->script = g_new(IvshmemFrame, floor->frames);
    for (size_t i = 0; i < floor->frames; i++) {
        int fd = ivshmem_io_eventfd();

        if (fd < 0) {
            return false;
        }
        floor->script[i] = (IvshmemFrame) { (int64_t)(i / vectors), fd };
    }
    for (size_t i = 0; i < clients; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                       floor->socks[i].ends) < 0) {
            return false;
        }
    }
    return true;
}

/* Reads as clients do: a frame and its descriptor at a time. */
static void floor_receive(Floor *floor)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t left = floor->clients * floor->frames;
    struct epoll_event events[FLOOR_EVENTS];

    for (size_t i = 0; i < floor->clients; i++) {
        struct epoll_event event = {
            .events = EPOLLIN, .data.fd = floor->socks[i].ends[1],
        };

        ivshmem_fd_close(&floor->socks[i].ends[0]);
        epoll_ctl(epoll, EPOLL_CTL_ADD, floor->socks[i].ends[1], &event);
    }
    while (left > 0) {
        int n = epoll_wait(epoll, events, FLOOR_EVENTS, -1);

        for (int i = 0; i < n; i++) {
            uint8_t bytes[IVSHMEM_FRAME_SIZE];
            int fd;

            while (ivshmem_io_recv(events[i].data.fd, bytes, sizeof(bytes),
                                   &fd) > 0) {
                ivshmem_fd_close(&fd);
                left--;
            }
        }
    }
}

/* Fills every socket in turn, as often as it takes. */
static bool floor_send(Floor *floor)
{
    g_autofree size_t *sent = g_new0(size_t, floor->clients);
    size_t done = 0;

    while (done < floor->clients) {
        for (size_t i = 0; i < floor->clients; i++) {
            ssize_t n = 1;

            while (n > 0 && sent[i] < floor->frames) {
                size_t batch = MIN(floor->frames - sent[i], IVSHMEM_IO_BATCH);

                n = ivshmem_io_send(floor->socks[i].ends[0],
                                    floor->script + sent[i], batch);
                if (n < 0 && n != -EAGAIN) {
                    return false;
                }
                sent[i] += n > 0 ? (size_t)n : 0;
                done += n > 0 && sent[i] == floor->frames;
            }
            if (n == -EAGAIN) {
                struct pollfd pfd = { floor->socks[i].ends[0], POLLOUT, 0 };

                poll(&pfd, 1, -1);
            }
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    size_t clients = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    size_t vectors = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    struct timespec before, after;
    Floor floor;
    bool ok;

    if (clients < 1 || vectors < 1) {
        fprintf(stderr, "usage: server-floor CLIENTS VECTORS\n");
        return EXIT_FAILURE;
    }
    floor_raise_fd_limit();
    if (!floor_init(&floor, clients, vectors)) {
        fprintf(stderr, "server-floor: %s\n", g_strerror(errno));
        return EXIT_FAILURE;
    }
    if (fork() == 0) {
        floor_receive(&floor);
        _exit(EXIT_SUCCESS);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    ok = floor_send(&floor);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    wait(NULL);
    printf("frames=%zu cpu_ns=%lld\n", floor.clients * floor.frames,
           (after.tv_sec - before.tv_sec) * 1000000000LL +
           (after.tv_nsec - before.tv_nsec));
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
