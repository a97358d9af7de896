/*
 * ivshmem tests for qos-test: identity and registers on every machine that
 * libqos knows.  Everything else is in ivshmem-test, which has pc and q35.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "libqos/ivshmem.h"
#include "ivshmem-server-script.h"
#include "ivshmem-test.h"

#define SIZE (1 * MiB)
#define ID 7

static void test_plain(void *obj, void *data, QGuestAllocator *alloc)
{
    QIvshmem *d = obj;

    ivshmem_check_identity(d);
    ivshmem_check_registers(d, 0);
    ivshmem_check_memory(d, SIZE);
}

static void test_doorbell(void *obj, void *data, QGuestAllocator *alloc)
{
    QIvshmem *d = obj;

    g_assert_cmpuint(d->vectors, ==, 4);
    ivshmem_check_identity(d);
    ivshmem_check_registers(d, ID);
    ivshmem_check_memory(d, SIZE);
}

static void stop_server(void *group)
{
    qos_invalidate_command_line();
    ivshmem_group_free(group);
}

static void *start_server(GString *cmd_line, void *arg)
{
    IvshmemGroup *group = ivshmem_group_new(4, SIZE, ID, -1);

    g_string_append_printf(cmd_line, " -chardev socket,id=ivshmem0,path=%s ",
                           ivshmem_group_path(group));
    g_test_queue_destroy(stop_server, group);
    return group;
}

static void register_ivshmem_tests(void)
{
    QOSGraphTestOptions opts = { .before = start_server };

    qos_add_test("identity-and-registers", "ivshmem-plain", test_plain, NULL);
    qos_add_test("identity-and-registers", "ivshmem-doorbell", test_doorbell,
                 &opts);
}

libqos_init(register_ivshmem_tests);
