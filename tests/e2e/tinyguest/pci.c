/*
 * Tiny guest: finds the ivshmem devices, gives them addresses and switches
 * memory and bus mastering on. Not responsible for what they are used for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

#define IVSHMEM_VENDOR_DEVICE   0x11101af4u
#define CAP_MSIX                0x11

/*
 * A window is a pool of addresses: below 4 GiB, and beyond for what does not
 * fit or is wanted there. Bus 0 has one, each bridge has one.
 */
typedef struct Window {
    uint64_t low, low_end, high;
} Window;

#define BRIDGE_LOW(i)   (0xc0000000u + (i) * 0x04000000u)
#define BRIDGE_HIGH(i)  (((uint64_t)(i) + 1) << 36)
#define BRIDGE_MAX      6
#define ROOT_LOW        0xd8000000u
#define ROOT_LOW_END    0xf0000000u
#define ROOT_HIGH       ((uint64_t)1 << 39)

PciDev pci_devs[PCI_MAX_DEVS];

uint32_t pci_addr(uint32_t bdf, uint32_t off)
{
    return 0x80000000u | bdf << 8 | (off & 0xfc);
}

uint32_t pci_r32(uint32_t bdf, uint32_t off)
{
    out32(0xcf8, pci_addr(bdf, off));
    return in32(0xcfc);
}

void pci_w32(uint32_t bdf, uint32_t off, uint32_t val)
{
    out32(0xcf8, pci_addr(bdf, off));
    out32(0xcfc, val);
}

void pci_w16(uint32_t bdf, uint32_t off, uint16_t val)
{
    out32(0xcf8, pci_addr(bdf, off));
    out16(0xcfc + (off & 2), val);
}

/* Registers start on 64 KiB: x86.h, mmio_lone_r32() says why. */
static uint64_t pci_alloc(Window *w, uint64_t size, bool may_high, bool high)
{
    uint64_t addr;

    size = size < 0x10000 ? 0x10000 : size;
    addr = (w->low + size - 1) & ~(size - 1);

    if (may_high && (high || addr + size > w->low_end)) {
        addr = (w->high + size - 1) & ~(size - 1);
        w->high = addr + size;
    } else {
        w->low = addr + size;
    }
    return addr;
}

static void pci_assign_bars(PciDev *d, Window *w, bool high)
{
    uint32_t i, off, low;
    uint64_t size;
    bool wide;

    for (i = 0; i < 6; i++) {
        off = 0x10 + 4 * i;
        pci_w32(d->bdf, off, ~0u);
        low = pci_r32(d->bdf, off);
        wide = (low & 7) == 4;
        if (!low || (low & 1)) {
            continue;
        }
        size = (uint64_t)(low & ~15u) | (uint64_t)~0u << 32;
        if (wide) {
            pci_w32(d->bdf, off + 4, ~0u);
            size = (low & ~15u) | (uint64_t)pci_r32(d->bdf, off + 4) << 32;
        }
        size = ~size + 1;
        d->size[i] = size;
        d->bar[i] = pci_alloc(w, size, wide, high);
        pci_w32(d->bdf, off, d->bar[i]);
        if (wide) {
            pci_w32(d->bdf, off + 4, d->bar[i] >> 32);
            i++;
        }
    }
}

static void pci_find_msix(PciDev *d)
{
    uint32_t cap = pci_r32(d->bdf, 0x34) & 0xfc;
    uint32_t hops, dword;

    for (hops = 0; cap && hops < 48; hops++) {
        dword = pci_r32(d->bdf, cap);
        if ((dword & 0xff) == CAP_MSIX) {
            d->msix_cap = cap;
            d->vectors = (dword >> 16 & 0x7ff) + 1;
            dword = pci_r32(d->bdf, cap + 4);
            d->table = d->bar[dword & 7] + (dword & ~7u);
            dword = pci_r32(d->bdf, cap + 8);
            d->pba = d->bar[dword & 7] + (dword & ~7u);
            return;
        }
        cap = dword >> 8 & 0xfc;
    }
}

static void pci_setup_device(uint32_t bdf, PciDev *d, Window *w, bool high)
{
    *d = (PciDev) { .bdf = bdf };
    pci_w16(bdf, 4, 0);
    pci_assign_bars(d, w, high);
    pci_find_msix(d);
    pci_w16(bdf, 4, 6);                 /* memory, bus master */
}

static void pci_setup_bridge(uint32_t bdf, uint32_t n, Window *w)
{
    uint64_t high_end = BRIDGE_HIGH(n + 1) - 1;

    w->low = BRIDGE_LOW(n);
    w->low_end = BRIDGE_LOW(n + 1);
    w->high = BRIDGE_HIGH(n);
    pci_w32(bdf, 0x18, (n + 1) << 16 | (n + 1) << 8);
    pci_w32(bdf, 0x20, ((w->low_end - 1) & 0xfff00000) | w->low >> 16);
    pci_w32(bdf, 0x24, (high_end & 0xfff00000) | (w->high >> 16 & 0xfff0));
    pci_w32(bdf, 0x28, w->high >> 32);
    pci_w32(bdf, 0x2c, high_end >> 32);
    pci_w16(bdf, 4, 6);
}

/* One bus: devices get addresses; bridges (on bus 0 only) their window first. */
static uint32_t pci_scan_bus(uint32_t bus, Window *w, bool high, uint32_t found)
{
    uint32_t devfn, id, bdf, bridges = 0;
    Window below;

    for (devfn = 0; devfn < 256; devfn += bus ? 8 : 1) {
        bdf = bus << 8 | devfn;
        id = pci_r32(bdf, 0);
        if (id == ~0u) {
            continue;
        }
        if (id == IVSHMEM_VENDOR_DEVICE && found < PCI_MAX_DEVS) {
            pci_setup_device(bdf, &pci_devs[found++], w, high);
        } else if (!bus && bridges < BRIDGE_MAX &&
                   pci_r32(bdf, 8) >> 16 == 0x0604) {
            pci_setup_bridge(bdf, bridges++, &below);
            found = pci_scan_bus(bridges, &below, high, found);
        }
    }
    return found;
}

uint32_t pci_scan(bool high)
{
    Window w = { ROOT_LOW, ROOT_LOW_END, ROOT_HIGH };

    return pci_scan_bus(0, &w, high, 0);
}
