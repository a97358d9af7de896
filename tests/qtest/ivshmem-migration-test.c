/*
 * ivshmem tests: migration of registers, MSI-X state and memory, and who may
 * not migrate.  Streams from and to stock QEMU are not tested here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)
#define VECTORS 8

/* Migration by way of a file */

static bool has_completed(IvshmemVM *vm)
{
    QDict *info = qtest_qmp_assert_success_ref(vm->qts,
                                               "{'execute': 'query-migrate'}");
    g_autofree char *status = g_strdup(qdict_get_try_str(info, "status"));
    const char *why = qdict_get_try_str(info, "error-desc");

    if (why) {
        g_test_message("migration: %s", why);
    }
    g_assert_cmpstr(status, !=, "failed");
    qobject_unref(info);
    return !g_strcmp0(status, "completed");
}

static void migrate(IvshmemVM *from, IvshmemVM *to)
{
    g_autofree char *path = g_build_filename(to->dir, "stream", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(from->qts, "{'execute': 'migrate', 'arguments':"
                             " {'uri': %s}}", uri);
    IVSHMEM_WAIT(has_completed(from));
    qtest_qmp_assert_success(to->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    IVSHMEM_WAIT(has_completed(to));
    g_unlink(path);
}

static IvshmemVM *start_incoming(const char *machine)
{
    return ivshmem_vm_start(machine, "-incoming defer");
}

/* The same device, as the guest finds it in the other VM */
static QIvshmem moved(const QIvshmem *d, IvshmemVM *to)
{
    QIvshmem there = *d;

    there.dev.bus = to->bus[0];
    return there;
}

/* Migration is refused, in a message that names the reason and the device. */
static void assert_refused(IvshmemVM *vm, const char *id)
{
    QDict *error = qtest_qmp_assert_failure_ref(vm->qts, "{'execute':"
        " 'migrate', 'arguments': {'uri': 'file:/nonexistent/stream'}}");
    QDict *info = qtest_qmp_assert_success_ref(vm->qts,
                                               "{'execute': 'query-migrate'}");
    QList *reasons = qdict_get_qlist(info, "blocked-reasons");
    const char *said = qdict_get_str(error, "desc");
    QString *reason;

    g_assert_nonnull(strstr(said, "peer mode"));
    g_assert_nonnull(strstr(said, id));
    g_assert_nonnull(reasons);
    g_assert_cmpuint(qlist_size(reasons), ==, 1);
    reason = qobject_to(QString, qlist_peek(reasons));
    g_assert_nonnull(strstr(qstring_get_str(reason), "peer mode"));
    g_assert_nonnull(strstr(qstring_get_str(reason), id));
    qobject_unref(error);
    qobject_unref(info);
}

static void assert_not_blocked(IvshmemVM *vm)
{
    QDict *info = qtest_qmp_assert_success_ref(vm->qts,
                                               "{'execute': 'query-migrate'}");

    g_assert_false(qdict_haskey(info, "blocked-reasons"));
    qobject_unref(info);
}

/* What the guest has written into registers and memory */
static void leave_marks(QIvshmem *d)
{
    qivshmem_write(d, IVSHMEM_REG_INTR_MASK, 0x01020304);
    qivshmem_write(d, IVSHMEM_REG_INTR_STATUS, 0x50607080);
    for (uint64_t i = 0; i < SIZE; i += 4 * KiB) {
        qpci_io_writel(&d->dev, d->shm, i, 0xab000000 | i);
    }
}

static void assert_marks(QIvshmem *d)
{
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_MASK), ==, 0x01020304);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_STATUS), ==, 0x50607080);
    for (uint64_t i = 0; i < SIZE; i += 4 * KiB) {
        g_assert_cmphex(qpci_io_readl(&d->dev, d->shm, i), ==, 0xab000000 | i);
    }
    qivshmem_write(d, IVSHMEM_REG_INTR_MASK, 0);
    ivshmem_check_registers(d, 0);
}

/* ivshmem-plain */

static void plug_plain(IvshmemVM *vm, const char *master)
{
    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    ivshmem_vm_plug(vm, 0, "plain0", "ivshmem-plain",
                    "\"memdev\": \"mem\", \"master\": \"%s\"", master);
}

static void check_plain(const char *machine, const char *master)
{
    IvshmemVM *from = ivshmem_vm_start(machine, NULL);
    IvshmemVM *to = start_incoming(machine);
    QIvshmem here, there;

    plug_plain(from, master);
    plug_plain(to, master);
    ivshmem_vm_probe(from, 0, &here);
    leave_marks(&here);
    migrate(from, to);
    there = moved(&here, to);
    assert_marks(&there);
    ivshmem_vm_stop(from);
    ivshmem_vm_stop(to);
}

static void test_plain_master(const char *machine)
{
    check_plain(machine, "on");
}

static void test_plain_auto(const char *machine)
{
    check_plain(machine, "auto");
}

static void test_plain_peer(const char *machine)
{
    IvshmemVM *from = ivshmem_vm_start(machine, NULL);
    IvshmemVM *to = start_incoming(machine);

    assert_not_blocked(from);
    plug_plain(from, "off");
    assert_refused(from, "plain0");
    ivshmem_vm_unplug(from, 0, "plain0");
    ivshmem_vm_object_del(from, "mem");
    assert_not_blocked(from);
    migrate(from, to);          /* nothing of it is left in the stream */
    ivshmem_vm_stop(from);
    ivshmem_vm_stop(to);
}

/* ivshmem-doorbell */

typedef struct Pair {
    IvshmemVM *from;
    IvshmemVM *to;
    IvshmemScript *from_s;
    IvshmemScript *to_s;
    QIvshmem here;
    QIvshmem there;
} Pair;

static void pair_start(Pair *p, const char *machine, const char *props)
{
    p->from = ivshmem_vm_start(machine, NULL);
    p->to = start_incoming(machine);
    p->from_s = ivshmem_script_new(SIZE);
    p->to_s = ivshmem_script_new(SIZE);
    ivshmem_vm_join_script(p->from, 0, p->from_s, 0, VECTORS, props, &p->here);
    ivshmem_vm_chardev_add(p->to, "chr0", p->to_s->path);
    ivshmem_script_accept(p->to_s);
    ivshmem_script_hello(p->to_s, 0, VECTORS);
    ivshmem_vm_plug(p->to, 0, "iv0", "ivshmem-doorbell", "\"chardev\":"
                    " \"chr0\", \"vectors\": %d, %s", VECTORS, props);
    p->there = moved(&p->here, p->to);
}

static void pair_stop(Pair *p)
{
    ivshmem_vm_stop(p->from);
    ivshmem_vm_stop(p->to);
    ivshmem_script_free(p->from_s);
    ivshmem_script_free(p->to_s);
}

static void assert_quiet(IvshmemVM *vm, QIvshmem *d)
{
    ivshmem_vm_settle(vm);
    for (unsigned i = 0; i < VECTORS; i++) {
        g_assert_false(qivshmem_msix_take(d, i));
    }
}

static void assert_one(IvshmemVM *vm, QIvshmem *d, unsigned vector)
{
    ivshmem_vm_wait_interrupt(d, vector);
    assert_quiet(vm, d);
}

/*
 * Vectors 0 and 1 are unmasked, 2 and 3 masked and rung - the guest has seen
 * only 2 pending - and 4 masked.
 */
static void prepare_vectors(Pair *p)
{
    QIvshmem *d = &p->here;

    qivshmem_msix_enable(d, true);
    qivshmem_msix_mask(d, 0, false);
    qivshmem_msix_mask(d, 1, false);
    ivshmem_script_ring(p->from_s, 0);
    assert_one(p->from, d, 0);
    ivshmem_script_ring(p->from_s, 2);
    g_assert_true(qivshmem_msix_pending(d, 2));
    ivshmem_script_ring(p->from_s, 3);
    assert_quiet(p->from, d);
}

static void assert_vectors(Pair *p)
{
    QIvshmem *d = &p->there;

    assert_quiet(p->to, d);
    for (unsigned i = 0; i < VECTORS; i++) {
        g_assert(qivshmem_msix_is_masked(d, i) == (i >= 2));
        g_assert(qivshmem_msix_pending(d, i) == (i == 2 || i == 3));
    }
    qivshmem_msix_mask(d, 2, false);
    assert_one(p->to, d, 2);
    qivshmem_msix_mask(d, 3, false);
    assert_one(p->to, d, 3);
    for (unsigned i = 0; i < 4; i++) {
        ivshmem_script_ring(p->to_s, i);
        assert_one(p->to, d, i);
    }
    ivshmem_script_ring(p->to_s, 4);
    assert_quiet(p->to, d);
    g_assert_true(qivshmem_msix_pending(d, 4));
    qivshmem_msix_mask(d, 4, false);
    assert_one(p->to, d, 4);
}

static void check_doorbell(const char *machine, const char *props)
{
    Pair p;

    pair_start(&p, machine, props);
    leave_marks(&p.here);
    prepare_vectors(&p);
    migrate(p.from, p.to);
    assert_marks(&p.there);
    assert_vectors(&p);
    ivshmem_vm_leave(p.to, 0);
    pair_stop(&p);
}

static void test_doorbell_master(const char *machine)
{
    check_doorbell(machine, "\"master\": \"on\"");
}

static void test_doorbell_auto(const char *machine)
{
    check_doorbell(machine, "\"master\": \"auto\", \"ioeventfd\": false");
}

/* Rung before the guest has enabled MSI-X: delivered where it does. */
static void test_rung_before_enable(const char *machine)
{
    Pair p;

    pair_start(&p, machine, "\"master\": \"on\"");
    ivshmem_script_ring(p.from_s, 5);
    assert_quiet(p.from, &p.here);
    migrate(p.from, p.to);
    assert_quiet(p.to, &p.there);
    qivshmem_msix_enable(&p.there, true);
    qivshmem_msix_mask(&p.there, 5, false);
    assert_one(p.to, &p.there, 5);
    pair_stop(&p);
}

/*
 * Rung while the VM is stopped for good: the destination delivers it.  And if
 * the source goes on after all, so does it.
 */
static void test_rung_while_stopped(const char *machine)
{
    Pair p;

    pair_start(&p, machine, "\"master\": \"on\"");
    qivshmem_msix_enable(&p.here, true);
    qivshmem_msix_mask(&p.here, 6, false);
    qtest_qmp_assert_success(p.from->qts, "{'execute': 'stop'}");
    ivshmem_script_ring(p.from_s, 6);
    assert_quiet(p.from, &p.here);
    migrate(p.from, p.to);
    qtest_qmp_assert_success(p.to->qts, "{'execute': 'cont'}");
    assert_one(p.to, &p.there, 6);
    g_assert_false(qivshmem_msix_pending(&p.there, 6));

    qtest_qmp_assert_success(p.from->qts, "{'execute': 'cont'}");
    assert_one(p.from, &p.here, 6);
    g_assert_false(qivshmem_msix_pending(&p.here, 6));
    ivshmem_script_ring(p.from_s, 6);
    assert_one(p.from, &p.here, 6);
    pair_stop(&p);
}

/* Who is not the master does not migrate, whatever its ID and role are. */
static void check_peer(const char *machine, uint16_t id, const char *props)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemVM *to = start_incoming(machine);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    QIvshmem d;

    ivshmem_vm_join_script(vm, 0, s, id, 1, props, &d);
    assert_refused(vm, "iv0");
    ivshmem_vm_leave(vm, 0);
    assert_not_blocked(vm);
    migrate(vm, to);
    ivshmem_vm_stop(vm);
    ivshmem_vm_stop(to);
    ivshmem_script_free(s);
}

static void test_doorbell_peer(const char *machine)
{
    check_peer(machine, 0, NULL);
    check_peer(machine, 7, "\"master\": \"off\"");
}

static void test_doorbell_auto_peer(const char *machine)
{
    check_peer(machine, 1, "\"master\": \"auto\"");
}

/* Unplugged, but its backend is still there: nothing of it is in the stream. */
static void test_unplugged(const char *machine)
{
    IvshmemVM *from = ivshmem_vm_start(machine, NULL);
    IvshmemVM *to = start_incoming(machine);
    IvshmemScript *s = ivshmem_script_new(SIZE);
    QIvshmem d;

    plug_plain(from, "on");
    ivshmem_vm_join_script(from, 1, s, 0, 1, "\"master\": \"on\"", &d);
    ivshmem_vm_leave(from, 1);
    ivshmem_vm_unplug(from, 0, "plain0");
    migrate(from, to);
    ivshmem_vm_stop(from);
    ivshmem_vm_stop(to);
    ivshmem_script_free(s);
}

/* Unplugged and plugged again: its memory is in the stream once. */
static void test_replugged(const char *machine)
{
    Pair p;

    pair_start(&p, machine, "\"master\": \"on\"");
    ivshmem_vm_leave(p.from, 0);
    ivshmem_vm_join_script(p.from, 0, p.from_s, 0, VECTORS,
                           "\"master\": \"on\"", &p.here);
    leave_marks(&p.here);
    prepare_vectors(&p);
    migrate(p.from, p.to);
    p.there = moved(&p.here, p.to);
    assert_marks(&p.there);
    assert_vectors(&p);
    pair_stop(&p);
}

void ivshmem_add_migration_tests(void)
{
    static const IvshmemTest tests[] = {
        { "plain-master", test_plain_master },
        { "plain-auto", test_plain_auto },
        { "plain-peer", test_plain_peer },
        { "doorbell-master", test_doorbell_master },
        { "doorbell-auto", test_doorbell_auto },
        { "doorbell-peer", test_doorbell_peer },
        { "doorbell-auto-peer", test_doorbell_auto_peer },
        { "rung-before-enable", test_rung_before_enable },
        { "rung-while-stopped", test_rung_while_stopped },
        { "unplugged", test_unplugged },
        { "replugged", test_replugged },
        { }
    };

    ivshmem_test_add("migration", tests);
}
