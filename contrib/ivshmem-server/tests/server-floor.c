/*
 * server-floor CLIENTS VECTORS: what it costs at least to tell that many
 * clients of each other, on this machine.
 *
 * The frames a server would send, over connected sockets, with the library's
 * own sendmmsg() and nothing around it; a child receives them.  Prints the
 * frames, the CPU time of the sender, and that of the system calls without
 * which nobody comes in: accept4(), the user (SO_PEERCRED), eventfd() and
 * epoll_ctl().
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

typedef struct Floor {
    size_t clients;
    size_t frames;              /* of each client */
    int *server_ends, *client_ends;
    int epoll;
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

/* All connect before the first is let in. */
static bool floor_connect(Floor *floor, const char *path)
{
    for (size_t i = 0; i < floor->clients; i++) {
        floor->client_ends[i] = ivshmem_io_connect(path);
        if (floor->client_ends[i] < 0) {
            errno = -floor->client_ends[i];
            return false;
        }
    }
    return true;
}

static bool floor_let_in(Floor *floor, int listener, size_t client)
{
    size_t vectors = floor->frames / floor->clients;
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP };
    int sock = ivshmem_io_accept(listener);
    struct ucred who;
    socklen_t len = sizeof(who);

    if (sock < 0 ||
        getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
        epoll_ctl(floor->epoll, EPOLL_CTL_ADD, sock, &event) < 0) {
        return false;
    }
    floor->server_ends[client] = sock;
    for (size_t i = client * vectors; i < (client + 1) * vectors; i++) {
        int fd = ivshmem_io_eventfd();

        if (fd < 0) {
            return false;
        }
        floor->script[i] = (IvshmemFrame) { (int64_t)client, fd };
    }
    return true;
}

static int64_t floor_cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Returns what it cost to let all in, or -1. */
static int64_t floor_init(Floor *floor, size_t clients, size_t vectors)
{
    g_autofree char *directory = g_dir_make_tmp(NULL, NULL);
    g_autofree char *path = g_build_filename(directory ?: "", "floor", NULL);
    IVSHMEM_FD_AUTO int listener = ivshmem_io_listen(path, 0600);
    int64_t start;
    bool ok;

    floor->clients = clients;
    floor->frames = clients * vectors;
    floor->server_ends = g_new(int, clients);
    floor->client_ends = g_new(int, clients);
    floor->script = g_new(IvshmemFrame, floor->frames);
    floor->epoll = epoll_create1(EPOLL_CLOEXEC);
    ok = listener >= 0 && floor->epoll >= 0 && floor_connect(floor, path);
    start = floor_cpu_ns();
    for (size_t i = 0; ok && i < clients; i++) {
        ok = floor_let_in(floor, listener, i);
    }
    start = floor_cpu_ns() - start;
    unlink(path);
    rmdir(directory ?: "");
    return ok ? start : -1;
}

/* The descriptors end with the process. */
static void floor_free(Floor *floor)
{
    g_free(floor->server_ends);
    g_free(floor->client_ends);
    g_free(floor->script);
}

/* Reads as clients do: a frame and its descriptor at a time. */
static void floor_receive(Floor *floor)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t left = floor->clients * floor->frames;
    struct epoll_event events[FLOOR_EVENTS];

    for (size_t i = 0; i < floor->clients; i++) {
        struct epoll_event event = {
            .events = EPOLLIN, .data.fd = floor->client_ends[i],
        };

        ivshmem_fd_close(&floor->server_ends[i]);
        epoll_ctl(epoll, EPOLL_CTL_ADD, floor->client_ends[i], &event);
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

                n = ivshmem_io_send(floor->server_ends[i],
                                    floor->script + sent[i], batch);
                if (n < 0 && n != -EAGAIN) {
                    return false;
                }
                sent[i] += n > 0 ? (size_t)n : 0;
                done += n > 0 && sent[i] == floor->frames;
            }
            if (n == -EAGAIN) {
                struct pollfd pfd = { floor->server_ends[i], POLLOUT, 0 };

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
    int64_t entry, start;
    Floor floor;
    bool ok;

    if (clients < 1 || vectors < 1) {
        fprintf(stderr, "usage: server-floor CLIENTS VECTORS\n");
        return EXIT_FAILURE;
    }
    floor_raise_fd_limit();
    entry = floor_init(&floor, clients, vectors);
    if (entry < 0) {
        fprintf(stderr, "server-floor: %s\n", g_strerror(errno));
        return EXIT_FAILURE;
    }
    if (fork() == 0) {
        floor_receive(&floor);
        _exit(EXIT_SUCCESS);
    }
    start = floor_cpu_ns();
    ok = floor_send(&floor);
    printf("frames=%zu cpu_ns=%" G_GINT64_FORMAT " entry_ns=%" G_GINT64_FORMAT
           "\n", floor.clients * floor.frames, floor_cpu_ns() - start, entry);
    wait(NULL);
    floor_free(&floor);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
