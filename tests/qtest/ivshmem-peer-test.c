/*
 * ivshmem tests: peers come, ring, are rung and go.  Handshakes and servers
 * that misbehave in them are the matter of ivshmem-handshake-test.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/units.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)
#define VECTORS 4

static void enable_interrupts(QIvshmem *d)
{
    qivshmem_msix_enable(d, true);
    for (unsigned i = 0; i < d->vectors; i++) {
        qivshmem_msix_mask(d, i, false);
    }
}

/* Devices that ring each other, over a well-behaved server */

/* @a says something in memory and rings @b on @vector, which answers. */
static void converse(QIvshmem *a, uint16_t a_id, QIvshmem *b, uint16_t b_id,
                     unsigned vector)
{
    uint32_t word = 0xa0000000u | vector;

    qpci_io_writel(&a->dev, a->shm, 8 * vector, word);
    qivshmem_ring(a, b_id, vector);
    ivshmem_vm_wait_interrupt(b, vector);
    g_assert_cmphex(qpci_io_readl(&b->dev, b->shm, 8 * vector), ==, word);
    qpci_io_writel(&b->dev, b->shm, 8 * vector + 4, ~word);
    qivshmem_ring(b, a_id, vector);
    ivshmem_vm_wait_interrupt(a, vector);
    g_assert_cmphex(qpci_io_readl(&a->dev, a->shm, 8 * vector + 4), ==, ~word);
}

static void check_conversation(IvshmemVM *a_vm, const char *a_dev, QIvshmem *a,
                               uint16_t a_id, IvshmemVM *b_vm,
                               const char *b_dev, QIvshmem *b, uint16_t b_id)
{
    g_assert_cmpuint(a_id, !=, b_id);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(a_vm, a_dev, b_id) == VECTORS);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(b_vm, b_dev, a_id) == VECTORS);
    enable_interrupts(a);
    enable_interrupts(b);
    for (unsigned i = 0; i < VECTORS; i++) {
        converse(a, a_id, b, b_id, i);
    }
    for (unsigned i = 0; i < VECTORS; i++) {
        converse(b, b_id, a, a_id, i);
    }
    ivshmem_vm_settle(a_vm);
    ivshmem_vm_settle(b_vm);
    for (unsigned i = 0; i < VECTORS; i++) {
        g_assert_false(qivshmem_msix_take(a, i));
        g_assert_false(qivshmem_msix_take(b, i));
    }
}

static void check_two_vms(const char *machine, const char *props)
{
    IvshmemGroup *group = ivshmem_group_new(VECTORS, SIZE, 0, -1);
    IvshmemVM *a_vm = ivshmem_vm_start(machine, NULL);
    IvshmemVM *b_vm = ivshmem_vm_start(machine, NULL);
    uint16_t a_id, b_id;
    QIvshmem a, b;

    a_id = ivshmem_vm_join_group(a_vm, 0, group, VECTORS, props, &a);
    b_id = ivshmem_vm_join_group(b_vm, 0, group, VECTORS, props, &b);
    check_conversation(a_vm, "iv0", &a, a_id, b_vm, "iv0", &b, b_id);
    ivshmem_vm_leave(a_vm, 0);
    IVSHMEM_WAIT(ivshmem_vm_peers(b_vm, "iv0") == 0);
    IVSHMEM_WAIT(ivshmem_group_members(group) == 1);
    a_id = ivshmem_vm_join_group(a_vm, 0, group, VECTORS, props, &a);
    check_conversation(a_vm, "iv0", &a, a_id, b_vm, "iv0", &b, b_id);
    ivshmem_vm_stop(a_vm);
    IVSHMEM_WAIT(ivshmem_vm_peers(b_vm, "iv0") == 0);
    ivshmem_vm_stop(b_vm);
    IVSHMEM_WAIT(ivshmem_group_members(group) == 0);
    ivshmem_group_free(group);
}

/* R-DEV-12, R-DEV-20 */
static void test_two_vms(const char *machine)
{
    check_two_vms(machine, "\"ioeventfd\": true");
}

static void test_two_vms_no_ioeventfd(const char *machine)
{
    check_two_vms(machine, "\"ioeventfd\": false");
}

static void test_two_devices(const char *machine)
{
    IvshmemGroup *group = ivshmem_group_new(VECTORS, SIZE, 40000, -1);
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    uint16_t a_id, b_id;
    QIvshmem a, b;

    a_id = ivshmem_vm_join_group(vm, 0, group, VECTORS, NULL, &a);
    b_id = ivshmem_vm_join_group(vm, 1, group, VECTORS, NULL, &b);
    check_conversation(vm, "iv0", &a, a_id, vm, "iv1", &b, b_id);
    ivshmem_vm_stop(vm);
    ivshmem_group_free(group);
}

/* One device, and peers by script */

typedef struct Scripted {
    IvshmemVM *vm;
    IvshmemScript *s;
    QIvshmem d;
} Scripted;

static void begin(Scripted *t, const char *machine, const char *args,
                  unsigned vectors, const char *props)
{
    t->vm = ivshmem_vm_start(machine, args);
    t->s = ivshmem_script_new(SIZE);
    ivshmem_vm_join_script(t->vm, 0, t->s, 1, vectors, props, &t->d);
}

static void end(Scripted *t)
{
    ivshmem_vm_stop(t->vm);
    ivshmem_script_free(t->s);
}

/* All that was sent so far has been read: a marker comes and goes. */
static void barrier(Scripted *t)
{
    int fd;

    ivshmem_script_join(t->s, 65000, &fd, 1);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(t->vm, "iv0", 65000) == 1);
    ivshmem_script_leave(t->s, 65000);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(t->vm, "iv0", 65000) == -1);
    ivshmem_eventfds_close(&fd, 1);
}

/* Exactly @fds[vector] has been rung; -1: none. */
static void assert_rung(int *fds, unsigned n, int vector)
{
    for (unsigned i = 0; i < n; i++) {
        g_assert(ivshmem_eventfd_take(fds[i]) == ((int)i == vector));
    }
}

/* A guest may ring its own ID. */
/* R-DEV-14 */
static void test_self(const char *machine)
{
    Scripted t;

    begin(&t, machine, NULL, VECTORS, NULL);
    enable_interrupts(&t.d);
    for (unsigned i = 0; i < VECTORS; i++) {
        qivshmem_ring(&t.d, 1, i);
        ivshmem_vm_wait_interrupt(&t.d, i);
    }
    qivshmem_ring(&t.d, 1, VECTORS);
    g_assert_cmpuint(ivshmem_vm_peers(t.vm, "iv0"), ==, 0);
    end(&t);
}

/* The Doorbell register at every offset and width */
/* R-DEV-12, R-DEV-17, R-DEV-18 */
static void test_doorbell_widths(const char *machine)
{
    const uint64_t bell = IVSHMEM_REG_DOORBELL;
    QPCIDevice *dev;
    QPCIBar regs;
    Scripted t;
    int fds[6];

    begin(&t, machine, NULL, 6, NULL);
    ivshmem_script_join(t.s, 0, fds, 6);
    barrier(&t);
    dev = &t.d.dev;
    regs = t.d.regs;
    for (unsigned i = 0; i < 4; i++) {
        qpci_io_writeb(dev, regs, bell + i, 5);
        assert_rung(fds, 6, 5);
    }
    for (unsigned i = 0; i < 4; i += 2) {
        qpci_io_writew(dev, regs, bell + i, 4);
        assert_rung(fds, 6, 4);
    }
    qpci_io_writel(dev, regs, bell, 3);
    assert_rung(fds, 6, 3);
    qpci_io_writeq(dev, regs, bell, 0x2);
    assert_rung(fds, 6, 2);
    qpci_io_writeq(dev, regs, bell - 4, 0x100000000ull);
    assert_rung(fds, 6, 1);
    qpci_io_writel(dev, regs, bell - 4, 1);
    qpci_io_writel(dev, regs, bell + 4, 1);
    assert_rung(fds, 6, -1);
    ivshmem_eventfds_close(fds, 6);
    end(&t);
}

/* Peers and vectors that are not there */
/* R-DEV-13 */
static void test_unknown(const char *machine)
{
    static const uint16_t ids[] = { 0, 1, 2, 3, 255, 256, 65535 };
    Scripted t;
    int fds[2];

    begin(&t, machine, NULL, VECTORS, NULL);
    ivshmem_script_join(t.s, 2, fds, 2);
    barrier(&t);
    for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
        for (unsigned vector = 2; vector < 0x10000; vector *= 2) {
            qivshmem_ring(&t.d, ids[i], vector);
            qivshmem_ring(&t.d, ids[i], 0xffff - vector);
        }
    }
    assert_rung(fds, 2, -1);
    qivshmem_ring(&t.d, 2, 1);
    assert_rung(fds, 2, 1);
    ivshmem_eventfds_close(fds, 2);
    end(&t);
}

/* D16: vectors are 16 bits wide on both paths */
static void check_d16(const char *machine, const char *props)
{
    static int fds[300];
    Scripted t;

    begin(&t, machine, NULL, 300, props);
    ivshmem_script_join(t.s, 7, fds, 300);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(t.vm, "iv0", 7) == 300);
    qivshmem_ring(&t.d, 7, 257);
    assert_rung(fds, 300, 257);
    qivshmem_ring(&t.d, 7, 299);
    assert_rung(fds, 300, 299);
    qivshmem_ring(&t.d, 7, 1);
    assert_rung(fds, 300, 1);
    qivshmem_ring(&t.d, 7, 300);
    assert_rung(fds, 300, -1);
    ivshmem_eventfds_close(fds, 300);
    end(&t);
}

/* R-DEV-12 */
static void test_d16_vector_257(const char *machine)
{
    check_d16(machine, "\"ioeventfd\": false");
    check_d16(machine, "\"ioeventfd\": true");
}

/* D1: a peer has left, and the device is unplugged */
/* R-DEV-30 */
static void test_d1_left_then_unplug(const char *machine)
{
    unsigned fds_before;
    Scripted t;
    int fds[4];

    begin(&t, machine, NULL, 2, NULL);
    ivshmem_vm_leave(t.vm, 0);
    fds_before = ivshmem_vm_fds_left(t.vm);
    for (int round = 0; round < 3; round++) {
        ivshmem_vm_join_script(t.vm, 0, t.s, 1, 2, NULL, &t.d);
        ivshmem_script_join(t.s, 2, fds, 2);
        ivshmem_script_join(t.s, 3, fds + 2, 2);
        IVSHMEM_WAIT(ivshmem_vm_peer_vectors(t.vm, "iv0", 3) == 2);
        ivshmem_script_leave(t.s, 2);
        IVSHMEM_WAIT(ivshmem_vm_peers(t.vm, "iv0") == 1);
        ivshmem_vm_leave(t.vm, 0);
        ivshmem_vm_wait_fds(t.vm, fds_before);
        ivshmem_eventfds_close(fds, 4);
    }
    end(&t);
}

/* D2: a departure announced twice, and one of somebody unknown */
/* R-CLI-5 */
static void test_d2_left_twice(const char *machine)
{
    Scripted t;
    int fds[4];

    begin(&t, machine, NULL, 2, NULL);
    ivshmem_script_join(t.s, 2, fds, 2);
    ivshmem_script_join(t.s, 3, fds + 2, 2);
    ivshmem_script_leave(t.s, 2);
    ivshmem_script_leave(t.s, 2);
    ivshmem_script_leave(t.s, 2);
    ivshmem_script_leave(t.s, 999);
    barrier(&t);
    g_assert_cmpuint(ivshmem_vm_peers(t.vm, "iv0"), ==, 1);
    g_assert_true(ivshmem_vm_connected(t.vm, "iv0"));
    qivshmem_ring(&t.d, 2, 0);
    qivshmem_ring(&t.d, 3, 1);
    assert_rung(fds, 4, 3);
    ivshmem_vm_leave(t.vm, 0);
    ivshmem_eventfds_close(fds, 4);
    end(&t);
}

/* D3: an ID comes again, with other descriptors and fewer vectors */
/* R-CLI-8 */
static void test_d3_id_again(const char *machine)
{
    int old[3], new[2];
    unsigned fds_before;
    Scripted t;

    begin(&t, machine, NULL, VECTORS, NULL);
    ivshmem_vm_settle(t.vm);
    fds_before = ivshmem_vm_fds(t.vm);
    for (int round = 0; round < 3; round++) {
        ivshmem_script_join(t.s, 9, old, 3);
        ivshmem_script_leave(t.s, 9);
        ivshmem_script_join(t.s, 9, new, 2);
        barrier(&t);
        g_assert_cmpint(ivshmem_vm_peer_vectors(t.vm, "iv0", 9), ==, 2);
        for (unsigned i = 0; i < VECTORS; i++) {
            qivshmem_ring(&t.d, 9, i);
            assert_rung(new, 2, i < 2 ? i : -1);
        }
        assert_rung(old, 3, -1);
        ivshmem_script_leave(t.s, 9);
        IVSHMEM_WAIT(ivshmem_vm_peers(t.vm, "iv0") == 0);
        ivshmem_vm_wait_fds(t.vm, fds_before);
        ivshmem_eventfds_close(old, 3);
        ivshmem_eventfds_close(new, 2);
    }
    end(&t);
}

/* Vectors past the device's own limit are closed, the peer stays usable */
/* R-CLI-5 */
static void test_excess_vectors(const char *machine)
{
    unsigned fds_before;
    Scripted t;
    int fds[8];

    begin(&t, machine, NULL, 2, NULL);
    ivshmem_vm_settle(t.vm);
    fds_before = ivshmem_vm_fds(t.vm);
    ivshmem_script_join(t.s, 4, fds, 8);
    ivshmem_script_send_own(t.s, 5);
    barrier(&t);
    ivshmem_vm_wait_fds(t.vm, fds_before + 2);
    g_assert_cmpint(ivshmem_vm_peer_vectors(t.vm, "iv0", 4), ==, 2);
    qivshmem_ring(&t.d, 4, 1);
    qivshmem_ring(&t.d, 4, 2);
    assert_rung(fds, 8, 1);
    enable_interrupts(&t.d);
    ivshmem_script_ring(t.s, 1);
    ivshmem_vm_wait_interrupt(&t.d, 1);
    ivshmem_eventfds_close(fds, 8);
    end(&t);
}

/* Used or not: what is reserved counts. */
static uint64_t data_kib(const IvshmemVM *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(vm->qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "VmData:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + strlen("VmData:"), NULL, 10);
}

/* D18: a message about a peer must not cost memory for all there could be */
/* R-CLI-9 */
static void test_d18_peer_65535(const char *machine)
{
    uint64_t before;
    Scripted t;
    int fd;

    t.vm = ivshmem_vm_start(machine, NULL);
    t.s = ivshmem_script_new(SIZE);
    ivshmem_vm_chardev_add(t.vm, "chr0", t.s->path);
    ivshmem_script_accept(t.s);
    ivshmem_script_hello(t.s, 1, 1);
    ivshmem_vm_plug(t.vm, 0, "iv0", "ivshmem-doorbell",
                    "\"chardev\": \"chr0\", \"vectors\": 1024");
    ivshmem_vm_probe(t.vm, 0, &t.d);
    before = data_kib(t.vm);
    ivshmem_script_join(t.s, 65535, &fd, 1);
    for (int i = 65534; i > 65534 - 100; i--) {
        ivshmem_script_send(t.s, i, fd);
    }
    IVSHMEM_WAIT(ivshmem_vm_peers(t.vm, "iv0") == 101);
    g_assert_cmpuint(data_kib(t.vm), <, before + 8 * 1024);
    qivshmem_ring(&t.d, 65535, 0);
    g_assert_true(ivshmem_eventfd_take(fd));
    ivshmem_eventfds_close(&fd, 1);
    end(&t);
}

/*
 * D28: every ID joins and leaves, and they come round, faster than RCU frees
 * what was theirs
 */
static void test_d28_ids_come_round(const char *machine)
{
    struct rlimit few;
    unsigned fds_before;
    Scripted t;
    int fd;

    begin(&t, machine, NULL, 1, NULL);
    ivshmem_vm_settle(t.vm);
    fds_before = ivshmem_vm_fds(t.vm);
    g_assert_cmpint(prlimit(qtest_pid(t.vm->qts), RLIMIT_NOFILE, NULL, &few),
                    ==, 0);
    few.rlim_cur = fds_before + 512;
    g_assert_cmpint(prlimit(qtest_pid(t.vm->qts), RLIMIT_NOFILE, &few, NULL),
                    ==, 0);
    ivshmem_eventfds_new(&fd, 1);
    for (unsigned i = 2; i < 65536 + 8; i++) {
        if (i % 65536 != 1) {
            ivshmem_script_send(t.s, i % 65536, fd);
            ivshmem_script_send(t.s, i % 65536, -1);
        }
    }
    ivshmem_script_send(t.s, 0, fd);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(t.vm, "iv0", 0) == 1);
    g_assert_cmpuint(ivshmem_vm_peers(t.vm, "iv0"), ==, 1);
    ivshmem_vm_wait_fds(t.vm, fds_before + 1);
    qivshmem_ring(&t.d, 0, 0);
    g_assert_true(ivshmem_eventfd_take(fd));
    ivshmem_eventfds_close(&fd, 1);
    end(&t);
}

/* D10: QEMU runs out of descriptors while peers join */
/* R-CLI-12 */
static void test_d10_out_of_descriptors(const char *machine)
{
    g_autofree char *said = NULL;
    struct rlimit old, low;
    unsigned fds_before;
    Scripted t;
    int known, fd;

    begin(&t, machine, NULL, 1, NULL);
    ivshmem_vm_leave(t.vm, 0);
    fds_before = ivshmem_vm_fds_left(t.vm);
    ivshmem_vm_join_script(t.vm, 0, t.s, 1, 1, NULL, &t.d);
    ivshmem_script_join(t.s, 2, &known, 1);
    barrier(&t);
    qpci_io_writel(&t.d.dev, t.d.shm, 0, 0x600d600d);

    g_assert_cmpint(prlimit(qtest_pid(t.vm->qts), RLIMIT_NOFILE, NULL, &old),
                    ==, 0);
    low = old;
    low.rlim_cur = ivshmem_vm_fds(t.vm) + 5;
    g_assert_cmpint(prlimit(qtest_pid(t.vm->qts), RLIMIT_NOFILE, &low, NULL),
                    ==, 0);
    ivshmem_eventfds_new(&fd, 1);
    for (int i = 0; i < 100 && ivshmem_script_try_send(t.s, 100 + i, fd); i++) {
        ivshmem_vm_settle(t.vm);
    }
    IVSHMEM_WAIT(!ivshmem_vm_connected(t.vm, "iv0"));
    g_assert_cmpint(prlimit(qtest_pid(t.vm->qts), RLIMIT_NOFILE, &old, NULL),
                    ==, 0);

    said = ivshmem_vm_stderr(t.vm);
    g_assert_nonnull(strstr(said, "RLIMIT_NOFILE"));
    g_assert_cmphex(qpci_io_readl(&t.d.dev, t.d.shm, 0), ==, 0x600d600d);
    qivshmem_ring(&t.d, 2, 0);
    g_assert_true(ivshmem_eventfd_take(known));
    ivshmem_vm_leave(t.vm, 0);
    ivshmem_vm_wait_fds(t.vm, fds_before);
    ivshmem_eventfds_close(&known, 1);
    ivshmem_eventfds_close(&fd, 1);
    end(&t);
}

/* The server goes: memory, peers and interrupts stay. */
/* R-DEV-31, R-CLI-6 */
static void test_server_gone(const char *machine)
{
    g_autofree char *said = NULL;
    Scripted t;
    int own, fds[2];

    begin(&t, machine, NULL, 1, NULL);
    enable_interrupts(&t.d);
    ivshmem_script_join(t.s, 2, fds, 2);
    barrier(&t);
    own = dup(t.s->own[0]);
    ivshmem_script_close(t.s);
    IVSHMEM_WAIT(!ivshmem_vm_connected(t.vm, "iv0"));
    said = ivshmem_vm_stderr(t.vm);
    g_assert_nonnull(strstr(said, "server closed the connection"));
    ivshmem_check_memory(&t.d, SIZE);
    ivshmem_check_registers(&t.d, 1);
    qivshmem_ring(&t.d, 2, 0);
    assert_rung(fds, 2, 0);
    t.s->own[0] = own;
    t.s->vectors = 1;
    ivshmem_script_ring(t.s, 0);
    ivshmem_vm_wait_interrupt(&t.d, 0);
    ivshmem_vm_leave(t.vm, 0);
    ivshmem_eventfds_close(fds, 2);
    end(&t);
}

/* D26: one can see what the device does */
static void test_d26_visible(const char *machine)
{
    static const char *const events[] = {
        "ivshmem_realize ", "ivshmem_link_up ", "ivshmem_self_id ",
        "ivshmem_self_vector ", "ivshmem_peer_vector ", "ivshmem_peer_gone ",
        "ivshmem_read ", "ivshmem_write ", "ivshmem_doorbell ",
        "ivshmem_doorbell_ignored ", "ivshmem_interrupt ",
        "ivshmem_vector_live ", "ivshmem_vector_quiet ", "ivshmem_reset ",
        "ivshmem_link_down ",
    };
    g_autofree char *said = NULL;
    Scripted t;
    int fds[2];

    begin(&t, machine, "-trace 'ivshmem_*'", 2, NULL);
    ivshmem_script_join(t.s, 2, fds, 2);
    barrier(&t);
    g_assert_cmpuint(ivshmem_vm_get_int(t.vm, "iv0", "peer-id"), ==, 1);
    g_assert_cmpuint(ivshmem_vm_get_int(t.vm, "iv0", "region-size"), ==, SIZE);
    g_assert_cmpuint(ivshmem_vm_peers(t.vm, "iv0"), ==, 1);
    g_assert_cmpint(ivshmem_vm_peer_vectors(t.vm, "iv0", 2), ==, 2);
    g_assert_true(ivshmem_vm_connected(t.vm, "iv0"));
    enable_interrupts(&t.d);
    ivshmem_check_registers(&t.d, 1);
    qivshmem_ring(&t.d, 2, 0);
    ivshmem_script_ring(t.s, 0);
    ivshmem_vm_wait_interrupt(&t.d, 0);
    ivshmem_vm_reset(t.vm, &t.d);
    ivshmem_script_close(t.s);
    IVSHMEM_WAIT(!ivshmem_vm_connected(t.vm, "iv0"));
    said = ivshmem_vm_stderr(t.vm);
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
        if (!strstr(said, events[i])) {
            g_test_message("no trace event %s", events[i]);
            g_test_fail();
        }
    }
    ivshmem_eventfds_close(fds, 2);
    end(&t);
}

void ivshmem_add_peer_tests(void)
{
    static const IvshmemTest tests[] = {
        { "two-vms", test_two_vms },
        { "two-vms-no-ioeventfd", test_two_vms_no_ioeventfd },
        { "two-devices", test_two_devices },
        { "self", test_self },
        { "doorbell-widths", test_doorbell_widths },
        { "unknown", test_unknown },
        { "excess-vectors", test_excess_vectors },
        { "server-gone", test_server_gone },
        { "D1-left-then-unplug", test_d1_left_then_unplug },
        { "D2-left-twice", test_d2_left_twice },
        { "D3-id-again", test_d3_id_again },
        { "D10-out-of-descriptors", test_d10_out_of_descriptors },
        { "D16-vector-257", test_d16_vector_257 },
        { "D18-peer-65535", test_d18_peer_65535 },
        { "D26-visible", test_d26_visible },
        { "D28-ids-come-round", test_d28_ids_come_round },
        { }
    };

    ivshmem_test_add("peers", tests);
}
