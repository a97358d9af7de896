/*
 * Checks of one ivshmem device, whatever machine and server it has: identity,
 * registers at every offset and width, memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "ivshmem-test.h"

/* Identity */

static uint32_t check_bar_mask(QIvshmem *d, int bar)
{
    uint8_t offset = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint32_t old = qpci_config_readl(&d->dev, offset);
    uint32_t mask;

    qpci_config_writel(&d->dev, offset, 0xffffffff);
    mask = qpci_config_readl(&d->dev, offset);
    qpci_config_writel(&d->dev, offset, old);
    return mask;
}

static void check_msix_layout(QIvshmem *d)
{
    uint32_t table = d->vectors * PCI_MSIX_ENTRY_SIZE;
    uint32_t pba = MAX(0x800, table);
    uint32_t size = MAX(0x1000, pow2ceil(pba + DIV_ROUND_UP(d->vectors, 64) *
                                         8));

    g_assert_cmphex(qpci_config_readb(&d->dev, PCI_CAPABILITY_LIST), ==, 0x40);
    g_assert_cmphex(qpci_find_capability(&d->dev, PCI_CAP_ID_MSIX, 0), ==,
                    0x40);
    g_assert_cmphex(qpci_config_readb(&d->dev, 0x40 + PCI_CAP_LIST_NEXT), ==,
                    0);
    g_assert_cmphex(qpci_config_readl(&d->dev, 0x40 + PCI_MSIX_TABLE), ==,
                    IVSHMEM_BAR_MSIX);
    g_assert_cmphex(qpci_config_readl(&d->dev, 0x40 + PCI_MSIX_PBA), ==,
                    pba | IVSHMEM_BAR_MSIX);
    g_assert_cmphex(check_bar_mask(d, IVSHMEM_BAR_MSIX), ==, -size);
}

void ivshmem_check_identity(QIvshmem *d)
{
    QPCIDevice *dev = &d->dev;

    g_assert_cmphex(qpci_config_readw(dev, PCI_VENDOR_ID), ==, 0x1af4);
    g_assert_cmphex(qpci_config_readw(dev, PCI_DEVICE_ID), ==, 0x1110);
    g_assert_cmphex(qpci_config_readw(dev, PCI_SUBSYSTEM_VENDOR_ID), ==,
                    0x1af4);
    g_assert_cmphex(qpci_config_readw(dev, PCI_SUBSYSTEM_ID), ==,
                    0x1100);
    g_assert_cmphex(qpci_config_readb(dev, PCI_REVISION_ID), ==, 1);
    g_assert_cmphex(qpci_config_readb(dev, PCI_CLASS_PROG), ==, 0);
    g_assert_cmphex(qpci_config_readw(dev, PCI_CLASS_DEVICE), ==, 0x0500);
    g_assert_cmphex(qpci_config_readb(dev, PCI_HEADER_TYPE), ==, 0);
    g_assert_cmphex(qpci_config_readb(dev, PCI_INTERRUPT_PIN), ==, 0);

    g_assert_cmphex(check_bar_mask(d, 0), ==, 0xffffff00);
    g_assert_cmphex(check_bar_mask(d, 2), ==, -(uint32_t)d->shm_size | 0xc);
    g_assert_cmphex(check_bar_mask(d, 3), ==, 0xffffffff);
    g_assert_cmphex(check_bar_mask(d, 4), ==, 0);
    g_assert_cmphex(check_bar_mask(d, 5), ==, 0);
    if (d->vectors) {
        check_msix_layout(d);
    } else {
        g_assert_cmphex(check_bar_mask(d, 1), ==, 0);
        g_assert_cmphex(qpci_config_readb(dev, PCI_CAPABILITY_LIST), ==, 0);
    }
}

/* Registers, one by one */

void ivshmem_check_registers(QIvshmem *d, uint16_t id)
{
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_MASK), ==, 0);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_STATUS), ==, 0);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_IV_POSITION), ==, id);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_DOORBELL), ==, 0);

    qivshmem_write(d, IVSHMEM_REG_INTR_MASK, 0xa5a5a5a5);
    qivshmem_write(d, IVSHMEM_REG_INTR_STATUS, 0x5a5a5a5a);
    qivshmem_write(d, IVSHMEM_REG_IV_POSITION, 0xffffffff);
    qivshmem_write(d, IVSHMEM_REG_DOORBELL, 0xffffffff);
    for (int i = 16; i < IVSHMEM_REG_BAR_SIZE; i += 4) {
        qivshmem_write(d, i, 0xffffffff);
    }

    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_MASK), ==, 0xa5a5a5a5);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_STATUS), ==, 0x5a5a5a5a);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_INTR_STATUS), ==, 0);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_IV_POSITION), ==, id);
    g_assert_cmphex(qivshmem_read(d, IVSHMEM_REG_DOORBELL), ==, 0);
    for (int i = 16; i < IVSHMEM_REG_BAR_SIZE; i += 4) {
        g_assert_cmphex(qivshmem_read(d, i), ==, 0);
    }
    qivshmem_write(d, IVSHMEM_REG_INTR_MASK, 0);
}

/* Registers at every offset and width, against a model */

typedef struct RegisterModel {
    uint32_t mask;
    uint32_t status;
    uint16_t id;
} RegisterModel;

/* Accesses are cut into aligned pieces of at most 4 bytes. */
static unsigned model_piece(unsigned offset, unsigned left)
{
    unsigned aligned = offset & -offset;

    return MIN(pow2floor(left), aligned ? MIN(aligned, 4) : 4);
}

/* A register is read where it starts, and elsewhere reads give 0. */
static uint32_t model_read_piece(RegisterModel *m, unsigned offset)
{
    uint32_t value;

    switch (offset) {
    case IVSHMEM_REG_INTR_MASK:
        return m->mask;
    case IVSHMEM_REG_INTR_STATUS:
        value = m->status;
        m->status = 0;
        return value;
    case IVSHMEM_REG_IV_POSITION:
        return m->id;
    default:
        return 0;
    }
}

static uint64_t model_read(RegisterModel *m, unsigned offset, unsigned width)
{
    uint64_t value = 0;

    for (unsigned done = 0, size; done < width; done += size) {
        size = model_piece(offset + done, width - done);
        value |= (uint64_t)extract64(model_read_piece(m, offset + done), 0,
                                     8 * size) << (8 * done);
    }
    return value;
}

/* A piece is written to the register it lies in, all of it. */
static void model_write(RegisterModel *m, unsigned offset, unsigned width,
                        uint64_t value)
{
    for (unsigned done = 0, size; done < width; done += size) {
        uint32_t piece;

        size = model_piece(offset + done, width - done);
        piece = extract64(value, 8 * done, 8 * size);
        switch ((offset + done) & ~3u) {
        case IVSHMEM_REG_INTR_MASK:
            m->mask = piece;
            break;
        case IVSHMEM_REG_INTR_STATUS:
            m->status = piece;
            break;
        }
    }
}

static uint64_t device_read(QIvshmem *d, unsigned offset, unsigned width)
{
    switch (width) {
    case 1:
        return qpci_io_readb(&d->dev, d->regs, offset);
    case 2:
        return qpci_io_readw(&d->dev, d->regs, offset);
    case 4:
        return qpci_io_readl(&d->dev, d->regs, offset);
    default:
        return qpci_io_readq(&d->dev, d->regs, offset);
    }
}

static void device_write(QIvshmem *d, unsigned offset, unsigned width,
                         uint64_t value)
{
    switch (width) {
    case 1:
        qpci_io_writeb(&d->dev, d->regs, offset, value);
        break;
    case 2:
        qpci_io_writew(&d->dev, d->regs, offset, value);
        break;
    case 4:
        qpci_io_writel(&d->dev, d->regs, offset, value);
        break;
    default:
        qpci_io_writeq(&d->dev, d->regs, offset, value);
        break;
    }
}

static void check_access(QIvshmem *d, RegisterModel *m, unsigned offset,
                         unsigned width, uint64_t value)
{
    device_write(d, offset, width, value);
    model_write(m, offset, width, value);
    g_assert_cmphex(device_read(d, offset, width), ==,
                    model_read(m, offset, width));
    g_assert_cmphex(device_read(d, IVSHMEM_REG_INTR_MASK, 4), ==, m->mask);
}

void ivshmem_check_accesses(QIvshmem *d, uint16_t id)
{
    RegisterModel m = { .id = id };

    device_write(d, IVSHMEM_REG_INTR_MASK, 8, 0);
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (unsigned i = 0; i + width <= IVSHMEM_REG_BAR_SIZE; i++) {
            check_access(d, &m, i, width, 0xf1e2d3c4b5a69788ull);
        }
    }
    for (int i = 0; i < 500; i++) {
        unsigned width = 1u << g_test_rand_int_range(0, 4);
        unsigned offset = g_test_rand_int_range(0, i % 2 ? 17 :
                                                IVSHMEM_REG_BAR_SIZE - 8);
        uint64_t value = (uint64_t)g_test_rand_int() << 32 |
                         (uint32_t)g_test_rand_int();

        if (g_test_rand_bit()) {
            check_access(d, &m, offset, width, value);
        } else {
            g_assert_cmphex(device_read(d, offset, width), ==,
                            model_read(&m, offset, width));
        }
    }
    device_write(d, IVSHMEM_REG_INTR_MASK, 8, 0);
}

/* Memory */

void ivshmem_check_memory(QIvshmem *d, uint64_t size)
{
    static const char words[] = "known at both ends";
    char found[sizeof(words)];

    g_assert_cmphex(d->shm_size, ==, size);
    qpci_memwrite(&d->dev, d->shm, 0, words, sizeof(words));
    qpci_memwrite(&d->dev, d->shm, size - sizeof(words), words, sizeof(words));
    qpci_memread(&d->dev, d->shm, 0, found, sizeof(found));
    g_assert_cmpstr(found, ==, words);
    qpci_memread(&d->dev, d->shm, size - sizeof(words), found, sizeof(found));
    g_assert_cmpstr(found, ==, words);
    qpci_io_writeq(&d->dev, d->shm, size / 2, 0x0123456789abcdefull);
    g_assert_cmphex(qpci_io_readb(&d->dev, d->shm, size / 2), ==, 0xef);
    g_assert_cmphex(qpci_io_readw(&d->dev, d->shm, size / 2 + 2), ==, 0x89ab);
    g_assert_cmphex(qpci_io_readl(&d->dev, d->shm, size / 2 + 4), ==,
                    0x01234567);
}
