/*
 * Benchmark: how a QEMU absorbs many peers at one ivshmem-doorbell device.
 *
 * Starts the given QEMU, is its server (libivshmem's registry), announces and
 * withdraws PEERS peers, and prints as JSON how long that took, the CPU time
 * of QEMU's main loop, the longest answer to a QMP command meanwhile, and by
 * how many bytes QEMU grew.  Not responsible for comparing: run.py does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-registry.h"

#define ABSORB_REGION (1024 * 1024)
#define ABSORB_TIMEOUT_MS 50000

typedef struct Absorb {
    char *dir;
    char *server_path;
    char *qmp_path;
    char *serial_path;
    GPid qemu;
    int listener;
    int serial_listener;
    int device;
    int qmp;
    int serial;
    int memory;
    unsigned vectors;
    IvshmemRegistry *registry;
    IvshmemMember *reader;
    GPtrArray *members;
} Absorb;

typedef struct AbsorbResult {
    double wall_ms;
    double main_loop_ms;
    double longest_qmp_ms;
} AbsorbResult;

G_GNUC_NORETURN static void absorb_die(const char *what, int ret)
{
    fprintf(stderr, "absorb: %s: %s\n", what, ivshmem_strerror(ret));
    exit(1);
}

static int absorb_check(const char *what, int ret)
{
    if (ret < 0) {
        absorb_die(what, ret);
    }
    return ret;
}

static double absorb_now_ms(void)
{
    return (double)g_get_monotonic_time() / 1000;
}

/* CPU time of QEMU's first thread, which is its main loop. */
static double absorb_main_loop_ms(const Absorb *a)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/schedstat",
                                            a->qemu, a->qemu);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        absorb_die(path, -errno);
    }
    return (double)g_ascii_strtoull(text, NULL, 10) / 1e6;
}

/* QEMU's own memory, without what it shares. */
static int64_t absorb_memory(const Absorb *a)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", a->qemu);
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        absorb_die(path, -errno);
    }
    line = strstr(text, "RssAnon:");
    return line ? g_ascii_strtoll(line + strlen("RssAnon:"), NULL, 10) * 1024 : 0;
}

static void absorb_join(Absorb *a, unsigned vectors)
{
    g_autofree int *fds = g_new(int, vectors);
    IvshmemMember *member;
    IvshmemJoin join = {
        .id = IVSHMEM_ID_ANY,
        .shm_fd = a->memory,
        .vector_fds = fds,
        .vectors = vectors,
    };

    for (unsigned i = 0; i < vectors; i++) {
        fds[i] = absorb_check("eventfd", ivshmem_io_eventfd());
    }
    absorb_check("join", ivshmem_registry_join(a->registry, &join, &member));
    if (a->reader) {
        g_ptr_array_add(a->members, member);
    } else {
        a->reader = member;
    }
}

static void absorb_leave(Absorb *a)
{
    int fd;

    for (unsigned i = 0; i < a->members->len; i++) {
        ivshmem_registry_leave(a->registry, g_ptr_array_index(a->members, i));
    }
    g_ptr_array_set_size(a->members, 0);
    while ((fd = ivshmem_registry_reap(a->registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
}

/* Sends what the socket takes.  Whether all has been read. */
static bool absorb_send(Absorb *a)
{
    IvshmemFrame frames[IVSHMEM_IO_BATCH];
    int unread = 0;
    size_t n;

    while ((n = ivshmem_member_peek(a->reader, frames, IVSHMEM_IO_BATCH))) {
        ssize_t sent = ivshmem_io_send(a->device, frames, n);

        if (sent == -EAGAIN) {
            return false;
        }
        absorb_check("send", (int)sent);
        ivshmem_member_sent(a->registry, a->reader, (size_t)sent);
    }
    absorb_check("SIOCOUTQ", ioctl(a->device, SIOCOUTQ, &unread));
    return unread == 0;
}

static void absorb_qmp_send(Absorb *a, const char *command)
{
    if (write(a->qmp, command, strlen(command)) < 0) {
        absorb_die("QMP", -errno);
    }
}

/* Whether @sock has got whole lines with @word in one of them. */
static bool absorb_heard(int sock, const char *word)
{
    char text[4096];
    ssize_t got = recv(sock, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_PEEK);

    if (got == 0) {
        absorb_die("QEMU has gone", IVSHMEM_E_EOF);
    }
    if (got < 0) {
        return false;
    }
    text[got] = '\0';
    if (!strchr(text, '\n')) {
        return false;
    }
    recv(sock, text, (size_t)got, MSG_DONTWAIT);
    return strstr(text, word) != NULL;
}

static bool absorb_qmp_answered(Absorb *a)
{
    return absorb_heard(a->qmp, "\"return\"");
}

static void absorb_wait(Absorb *a, short events)
{
    struct pollfd fds[] = {
        { .fd = a->device, .events = events },
        { .fd = a->qmp, .events = POLLIN },
        { .fd = a->serial, .events = POLLIN },
    };

    poll(fds, G_N_ELEMENTS(fds), 1);
}

static void absorb_expect(Absorb *a, int sock, const char *word)
{
    double deadline = absorb_now_ms() + ABSORB_TIMEOUT_MS;

    while (!absorb_heard(sock, word)) {
        if (absorb_now_ms() > deadline) {
            absorb_die(word, IVSHMEM_E_TIMEOUT);
        }
        absorb_wait(a, 0);
    }
}

/* One QMP command after the other until QEMU has read all and is idle. */
static AbsorbResult absorb_measure(Absorb *a)
{
    double start = absorb_now_ms(), cpu = absorb_main_loop_ms(a);
    double asked, deadline = start + ABSORB_TIMEOUT_MS;
    AbsorbResult result = { 0 };
    bool done = false, last = false;

    absorb_qmp_send(a, "{\"execute\":\"query-name\"}\n");
    asked = absorb_now_ms();
    while (!last) {
        double now;

        if (!done) {
            done = absorb_send(a);
            result.wall_ms = absorb_now_ms() - start;
        }
        absorb_wait(a, done ? 0 : POLLOUT);
        now = absorb_now_ms();
        if (now > deadline) {
            absorb_die("absorbing", IVSHMEM_E_TIMEOUT);
        }
        if (absorb_qmp_answered(a)) {
            result.longest_qmp_ms = MAX(result.longest_qmp_ms, now - asked);
            last = done;
            absorb_qmp_send(a, "{\"execute\":\"query-name\"}\n");
            asked = absorb_now_ms();
        }
    }
    absorb_expect(a, a->qmp, "\"return\"");
    result.main_loop_ms = absorb_main_loop_ms(a) - cpu;
    return result;
}

/* The tiny guest maps the BARs: only then do ioeventfds exist. */
static void absorb_start_guest(Absorb *a)
{
    static const char scan[] = "scan 0\n";

    absorb_expect(a, a->serial, "ready");
    if (write(a->serial, scan, strlen(scan)) < 0) {
        absorb_die("guest", -errno);
    }
    absorb_expect(a, a->serial, "ok");
}

static int absorb_accept(int listener)
{
    struct pollfd fd = { .fd = listener, .events = POLLIN };

    if (poll(&fd, 1, ABSORB_TIMEOUT_MS) != 1) {
        absorb_die("QEMU does not connect", IVSHMEM_E_TIMEOUT);
    }
    return absorb_check("accept", ivshmem_io_accept(listener));
}

static void absorb_end_with_parent(gpointer unused G_GNUC_UNUSED)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void absorb_start_qemu(Absorb *a, const char *qemu, const char *accel,
                              const char *bios)
{
    g_autofree char *chardev = g_strdup_printf("socket,id=c,path=%s",
                                               a->server_path);
    g_autofree char *device = g_strdup_printf(
        "ivshmem-doorbell,chardev=c,vectors=%u", a->vectors);
    g_autofree char *qmp = g_strdup_printf("unix:%s,server=on,wait=off",
                                           a->qmp_path);
    g_autofree char *serial = g_strdup_printf("unix:%s", a->serial_path);
    const char *argv[] = {
        qemu, "-nodefaults", "-display", "none", "-machine", "q35",
        "-accel", accel, "-m", "64", "-bios", bios, "-qmp", qmp,
        "-serial", serial, "-chardev", chardev, "-device", device, NULL
    };
    g_autoptr(GError) error = NULL;

    if (!g_spawn_async(NULL, (char **)argv, NULL,
                       G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                       absorb_end_with_parent, NULL, &a->qemu, &error)) {
        fprintf(stderr, "absorb: %s\n", error->message);
        exit(1);
    }
    a->serial = absorb_accept(a->serial_listener);
    a->device = absorb_accept(a->listener);
}

static void absorb_start_qmp(Absorb *a)
{
    int flags;

    a->qmp = absorb_check("connect to QMP", ivshmem_io_connect(a->qmp_path));
    flags = fcntl(a->qmp, F_GETFL);
    fcntl(a->qmp, F_SETFL, flags & ~O_NONBLOCK);
    absorb_qmp_send(a, "{\"execute\":\"qmp_capabilities\"}\n");
    absorb_expect(a, a->qmp, "\"return\"");
}

static void absorb_start(Absorb *a, const char *qemu, const char *accel,
                         const char *bios)
{
    a->dir = g_dir_make_tmp("ivshmem-absorb-XXXXXX", NULL);
    a->server_path = g_build_filename(a->dir, "server", NULL);
    a->qmp_path = g_build_filename(a->dir, "qmp", NULL);
    a->serial_path = g_build_filename(a->dir, "serial", NULL);
    a->memory = absorb_check("memfd", memfd_create("absorb", MFD_CLOEXEC));
    absorb_check("ftruncate", ftruncate(a->memory, ABSORB_REGION));
    a->listener = absorb_check("listen",
                               ivshmem_io_listen(a->server_path, 0600));
    a->serial_listener = absorb_check(
        "listen", ivshmem_io_listen(a->serial_path, 0600));
    a->registry = ivshmem_registry_new(0);
    a->members = g_ptr_array_new();
    absorb_start_qemu(a, qemu, accel, bios);
    absorb_join(a, a->vectors);
    while (!absorb_send(a)) {
        poll(&(struct pollfd) { .fd = a->device, .events = POLLOUT }, 1, 1);
    }
    absorb_start_qmp(a);
    absorb_start_guest(a);
}

static void absorb_stop(Absorb *a)
{
    int fd;

    absorb_qmp_send(a, "{\"execute\":\"quit\"}\n");
    g_spawn_close_pid(a->qemu);
    ivshmem_registry_leave(a->registry, a->reader);
    while ((fd = ivshmem_registry_reap(a->registry)) >= 0) {
        ivshmem_fd_close(&fd);
    }
    ivshmem_registry_free(a->registry);
    g_ptr_array_unref(a->members);
    ivshmem_fd_close(&a->device);
    ivshmem_fd_close(&a->qmp);
    ivshmem_fd_close(&a->serial);
    ivshmem_fd_close(&a->listener);
    ivshmem_fd_close(&a->serial_listener);
    ivshmem_fd_close(&a->memory);
    g_unlink(a->server_path);
    g_unlink(a->qmp_path);
    g_unlink(a->serial_path);
    g_rmdir(a->dir);
    g_free(a->dir);
    g_free(a->server_path);
    g_free(a->qmp_path);
    g_free(a->serial_path);
}

static void absorb_print(const char *what, AbsorbResult result, bool more)
{
    printf("\"%s\": {\"wall_ms\": %.3f, \"main_loop_ms\": %.3f, "
           "\"longest_qmp_ms\": %.3f}%s", what, result.wall_ms,
           result.main_loop_ms, result.longest_qmp_ms, more ? ", " : "}\n");
}

int main(int argc, char **argv)
{
    Absorb a = { .device = -1, .qmp = -1, .serial = -1 };
    struct rlimit limit;
    unsigned peers;
    AbsorbResult join, leave;
    int64_t bytes;

    if (argc != 6) {
        fprintf(stderr, "usage: absorb QEMU kvm|tcg PEERS VECTORS BIOS\n");
        return 1;
    }
    peers = (unsigned)strtoul(argv[3], NULL, 10);
    a.vectors = (unsigned)strtoul(argv[4], NULL, 10);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }

    absorb_start(&a, argv[1], argv[2], argv[5]);
    for (unsigned i = 0; i < peers; i++) {
        absorb_join(&a, a.vectors);
    }
    bytes = absorb_memory(&a);
    join = absorb_measure(&a);
    bytes = absorb_memory(&a) - bytes;
    absorb_leave(&a);
    leave = absorb_measure(&a);
    absorb_stop(&a);

    printf("{\"peers\": %u, \"vectors\": %u, \"bytes\": %" PRId64 ", ", peers,
           a.vectors, bytes);
    absorb_print("join", join, true);
    absorb_print("leave", leave, false);
    return 0;
}
