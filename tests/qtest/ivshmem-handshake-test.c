/*
 * ivshmem tests: servers that misbehave, in the handshake and later, row by
 * row of the specification's state table and byte by byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ivshmem-fd.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)

typedef struct Shake {
    IvshmemVM *vm;
    IvshmemScript *s;
    unsigned fds;               /* of QEMU without the device */
    QIvshmem d;
} Shake;

static void begin(Shake *t, const char *machine)
{
    t->vm = ivshmem_vm_start(machine, NULL);
    t->s = ivshmem_script_new(SIZE);
    t->fds = ivshmem_vm_fds_without(t->vm, t->s);
}

static void end(Shake *t)
{
    ivshmem_vm_wait_fds(t->vm, t->fds);
    ivshmem_vm_stop(t->vm);
    ivshmem_script_free(t->s);
}

static void connect_chardev(Shake *t)
{
    ivshmem_vm_chardev_add(t->vm, "chr0", t->s->path);
    ivshmem_script_accept(t->s);
}

/* Plugging fails with @why in its message, and leaves nothing behind. */
static void refused(Shake *t, const char *why)
{
    g_autofree char *error = ivshmem_vm_plug_fails(
        t->vm, 0, "iv0", "ivshmem-doorbell",
        "\"chardev\": \"chr0\", \"vectors\": 2");

    g_assert_null(strstr(error, "handshake within"));
    if (!strstr(error, why)) {
        g_test_message("\"%s\" lacks \"%s\"", error, why);
        g_test_fail();
    }
    g_assert_nonnull(strstr(error, "'chr0'"));
    g_assert_true(ivshmem_script_wait_eof(t->s, IVSHMEM_TEST_DEADLINE_S *
                                          1000));
    ivshmem_vm_chardev_remove(t->vm, "chr0");
    ivshmem_vm_wait_fds(t->vm, t->fds);
}

static void accepted(Shake *t)
{
    ivshmem_vm_plug(t->vm, 0, "iv0", "ivshmem-doorbell",
                    "\"chardev\": \"chr0\", \"vectors\": 2");
    ivshmem_vm_probe(t->vm, 0, &t->d);
}

/* Rows of the state table that end the connection */

typedef struct Row {
    int64_t value;
    bool fd;
    const char *why;
} Row;

#define VERSION_TEXT "another protocol version"
#define FD_TEXT "descriptor"
#define RANGE_TEXT "neither -1 nor a peer id"

static const Row rows_version[] = {
    { 1, false, VERSION_TEXT },
    { -1, false, VERSION_TEXT },
    { INT64_MAX, false, VERSION_TEXT },
    { INT64_MIN, false, VERSION_TEXT },
    { 0x100000000, false, VERSION_TEXT },
    { 0, true, FD_TEXT },
    { -1, true, "" },
};

static const Row rows_id[] = {
    { -1, false, RANGE_TEXT },
    { -2, false, RANGE_TEXT },
    { 65536, false, RANGE_TEXT },
    { 0x100000001, false, RANGE_TEXT },
    { INT64_MAX, false, RANGE_TEXT },
    { INT64_MIN, false, RANGE_TEXT },
    { 1, true, FD_TEXT },
    { -1, true, "" },
};

/* Our own ID is 1. */
static const Row rows_run[] = {
    { -1, false, FD_TEXT },
    { 1, false, "own departure" },
    { -2, false, RANGE_TEXT },
    { -2, true, RANGE_TEXT },
    { 65536, false, RANGE_TEXT },
    { 65536, true, RANGE_TEXT },
    { 0x100000001, true, RANGE_TEXT },
    { INT64_MAX, true, RANGE_TEXT },
    { INT64_MIN, false, RANGE_TEXT },
};

static void send_row(Shake *t, const Row *row)
{
    ivshmem_script_send(t->s, row->value, row->fd ? t->s->shm : -1);
}

static void test_state_version(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned i = 0; i < ARRAY_SIZE(rows_version); i++) {
        connect_chardev(&t);
        send_row(&t, &rows_version[i]);
        refused(&t, rows_version[i].why);
    }
    end(&t);
}

static void test_state_id(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned i = 0; i < ARRAY_SIZE(rows_id); i++) {
        connect_chardev(&t);
        ivshmem_script_send(t.s, IVSHMEM_PROTOCOL_VERSION, -1);
        send_row(&t, &rows_id[i]);
        refused(&t, rows_id[i].why);
    }
    end(&t);
}

/* In RUN, before the memory: realize fails. */
static void test_state_run(const char *machine)
{
    Shake t;
    int fd;

    begin(&t, machine);
    for (unsigned i = 0; i < ARRAY_SIZE(rows_run); i++) {
        connect_chardev(&t);
        ivshmem_script_send_id(t.s, 1);
        ivshmem_script_join(t.s, 5, &fd, 1);
        ivshmem_script_send_own(t.s, 1);
        send_row(&t, &rows_run[i]);
        refused(&t, rows_run[i].why);
        ivshmem_eventfds_close(&fd, 1);
    }
    end(&t);
}

/* What is legal in RUN before the memory */
static void test_state_run_legal(const char *machine)
{
    int fds[4];
    Shake t;

    begin(&t, machine);
    connect_chardev(&t);
    ivshmem_script_send_id(t.s, 1);
    ivshmem_script_leave(t.s, 77);
    ivshmem_script_join(t.s, 5, fds, 2);
    ivshmem_script_join(t.s, 65535, fds + 2, 1);
    ivshmem_script_leave(t.s, 65535);
    ivshmem_script_leave(t.s, 65535);
    ivshmem_script_join(t.s, 0, fds + 3, 1);
    ivshmem_script_send_own(t.s, 2);
    ivshmem_script_send_shm(t.s);
    accepted(&t);
    g_assert_true(ivshmem_vm_connected(t.vm, "iv0"));
    g_assert_cmpuint(ivshmem_vm_peers(t.vm, "iv0"), ==, 2);
    g_assert_cmpint(ivshmem_vm_peer_vectors(t.vm, "iv0", 5), ==, 2);
    g_assert_cmpint(ivshmem_vm_peer_vectors(t.vm, "iv0", 0), ==, 1);
    qivshmem_ring(&t.d, 0, 0);
    g_assert_true(ivshmem_eventfd_take(fds[3]));
    ivshmem_check_registers(&t.d, 1);
    ivshmem_vm_leave(t.vm, 0);
    ivshmem_eventfds_close(fds, 4);
    end(&t);
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;

    while ((text = strstr(text, word))) {
        text += strlen(word);
        n++;
    }
    return n;
}

/* The device goes on without its server. */
static void assert_survives(Shake *t, int peer)
{
    IVSHMEM_WAIT(!ivshmem_vm_connected(t->vm, "iv0"));
    ivshmem_check_memory(&t->d, SIZE);
    ivshmem_check_registers(&t->d, 1);
    qivshmem_ring(&t->d, 5, 0);
    g_assert_true(ivshmem_eventfd_take(peer));
    qivshmem_msix_enable(&t->d, true);
    qivshmem_msix_mask(&t->d, 0, false);
    ivshmem_script_ring(t->s, 0);
    ivshmem_vm_wait_interrupt(&t->d, 0);
    ivshmem_vm_leave(t->vm, 0);
    ivshmem_vm_wait_fds(t->vm, t->fds);
}

/* In RUN, later: reported once, the connection is dropped, the rest stays. */
static void test_state_run_later(const char *machine)
{
    static const Row dup_shm = { -1, true, "twice" };
    Shake t;
    int fd;

    begin(&t, machine);
    for (unsigned i = 0; i <= ARRAY_SIZE(rows_run); i++) {
        const Row *row = i ? &rows_run[i - 1] : &dup_shm;
        g_autofree char *before = ivshmem_vm_stderr(t.vm);
        g_autofree char *said = NULL;

        connect_chardev(&t);
        ivshmem_script_hello(t.s, 1, 2);
        accepted(&t);
        ivshmem_script_join(t.s, 5, &fd, 1);
        IVSHMEM_WAIT(ivshmem_vm_peers(t.vm, "iv0") == 1);
        send_row(&t, row);
        g_assert_true(ivshmem_script_wait_eof(t.s, IVSHMEM_TEST_DEADLINE_S *
                                              1000));
        assert_survives(&t, fd);
        ivshmem_eventfds_close(&fd, 1);
        said = ivshmem_vm_stderr(t.vm);
        g_assert_nonnull(strstr(said + strlen(before), row->why));
        g_assert_cmpuint(count(said + strlen(before), "iv0"), ==, 1);
    }
    end(&t);
}

/* Descriptors and bytes in unusual pieces */

static void encode(uint8_t *bytes, int64_t value)
{
    ivshmem_wire_encode(bytes, value);
}

/* One byte at a time; the memory's descriptor comes with byte @fd_at. */
static void send_bytewise(Shake *t, unsigned fd_at)
{
    uint8_t bytes[3 * IVSHMEM_FRAME_SIZE];

    encode(bytes, IVSHMEM_PROTOCOL_VERSION);
    encode(bytes + IVSHMEM_FRAME_SIZE, 1);
    encode(bytes + 2 * IVSHMEM_FRAME_SIZE, IVSHMEM_VALUE_SHM);
    t->s->id = 1;
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bool with_fd = i == 2 * IVSHMEM_FRAME_SIZE + fd_at;

        ivshmem_script_send_raw(t->s, bytes + i, 1,
                                with_fd ? &t->s->shm : NULL, with_fd);
    }
}

static void test_byte_by_byte(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned i = 0; i < IVSHMEM_FRAME_SIZE; i++) {
        connect_chardev(&t);
        send_bytewise(&t, i);
        ivshmem_script_send_own(t.s, 2);
        accepted(&t);
        ivshmem_check_memory(&t.d, SIZE);
        ivshmem_check_registers(&t.d, 1);
        ivshmem_vm_leave(t.vm, 0);
        ivshmem_vm_wait_fds(t.vm, t.fds);
    }
    end(&t);
}

static void test_two_descriptors(const char *machine)
{
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    Shake t;

    begin(&t, machine);
    encode(bytes, IVSHMEM_VALUE_SHM);
    for (unsigned split = 0; split < IVSHMEM_FRAME_SIZE; split++) {
        int fds[2] = { t.s->shm, t.s->listener };

        connect_chardev(&t);
        ivshmem_script_send_id(t.s, 1);
        if (split) {
            ivshmem_script_send_raw(t.s, bytes, split, fds, 1);
            ivshmem_script_send_raw(t.s, bytes + split, sizeof(bytes) - split,
                                    fds + 1, 1);
        } else {
            ivshmem_script_send_raw(t.s, bytes, sizeof(bytes), fds, 2);
        }
        refused(&t, FD_TEXT);
    }
    end(&t);
}

/* D5: the server closes at every byte */

/* Sends the first @n bytes of a handshake with two own vectors. */
static void send_part(Shake *t, unsigned n, bool fd_with_part)
{
    const int64_t values[] = { IVSHMEM_PROTOCOL_VERSION, 1, IVSHMEM_VALUE_SHM,
                               1, 1 };
    uint8_t bytes[IVSHMEM_FRAME_SIZE];
    unsigned whole = n / IVSHMEM_FRAME_SIZE;

    t->s->id = 1;
    for (unsigned i = 0; i < whole; i++) {
        if (i < 2) {
            ivshmem_script_send(t->s, values[i], -1);
        } else if (i == 2) {
            ivshmem_script_send_shm(t->s);
        } else {
            ivshmem_script_send_own(t->s, 1);
        }
    }
    if (n % IVSHMEM_FRAME_SIZE) {
        encode(bytes, values[whole]);
        ivshmem_script_send_raw(t->s, bytes, n % IVSHMEM_FRAME_SIZE,
                                &t->s->shm, fd_with_part && whole >= 2);
    }
}

static void check_d5(Shake *t, unsigned n, bool fd_with_part)
{
    g_autofree char *error = NULL;

    connect_chardev(t);
    ivshmem_vm_plug_send(t->vm, 0, "iv0", "ivshmem-doorbell",
                         "\"chardev\": \"chr0\", \"vectors\": 2");
    send_part(t, n, fd_with_part);
    if (n < 3 * IVSHMEM_FRAME_SIZE) {
        ivshmem_script_wait_read(t->s);
        ivshmem_script_close(t->s);
        error = ivshmem_vm_plug_finish(t->vm);
        g_assert_nonnull(error);
        g_assert_true(strstr(error, "closed the connection") ||
                      (n == 0 && strstr(error, "not connected")));
        g_assert_false(ivshmem_vm_present(t->vm, 0));
        ivshmem_vm_chardev_remove(t->vm, "chr0");
    } else {
        error = ivshmem_vm_plug_finish(t->vm);
        g_assert_cmpstr(error, ==, NULL);
        ivshmem_vm_probe(t->vm, 0, &t->d);
        ivshmem_script_close(t->s);
        IVSHMEM_WAIT(!ivshmem_vm_connected(t->vm, "iv0"));
        ivshmem_check_memory(&t->d, SIZE);
        ivshmem_check_registers(&t->d, 1);
        ivshmem_vm_leave(t->vm, 0);
    }
}

static void test_d5_eof_at_every_byte(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned n = 0; n <= 5 * IVSHMEM_FRAME_SIZE; n++) {
        check_d5(&t, n, false);
        check_d5(&t, n, true);
    }
    end(&t);
}

/* The same, but the server has closed already when the device comes. */
static void test_d5_eof_before(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned n = 0; n < 3 * IVSHMEM_FRAME_SIZE; n++) {
        g_autofree char *error = NULL;

        connect_chardev(&t);
        send_part(&t, n, true);
        ivshmem_script_close(t.s);
        error = ivshmem_vm_plug_fails(t.vm, 0, "iv0", "ivshmem-doorbell",
                                      "\"chardev\": \"chr0\"");
        g_assert_true(strstr(error, "closed the connection") ||
                      strstr(error, "not connected"));
        ivshmem_vm_chardev_remove(t.vm, "chr0");
    }
    end(&t);
}

/* D6: the server falls silent at every byte */
static void test_d6_silent(const char *machine)
{
    Shake t;

    begin(&t, machine);
    for (unsigned n = 0; n < 3 * IVSHMEM_FRAME_SIZE; n++) {
        g_autofree char *error = NULL;
        gint64 start;

        connect_chardev(&t);
        send_part(&t, n, true);
        start = g_get_monotonic_time();
        error = ivshmem_vm_plug_fails(t.vm, 0, "iv0", "ivshmem-doorbell",
                                      "\"chardev\": \"chr0\","
                                      " \"handshake-timeout\": 20");
        g_assert_cmpint(g_get_monotonic_time() - start, >=, 20 * 1000);
        g_assert_nonnull(strstr(error, "20 ms"));
        g_assert_true(ivshmem_script_wait_eof(t.s, IVSHMEM_TEST_DEADLINE_S *
                                              1000));
        ivshmem_vm_chardev_remove(t.vm, "chr0");
    }
    connect_chardev(&t);
    ivshmem_script_hello(t.s, 1, 2);
    accepted(&t);
    g_assert_cmpuint(ivshmem_vm_get_int(t.vm, "iv0", "handshake-timeout"), ==,
                     5000);
    ivshmem_vm_leave(t.vm, 0);
    end(&t);
}

/* D11, R-DEV-7: shared memory of a size that cannot be a BAR */
static void test_d11_size(const char *machine)
{
    static const struct {
        uint64_t size;
        const char *next;
    } cases[] = {
        { 3 * MiB, "4194304" }, { 5000, "8192" }, { 1 * MiB + 4096, "2097152" },
        { 8, "16 at least" },
    };
    Shake t;

    begin(&t, machine);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *size = g_strdup_printf("%" PRIu64, cases[i].size);
        IVSHMEM_FD_AUTO int odd = ivshmem_memfd_new(cases[i].size);

        for (int part = 0; part < 2; part++) {
            connect_chardev(&t);
            ivshmem_script_send_id(t.s, 1);
            ivshmem_script_send(t.s, IVSHMEM_VALUE_SHM, odd);
            refused(&t, part ? size : cases[i].next);
        }
    }
    end(&t);
}

/* D21: shared memory that is none */
static void test_d21_bad_memory(const char *machine)
{
    IVSHMEM_FD_AUTO int empty = memfd_create("empty", MFD_CLOEXEC);
    IVSHMEM_FD_AUTO int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    IVSHMEM_FD_AUTO int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    IVSHMEM_FD_AUTO int path = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    int event, pair[2];
    Shake t;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    ivshmem_eventfds_new(&event, 1);
    begin(&t, machine);
    for (int i = 0; i < 7; i++) {
        int fds[] = { -1, empty, dir, null, path, event, pair[0] };
        static const char *const why[] = {
            FD_TEXT, "0 bytes", "map", "0 bytes", "descriptor", "0 bytes",
            "0 bytes",
        };

        connect_chardev(&t);
        ivshmem_script_send_id(t.s, 1);
        ivshmem_script_send(t.s, IVSHMEM_VALUE_SHM, fds[i]);
        refused(&t, why[i]);
    }
    ivshmem_eventfds_close(&event, 1);
    ivshmem_eventfds_close(pair, 2);
    end(&t);
}

/* A descriptor that allows reading only: so does the BAR. */
static void test_read_only_memory(const char *machine)
{
    g_autofree char *path = NULL;
    IVSHMEM_FD_AUTO int fd = -1;
    uint32_t word = cpu_to_le32(0xfeedbeef);
    Shake t;

    begin(&t, machine);
    path = g_strdup_printf("/proc/self/fd/%d", t.s->shm);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(t.s->shm, &word, 4, 0), ==, 4);
    connect_chardev(&t);
    ivshmem_script_send_id(t.s, 1);
    ivshmem_script_send(t.s, IVSHMEM_VALUE_SHM, fd);
    accepted(&t);
    g_assert_cmphex(qpci_io_readl(&t.d.dev, t.d.shm, 0), ==, 0xfeedbeef);
    qpci_io_writel(&t.d.dev, t.d.shm, 0, 0);
    g_assert_cmphex(qpci_io_readl(&t.d.dev, t.d.shm, 0), ==, 0xfeedbeef);
    ivshmem_vm_leave(t.vm, 0);
    end(&t);
}

void ivshmem_add_handshake_tests(void)
{
    static const IvshmemTest tests[] = {
        { "state-version", test_state_version },
        { "state-id", test_state_id },
        { "state-run", test_state_run },
        { "state-run-legal", test_state_run_legal },
        { "state-run-later", test_state_run_later },
        { "byte-by-byte", test_byte_by_byte },
        { "two-descriptors", test_two_descriptors },
        { "read-only-memory", test_read_only_memory },
        { "D5-eof-at-every-byte", test_d5_eof_at_every_byte },
        { "D5-eof-before", test_d5_eof_before },
        { "D6-silent", test_d6_silent },
        { "D11-size", test_d11_size },
        { "D21-bad-memory", test_d21_bad_memory },
        { }
    };

    ivshmem_test_add("handshake", tests);
}
