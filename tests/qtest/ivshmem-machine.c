/*
 * What the machines differ in on which the ivshmem tests run: where their
 * buses and memory are, how devices are plugged and ejected, and where MSI-X
 * messages end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "libqos/generic-pcihost.h"
#include "libqos/malloc-spapr.h"
#include "libqos/pci-pc.h"
#include "libqos/pci-spapr.h"
#include "qobject/qdict.h"
#include "ivshmem-machine.h"

/* pc and q35: ACPI PCI hot-plug, docs/specs/acpi_pci_hotplug.rst */
#define PC_HOTPLUG 0xae00
#define Q35_HOTPLUG 0x0cc0
#define ACPI_HOTPLUG_EJECT 0x08
#define ACPI_HOTPLUG_BUS 0x10

static QPCIBus *pc_bus_new(IvshmemVM *vm)
{
    return qpci_new_pc(vm->qts, NULL);
}

static unsigned q35_hotplug_bus(IvshmemVM *vm, unsigned slot)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/port%u/port%u",
                                            slot, slot);
    QDict *response = qtest_qmp(vm->qts, "{'execute': 'qom-get', 'arguments':"
                                " {'path': %s, 'property':"
                                " 'acpi-pcihp-bsel'}}", path);
    unsigned bus = qdict_get_int(response, "return");

    qobject_unref(response);
    return bus;
}

static void pc_eject(IvshmemVM *vm, unsigned slot)
{
    unsigned device = ivshmem_vm_devfn(vm, slot) >> 3;

    qtest_outl(vm->qts, PC_HOTPLUG + ACPI_HOTPLUG_BUS, 0);
    qtest_outl(vm->qts, PC_HOTPLUG + ACPI_HOTPLUG_EJECT, 1u << device);
}

static void q35_eject(IvshmemVM *vm, unsigned slot)
{
    qtest_outl(vm->qts, Q35_HOTPLUG + ACPI_HOTPLUG_BUS,
               q35_hotplug_bus(vm, slot));
    qtest_outl(vm->qts, Q35_HOTPLUG + ACPI_HOTPLUG_EJECT, 1);
}

/* Generic PCI Express hosts, with the hot-plug of PCI Express itself */

#define MICROVM_ECAM 0xe0000000u
#define VIRT_ECAM 0x4010000000ull

static QPCIBus *generic_bus_new(IvshmemVM *vm, uint64_t ecam)
{
    QGenericPCIBus *host = g_new0(QGenericPCIBus, 1);

    qpci_init_generic(host, vm->qts, NULL, true);
    host->ecam_alloc_ptr = ecam;
    return &host->bus;
}

static QPCIBus *microvm_bus_new(IvshmemVM *vm)
{
    return generic_bus_new(vm, MICROVM_ECAM);
}

static QPCIBus *virt_bus_new(IvshmemVM *vm)
{
    return generic_bus_new(vm, VIRT_ECAM);
}

static void generic_bus_free(QPCIBus *bus)
{
    g_free(container_of(bus, QGenericPCIBus, bus));
}

static void pcie_slot_control(IvshmemVM *vm, unsigned slot, uint16_t value)
{
    QPCIDevice port = ivshmem_vm_root_port(vm, slot);
    uint8_t cap = qpci_find_capability(&port, PCI_CAP_ID_EXP, 0);

    qpci_config_writew(&port, cap + PCI_EXP_SLTCTL, value);
}

static void pcie_accept(IvshmemVM *vm, unsigned slot)
{
    pcie_slot_control(vm, slot, PCI_EXP_SLTCTL_PWR_IND_ON);
}

static void pcie_eject(IvshmemVM *vm, unsigned slot)
{
    pcie_slot_control(vm, slot, PCI_EXP_SLTCTL_PWR_IND_OFF |
                                PCI_EXP_SLTCTL_PWR_OFF);
}

/* pseries: the guest does it all by calls of the firmware, RTAS */

#define SPAPR_CPU_OFFSET (1ull << 45)
#define SPAPR_MSI_WINDOW (1ull << 42)
#define SPAPR_DRC_PCI (4u << 28)
#define RTAS_ISOLATION_STATE 9001
#define RTAS_ISOLATED 0
#define RTAS_UNISOLATED 1
#define RTAS_WORK_AREA 4096
#define RTAS_CHANGE_MSIX 4

/* XIVE's pages of each interrupt: the second one is for management. */
#define XIVE_ESB(irq) (0x0006010000010000ull + ((uint64_t)(irq) << 17))
#define XIVE_SET_PQ_10 0xe00
#define XIVE_PQ_QUEUED 3

typedef struct SpaprBus {
    QGuestAllocator alloc;
    QPCIBusSPAPR host;
} SpaprBus;

static SpaprBus *spapr_bus(QPCIBus *bus)
{
    return container_of(bus, SpaprBus, host.bus);
}

static QPCIBus *spapr_bus_new(IvshmemVM *vm)
{
    SpaprBus *s = g_new0(SpaprBus, 1);

    spapr_alloc_init(&s->alloc, vm->qts, 0);
    qpci_init_spapr(&s->host, vm->qts, &s->alloc);
    return &s->host.bus;
}

static void spapr_bus_free(QPCIBus *bus)
{
    alloc_destroy(&spapr_bus(bus)->alloc);
    g_free(spapr_bus(bus));
}

/* The call's status: 0 is success. */
static uint32_t spapr_rtas(QPCIBus *bus, const char *name, uint32_t nargs,
                           const uint32_t *args, uint32_t nret)
{
    QGuestAllocator *alloc = &spapr_bus(bus)->alloc;
    uint64_t in = guest_alloc(alloc, 4 * nargs);
    uint64_t out = guest_alloc(alloc, 4 * nret);
    uint32_t status;

    for (unsigned i = 0; i < nargs; i++) {
        qtest_writel(bus->qts, in + 4 * i, args[i]);
    }
    g_assert_cmpuint(qtest_rtas_call(bus->qts, name, nargs, in, nret, out),
                     ==, 0);
    status = qtest_readl(bus->qts, out);
    guest_free(alloc, out);
    guest_free(alloc, in);
    return status;
}

static uint32_t spapr_drc(IvshmemVM *vm, unsigned slot)
{
    return SPAPR_DRC_PCI | ivshmem_vm_devfn(vm, slot);
}

static uint32_t spapr_isolation(IvshmemVM *vm, unsigned slot, uint32_t state)
{
    uint32_t args[] = { RTAS_ISOLATION_STATE, spapr_drc(vm, slot), state };

    return spapr_rtas(vm->bus[slot], "set-indicator", ARRAY_SIZE(args), args,
                      1);
}

/*
 * The guest reads the device's part of the device tree, one item with each
 * call; after that QEMU asks before it unplugs the device.
 */
static void spapr_accept(IvshmemVM *vm, unsigned slot)
{
    QPCIBus *bus = vm->bus[slot];
    QGuestAllocator *alloc = &spapr_bus(bus)->alloc;
    uint64_t area = guest_alloc(alloc, RTAS_WORK_AREA);
    uint32_t args[] = { area, area >> 32 };
    int32_t status = spapr_isolation(vm, slot, RTAS_UNISOLATED);

    if (status == 0) {      /* there is a device */
        qtest_writel(bus->qts, area, spapr_drc(vm, slot));
        qtest_writel(bus->qts, area + 4, 0);
        do {
            status = spapr_rtas(bus, "ibm,configure-connector",
                                ARRAY_SIZE(args), args, 1);
            g_assert_cmpint(status, >=, 0);
        } while (status > 0);
    }
    guest_free(alloc, area);
}

static uint32_t spapr_change_msi(QPCIBus *bus, int devfn, unsigned vectors)
{
    uint64_t buid = spapr_bus(bus)->host.buid;
    uint32_t args[] = { devfn << 8, buid >> 32, buid, RTAS_CHANGE_MSIX,
                        vectors, 1 };

    return spapr_rtas(bus, "ibm,change-msi", ARRAY_SIZE(args), args, 4);
}

/* The guest gives the interrupts back first, if the device has any. */
static void spapr_eject(IvshmemVM *vm, unsigned slot)
{
    spapr_change_msi(vm->bus[slot], ivshmem_vm_devfn(vm, slot), 0);
    g_assert_cmphex(spapr_isolation(vm, slot, RTAS_ISOLATED), ==, 0);
}

/*
 * Each interrupt is kept pending from the start, so that XIVE delivers none,
 * and queues the next one, where it can be seen.
 */
static bool spapr_take(QIvshmem *d, unsigned vector)
{
    return qtest_readq(d->dev.bus->qts, XIVE_ESB(d->messages + vector) +
                       XIVE_SET_PQ_10) == XIVE_PQ_QUEUED;
}

static void spapr_message(QIvshmem *d, unsigned vector, uint64_t *address,
                          uint32_t *data)
{
    *address = SPAPR_MSI_WINDOW;
    *data = d->messages + vector;
    spapr_take(d, vector);
}

/*
 * The firmware writes the messages; the tests do so again, later.  It gives
 * new ones before it takes the old ones back.
 */
static bool spapr_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n)
{
    static const QIvshmemSink sink = { spapr_message, spapr_take };

    if (spapr_change_msi(d->dev.bus, d->dev.devfn, d->vectors)) {
        return false;
    }
    d->sink = &sink;
    qivshmem_msix_init(d, qpci_io_readl(&d->dev, d->msix, PCI_MSIX_ENTRY_DATA));
    return true;
}

/* The machines */

static const IvshmemMachine machines[] = {
    {
        .name = "pc", .type = "pc", .options = "-M pc -m 16M",
        .unplugs_at_reset = true, .window = 0xe0000000,
        .bus_new = pc_bus_new, .bus_free = qpci_free_pc,
        .eject = pc_eject,
    }, {
        .name = "q35", .type = "q35", .options = "-M q35 -m 16M",
        .pcie = true, .unplugs_at_reset = true, .window = 0xe0000000,
        .bus_new = pc_bus_new, .bus_free = qpci_free_pc,
        .eject = q35_eject,
    }, {
        .name = "microvm", .type = "microvm",
        .options = "-M microvm,pcie=on -m 16M",
        .pcie = true, .window = 0xc0000000,
        .bus_new = microvm_bus_new, .bus_free = generic_bus_free,
        .accept = pcie_accept, .eject = pcie_eject,
    }, {
        .name = "virt-gicv2m", .type = "virt",
        .options = "-M virt,gic-version=2 -m 16M",
        .pcie = true, .ram = 0x40000000, .window = 0x10000000,
        .bus_new = virt_bus_new, .bus_free = generic_bus_free,
        .accept = pcie_accept, .eject = pcie_eject,
        .aim = ivshmem_gicv2m_aim,
    }, {
        .name = "virt-its", .type = "virt",
        .options = "-M virt,gic-version=3,its=on -m 16M",
        .pcie = true, .ram = 0x40000000, .window = 0x10000000,
        .bus_new = virt_bus_new, .bus_free = generic_bus_free,
        .start = ivshmem_its_start,
        .accept = pcie_accept, .eject = pcie_eject,
        .aim = ivshmem_its_aim,
    }, {
        .name = "pseries", .type = "pseries",
        .options = "-M pseries,ic-mode=xive -m 256M",
        .unplugs_at_reset = true, .window = 0x80000000,
        .cpu_offset = SPAPR_CPU_OFFSET,
        .bus_new = spapr_bus_new, .bus_free = spapr_bus_free,
        .accept = spapr_accept, .eject = spapr_eject,
        .aim = spapr_aim,
    },
};

const IvshmemMachine *ivshmem_machine_get(unsigned n)
{
    return n < ARRAY_SIZE(machines) ? &machines[n] : NULL;
}

const IvshmemMachine *ivshmem_machine_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
        if (g_str_equal(machines[i].name, name)) {
            return &machines[i];
        }
    }
    g_assert_not_reached();
}
