/*
 * ivshmem tests: the program that runs them all, on each machine, and sees to
 * it that no test keeps a descriptor.  The tests are in ivshmem-*-test.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "ivshmem-machine.h"
#include "ivshmem-test.h"

typedef struct TestOnMachine {
    const IvshmemTest *test;
    const char *machine;
} TestOnMachine;

static unsigned test_own_fds(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

static void test_run(const void *opaque)
{
    const TestOnMachine *t = opaque;
    unsigned fds = test_own_fds();

    t->test->run(t->machine);
    g_assert_cmpuint(test_own_fds(), ==, fds);
}

/* The counts that other tests rely on do change. */
static void test_descriptor_counts(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    unsigned own = test_own_fds(), fds = ivshmem_vm_fds(vm);
    IvshmemScript *s = ivshmem_script_new(1);

    g_assert_cmpuint(test_own_fds(), ==, own + 2);
    ivshmem_vm_chardev_add(vm, "chr", s->path);
    g_assert_cmpuint(ivshmem_vm_fds(vm), ==, fds + 1);
    ivshmem_vm_chardev_remove(vm, "chr");
    ivshmem_vm_wait_fds(vm, fds);
    ivshmem_script_free(s);
    g_assert_cmpuint(test_own_fds(), ==, own);
    ivshmem_vm_stop(vm);
}

void ivshmem_test_add(const char *area, const IvshmemTest *tests)
{
    const IvshmemMachine *machine;

    for (unsigned i = 0; (machine = ivshmem_machine_get(i)); i++) {
        for (const IvshmemTest *test = tests;
             qtest_has_machine(machine->type) && test->name; test++) {
            g_autofree char *path = g_strdup_printf(
                "ivshmem/%s/%s/%s", machine->name, area, test->name);
            TestOnMachine *t = g_new(TestOnMachine, 1);

            *t = (TestOnMachine) { test, machine->name };
            qtest_add_data_func_full(path, t, test_run, g_free);
        }
    }
}

int main(int argc, char **argv)
{
    static const IvshmemTest tests[] = {
        { "descriptor-counts", test_descriptor_counts },
        { }
    };

    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    ivshmem_test_add("self", tests);
    ivshmem_add_register_tests();
    ivshmem_add_interrupt_tests();
    ivshmem_add_peer_tests();
    ivshmem_add_handshake_tests();
    ivshmem_add_plug_tests();
    ivshmem_add_migration_tests();
    ivshmem_add_kvm_tests();
    return g_test_run();
}
