/*
 * floor: what this machine can do at best, with nothing of ours in between.
 *
 *   floor eventfd CPU CPU N   round trips of two processes by eventfd
 *   floor polling CPU CPU N   the same by polling shared memory
 *   floor write N             writes to an eventfd that nobody reads
 *   floor memcpy BYTES        copies within memory
 *
 * Prints JSON: nanoseconds of each round trip, of one write, or MB/s.  Not
 * responsible for statistics.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FLOOR_MAX_TRIPS 1000000
#define FLOOR_MAX_BYTES (1 << 30)
#define FLOOR_COPY_NS   (300 * INT64_C(1000000))

typedef struct FloorShared {
    _Alignas(64) atomic_uint ball;
} FloorShared;

typedef struct Floor {
    int there, back;            /* eventfds; -1: polling */
    FloorShared *shared;
} Floor;

static int64_t floor_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void floor_die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void floor_pin(const char *cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(strtoul(cpu, NULL, 10) % CPU_SETSIZE, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) {
        floor_die("cannot stay on the CPU given");
    }
}

static void floor_ring(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) != sizeof(one)) {
        floor_die("write");
    }
}

static void floor_wait(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) != sizeof(count)) {
        floor_die("read");
    }
}

static void floor_trip(Floor *f, unsigned n)
{
    if (f->there >= 0) {
        floor_ring(f->there);
        floor_wait(f->back);
        return;
    }
    atomic_store(&f->shared->ball, 2 * n + 1);
    while (atomic_load(&f->shared->ball) != 2 * n + 2) {
    }
}

static void floor_answer(Floor *f, unsigned n)
{
    if (f->there >= 0) {
        floor_wait(f->there);
        floor_ring(f->back);
        return;
    }
    while (atomic_load(&f->shared->ball) != 2 * n + 1) {
    }
    atomic_store(&f->shared->ball, 2 * n + 2);
}

static void floor_trips(Floor *f, const char *here, const char *there,
                        unsigned n)
{
    int64_t *ns = calloc(n, sizeof(*ns));
    pid_t child = fork();

    if (!ns || child < 0) {
        floor_die("start");
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        floor_pin(there);
        for (unsigned i = 0; i < n; i++) {
            floor_answer(f, i);
        }
        _exit(0);
    }
    floor_pin(here);
    for (unsigned i = 0; i < n; i++) {
        int64_t start = floor_now_ns();

        floor_trip(f, i);
        ns[i] = floor_now_ns() - start;
    }
    waitpid(child, NULL, 0);
    printf("{\"ns\": [");
    for (unsigned i = 0; i < n; i++) {
        printf("%s%" PRId64, i ? ", " : "", ns[i]);
    }
    printf("]}\n");
    free(ns);
}

static void floor_writes(unsigned n)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int64_t start = floor_now_ns();

    if (fd < 0) {
        floor_die("eventfd");
    }
    for (unsigned i = 0; i < n; i++) {
        floor_ring(fd);
    }
    printf("{\"ns\": [%.1f]}\n", (double)(floor_now_ns() - start) / n);
}

static void floor_memcpy(size_t size)
{
    char *from = malloc(size), *to = malloc(size);
    int64_t start, ns;
    uint64_t bytes = 0;

    if (!from || !to) {
        floor_die("memory");
    }
    memset(from, 1, size);
    memset(to, 2, size);
    start = floor_now_ns();
    do {
        memcpy(to, from, size);
        atomic_signal_fence(memory_order_seq_cst);
        bytes += size;
        ns = floor_now_ns() - start;
    } while (ns < FLOOR_COPY_NS);
    printf("{\"mb_s\": %.1f}\n", (double)bytes * 1e3 / (double)ns);
    free(from);
    free(to);
}

static unsigned floor_number(const char *text, unsigned max)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*end || n < 1 || n > max) {
        fprintf(stderr, "floor: %s is not a number from 1 to %u\n", text, max);
        exit(1);
    }
    return (unsigned)n;
}

int main(int argc, char **argv)
{
    Floor f = { -1, -1, NULL };

    if (argc == 5 && !strcmp(argv[1], "eventfd")) {
        f.there = eventfd(0, EFD_CLOEXEC);
        f.back = eventfd(0, EFD_CLOEXEC);
        if (f.there < 0 || f.back < 0) {
            floor_die("eventfd");
        }
        floor_trips(&f, argv[2], argv[3], floor_number(argv[4], FLOOR_MAX_TRIPS));
    } else if (argc == 5 && !strcmp(argv[1], "polling")) {
        f.shared = mmap(NULL, sizeof(*f.shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (f.shared == MAP_FAILED) {
            floor_die("mmap");
        }
        floor_trips(&f, argv[2], argv[3], floor_number(argv[4], FLOOR_MAX_TRIPS));
    } else if (argc == 3 && !strcmp(argv[1], "write")) {
        floor_writes(floor_number(argv[2], FLOOR_MAX_TRIPS));
    } else if (argc == 3 && !strcmp(argv[1], "memcpy")) {
        floor_memcpy(floor_number(argv[2], FLOOR_MAX_BYTES));
    } else {
        fprintf(stderr, "usage: floor eventfd|polling CPU CPU N, "
                "floor write N, floor memcpy BYTES\n");
        return 1;
    }
    return 0;
}
