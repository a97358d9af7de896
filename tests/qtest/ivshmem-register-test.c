/*
 * ivshmem tests: what the guest sees of one device that is alone.  Interrupts
 * and peers are the matter of other files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/mman.h>
#include "hw/pci/pci_regs.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ivshmem-fd.h"
#include "ivshmem-server-script.h"
#include "ivshmem-machine.h"
#include "ivshmem-test.h"

#define SIZE (1 * MiB)
#define SIZE_TEXT "1048576"

/* A plain and a doorbell device, each alone in slot 0 */

static IvshmemVM *plain_start(const char *machine, QIvshmem *d)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);

    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    ivshmem_vm_plug(vm, 0, "iv", "ivshmem-plain", "\"memdev\": \"mem\"");
    ivshmem_vm_probe(vm, 0, d);
    return vm;
}

static void doorbell_plug(IvshmemVM *vm, IvshmemScript *s, uint16_t id,
                          unsigned vectors, QIvshmem *d)
{
    ivshmem_vm_chardev_add(vm, "chr", s->path);
    ivshmem_script_accept(s);
    ivshmem_script_hello(s, id, MIN(vectors, 4));
    ivshmem_vm_plug(vm, 0, "iv", "ivshmem-doorbell",
                    "\"chardev\": \"chr\", \"vectors\": %u", vectors);
    ivshmem_vm_probe(vm, 0, d);
    g_assert_cmpuint(d->vectors, ==, vectors);
}

static void doorbell_unplug(IvshmemVM *vm)
{
    ivshmem_vm_unplug(vm, 0, "iv");
    ivshmem_vm_chardev_remove(vm, "chr");
}

static void on_plain(const char *machine, void (*check)(IvshmemVM *,
                                                        QIvshmem *, uint16_t))
{
    QIvshmem d;
    IvshmemVM *vm = plain_start(machine, &d);

    g_assert_cmpuint(d.vectors, ==, 0);
    check(vm, &d, 0);
    ivshmem_vm_stop(vm);
}

static void on_doorbell(const char *machine,
                        void (*check)(IvshmemVM *, QIvshmem *, uint16_t))
{
    static const uint16_t ids[] = { 0, 1, 0x1234, 65535 };
    IvshmemScript *s = ivshmem_script_new(SIZE);
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    QIvshmem d;

    for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
        doorbell_plug(vm, s, ids[i], 4, &d);
        check(vm, &d, ids[i]);
        doorbell_unplug(vm);
    }
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

static void check_identity(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    ivshmem_check_identity(d);
    g_assert_cmpuint(ivshmem_vm_get_int(vm, "iv", "peer-id"), ==, id);
    g_assert_cmpuint(ivshmem_vm_get_int(vm, "iv", "region-size"), ==, SIZE);
}

static void check_registers(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    ivshmem_check_registers(d, id);
}

static void check_accesses(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    ivshmem_check_accesses(d, id);
}

/*
 * As the guest's processor sees it: little-endian, so a big-endian one has to
 * turn every register around, and finds bytes in memory where others do.
 */
static void check_byte_order(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    bool big = qtest_big_endian(vm->qts);
    uint64_t regs = vm->machine->cpu_offset + d->regs.addr;
    uint64_t shm = vm->machine->cpu_offset + d->shm.addr;

    g_assert_cmphex(qtest_readl(vm->qts, regs + IVSHMEM_REG_IV_POSITION), ==,
                    big ? bswap32(id) : id);
    qtest_writel(vm->qts, regs + IVSHMEM_REG_INTR_MASK, 0x01020304);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_MASK), ==,
                    big ? 0x04030201 : 0x01020304);
    g_assert_cmphex(qtest_readw(vm->qts, regs + IVSHMEM_REG_INTR_MASK), ==,
                    big ? 0x0102 : 0x0304);
    qtest_writel(vm->qts, regs + IVSHMEM_REG_INTR_MASK, 0);
    qtest_writel(vm->qts, shm, 0x01020304);
    g_assert_cmphex(qpci_io_readb(&d->dev, d->shm, 0), ==, big ? 1 : 4);
}

static void check_memory(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    ivshmem_check_memory(d, SIZE);
}

static void check_reset(IvshmemVM *vm, QIvshmem *d, uint16_t id)
{
    uint16_t command = qpci_config_readw(&d->dev, PCI_COMMAND);

    g_assert_cmphex(command & PCI_COMMAND_MEMORY, !=, 0);
    qivshmem_write(d, IVSHMEM_REG_INTR_MASK, 0xdeadbeef);
    qivshmem_write(d, IVSHMEM_REG_INTR_STATUS, 0xdeadbeef);
    qpci_io_writel(&d->dev, d->shm, 0, 0x12345678);
    ivshmem_vm_reset(vm, NULL);
    if (!vm->machine->pcie) {   /* there it lies behind a bridge */
        g_assert_cmphex(qpci_config_readw(&d->dev, PCI_COMMAND), ==, 0);
    }
    ivshmem_vm_reset(vm, d);
    ivshmem_check_registers(d, id);
    ivshmem_check_identity(d);
    g_assert_cmphex(qpci_io_readl(&d->dev, d->shm, 0), ==, 0x12345678);
}

/* R-DEV-1 to R-DEV-6 */
static void test_plain_identity(const char *machine)
{
    on_plain(machine, check_identity);
}

/* R-DEV-9 to R-DEV-11, R-DEV-13, R-DEV-15, R-DEV-16 */
static void test_plain_registers(const char *machine)
{
    on_plain(machine, check_registers);
}

/* R-DEV-17, R-DEV-18 */
static void test_plain_accesses(const char *machine)
{
    on_plain(machine, check_accesses);
}

/* R-DEV-5 */
static void test_plain_memory(const char *machine)
{
    on_plain(machine, check_memory);
}

/* R-DEV-9 */
static void test_plain_byte_order(const char *machine)
{
    on_plain(machine, check_byte_order);
}

/* R-DEV-26 */
static void test_plain_reset(const char *machine)
{
    on_plain(machine, check_reset);
}

/* R-DEV-1 to R-DEV-6 */
static void test_doorbell_identity(const char *machine)
{
    on_doorbell(machine, check_identity);
}

/* R-DEV-9 to R-DEV-11, R-DEV-15, R-DEV-16 */
static void test_doorbell_registers(const char *machine)
{
    on_doorbell(machine, check_registers);
}

/* R-DEV-17, R-DEV-18 */
static void test_doorbell_accesses(const char *machine)
{
    on_doorbell(machine, check_accesses);
}

static void test_doorbell_memory(const char *machine)
{
    on_doorbell(machine, check_memory);
}

/* R-DEV-9 */
static void test_doorbell_byte_order(const char *machine)
{
    on_doorbell(machine, check_byte_order);
}

/* R-DEV-26 */
static void test_doorbell_reset(const char *machine)
{
    on_doorbell(machine, check_reset);
}

/* The command register before anybody has written it */
/* R-DEV-2 */
static void test_command_is_zero(const char *machine)
{
    IvshmemScript *s = ivshmem_script_new(SIZE);
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);

    ivshmem_vm_memory_add(vm, "mem", SIZE, true);
    ivshmem_vm_plug(vm, 0, "plain", "ivshmem-plain", "\"memdev\": \"mem\"");
    ivshmem_vm_chardev_add(vm, "chr", s->path);
    ivshmem_script_accept(s);
    ivshmem_script_hello(s, 0, 1);
    ivshmem_vm_plug(vm, 1, "bell", "ivshmem-doorbell", "\"chardev\": \"chr\"");
    for (unsigned slot = 0; slot < IVSHMEM_VM_SLOTS; slot++) {
        QPCIDevice dev = {
            .bus = vm->bus[slot],
            .devfn = ivshmem_vm_devfn(vm, slot),
        };

        g_assert_true(ivshmem_vm_present(vm, slot));
        g_assert_cmphex(qpci_config_readw(&dev, PCI_COMMAND), ==, 0);
    }
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* MSI-X layout and properties for few and many vectors */
/* R-DEV-4, R-DEV-6 */
static void test_vectors(const char *machine)
{
    static const unsigned counts[] = { 1, 2, 64, 128, 129, 1000, 2048 };
    IvshmemScript *s = ivshmem_script_new(SIZE);
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    QIvshmem d;

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        doorbell_plug(vm, s, 3, counts[i], &d);
        ivshmem_check_identity(&d);
        doorbell_unplug(vm);
    }
    ivshmem_vm_stop(vm);
    ivshmem_script_free(s);
}

/* More vectors than some machines have interrupts: the first device's come */
static void test_vectors_of_two(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    IvshmemScript *s[IVSHMEM_VM_SLOTS];
    QIvshmem d[IVSHMEM_VM_SLOTS];

    for (unsigned slot = 0; slot < IVSHMEM_VM_SLOTS; slot++) {
        g_autofree char *id = g_strdup_printf("iv%u", slot);
        g_autofree char *chardev = g_strdup_printf("chr%u", slot);

        s[slot] = ivshmem_script_new(SIZE);
        ivshmem_vm_chardev_add(vm, chardev, s[slot]->path);
        ivshmem_script_accept(s[slot]);
        ivshmem_script_hello(s[slot], slot, 4);
        ivshmem_vm_plug(vm, slot, id, "ivshmem-doorbell",
                        "\"chardev\": \"%s\", \"vectors\": %u", chardev,
                        IVSHMEM_VECTORS_MAX);
        ivshmem_vm_probe(vm, slot, &d[slot]);
        ivshmem_check_registers(&d[slot], slot);
    }
    qivshmem_msix_enable(&d[0], true);
    qivshmem_msix_mask(&d[0], 3, false);
    ivshmem_script_ring(s[0], 3);
    ivshmem_vm_wait_interrupt(&d[0], 3);
    ivshmem_vm_stop(vm);
    for (unsigned slot = 0; slot < IVSHMEM_VM_SLOTS; slot++) {
        ivshmem_script_free(s[slot]);
    }
}

/* Devices there from the start, as most people have them */
static void test_cold_plugged(const char *machine)
{
    IvshmemGroup *group = ivshmem_group_new(4, SIZE, 0, -1);
    g_autofree char *args = g_strdup_printf(
        "-object memory-backend-ram,id=mem,share=on,size=" SIZE_TEXT " "
        "-chardev socket,id=chr,path=%s "
        "-device ivshmem-doorbell,id=bell,chardev=chr,vectors=%d,addr=5 "
        "-device ivshmem-plain,id=plain,memdev=mem,addr=6",
        ivshmem_group_path(group), 4);
    IvshmemVM *vm = ivshmem_vm_start(machine, args);
    QPCIBus *bus = vm->bus[IVSHMEM_VM_SLOTS];
    QIvshmem bell, plain;

    qivshmem_init(&bell, bus, QPCI_DEVFN(5, 0));
    qivshmem_init(&plain, bus, QPCI_DEVFN(6, 0));
    ivshmem_vm_aim(vm, IVSHMEM_VM_SLOTS, &bell);
    ivshmem_check_identity(&bell);
    ivshmem_check_identity(&plain);
    ivshmem_check_registers(&bell, 0);
    ivshmem_check_registers(&plain, 0);
    ivshmem_check_memory(&bell, SIZE);
    ivshmem_check_memory(&plain, SIZE);
    qivshmem_msix_enable(&bell, true);
    qivshmem_msix_mask(&bell, 3, false);
    g_assert_true(ivshmem_group_ring(group, 0, 3));
    ivshmem_vm_wait_interrupt(&bell, 3);
    ivshmem_vm_stop(vm);
    ivshmem_group_free(group);
}

/* Memory backends */

static void check_backend(const char *machine, const char *object)
{
    g_autofree char *args = g_strdup_printf("-object %s", object);
    IvshmemVM *vm = ivshmem_vm_start(machine, args);
    QIvshmem d;

    ivshmem_vm_plug(vm, 0, "iv", "ivshmem-plain", "\"memdev\": \"mem\"");
    ivshmem_vm_probe(vm, 0, &d);
    ivshmem_check_memory(&d, SIZE);
    ivshmem_check_registers(&d, 0);
    ivshmem_vm_unplug(vm, 0, "iv");
    ivshmem_vm_object_del(vm, "mem");
    ivshmem_vm_stop(vm);
}

static void test_backend_ram(const char *machine)
{
    check_backend(machine, "memory-backend-ram,id=mem,share=on,size="
                  SIZE_TEXT);
}

static void test_backend_memfd(const char *machine)
{
    check_backend(machine, "memory-backend-memfd,id=mem,share=on,size="
                  SIZE_TEXT);
}

static void test_backend_shm(const char *machine)
{
    check_backend(machine, "memory-backend-shm,id=mem,share=on,size="
                  SIZE_TEXT);
}

/* Two devices on one file, and the host sees it too */
static void test_backend_file(const char *machine)
{
    g_autofree char *dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "memory", NULL);
    g_autofree char *args = g_strdup_printf(
        "-object memory-backend-file,id=a,share=on,size=" SIZE_TEXT
        ",mem-path=%s "
        "-object memory-backend-file,id=b,share=on,size=" SIZE_TEXT
        ",mem-path=%s", path, path);
    IvshmemVM *vm = ivshmem_vm_start(machine, args);
    IVSHMEM_FD_AUTO int fd = open(path, O_RDWR | O_CLOEXEC);
    uint32_t *host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          0);
    QIvshmem a, b;

    g_assert_true(host != MAP_FAILED);
    ivshmem_vm_plug(vm, 0, "iva", "ivshmem-plain", "\"memdev\": \"a\"");
    ivshmem_vm_plug(vm, 1, "ivb", "ivshmem-plain", "\"memdev\": \"b\"");
    ivshmem_vm_probe(vm, 0, &a);
    ivshmem_vm_probe(vm, 1, &b);
    qpci_io_writel(&a.dev, a.shm, 64, 0xcafe0001);
    g_assert_cmphex(qpci_io_readl(&b.dev, b.shm, 64), ==, 0xcafe0001);
    g_assert_cmphex(le32_to_cpu(host[16]), ==, 0xcafe0001);
    host[17] = cpu_to_le32(0xcafe0002);
    g_assert_cmphex(qpci_io_readl(&a.dev, a.shm, 68), ==, 0xcafe0002);
    g_assert_cmphex(qpci_io_readl(&b.dev, b.shm, 68), ==, 0xcafe0002);
    munmap(host, SIZE);
    ivshmem_vm_stop(vm);
    g_unlink(path);
    g_rmdir(dir);
}

/* D12: a backend that shares nothing: a warning, and the device starts. */
static void test_d12_share_off(const char *machine)
{
    IvshmemVM *vm = ivshmem_vm_start(machine, NULL);
    g_autofree char *said = NULL;
    QIvshmem d;

    ivshmem_vm_memory_add(vm, "private", SIZE, false);
    said = ivshmem_vm_plug_says(vm, 0, "iv", "ivshmem-plain",
                                "memdev=private");
    g_assert_nonnull(strstr(said, "warning"));
    g_assert_nonnull(strstr(said, "'private'"));
    g_assert_nonnull(strstr(said, "share=on"));
    ivshmem_vm_probe(vm, 0, &d);
    ivshmem_check_memory(&d, SIZE);
    ivshmem_vm_stop(vm);
}

void ivshmem_add_register_tests(void)
{
    static const IvshmemTest tests[] = {
        { "plain-identity", test_plain_identity },
        { "plain-registers", test_plain_registers },
        { "plain-accesses", test_plain_accesses },
        { "plain-memory", test_plain_memory },
        { "plain-byte-order", test_plain_byte_order },
        { "plain-reset", test_plain_reset },
        { "doorbell-identity", test_doorbell_identity },
        { "doorbell-registers", test_doorbell_registers },
        { "doorbell-accesses", test_doorbell_accesses },
        { "doorbell-memory", test_doorbell_memory },
        { "doorbell-byte-order", test_doorbell_byte_order },
        { "doorbell-reset", test_doorbell_reset },
        { "command-is-zero", test_command_is_zero },
        { "vectors", test_vectors },
        { "vectors-of-two", test_vectors_of_two },
        { "cold-plugged", test_cold_plugged },
        { "backend-ram", test_backend_ram },
        { "backend-memfd", test_backend_memfd },
        { "backend-shm", test_backend_shm },
        { "backend-file", test_backend_file },
        { "D12-share-off", test_d12_share_off },
        { }
    };

    ivshmem_test_add("registers", tests);
}
