/*
 * libqos driver for ivshmem-plain and ivshmem-doorbell.
 *
 * Not responsible for servers: a test that wants ivshmem-doorbell brings the
 * chardev "ivshmem0" along.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "../libqtest.h"
#include "ivshmem.h"

#define QIVSHMEM_MESSAGE_MAGIC 0x49560000u

void qivshmem_init(QIvshmem *d, QPCIBus *bus, int devfn)
{
    QPCIAddress address = {
        .devfn = devfn,
        .vendor_id = IVSHMEM_PCI_VENDOR_ID,
        .device_id = IVSHMEM_PCI_DEVICE_ID,
    };

    qpci_device_init(&d->dev, bus, &address);
    d->regs = qpci_iomap(&d->dev, IVSHMEM_BAR_REGS, NULL);
    d->shm = qpci_iomap(&d->dev, IVSHMEM_BAR_SHM, &d->shm_size);
    d->vectors = 0;
    d->messages = 0;
    d->sink = NULL;
    if (qpci_config_readw(&d->dev, PCI_STATUS) & PCI_STATUS_CAP_LIST &&
        qpci_find_capability(&d->dev, PCI_CAP_ID_MSIX, 0)) {
        d->vectors = qpci_msix_table_size(&d->dev);
        d->msix = qpci_iomap(&d->dev, IVSHMEM_BAR_MSIX, NULL);
    }
    qpci_device_enable(&d->dev);
}

static void qivshmem_set_bar(QIvshmem *d, int bar, QPCIBar place)
{
    qpci_config_writel(&d->dev, PCI_BASE_ADDRESS_0 + 4 * bar, place.addr);
}

void qivshmem_remap(QIvshmem *d)
{
    qivshmem_set_bar(d, IVSHMEM_BAR_REGS, d->regs);
    qivshmem_set_bar(d, IVSHMEM_BAR_SHM, d->shm);
    if (d->vectors) {
        qivshmem_set_bar(d, IVSHMEM_BAR_MSIX, d->msix);
    }
    qpci_device_enable(&d->dev);
}

uint32_t qivshmem_read(QIvshmem *d, unsigned offset)
{
    return qpci_io_readl(&d->dev, d->regs, offset);
}

void qivshmem_write(QIvshmem *d, unsigned offset, uint32_t value)
{
    qpci_io_writel(&d->dev, d->regs, offset, value);
}

void qivshmem_ring(QIvshmem *d, uint16_t peer, uint16_t vector)
{
    qivshmem_write(d, IVSHMEM_REG_DOORBELL,
                   ivshmem_doorbell_value(peer, vector));
}

/* MSI-X */

static uint8_t qivshmem_msix_cap(QIvshmem *d)
{
    return qpci_find_capability(&d->dev, PCI_CAP_ID_MSIX, 0);
}

static uint64_t qivshmem_msix_entry(QIvshmem *d, unsigned vector)
{
    uint32_t table = qpci_config_readl(&d->dev,
                                       qivshmem_msix_cap(d) + PCI_MSIX_TABLE);

    g_assert_cmpuint(vector, <, d->vectors);
    g_assert_cmphex(table & PCI_MSIX_FLAGS_BIRMASK, ==, IVSHMEM_BAR_MSIX);
    return (table & ~PCI_MSIX_FLAGS_BIRMASK) + vector * PCI_MSIX_ENTRY_SIZE;
}

static void qivshmem_msix_flag(QIvshmem *d, uint16_t flag, bool set)
{
    uint8_t offset = qivshmem_msix_cap(d) + PCI_MSIX_FLAGS;
    uint16_t flags = qpci_config_readw(&d->dev, offset);

    qpci_config_writew(&d->dev, offset, set ? flags | flag : flags & ~flag);
}

void qivshmem_msix_enable(QIvshmem *d, bool enable)
{
    qivshmem_msix_flag(d, PCI_MSIX_FLAGS_ENABLE, enable);
}

void qivshmem_msix_mask_all(QIvshmem *d, bool mask)
{
    qivshmem_msix_flag(d, PCI_MSIX_FLAGS_MASKALL, mask);
}

void qivshmem_msix_mask(QIvshmem *d, unsigned vector, bool mask)
{
    qpci_io_writel(&d->dev, d->msix,
                   qivshmem_msix_entry(d, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL,
                   mask ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
}

bool qivshmem_msix_is_masked(QIvshmem *d, unsigned vector)
{
    return qpci_io_readl(&d->dev, d->msix, qivshmem_msix_entry(d, vector) +
                         PCI_MSIX_ENTRY_VECTOR_CTRL) &
           PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

bool qivshmem_msix_pending(QIvshmem *d, unsigned vector)
{
    uint32_t pba = qpci_config_readl(&d->dev,
                                     qivshmem_msix_cap(d) + PCI_MSIX_PBA);

    g_assert_cmphex(pba & PCI_MSIX_FLAGS_BIRMASK, ==, IVSHMEM_BAR_MSIX);
    pba = (pba & ~PCI_MSIX_FLAGS_BIRMASK) + vector / 32 * 4;
    return qpci_io_readl(&d->dev, d->msix, pba) >> vector % 32 & 1;
}

static void qivshmem_memory_message(QIvshmem *d, unsigned vector,
                                    uint64_t *address, uint32_t *data)
{
    *address = d->messages + 4 * vector;
    *data = QIVSHMEM_MESSAGE_MAGIC | vector;
}

static bool qivshmem_memory_take(QIvshmem *d, unsigned vector)
{
    QTestState *qts = d->dev.bus->qts;
    uint64_t address = d->messages + 4 * vector;
    uint32_t found = 0;

    qtest_memread(qts, address, &found, sizeof(found));
    if (!found) {
        return false;
    }
    g_assert_cmphex(le32_to_cpu(found), ==, QIVSHMEM_MESSAGE_MAGIC | vector);
    qtest_memset(qts, address, 0, sizeof(found));
    return true;
}

static const QIvshmemSink qivshmem_memory = {
    .message = qivshmem_memory_message,
    .take = qivshmem_memory_take,
};

static void qivshmem_msix_set(QIvshmem *d, unsigned vector, uint64_t address,
                              uint32_t data)
{
    uint64_t entry = qivshmem_msix_entry(d, vector);

    qpci_io_writel(&d->dev, d->msix, entry + PCI_MSIX_ENTRY_LOWER_ADDR,
                   address);
    qpci_io_writel(&d->dev, d->msix, entry + PCI_MSIX_ENTRY_UPPER_ADDR,
                   address >> 32);
    qpci_io_writel(&d->dev, d->msix, entry + PCI_MSIX_ENTRY_DATA, data);
}

void qivshmem_msix_clear(QIvshmem *d, unsigned vector)
{
    qivshmem_msix_set(d, vector, 0, 0);
}

void qivshmem_msix_init(QIvshmem *d, uint64_t first)
{
    d->messages = first;
    d->sink = d->sink ?: &qivshmem_memory;
    for (unsigned i = 0; i < d->vectors; i++) {
        uint64_t address;
        uint32_t data;

        d->sink->message(d, i, &address, &data);
        qivshmem_msix_mask(d, i, true);
        qivshmem_msix_set(d, i, address, data);
        d->sink->take(d, i);
    }
}

bool qivshmem_msix_take(QIvshmem *d, unsigned vector)
{
    return d->sink->take(d, vector);
}

/* qgraph */

static void *qivshmem_get_driver(void *obj, const char *interface)
{
    QIvshmem *d = obj;

    if (!g_strcmp0(interface, "pci-device")) {
        return &d->dev;
    }
    if (!g_strcmp0(interface, "ivshmem-plain") ||
        !g_strcmp0(interface, "ivshmem-doorbell")) {
        return d;
    }
    fprintf(stderr, "%s not present in ivshmem\n", interface);
    g_assert_not_reached();
}

static void *qivshmem_create(void *bus, QGuestAllocator *alloc, void *address)
{
    QIvshmem *d = g_new0(QIvshmem, 1);

    qivshmem_init(d, bus, ((QPCIAddress *)address)->devfn);
    d->obj.get_driver = qivshmem_get_driver;
    return &d->obj;
}

static void qivshmem_register_nodes(void)
{
    QPCIAddress address = {
        .devfn = QPCI_DEVFN(4, 0),
        .vendor_id = IVSHMEM_PCI_VENDOR_ID,
        .device_id = IVSHMEM_PCI_DEVICE_ID,
    };
    QOSGraphEdgeOptions plain = {
        .before_cmd_line = "-object memory-backend-ram,id=ivshmem-memory,"
                           "size=1M,share=on",
        .extra_device_opts = "addr=04.0,memdev=ivshmem-memory",
    };
    QOSGraphEdgeOptions doorbell = {
        .extra_device_opts = "addr=04.0,chardev=ivshmem0,vectors=4",
    };

    add_qpci_address(&plain, &address);
    qos_node_create_driver("ivshmem-plain", qivshmem_create);
    qos_node_produces("ivshmem-plain", "pci-device");
    qos_node_consumes("ivshmem-plain", "pci-bus", &plain);

    add_qpci_address(&doorbell, &address);
    qos_node_create_driver("ivshmem-doorbell", qivshmem_create);
    qos_node_consumes("ivshmem-doorbell", "pci-bus", &doorbell);
}

libqos_init(qivshmem_register_nodes);
