/*
 * ivshmem tests: plugging, unplugging and plugging again; realize that fails
 * at each of its steps, and then succeeds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "ivshmem-fd.h"
#include "ivshmem-io.h"
#include "ivshmem-machine.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)
#define VECTORS 2

/* A device that works: rung, and unplugged again */
static void check_works(IvshmemVM *vm, IvshmemScript *s)
{
    QIvshmem d;

    ivshmem_vm_join_script(vm, 0, s, 0, VECTORS, "\"master\": \"on\"", &d);
    qivshmem_msix_enable(&d, true);
    qivshmem_msix_mask(&d, 1, false);
    ivshmem_script_ring(s, 1);
    ivshmem_vm_wait_interrupt(&d, 1);
    ivshmem_check_memory(&d, SIZE);
    ivshmem_vm_leave(vm, 0);
}

/* D8: ivshmem-plain with the same backend again and again */
static void test_d8_same_memdev(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds = ivshmem_vm_fds_without(vm, s);
    QIvshmem d;

    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    for (int round = 0; round < 5; round++) {
        unsigned slot = round % IVSHMEM_VM_SLOTS;

        ivshmem_vm_plug(vm, slot, "iv", "ivshmem-plain", "\"memdev\": \"mem\"");
        ivshmem_vm_probe(vm, slot, &d);
        if (round) {
            g_assert_cmphex(qpci_io_readl(&d.dev, d.shm, 16), ==, round - 1);
        }
        ivshmem_check_memory(&d, SIZE);
        qpci_io_writel(&d.dev, d.shm, 16, round);
        ivshmem_vm_unplug(vm, slot, "iv");
    }
    ivshmem_vm_object_del(vm, "mem");
    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    ivshmem_vm_object_del(vm, "mem");
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* libvirt unplugs, deletes the backend, and attaches again at once. */
static void test_replug_doorbell(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemGroup *group = ivshmem_group_new(VECTORS, SIZE, 0, -1);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds = ivshmem_vm_fds_without(vm, s);
    QIvshmem d;

    for (int round = 0; round < 5; round++) {
        uint16_t id = ivshmem_vm_join_group(vm, 0, group, VECTORS, NULL, &d);

        qivshmem_msix_enable(&d, true);
        qivshmem_msix_mask(&d, 0, false);
        IVSHMEM_WAIT(ivshmem_group_ring(group, id, 0));
        ivshmem_vm_wait_interrupt(&d, 0);
        ivshmem_vm_leave(vm, 0);
        IVSHMEM_WAIT(ivshmem_group_members(group) == 0);
    }
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_vm_stop(vm);
    ivshmem_group_free(group);
    ivshmem_script_free(s);
}

/* Unplugged at reset, as guests without ACPI do */
static void test_unplug_at_reset(const char *machine)
{
    IvshmemScript *s;
    IvshmemVM *vm;
    unsigned fds;
    QIvshmem d;

    if (!ivshmem_machine_find(machine)->unplugs_at_reset) {
        g_test_skip("reset does not eject on this machine");
        return;
    }
    vm = ivshmem_vm_start(machine, NULL);
    s = ivshmem_script_new(SIZE);
    fds = ivshmem_vm_fds_without(vm, s);
    ivshmem_vm_join_script(vm, 0, s, 0, VECTORS, NULL, &d);
    qivshmem_msix_enable(&d, true);
    qivshmem_msix_mask(&d, 0, false);
    qtest_qmp_device_del_send(vm->qts, "iv0");
    ivshmem_vm_reset(vm, NULL);
    ivshmem_vm_wait_deleted(vm, "iv0");
    ivshmem_vm_chardev_remove(vm, "chr0");
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* Unplugged with peers there, some of which have gone without a word */
static void test_unplug_with_peers(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds = ivshmem_vm_fds_without(vm, s);
    int peers[20];
    QIvshmem d;

    for (int round = 0; round < 3; round++) {
        ivshmem_vm_join_script(vm, 0, s, 0, VECTORS, NULL, &d);
        for (int i = 0; i < 10; i++) {
            ivshmem_script_join(s, 10 + i, peers + 2 * i, 2);
        }
        IVSHMEM_WAIT(ivshmem_vm_peer_vectors(vm, "iv0", 19) == 2);
        qivshmem_msix_enable(&d, true);
        qivshmem_msix_mask(&d, 0, false);
        ivshmem_eventfds_close(peers, 10);          /* dead peers */
        qivshmem_ring(&d, 10, 0);
        qivshmem_ring(&d, 19, 1);
        g_assert_true(ivshmem_eventfd_take(peers[19]));
        if (round == 1) {
            ivshmem_script_leave(s, 10);
            ivshmem_script_leave(s, 11);
        } else if (round == 2) {
            ivshmem_script_close(s);                /* the server, too */
            IVSHMEM_WAIT(!ivshmem_vm_connected(vm, "iv0"));
        }
        ivshmem_vm_leave(vm, 0);
        ivshmem_vm_wait_fds(vm, fds);
        ivshmem_eventfds_close(peers, 20);
    }
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

static uint64_t cpu_ticks(const IvshmemVM *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat",
                                            (int)qtest_pid(vm->qts));
    g_autofree char *text = NULL;
    g_auto(GStrv) fields = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    fields = g_strsplit(strrchr(text, ')') + 2, " ", 0);
    return g_ascii_strtoull(fields[11], NULL, 10) +
           g_ascii_strtoull(fields[12], NULL, 10);
}

/*
 * D9: the main loop spins after unplug.  How busy it is while nothing happens
 * is measured over the time that a chardev waits before it connects again.
 */
static void test_d9_no_spin(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    IVSHMEM_FD_AUTO int own = -1;
    uint64_t ticks;
    gint64 start, waited;
    QIvshmem d;

    ivshmem_vm_join_script(vm, 0, s, 0, VECTORS, NULL, &d);
    qivshmem_msix_enable(&d, true);
    qivshmem_msix_mask(&d, 0, false);
    ivshmem_script_ring(s, 0);
    ivshmem_vm_wait_interrupt(&d, 0);
    own = dup(s->own[0]);
    ivshmem_vm_leave(vm, 0);
    g_assert_cmpint(ivshmem_io_ring(own), ==, 0);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'chardev-add', 'arguments':"
        " {'id': 'late', 'backend': {'type': 'socket', 'data':"
        " {'server': false, 'reconnect-ms': 500,"
        "  'addr': {'type': 'unix', 'data': {'path': %s}}}}}}", s->path);
    ivshmem_script_accept(s);
    ivshmem_script_close(s);
    start = g_get_monotonic_time();
    ticks = cpu_ticks(vm);
    ivshmem_script_accept(s);
    waited = g_get_monotonic_time() - start;
    ticks = cpu_ticks(vm) - ticks;
    g_assert_cmpint(waited, >=, 250 * 1000);
    g_assert_cmpuint(ticks * G_USEC_PER_SEC / sysconf(_SC_CLK_TCK), <,
                     waited / 4);
    g_assert_true(ivshmem_eventfd_take(own));
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* D25: messages and rings go on between unplug and the end of the device */
static void test_d25_messages_after_unplug(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds = ivshmem_vm_fds_without(vm, s);
    QIvshmem d;
    int fd;

    ivshmem_eventfds_new(&fd, 1);
    for (int round = 0; round < 5; round++) {
        ivshmem_vm_join_script(vm, 0, s, 0, VECTORS, NULL, &d);
        qivshmem_msix_enable(&d, true);
        qivshmem_msix_mask(&d, 0, false);
        for (int i = 0; i < 40; i++) {
            ivshmem_script_ring(s, 0);
            ivshmem_script_send(s, 100 + i, fd);
        }
        qtest_qmp_device_del_send(vm->qts, "iv0");
        for (int i = 0; i < 40; i++) {
            ivshmem_script_ring(s, 0);
            ivshmem_script_send(s, 100 + i, i % 2 ? fd : -1);
        }
        ivshmem_vm_eject(vm, 0);
        for (int i = 0; i < 40; i++) {
            ivshmem_script_ring(s, 0);
            ivshmem_script_try_send(s, 200 + i, fd);
        }
        ivshmem_vm_wait_deleted(vm, "iv0");
        ivshmem_vm_chardev_remove(vm, "chr0");
    }
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_eventfds_close(&fd, 1);
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* Properties out of range: one message that names value and remedy each */

typedef struct BadProps {
    const char *props;
    const char *why;
} BadProps;

static void check_bad_props(const char *machine, const BadProps *bad)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, "-chardev null,id=null");
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds = ivshmem_vm_fds_without(vm, s);

    ivshmem_vm_chardev_add(vm, "chr", s->path);
    ivshmem_script_accept(s);
    for (; bad->props; bad++) {
        g_autofree char *error = ivshmem_vm_plug_fails(
            vm, 0, "iv0", "ivshmem-doorbell", "%s", bad->props);

        if (!strstr(error, bad->why)) {
            g_test_message("\"%s\" lacks \"%s\"", error, bad->why);
            g_test_fail();
        }
    }
    ivshmem_vm_chardev_remove(vm, "chr");
    ivshmem_vm_wait_fds(vm, fds);
    check_works(vm, s);
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* D7: a number of vectors that no device can have */
static void test_d7_vectors(const char *machine)
{
    static const BadProps bad[] = {
        { "\"chardev\": \"chr\", \"vectors\": 4294967295", "4294967295" },
        { "\"chardev\": \"chr\", \"vectors\": 4294967295", "1 to 2048" },
        { "\"chardev\": \"chr\", \"vectors\": 65536", "1 to 2048" },
        { "\"chardev\": \"chr\", \"vectors\": 2049", "1 to 2048" },
        { "\"chardev\": \"chr\", \"vectors\": 0", "1 to 2048" },
        { "\"chardev\": \"chr\", \"vectors\": 4294967296", "vectors" },
        { "\"chardev\": \"chr\", \"vectors\": -1", "vectors" },
        { }
    };

    check_bad_props(machine, bad);
}

static void test_bad_properties(const char *machine)
{
    static const BadProps bad[] = {
        { "\"vectors\": 1", "'chardev'" },
        { "\"chardev\": \"none\"", "none" },
        { "\"chardev\": \"null\"", "'null' cannot pass file descriptors" },
        { "\"chardev\": \"chr\", \"handshake-timeout\": 0", "milliseconds" },
        { "\"chardev\": \"chr\", \"master\": \"perhaps\"", "perhaps" },
        { "\"chardev\": \"chr\", \"nonsense\": 1", "nonsense" },
        { "\"chardev\": \"chr\", \"multifunction\": 7", "multifunction" },
        { }
    };

    check_bad_props(machine, bad);
}

/* D24, R-DEV-29: realize of ivshmem-doorbell fails at each of its steps */
static void check_d24(IvshmemVM *vm, IvshmemScript *s, uint16_t id,
                      int shm, const char *props, const char *why)
{
    unsigned fds = ivshmem_vm_fds_without(vm, s);

    for (int round = 0; round < 3; round++) {
        g_autofree char *error = NULL;
        int peer;

        ivshmem_vm_chardev_add(vm, "chr0", s->path);
        ivshmem_script_accept(s);
        ivshmem_script_send_id(s, id);
        ivshmem_script_join(s, 9, &peer, 1);
        ivshmem_script_send_own(s, VECTORS);
        ivshmem_script_send(s, IVSHMEM_VALUE_SHM, shm);
        error = ivshmem_vm_plug_fails(vm, 0, "iv0", "ivshmem-doorbell",
                                      "\"chardev\": \"chr0\", \"vectors\": 2,"
                                      " %s", props);
        g_assert_nonnull(strstr(error, why));
        ivshmem_vm_chardev_remove(vm, "chr0");
        ivshmem_eventfds_close(&peer, 1);
        ivshmem_vm_wait_fds(vm, fds);
        check_works(vm, s);
        ivshmem_vm_wait_fds(vm, fds);
    }
}

static void test_d24_doorbell(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    IVSHMEM_FD_AUTO int odd = ivshmem_memfd_new(3 * SIZE);

    check_d24(vm, s, 1, s->shm, "\"master\": \"on\"", "master=on");
    check_d24(vm, s, 0, odd, "\"master\": \"on\"", "power of two");
    check_d24(vm, s, 0, -1, "\"master\": \"on\"", "descriptor");
    check_d24(vm, s, 0, s->shm, "\"romfile\": \"/nonexistent\"", "romfile");
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* The last step: a peer blocks migration, which may not be blocked. */
static void test_d24_only_migratable(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, "-only-migratable");
    IvshmemScript *s = ivshmem_script_new(SIZE);
    unsigned fds;

    check_works(vm, s);
    fds = ivshmem_vm_fds_left(vm);
    for (int round = 0; round < 3; round++) {
        g_autofree char *error = NULL;
        g_autofree char *plain = NULL;

        ivshmem_vm_chardev_add(vm, "chr0", s->path);
        ivshmem_script_accept(s);
        ivshmem_script_hello(s, 1, VECTORS);
        error = ivshmem_vm_plug_fails(vm, 0, "iv0", "ivshmem-doorbell",
                                      "\"chardev\": \"chr0\"");
        g_assert_nonnull(strstr(error, "migrat"));
        ivshmem_vm_chardev_remove(vm, "chr0");
        check_works(vm, s);

        ivshmem_vm_memory_add(vm, "mem", SIZE, true);
        plain = ivshmem_vm_plug_fails(vm, 0, "iv0", "ivshmem-plain",
                                      "\"memdev\": \"mem\"");
        g_assert_nonnull(strstr(plain, "migrat"));
        ivshmem_vm_object_del(vm, "mem");
        ivshmem_vm_wait_fds(vm, fds);
    }
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

static void plain_fails(IvshmemVM *vm, const char *props, const char *why)
{
    g_autofree char *error = ivshmem_vm_plug_fails(vm, 1, "bad",
                                                   "ivshmem-plain", "%s",
                                                   props);

    if (!strstr(error, why)) {
        g_test_message("\"%s\" lacks \"%s\"", error, why);
        g_test_fail();
    }
}

static void test_d24_plain(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    QIvshmem d;

    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    ivshmem_vm_memory_add(vm, "odd", 3 * MiB, true);
    for (int round = 0; round < 3; round++) {
        plain_fails(vm, "\"master\": \"on\"", "You must specify a 'memdev'");
        plain_fails(vm, "\"memdev\": \"none\"", "none");
        plain_fails(vm, "\"memdev\": \"odd\"", "3145728");     /* D11 */
        plain_fails(vm, "\"memdev\": \"odd\"", "4194304");
        plain_fails(vm, "\"memdev\": \"mem\", \"master\": \"x\"", "'x'");
        ivshmem_vm_plug(vm, 0, "iv0", "ivshmem-plain", "\"memdev\": \"mem\"");
        plain_fails(vm, "\"memdev\": \"mem\"", "in use");
        ivshmem_vm_probe(vm, 0, &d);
        ivshmem_check_memory(&d, SIZE);
        ivshmem_check_registers(&d, 0);
        ivshmem_vm_unplug(vm, 0, "iv0");
    }
    ivshmem_vm_object_del(vm, "mem");
    ivshmem_vm_object_del(vm, "odd");
    ivshmem_vm_stop(vm);
}

void ivshmem_add_plug_tests(void)
{
    static const IvshmemTest tests[] = {
        { "replug-doorbell", test_replug_doorbell },
        { "unplug-at-reset", test_unplug_at_reset },
        { "unplug-with-peers", test_unplug_with_peers },
        { "bad-properties", test_bad_properties },
        { "D7-vectors", test_d7_vectors },
        { "D8-same-memdev", test_d8_same_memdev },
        { "D9-no-spin", test_d9_no_spin },
        { "D24-doorbell", test_d24_doorbell },
        { "D24-plain", test_d24_plain },
        { "D24-only-migratable", test_d24_only_migratable },
        { "D25-messages-after-unplug", test_d25_messages_after_unplug },
        { }
    };

    ivshmem_test_add("plug", tests);
}
