/*
 * ivshmem tests: what KVM may refuse while the device sets up its in-kernel
 * paths.  Interrupts that arrive in a guest by these paths, and their speed,
 * are tested with real guests elsewhere.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "ivshmem-test.h"

#define SIZE (64 * KiB)
#define VECTORS 4

typedef struct Kvm {
    char *dir;
    char *bios;
    IvshmemVM *vm;
    IvshmemScript *s;
    unsigned fds;
    QIvshmem d;
} Kvm;

/* A firmware that stops the processor at once: cli; hlt; jmp to the hlt */
static void write_bios(const char *path)
{
    static const uint8_t halt[] = { 0xfa, 0xf4, 0xeb, 0xfd };
    g_autofree uint8_t *image = g_malloc0(64 * KiB);

    memcpy(image + 64 * KiB - 16, halt, sizeof(halt));
    g_assert_true(g_file_set_contents(path, (char *)image, 64 * KiB, NULL));
}

static bool has_kvm(IvshmemVM *vm)
{
    QDict *info = qtest_qmp_assert_success_ref(vm->qts,
                                               "{'execute': 'query-kvm'}");
    bool enabled = qdict_get_bool(info, "enabled");

    qobject_unref(info);
    return enabled;
}

static void end(Kvm *k)
{
    ivshmem_vm_stop(k->vm);
    g_unlink(k->bios);
    g_rmdir(k->dir);
    g_free(k->bios);
    g_free(k->dir);
    ivshmem_script_free(k->s);
}

static bool begin(Kvm *k, const char *machine)
{
    g_autofree char *args = NULL;

    k->dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    k->bios = g_build_filename(k->dir, "bios", NULL);
    write_bios(k->bios);
    args = g_strdup_printf("-accel kvm -bios %s -trace 'ivshmem_*'", k->bios);
    k->s = ivshmem_script_new(SIZE);
    k->vm = ivshmem_vm_start(machine, args);
    if (!has_kvm(k->vm)) {
        g_test_skip("this host has no KVM");
        end(k);
        return false;
    }
    k->fds = ivshmem_vm_fds_without(k->vm, k->s);
    ivshmem_vm_chardev_add(k->vm, "chr0", k->s->path);
    ivshmem_script_accept(k->s);
    return true;
}

static void plug(Kvm *k, unsigned vectors)
{
    ivshmem_vm_plug(k->vm, 0, "iv0", "ivshmem-doorbell",
                    "\"chardev\": \"chr0\", \"vectors\": %u", vectors);
    ivshmem_vm_probe(k->vm, 0, &k->d);
}

static void set_masks(Kvm *k, bool mask)
{
    for (unsigned i = 0; i < k->d.vectors; i++) {
        qivshmem_msix_mask(&k->d, i, mask);
    }
}

static void finish(Kvm *k)
{
    ivshmem_vm_leave(k->vm, 0);
    ivshmem_vm_wait_fds(k->vm, k->fds);
    end(k);
}

/* Masking, resets and unplugging with whatever vectors there are */
static void exercise(Kvm *k)
{
    for (int round = 0; round < 3; round++) {
        qivshmem_msix_enable(&k->d, true);
        set_masks(k, false);
        set_masks(k, true);
        set_masks(k, false);
        qivshmem_msix_mask_all(&k->d, true);
        qivshmem_msix_mask_all(&k->d, false);
        qivshmem_msix_enable(&k->d, false);
        qtest_qmp_assert_success(k->vm->qts, "{'execute': 'stop'}");
        qivshmem_msix_enable(&k->d, true);
        qtest_qmp_assert_success(k->vm->qts, "{'execute': 'cont'}");
        ivshmem_vm_reset(k->vm, &k->d);
        ivshmem_vm_aim(k->vm, 0, &k->d);
    }
    qivshmem_msix_enable(&k->d, true);
    set_masks(k, false);
}

/*
 * D23: KVM takes an eventfd for one irqfd only.  Here two vectors have the
 * same, and the second one falls back to QEMU's main loop, whose message goes
 * to guest memory.
 */
static void test_d23_irqfd_refused(const char *machine)
{
    g_autofree char *said = NULL;
    Kvm k;

    if (!begin(&k, machine)) {
        return;
    }
    ivshmem_script_hello(k.s, 0, 1);
    ivshmem_script_send(k.s, 0, k.s->own[0]);
    plug(&k, 2);
    exercise(&k);
    said = ivshmem_vm_stderr(k.vm);
    g_assert_nonnull(strstr(said, "ivshmem_irqfd_refused"));
    qivshmem_msix_mask(&k.d, 0, true);
    ivshmem_script_ring(k.s, 0);
    ivshmem_vm_wait_interrupt(&k.d, 1);
    finish(&k);
}

/* D13, D30: vectors that are not connected, with a low ID and a high one */
static void test_d13_d30_unconnected(const char *machine)
{
    static const uint16_t ids[] = { 0, 16, 65535 };

    for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
        Kvm k;

        if (!begin(&k, machine)) {
            return;
        }
        ivshmem_script_hello(k.s, ids[i], i);
        plug(&k, VECTORS);
        exercise(&k);
        qivshmem_ring(&k.d, ids[i], VECTORS - 1);
        ivshmem_check_registers(&k.d, ids[i]);
        finish(&k);
    }
}

/* D29: KVM would refuse them as ioeventfd and as irqfd. */
static void test_d29_not_an_eventfd(const char *machine)
{
    int peer;
    Kvm k;

    if (!begin(&k, machine)) {
        return;
    }
    ivshmem_script_hello(k.s, 3, 0);
    ivshmem_script_send(k.s, 3, k.s->shm);
    ivshmem_script_send(k.s, 5, k.s->listener);
    ivshmem_script_join(k.s, 5, &peer, 1);
    plug(&k, 2);
    IVSHMEM_WAIT(ivshmem_vm_peer_vectors(k.vm, "iv0", 5) == 2);
    exercise(&k);
    qivshmem_ring(&k.d, 5, 0);
    qivshmem_ring(&k.d, 5, 1);
    g_assert_true(ivshmem_eventfd_take(peer));
    ivshmem_eventfds_close(&peer, 1);
    finish(&k);
}

/* D1 to D3 with ioeventfds in the kernel: peers come, go and come again. */
static void test_peers(const char *machine)
{
    int peers[40];
    Kvm k;

    if (!begin(&k, machine)) {
        return;
    }
    ivshmem_script_hello(k.s, 0, VECTORS);
    plug(&k, VECTORS);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 10; i++) {
            ivshmem_script_join(k.s, 10 + i, peers + 4 * i, 4);
        }
        IVSHMEM_WAIT(ivshmem_vm_peer_vectors(k.vm, "iv0", 19) == 4);
        for (int i = 0; i < 40; i++) {
            qivshmem_ring(&k.d, 10 + i / 4, i % 4);
            g_assert_true(ivshmem_eventfd_take(peers[i]));
        }
        for (int i = 0; i < 10 && round < 4; i++) {
            ivshmem_script_leave(k.s, 10 + i);
            ivshmem_script_leave(k.s, 10 + i);
        }
        ivshmem_eventfds_close(peers, 40);
    }
    finish(&k);
}

void ivshmem_add_kvm_tests(void)
{
    static const IvshmemTest tests[] = {
        { "peers", test_peers },
        { "D13-D30-unconnected-vectors", test_d13_d30_unconnected },
        { "D23-irqfd-refused", test_d23_irqfd_refused },
        { "D29-not-an-eventfd", test_d29_not_an_eventfd },
        { }
    };

    if (qtest_has_accel("kvm")) {
        ivshmem_test_add("kvm", tests);
    }
}
