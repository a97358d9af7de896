/*
 * Tiny guest: one access to physical memory, at any address. Below 4 GiB an
 * address is a pointer; beyond, paging goes on for that single access. Not
 * responsible for what lies where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

#define PAGE_2M         0x200000u
#define TABLE           0x3             /* present, writable */
#define LARGE           0xe3            /* and accessed, dirty, 2 MiB */
#define WINDOW          0x40000000u

/*
 * Two pages are all that is needed meanwhile: RAM with code, variables and
 * stack, and the window. Their entries are never removed.
 */
static uint64_t pml4[512] __attribute__((aligned(4096), section(".tables")));
static uint64_t pdpt[512] __attribute__((aligned(4096), section(".tables")));
static uint64_t pd[2][512] __attribute__((aligned(4096), section(".tables")));

static void *mem_window(uint64_t addr)
{
    pml4[0] = (uint32_t)pdpt | TABLE;
    pdpt[0] = (uint32_t)pd[0] | TABLE;
    pdpt[WINDOW >> 30] = (uint32_t)pd[1] | TABLE;
    pd[0][0] = LARGE;
    pd[1][0] = (addr & ~(uint64_t)(PAGE_2M - 1)) | LARGE;
    return (void *)(WINDOW | ((uint32_t)addr & (PAGE_2M - 1)));
}

static uint32_t mem_load(const volatile void *p, int width)
{
    switch (width) {
    case 8:
        return *(const volatile uint8_t *)p;
    case 16:
        return *(const volatile uint16_t *)p;
    default:
        return *(const volatile uint32_t *)p;
    }
}

static void mem_store(volatile void *p, int width, uint32_t val)
{
    switch (width) {
    case 8:
        *(volatile uint8_t *)p = val;
        break;
    case 16:
        *(volatile uint16_t *)p = val;
        break;
    default:
        *(volatile uint32_t *)p = val;
        break;
    }
}

uint32_t mem_read(uint64_t addr, int width)
{
    uint32_t val;
    void *p;

    if (!(addr >> 32)) {
        return mem_load((void *)(uint32_t)addr, width);
    }
    p = mem_window(addr);
    cpu_paging_on((uint32_t)pml4);
    val = mem_load(p, width);
    cpu_paging_off();
    return val;
}

void mem_write(uint64_t addr, int width, uint32_t val)
{
    void *p;

    if (!(addr >> 32)) {
        mem_store((void *)(uint32_t)addr, width, val);
        return;
    }
    p = mem_window(addr);
    cpu_paging_on((uint32_t)pml4);
    mem_store(p, width, val);
    cpu_paging_off();
}
