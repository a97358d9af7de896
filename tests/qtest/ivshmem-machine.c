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
#include "libqos/pci-pc.h"
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
