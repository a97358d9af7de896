/*
 * Arm's interrupt controllers, as far as the ivshmem tests need them: messages
 * become pending interrupts, by way of a GICv2m or of a GICv3 and its ITS.  No
 * processor takes them; tests look for them in the controller.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "ivshmem-machine.h"

/* GICv2m: its frame turns a number written there into an SPI of the GIC. */

#define GICD_BASE 0x08000000
#define GICD_ISPENDR 0x200
#define GICD_ICPENDR 0x280
#define GICD_ICFGR 0xc00
#define V2M_SETSPI (0x08020000 + 0x40)
#define V2M_FIRST_SPI 80
#define V2M_VECTORS 8           /* its 64 go round for three places, twice */

static void gicv2m_message(QIvshmem *d, unsigned vector, uint64_t *address,
                           uint32_t *data)
{
    *address = V2M_SETSPI;
    *data = d->messages + vector;
}

static bool gicv2m_take(QIvshmem *d, unsigned vector)
{
    QTestState *qts = d->dev.bus->qts;
    unsigned spi = d->messages + vector;
    uint32_t bit = 1u << spi % 32;

    if (!(qtest_readl(qts, GICD_BASE + GICD_ISPENDR + spi / 32 * 4) & bit)) {
        return false;
    }
    qtest_writel(qts, GICD_BASE + GICD_ICPENDR + spi / 32 * 4, bit);
    return true;
}

bool ivshmem_gicv2m_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n)
{
    static const QIvshmemSink sink = { gicv2m_message, gicv2m_take };

    if (d->vectors > V2M_VECTORS) {
        return false;
    }
    /* Messages are edges. */
    for (unsigned spi = V2M_FIRST_SPI; spi < V2M_FIRST_SPI + 64; spi += 16) {
        qtest_writel(vm->qts, GICD_BASE + GICD_ICFGR + spi / 4, 0xaaaaaaaa);
    }
    d->sink = &sink;
    qivshmem_msix_init(d, V2M_FIRST_SPI + (2 * slot + n) * V2M_VECTORS);
    return true;
}

/*
 * ITS: commands in a ring in memory say which event of which device becomes
 * which LPI; a table in memory has a bit for each pending one.
 */

#define ITS_BASE 0x08080000
#define ITS_CTLR 0x00
#define ITS_CBASER 0x80
#define ITS_CWRITER 0x88
#define ITS_CREADR 0x90
#define ITS_BASER_DEVICES 0x100
#define ITS_BASER_COLLECTIONS 0x108
#define ITS_TRANSLATER 0x10040
#define ITS_VALID (1ull << 63)
#define ITS_PAGES_64K (2u << 8)
#define ITS_MAPD 0x08
#define ITS_MAPC 0x09
#define ITS_MAPTI 0x0a
#define ITS_COMMANDS_SIZE 0x10000
#define ITS_EVENT_BITS 6
#define ITS_VECTORS (1u << ITS_EVENT_BITS)

#define GICR_BASE 0x080a0000
#define GICR_CTLR 0x00
#define GICR_PROPBASER 0x70
#define GICR_PENDBASER 0x78
#define LPI_FIRST 8192
#define LPI_STEP 8              /* each has a byte of its own */
#define LPI_BITS 16

/* In RAM, where nothing else of the tests is */
#define ITS_RAM 0x40800000
#define ITS_PROPERTIES (ITS_RAM + 0x00000)
#define ITS_PENDING (ITS_RAM + 0x10000)
#define ITS_DEVICES (ITS_RAM + 0x20000)
#define ITS_COLLECTIONS (ITS_RAM + 0x30000)
#define ITS_COMMANDS (ITS_RAM + 0x40000)
#define ITS_EVENTS (ITS_RAM + 0x50000)
#define ITS_EVENTS_SIZE 0x1000

static void its_write(QTestState *qts, unsigned offset, uint64_t value)
{
    qtest_writeq(qts, ITS_BASE + offset, value);
}

static void its_command(QTestState *qts, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t at = qtest_readq(qts, ITS_BASE + ITS_CWRITER);
    uint64_t next = (at + 32) % ITS_COMMANDS_SIZE;

    qtest_writeq(qts, ITS_COMMANDS + at, a);
    qtest_writeq(qts, ITS_COMMANDS + at + 8, b);
    qtest_writeq(qts, ITS_COMMANDS + at + 16, c);
    its_write(qts, ITS_CWRITER, next);
    g_assert_cmphex(qtest_readq(qts, ITS_BASE + ITS_CREADR), ==, next);
}

/* One collection, 0, at the only processor */
void ivshmem_its_start(IvshmemVM *vm)
{
    QTestState *qts = vm->qts;

    qtest_memset(qts, ITS_RAM, 0, ITS_COMMANDS - ITS_RAM);
    qtest_writeq(qts, GICR_BASE + GICR_PROPBASER, ITS_PROPERTIES |
                                                  (LPI_BITS - 1));
    qtest_writeq(qts, GICR_BASE + GICR_PENDBASER, ITS_PENDING);
    qtest_writel(qts, GICR_BASE + GICR_CTLR, 1);
    its_write(qts, ITS_BASER_DEVICES, ITS_VALID | ITS_DEVICES | ITS_PAGES_64K);
    its_write(qts, ITS_BASER_COLLECTIONS,
              ITS_VALID | ITS_COLLECTIONS | ITS_PAGES_64K);
    its_write(qts, ITS_CBASER, ITS_VALID | ITS_COMMANDS |
                               (ITS_COMMANDS_SIZE / 4096 - 1));
    its_write(qts, ITS_CWRITER, 0);
    qtest_writel(qts, ITS_BASE + ITS_CTLR, 1);
    its_command(qts, ITS_MAPC, 0, ITS_VALID);
}

static void its_message(QIvshmem *d, unsigned vector, uint64_t *address,
                        uint32_t *data)
{
    uint64_t device = (uint64_t)d->dev.devfn << 32;
    uint64_t lpi = d->messages + vector * LPI_STEP;

    its_command(d->dev.bus->qts, ITS_MAPTI | device, vector | lpi << 32, 0);
    *address = ITS_BASE + ITS_TRANSLATER;
    *data = vector;
}

static bool its_take(QIvshmem *d, unsigned vector)
{
    QTestState *qts = d->dev.bus->qts;
    uint64_t pending = ITS_PENDING + d->messages / 8 + vector;

    if (!qtest_readb(qts, pending)) {
        return false;
    }
    qtest_writeb(qts, pending, 0);
    return true;
}

bool ivshmem_its_aim(IvshmemVM *vm, unsigned slot, QIvshmem *d, unsigned n)
{
    static const QIvshmemSink sink = { its_message, its_take };
    unsigned place = 2 * slot + n;

    if (d->vectors > ITS_VECTORS) {
        return false;
    }
    its_command(vm->qts, ITS_MAPD | (uint64_t)d->dev.devfn << 32,
                ITS_EVENT_BITS - 1,
                ITS_VALID | (ITS_EVENTS + place * ITS_EVENTS_SIZE));
    d->sink = &sink;
    qivshmem_msix_init(d, LPI_FIRST + place * ITS_VECTORS * LPI_STEP);
    return true;
}
