/*
 * ivshmem tests: a device is rung, and its guest gets an interrupt - once, and
 * when it may.  Who rings is the matter of ivshmem-peer-test.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "hw/pci/pci_regs.h"
#include "qemu/units.h"
#include "ivshmem-fd.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)
#define VECTORS 4

/* A device with four vectors, alone, on all of the device's paths */

typedef struct Alone {
    IvshmemVM *vm;
    IvshmemScript *s;
    QIvshmem d;
} Alone;

static void on_all_paths(const char *machine, void (*check)(Alone *))
{
    static const char *const paths[] = { "\"ioeventfd\": true",
                                         "\"ioeventfd\": false",
                                         "\"poll-max-ns\": 100000" };
    Alone a = {
        .vm = ivshmem_vm_start(machine, NULL),
        .s = ivshmem_script_new(SIZE),
    };

    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        ivshmem_vm_join_script(a.vm, 0, a.s, i, VECTORS, paths[i], &a.d);
        check(&a);
        ivshmem_vm_leave(a.vm, 0);
    }
    ivshmem_vm_stop(a.vm);
    ivshmem_script_free(a.s);
}

static void unmask_all(QIvshmem *d)
{
    for (unsigned i = 0; i < d->vectors; i++) {
        qivshmem_msix_mask(d, i, false);
    }
}

static void assert_quiet(Alone *a)
{
    ivshmem_vm_settle(a->vm);
    for (unsigned i = 0; i < a->d.vectors; i++) {
        g_assert_false(qivshmem_msix_take(&a->d, i));
    }
}

/* The ring that came before is delivered, once. */
static void assert_one(Alone *a, unsigned vector)
{
    ivshmem_vm_wait_interrupt(&a->d, vector);
    assert_quiet(a);
    g_assert_false(qivshmem_msix_pending(&a->d, vector));
}

static void check_delivery(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < VECTORS; i++) {
            ivshmem_script_ring(a->s, i);
            assert_one(a, i);
        }
    }
}

static void check_mask(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    for (unsigned i = 0; i < VECTORS; i++) {
        g_assert_false(qivshmem_msix_is_masked(&a->d, i));
        qivshmem_msix_mask(&a->d, i, true);
        g_assert_true(qivshmem_msix_is_masked(&a->d, i));
        ivshmem_script_ring(a->s, i);
        ivshmem_script_ring(a->s, i);
        assert_quiet(a);
        for (unsigned j = 0; j < VECTORS; j++) {
            g_assert(qivshmem_msix_pending(&a->d, j) == (i == j));
        }
        assert_quiet(a);
        qivshmem_msix_mask(&a->d, i, false);
        assert_one(a, i);
    }
}

/* Pending bits that the guest never looks at are delivered all the same. */
static void check_mask_unseen(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    ivshmem_script_ring(a->s, 2);
    assert_quiet(a);
    qivshmem_msix_mask(&a->d, 2, false);
    assert_one(a, 2);
}

static void check_function_mask(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    qivshmem_msix_mask(&a->d, 3, true);
    qivshmem_msix_mask_all(&a->d, true);
    ivshmem_script_ring(a->s, 0);
    ivshmem_script_ring(a->s, 3);
    assert_quiet(a);
    g_assert_true(qivshmem_msix_pending(&a->d, 0));
    g_assert_false(qivshmem_msix_pending(&a->d, 1));
    qivshmem_msix_mask_all(&a->d, false);
    assert_one(a, 0);
    g_assert_true(qivshmem_msix_pending(&a->d, 3));
    qivshmem_msix_mask(&a->d, 3, false);
    assert_one(a, 3);
}

/* D15: rung before the guest enables MSI-X */
static void check_d15(Alone *a)
{
    ivshmem_script_ring(a->s, 0);
    ivshmem_script_ring(a->s, 1);
    ivshmem_script_ring(a->s, 1);
    assert_quiet(a);
    qivshmem_msix_mask(&a->d, 1, false);
    assert_quiet(a);
    qivshmem_msix_enable(&a->d, true);
    assert_one(a, 1);
    g_assert_true(qivshmem_msix_pending(&a->d, 0));
    qivshmem_msix_mask(&a->d, 0, false);
    assert_one(a, 0);
}

/* A message cannot be sent while the device is no bus master: it waits. */
static void check_bus_master(Alone *a)
{
    uint16_t command = qpci_config_readw(&a->d.dev, PCI_COMMAND);

    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    qpci_config_writew(&a->d.dev, PCI_COMMAND, command & ~PCI_COMMAND_MASTER);
    ivshmem_script_ring(a->s, 1);
    ivshmem_script_ring(a->s, 1);
    assert_quiet(a);
    qpci_config_writew(&a->d.dev, PCI_COMMAND, command);
    assert_one(a, 1);
}

static void check_enable_again(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    for (int i = 0; i < 3; i++) {
        qivshmem_msix_enable(&a->d, false);
        ivshmem_script_ring(a->s, i);
        assert_quiet(a);
        qivshmem_msix_enable(&a->d, true);
        assert_one(a, i);
    }
    ivshmem_script_ring(a->s, 3);
    assert_one(a, 3);
}

/* Without bus mastering no message leaves the device. */
static void check_message(Alone *a)
{
    QIvshmem before = a->d;

    qivshmem_msix_enable(&a->d, true);
    qivshmem_msix_mask(&a->d, 0, false);
    ivshmem_script_ring(a->s, 0);
    assert_one(a, 0);
    qivshmem_msix_mask(&a->d, 0, true);
    ivshmem_script_ring(a->s, 0);
    ivshmem_vm_settle(a->vm);
    g_assert_true(qivshmem_msix_pending(&a->d, 0));
    ivshmem_vm_aim(a->vm, 0, &a->d);
    qivshmem_msix_mask(&a->d, 0, false);
    assert_one(a, 0);
    g_assert_cmphex(before.messages, !=, a->d.messages);
    g_assert_false(qivshmem_msix_take(&before, 0));
}

/*
 * D22: MSI-X is on and vectors are unmasked before the guest knows where
 * messages go, as with Arm's GICv2m.
 */
static void check_late_message(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    for (unsigned i = 0; i < VECTORS; i++) {
        qivshmem_msix_clear(&a->d, i);
        qivshmem_msix_mask(&a->d, i, false);
        qivshmem_msix_mask(&a->d, i, true);
    }
    ivshmem_script_ring(a->s, 1);
    assert_quiet(a);
    ivshmem_vm_aim(a->vm, 0, &a->d);
    unmask_all(&a->d);
    assert_one(a, 1);
    for (unsigned i = 0; i < VECTORS; i++) {
        ivshmem_script_ring(a->s, i);
        assert_one(a, i);
    }
}

/* Reset with vectors live, masked and pending, and rung while off */
static void check_reset(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    qivshmem_msix_mask(&a->d, 1, true);
    ivshmem_script_ring(a->s, 1);
    ivshmem_vm_settle(a->vm);
    g_assert_true(qivshmem_msix_pending(&a->d, 1));

    ivshmem_vm_reset(a->vm, &a->d);
    for (unsigned i = 0; i < VECTORS; i++) {
        g_assert_true(qivshmem_msix_is_masked(&a->d, i));
        g_assert_false(qivshmem_msix_pending(&a->d, i));
    }
    ivshmem_vm_aim(a->vm, 0, &a->d);
    ivshmem_script_ring(a->s, 0);
    assert_quiet(a);
    qivshmem_msix_enable(&a->d, true);
    qivshmem_msix_mask(&a->d, 0, false);
    assert_one(a, 0);
    qivshmem_msix_mask(&a->d, 2, false);
    ivshmem_script_ring(a->s, 2);
    assert_one(a, 2);
}

static void check_stopped(Alone *a)
{
    qivshmem_msix_enable(&a->d, true);
    unmask_all(&a->d);
    qtest_qmp_assert_success(a->vm->qts, "{'execute': 'stop'}");
    ivshmem_script_ring(a->s, 0);
    assert_quiet(a);
    qtest_qmp_assert_success(a->vm->qts, "{'execute': 'cont'}");
    assert_one(a, 0);
    ivshmem_script_ring(a->s, 0);
    assert_one(a, 0);
}

/* R-DEV-20 */
static void test_delivery(const char *machine)
{
    on_all_paths(machine, check_delivery);
}

/* R-DEV-21, R-DEV-22 */
static void test_mask(const char *machine)
{
    on_all_paths(machine, check_mask);
}

/* R-DEV-21 */
static void test_mask_unseen(const char *machine)
{
    on_all_paths(machine, check_mask_unseen);
}

/* R-DEV-21, R-DEV-22 */
static void test_function_mask(const char *machine)
{
    on_all_paths(machine, check_function_mask);
}

/* R-DEV-21 */
static void test_d15_before_enable(const char *machine)
{
    on_all_paths(machine, check_d15);
}

/* R-DEV-20 */
static void test_bus_master(const char *machine)
{
    on_all_paths(machine, check_bus_master);
}

static void test_enable_again(const char *machine)
{
    on_all_paths(machine, check_enable_again);
}

/* R-DEV-23 */
static void test_message_changes(const char *machine)
{
    on_all_paths(machine, check_message);
}

/* R-DEV-23 */
static void test_d22_late_message(const char *machine)
{
    on_all_paths(machine, check_late_message);
}

/* R-DEV-21, R-DEV-26 */
static void test_reset(const char *machine)
{
    on_all_paths(machine, check_reset);
}

/* R-DEV-21 */
static void test_stopped(const char *machine)
{
    on_all_paths(machine, check_stopped);
}

/* Vectors that are missing, late, or not what they should be */

static void begin(Alone *a, const char *machine)
{
    a->vm = ivshmem_vm_start(machine, NULL);
    a->s = ivshmem_script_new(SIZE);
    ivshmem_vm_chardev_add(a->vm, "chr0", a->s->path);
    ivshmem_script_accept(a->s);
}

static void plug(Alone *a, unsigned vectors)
{
    ivshmem_vm_plug(a->vm, 0, "iv0", "ivshmem-doorbell",
                    "\"chardev\": \"chr0\", \"vectors\": %u", vectors);
    ivshmem_vm_probe(a->vm, 0, &a->d);
}

static void end(Alone *a)
{
    ivshmem_vm_leave(a->vm, 0);
    ivshmem_vm_stop(a->vm);
    ivshmem_script_free(a->s);
}

/* D4: own vectors announced before the shared memory */
/* R-CLI-5 */
static void test_d4_vectors_first(const char *machine)
{
    Alone a;

    begin(&a, machine);
    ivshmem_script_send_id(a.s, 3);
    ivshmem_script_send_own(a.s, VECTORS);
    ivshmem_script_send_shm(a.s);
    plug(&a, VECTORS);
    check_delivery(&a);
    ivshmem_check_memory(&a.d, SIZE);
    end(&a);
}

/* D13: the device has more vectors than the server gives */
/* R-DEV-24 */
static void test_d13_unconnected(const char *machine)
{
    Alone a;

    begin(&a, machine);
    ivshmem_script_hello(a.s, 0, 2);
    plug(&a, 8);
    qivshmem_msix_enable(&a.d, true);
    for (int round = 0; round < 2; round++) {
        unmask_all(&a.d);
        ivshmem_script_ring(a.s, 1);
        assert_one(&a, 1);
        qivshmem_ring(&a.d, 0, 7);
        assert_quiet(&a);
        for (unsigned i = 0; i < 8; i++) {
            qivshmem_msix_mask(&a.d, i, true);
            g_assert_false(qivshmem_msix_pending(&a.d, i));
        }
    }
    ivshmem_vm_reset(a.vm, &a.d);
    ivshmem_script_send_own(a.s, 6);        /* at last */
    ivshmem_vm_aim(a.vm, 0, &a.d);
    qivshmem_msix_enable(&a.d, true);
    unmask_all(&a.d);
    ivshmem_script_ring(a.s, 7);
    assert_one(&a, 7);
    end(&a);
}

/* D14: a vector unmasked before its eventfd arrives can be masked later */
static void test_d14_late_vector(const char *machine)
{
    Alone a;

    begin(&a, machine);
    ivshmem_script_hello(a.s, 0, 0);
    plug(&a, 1);
    qivshmem_msix_enable(&a.d, true);
    unmask_all(&a.d);
    ivshmem_script_send_own(a.s, 1);
    ivshmem_script_ring(a.s, 0);
    assert_one(&a, 0);
    qivshmem_msix_mask(&a.d, 0, true);
    ivshmem_script_ring(a.s, 0);
    assert_quiet(&a);
    g_assert_true(qivshmem_msix_pending(&a.d, 0));
    qivshmem_msix_mask(&a.d, 0, false);
    assert_one(&a, 0);
    end(&a);
}

/* D30: a high ID of its own, no vectors, and MSI-X goes on */
static void test_d30_no_own_vectors(const char *machine)
{
    static const uint16_t ids[] = { 16, 17, 65535 };

    for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
        Alone a;

        begin(&a, machine);
        ivshmem_script_hello(a.s, ids[i], 0);
        plug(&a, VECTORS);
        qivshmem_msix_enable(&a.d, true);
        unmask_all(&a.d);
        qivshmem_ring(&a.d, ids[i], 0);
        assert_quiet(&a);
        ivshmem_check_registers(&a.d, ids[i]);
        ivshmem_vm_reset(a.vm, &a.d);
        end(&a);
    }
}

/* D29: descriptors that are no eventfds are refused, the rest goes on */
/* R-CLI-10 */
static void test_d29_not_an_eventfd(const char *machine)
{
    IVSHMEM_FD_AUTO int file = ivshmem_memfd_new(SIZE);
    int pair[2], peer[1];
    Alone a;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    begin(&a, machine);
    ivshmem_script_send_id(a.s, 5);
    ivshmem_script_send_shm(a.s);
    ivshmem_script_send(a.s, 1, file);          /* peer 1 vector 0 */
    ivshmem_script_join(a.s, 1, peer, 1);       /* peer 1 vector 1 */
    ivshmem_script_send(a.s, 5, pair[0]);       /* own vector 0 */
    ivshmem_script_send_own(a.s, 1);            /* own vector 1 */
    plug(&a, 2);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(a.vm, "iv0", 1) == 2);
    qivshmem_msix_enable(&a.d, true);
    unmask_all(&a.d);
    ivshmem_script_ring(a.s, 0);                /* its eventfd: vector 1 */
    assert_one(&a, 1);
    qivshmem_ring(&a.d, 1, 0);
    qivshmem_ring(&a.d, 1, 1);
    g_assert_true(ivshmem_eventfd_take(peer[0]));
    g_assert_cmpint(lseek(file, 0, SEEK_CUR), ==, 0);
    ivshmem_eventfds_close(pair, 2);
    ivshmem_eventfds_close(peer, 1);
    end(&a);
}

/* The same eventfd twice: both vectors stay usable, none spins or crashes. */
static void test_shared_eventfd(const char *machine)
{
    Alone a;

    begin(&a, machine);
    ivshmem_script_hello(a.s, 0, 1);
    ivshmem_script_send(a.s, 0, a.s->own[0]);
    plug(&a, 2);
    qivshmem_msix_enable(&a.d, true);
    unmask_all(&a.d);
    ivshmem_script_ring(a.s, 0);
    IVSHMEM_WAIT(qivshmem_msix_take(&a.d, 0) || qivshmem_msix_take(&a.d, 1));
    qivshmem_msix_mask(&a.d, 0, true);
    ivshmem_script_ring(a.s, 0);
    ivshmem_vm_wait_interrupt(&a.d, 1);
    end(&a);
}

/* Pending bits past the first words */
static void test_many_vectors(const char *machine)
{
    static const unsigned rung[] = { 0, 31, 32, 63, 64, 255, 256, 257, 299 };
    unsigned n = 0;
    Alone a;

    begin(&a, machine);
    ivshmem_script_hello(a.s, 0, 0);
    plug(&a, 300);
    ivshmem_script_send_own(a.s, 300);
    qivshmem_msix_enable(&a.d, true);
    qivshmem_msix_mask(&a.d, 298, false);
    ivshmem_script_ring(a.s, 298);
    ivshmem_vm_wait_interrupt(&a.d, 298);
    for (unsigned i = 0; i < ARRAY_SIZE(rung); i++) {
        ivshmem_script_ring(a.s, rung[i]);
    }
    for (unsigned i = 0; i < 300; i++) {
        bool expected = n < ARRAY_SIZE(rung) && rung[n] == i;

        g_assert(qivshmem_msix_pending(&a.d, i) == expected);
        n += expected;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(rung); i++) {
        qivshmem_msix_mask(&a.d, rung[i], false);
        ivshmem_vm_wait_interrupt(&a.d, rung[i]);
        g_assert_false(qivshmem_msix_pending(&a.d, rung[i]));
    }
    end(&a);
}

/* The thread that waits for rings is asleep: its number, or 0. */
static pid_t watcher_asleep(const IvshmemVM *vm)
{
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task",
                                             (int)qtest_pid(vm->qts));
    GDir *dir = g_dir_open(tasks, 0, NULL);
    const char *name;
    pid_t found = 0;

    while (!found && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(tasks, name, "stat", NULL);
        g_autofree char *text = NULL;

        if (g_file_get_contents(path, &text, NULL, NULL) &&
            strstr(text, "(IO ivshmem") && strstr(text, ") S ")) {
            found = atoi(name);
        }
    }
    g_dir_close(dir);
    return found;
}

/* What the thread has to release for the guest must not become more and more */
static void test_mask_storm(const char *machine)
{
    Alone a = {
        .vm = ivshmem_vm_start(machine, "-name vm,debug-threads=on"),
        .s = ivshmem_script_new(SIZE),
    };
    unsigned before;
    pid_t thread;

    ivshmem_vm_join_script(a.vm, 0, a.s, 0, 1, NULL, &a.d);
    qivshmem_msix_enable(&a.d, true);
    unmask_all(&a.d);
    before = ivshmem_vm_fds(a.vm);
    IVSHMEM_WAIT((thread = watcher_asleep(a.vm)));
    if (ptrace(PTRACE_SEIZE, thread, 0, 0) < 0) {
        g_test_skip("cannot hold a thread of QEMU's: ptrace() is not allowed");
    } else {
        g_assert_cmpint(ptrace(PTRACE_INTERRUPT, thread, 0, 0), ==, 0);
        g_assert_cmpint(waitpid(thread, NULL, __WALL), ==, thread);
        for (int i = 0; i < 1000; i++) {
            qivshmem_msix_mask(&a.d, 0, true);
            qivshmem_msix_mask(&a.d, 0, false);
        }
        g_assert_cmpuint(ivshmem_vm_fds(a.vm), ==, before);
        g_assert_cmpint(ptrace(PTRACE_DETACH, thread, 0, 0), ==, 0);
    }
    ivshmem_script_ring(a.s, 0);
    ivshmem_vm_wait_interrupt(&a.d, 0);
    end(&a);
}

void ivshmem_add_interrupt_tests(void)
{
    static const IvshmemTest tests[] = {
        { "delivery", test_delivery },
        { "mask", test_mask },
        { "mask-unseen", test_mask_unseen },
        { "function-mask", test_function_mask },
        { "bus-master", test_bus_master },
        { "enable-again", test_enable_again },
        { "message-changes", test_message_changes },
        { "reset", test_reset },
        { "stopped", test_stopped },
        { "many-vectors", test_many_vectors },
        { "shared-eventfd", test_shared_eventfd },
        { "mask-storm", test_mask_storm },
        { "D4-vectors-before-memory", test_d4_vectors_first },
        { "D13-unconnected-vectors", test_d13_unconnected },
        { "D14-late-vector", test_d14_late_vector },
        { "D15-rung-before-enable", test_d15_before_enable },
        { "D22-late-message", test_d22_late_message },
        { "D29-not-an-eventfd", test_d29_not_an_eventfd },
        { "D30-no-own-vectors", test_d30_no_own_vectors },
        { }
    };

    ivshmem_test_add("interrupts", tests);
}
