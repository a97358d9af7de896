/*
 * A virtual machine with ivshmem devices, for tests.  What machines
 * differ in is in ivshmem-machine.c; what devices do is the tests' part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "ivshmem-machine.h"

/* PCI: slots of the root bus.  PCI Express: one root port per slot. */
#define VM_PCI_SLOT 5
#define VM_ROOT_PORT 0x10

/* Where MSI-X messages go in guest memory that no firmware or test uses. */
#define VM_MESSAGES 0x400000
#define VM_MESSAGES_SIZE 0x10000

/* So many fit into a socket that nobody reads. */
#define VM_UNREAD_MESSAGES 64

/* Start and reset */

/* For when a test fails. */
static void vm_show_stderr(void *opaque)
{
    g_autofree char *said = ivshmem_vm_stderr(opaque);

    g_printerr("%s", said);
}

QPCIDevice ivshmem_vm_root_port(const IvshmemVM *vm, unsigned slot)
{
    return (QPCIDevice) {
        .bus = vm->bus[slot],
        .devfn = QPCI_DEVFN(VM_ROOT_PORT + slot, 0),
    };
}

static uint32_t vm_window(const IvshmemVM *vm, unsigned slot)
{
    return vm->machine->window + slot * IVSHMEM_VM_WINDOW_SIZE;
}

static void vm_program_root_ports(IvshmemVM *vm)
{
    for (unsigned i = 0; vm->machine->pcie && i < IVSHMEM_VM_SLOTS; i++) {
        uint32_t window = vm_window(vm, i);
        QPCIDevice port = ivshmem_vm_root_port(vm, i);

        qpci_config_writeb(&port, PCI_PRIMARY_BUS, 0);
        qpci_config_writeb(&port, PCI_SECONDARY_BUS, i + 1);
        qpci_config_writeb(&port, PCI_SUBORDINATE_BUS, i + 1);
        qpci_config_writew(&port, PCI_MEMORY_BASE, window >> 16);
        qpci_config_writew(&port, PCI_MEMORY_LIMIT,
                           (vm_window(vm, i + 1) - 1) >> 16);
        qpci_config_writew(&port, PCI_PREF_MEMORY_BASE, 0xfff0);
        qpci_config_writew(&port, PCI_PREF_MEMORY_LIMIT, 0);
        qpci_config_writew(&port, PCI_COMMAND, PCI_COMMAND_MEMORY |
                                               PCI_COMMAND_MASTER);
    }
}

static void vm_program(IvshmemVM *vm)
{
    vm_program_root_ports(vm);
    if (vm->machine->start) {
        vm->machine->start(vm);
    }
}

/* Counts what is in a folder of QEMU below /proc, and calls @use for each. */
static unsigned vm_count(const IvshmemVM *vm, const char *folder,
                         void (*use)(const char *name, const char *link))
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s",
                                            (int)qtest_pid(vm->qts), folder);
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned n = 0;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *entry = g_build_filename(path, name, NULL);

        if (use) {
            use(name, entry);
        }
        n++;
    }
    g_dir_close(dir);
    return n;
}

static void vm_show_fd(const char *name, const char *link)
{
    g_autofree char *file = g_file_read_link(link, NULL);

    g_test_message("descriptor %s: %s", name, file ?: "closed meanwhile");
}

IvshmemVM *ivshmem_vm_start(const char *machine, const char *args)
{
    IvshmemVM *vm = g_new0(IvshmemVM, 1);
    GString *line = g_string_new(NULL);

    vm->machine = ivshmem_machine_find(machine);
    vm->dir = g_dir_make_tmp("ivshmem-XXXXXX", NULL);
    g_assert_nonnull(vm->dir);
    vm->stderr_path = g_build_filename(vm->dir, "stderr", NULL);
    g_string_append_printf(line, "%s -nodefaults ", vm->machine->options);
    for (unsigned i = 0; vm->machine->pcie && i < IVSHMEM_VM_SLOTS; i++) {
        g_string_append_printf(line, "-device pcie-root-port,id=port%u,"
                               "chassis=%u,addr=%x ", i, i + 1,
                               VM_ROOT_PORT + i);
    }
    g_string_append_printf(line, "%s 2>>%s", args ?: "", vm->stderr_path);
    vm->qts = qtest_init(line->str);
    qtest_add_abrt_handler(vm_show_stderr, vm);
    g_string_free(line, true);

    for (unsigned i = 0; i <= IVSHMEM_VM_SLOTS; i++) {
        vm->bus[i] = vm->machine->bus_new(vm);
        vm->bus[i]->mmio_alloc_ptr = vm_window(vm, i);
        vm->bus[i]->mmio_limit = (uint64_t)vm_window(vm, i) +
                                 IVSHMEM_VM_WINDOW_SIZE;
    }
    vm_program(vm);
    vm->threads = vm_count(vm, "task", NULL);
    return vm;
}

void ivshmem_vm_stop(IvshmemVM *vm)
{
    g_autofree char *said = NULL;

    qtest_quit(vm->qts);
    said = ivshmem_vm_stderr(vm);
    g_assert_null(strstr(said, "Sanitizer"));
    g_assert_null(strstr(said, "runtime error"));
    qtest_remove_abrt_handler(vm);
    for (unsigned i = 0; i <= IVSHMEM_VM_SLOTS; i++) {
        vm->machine->bus_free(vm->bus[i]);
    }
    g_unlink(vm->stderr_path);
    g_rmdir(vm->dir);
    g_free(vm->stderr_path);
    g_free(vm->dir);
    g_free(vm);
}

char *ivshmem_vm_stderr(const IvshmemVM *vm)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(vm->stderr_path, &text, NULL, NULL));
    return text;
}

void ivshmem_vm_reset(IvshmemVM *vm, QIvshmem *d)
{
    qtest_system_reset(vm->qts);
    vm_program(vm);
    if (d) {
        qivshmem_remap(d);
    }
}

/* Slots */

int ivshmem_vm_devfn(const IvshmemVM *vm, unsigned slot)
{
    g_assert_cmpuint(slot, <, IVSHMEM_VM_SLOTS);
    return vm->machine->pcie ? (slot + 1) << 8 :
                               QPCI_DEVFN(VM_PCI_SLOT + slot, 0);
}

static char *vm_bus_name(const IvshmemVM *vm, unsigned slot)
{
    return vm->machine->pcie ? g_strdup_printf("port%u", slot) :
                               g_strdup("pci.0");
}

static unsigned vm_bus_slot(const IvshmemVM *vm, unsigned slot)
{
    return vm->machine->pcie ? 0 : VM_PCI_SLOT + slot;
}

char *ivshmem_vm_place(const IvshmemVM *vm, unsigned slot)
{
    g_autofree char *bus = vm_bus_name(vm, slot);

    return g_strdup_printf("bus=%s,addr=%x", bus, vm_bus_slot(vm, slot));
}

void ivshmem_vm_plug_send(IvshmemVM *vm, unsigned slot, const char *id,
                          const char *driver, const char *props)
{
    g_autofree char *bus = vm_bus_name(vm, slot);

    qtest_qmp_send_raw(vm->qts, "{\"execute\": \"device_add\", \"arguments\":"
                       " {\"driver\": \"%s\", \"id\": \"%s\", \"bus\": \"%s\","
                       " \"addr\": \"%x\", %s}}\n", driver, id, bus,
                       vm_bus_slot(vm, slot), props);
}

char *ivshmem_vm_plug_finish(IvshmemVM *vm)
{
    QDict *response = qtest_qmp_receive(vm->qts);
    char *error = NULL;

    if (qdict_haskey(response, "error")) {
        error = g_strdup(qdict_get_str(qdict_get_qdict(response, "error"),
                                       "desc"));
    }
    qobject_unref(response);
    return error;
}

void ivshmem_vm_plug(IvshmemVM *vm, unsigned slot, const char *id,
                     const char *driver, const char *props, ...)
{
    g_autofree char *text = NULL;
    g_autofree char *error = NULL;
    va_list ap;

    va_start(ap, props);
    text = g_strdup_vprintf(props, ap);
    va_end(ap);
    ivshmem_vm_plug_send(vm, slot, id, driver, text);
    error = ivshmem_vm_plug_finish(vm);
    g_assert_cmpstr(error, ==, NULL);
}

char *ivshmem_vm_plug_fails(IvshmemVM *vm, unsigned slot, const char *id,
                            const char *driver, const char *props, ...)
{
    g_autofree char *text = NULL;
    char *error;
    va_list ap;

    va_start(ap, props);
    text = g_strdup_vprintf(props, ap);
    va_end(ap);
    ivshmem_vm_plug_send(vm, slot, id, driver, text);
    error = ivshmem_vm_plug_finish(vm);
    g_assert_nonnull(error);
    g_assert_false(ivshmem_vm_present(vm, slot));
    return error;
}

char *ivshmem_vm_plug_says(IvshmemVM *vm, unsigned slot, const char *id,
                           const char *driver, const char *props)
{
    g_autofree char *place = ivshmem_vm_place(vm, slot);

    return qtest_hmp(vm->qts, "device_add %s,id=%s,%s,%s", driver, id, place,
                     props);
}

/* The guest takes what was plugged, if it has to before it can see it. */
static void vm_accept(IvshmemVM *vm, unsigned slot)
{
    if (vm->machine->accept) {
        vm->machine->accept(vm, slot);
    }
}

bool ivshmem_vm_present(IvshmemVM *vm, unsigned slot)
{
    QPCIDevice dev = {
        .bus = vm->bus[slot],
        .devfn = ivshmem_vm_devfn(vm, slot),
    };

    vm_accept(vm, slot);
    return qpci_config_readw(&dev, PCI_VENDOR_ID) == IVSHMEM_PCI_VENDOR_ID;
}

void ivshmem_vm_probe(IvshmemVM *vm, unsigned slot, QIvshmem *d)
{
    vm_accept(vm, slot);
    vm->bus[slot]->mmio_alloc_ptr = vm_window(vm, slot);
    qivshmem_init(d, vm->bus[slot], ivshmem_vm_devfn(vm, slot));
    ivshmem_vm_aim(vm, slot, d);
}

void ivshmem_vm_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d)
{
    unsigned turn = vm->turn[slot]++ % 2;

    if (d->vectors && vm->machine->aim &&
        vm->machine->aim(vm, slot, d, turn)) {
        return;
    }
    d->sink = NULL;
    qivshmem_msix_init(d, vm->machine->ram + VM_MESSAGES +
                          (2 * slot + turn) * VM_MESSAGES_SIZE);
}

void ivshmem_vm_eject(IvshmemVM *vm, unsigned slot)
{
    vm->machine->eject(vm, slot);
}

void ivshmem_vm_wait_deleted(IvshmemVM *vm, const char *id)
{
    QDict *event = qtest_qmp_eventwait_ref(vm->qts, "DEVICE_DELETED");

    g_assert_cmpstr(qdict_get_try_str(qdict_get_qdict(event, "data"),
                                      "device"), ==, id);
    qobject_unref(event);
}

void ivshmem_vm_unplug(IvshmemVM *vm, unsigned slot, const char *id)
{
    qtest_qmp_device_del_send(vm->qts, id);
    ivshmem_vm_eject(vm, slot);
    ivshmem_vm_wait_deleted(vm, id);
    g_assert_false(ivshmem_vm_present(vm, slot));
}

/* Doorbell devices */

static void vm_plug_doorbell(IvshmemVM *vm, unsigned slot, unsigned vectors,
                             const char *props, QIvshmem *d)
{
    g_autofree char *id = g_strdup_printf("iv%u", slot);

    ivshmem_vm_plug(vm, slot, id, "ivshmem-doorbell", "\"chardev\": \"chr%u\","
                    " \"vectors\": %u%s%s", slot, vectors,
                    props ? ", " : "", props ?: "");
    ivshmem_vm_probe(vm, slot, d);
}

void ivshmem_vm_join_script(IvshmemVM *vm, unsigned slot, IvshmemScript *s,
                            uint16_t id, unsigned vectors, const char *props,
                            QIvshmem *d)
{
    g_autofree char *chardev = g_strdup_printf("chr%u", slot);

    ivshmem_vm_chardev_add(vm, chardev, s->path);
    ivshmem_script_accept(s);
    ivshmem_script_hello(s, id, MIN(vectors, VM_UNREAD_MESSAGES));
    vm_plug_doorbell(vm, slot, vectors, props, d);
    ivshmem_script_send_own(s, vectors - s->vectors);
}

uint16_t ivshmem_vm_join_group(IvshmemVM *vm, unsigned slot,
                               IvshmemGroup *group, unsigned vectors,
                               const char *props, QIvshmem *d)
{
    g_autofree char *chardev = g_strdup_printf("chr%u", slot);

    ivshmem_vm_chardev_add(vm, chardev, ivshmem_group_path(group));
    vm_plug_doorbell(vm, slot, vectors, props, d);
    return qivshmem_read(d, IVSHMEM_REG_IV_POSITION);
}

void ivshmem_vm_leave(IvshmemVM *vm, unsigned slot)
{
    g_autofree char *id = g_strdup_printf("iv%u", slot);
    g_autofree char *chardev = g_strdup_printf("chr%u", slot);

    ivshmem_vm_unplug(vm, slot, id);
    ivshmem_vm_chardev_remove(vm, chardev);
}

/* Backends */

void ivshmem_vm_chardev_add(IvshmemVM *vm, const char *id, const char *path)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'chardev-add', 'arguments':"
        " {'id': %s, 'backend': {'type': 'socket', 'data': {'server': false,"
        " 'addr': {'type': 'unix', 'data': {'path': %s}}}}}}", id, path);
}

void ivshmem_vm_chardev_remove(IvshmemVM *vm, const char *id)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'chardev-remove',"
                             " 'arguments': {'id': %s}}", id);
}

void ivshmem_vm_memory_add(IvshmemVM *vm, const char *id, uint64_t size,
                           bool share)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'object-add', 'arguments':"
        " {'qom-type': 'memory-backend-ram', 'id': %s, 'size': %" PRIu64 ","
        " 'share': %i}}", id, size, share);
}

void ivshmem_vm_object_del(IvshmemVM *vm, const char *id)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'object-del',"
                             " 'arguments': {'id': %s}}", id);
}

/* What QEMU tells */

static QDict *vm_get(IvshmemVM *vm, const char *id, const char *name)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    QDict *response = qtest_qmp(vm->qts, "{'execute': 'qom-get', 'arguments':"
                                " {'path': %s, 'property': %s}}", path, name);

    g_assert_true(qdict_haskey(response, "return"));
    return response;
}

uint64_t ivshmem_vm_get_int(IvshmemVM *vm, const char *id, const char *name)
{
    QDict *response = vm_get(vm, id, name);
    uint64_t value = qdict_get_int(response, "return");

    qobject_unref(response);
    return value;
}

bool ivshmem_vm_connected(IvshmemVM *vm, const char *id)
{
    QDict *response = vm_get(vm, id, "connected");
    bool value = qdict_get_bool(response, "return");

    qobject_unref(response);
    return value;
}

int ivshmem_vm_peer_vectors(IvshmemVM *vm, const char *id, unsigned peer)
{
    QDict *response = vm_get(vm, id, "peers");
    QListEntry *entry;
    int vectors = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_get_int(info, "id") == peer) {
            g_assert_cmpint(vectors, ==, -1);
            vectors = qdict_get_int(info, "vectors");
        }
    }
    qobject_unref(response);
    return vectors;
}

unsigned ivshmem_vm_peers(IvshmemVM *vm, const char *id)
{
    QDict *response = vm_get(vm, id, "peers");
    unsigned n = qlist_size(qdict_get_qlist(response, "return"));

    qobject_unref(response);
    return n;
}

/* A device_add that fails waits until all that RCU has put off is done. */
static void vm_drain(const IvshmemVM *vm)
{
    QDict *error = qtest_qmp_assert_failure_ref(vm->qts,
        "{'execute': 'device_add', 'arguments': {'driver': 'ivshmem-plain'}}");

    qobject_unref(error);
}

unsigned ivshmem_vm_fds(const IvshmemVM *vm)
{
    vm_drain(vm);
    return vm_count(vm, "fd", NULL);
}

/*
 * A device's own thread leaves some time after it; the one that frees stuck
 * rings stays.
 */
unsigned ivshmem_vm_fds_left(const IvshmemVM *vm)
{
    IVSHMEM_WAIT(vm_count(vm, "task", NULL) <= vm->threads + 1);
    return ivshmem_vm_fds(vm);
}

unsigned ivshmem_vm_fds_without(IvshmemVM *vm, IvshmemScript *s)
{
    QIvshmem d;

    ivshmem_vm_join_script(vm, 0, s, 1, 2, NULL, &d);
    ivshmem_vm_leave(vm, 0);
    return ivshmem_vm_fds_left(vm);
}

void ivshmem_vm_wait_fds(const IvshmemVM *vm, unsigned n)
{
    gint64 end = g_get_monotonic_time() +
                 IVSHMEM_TEST_DEADLINE_S * G_USEC_PER_SEC;
    unsigned fds;

    while ((fds = ivshmem_vm_fds(vm)) != n) {
        if (g_get_monotonic_time() >= end) {
            vm_count(vm, "fd", vm_show_fd);
            g_assert_cmpuint(fds, ==, n);
        }
    }
}

void ivshmem_vm_wait_interrupt(QIvshmem *d, unsigned vector)
{
    IVSHMEM_WAIT(qivshmem_msix_take(d, vector));
}

/*
 * Every command is served by one turn of the main loop, which serves all that
 * is ready.  What is ready before the first command has been served before the
 * second is answered.
 */
void ivshmem_vm_settle(IvshmemVM *vm)
{
    for (int i = 0; i < 3; i++) {
        qtest_readb(vm->qts, 0);
    }
}
