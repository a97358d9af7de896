/*
 * Tiny guest: access to all physical memory. Below 4 GiB an address is a
 * pointer; beyond, one 2 MiB window of a page table set up on first use shows
 * it. Not responsible for what lies where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

#define PAGE_2M         0x200000u
#define PDE_FLAGS       0x83u           /* present, writable, 2 MiB */
#define WINDOW          0x40000000u     /* no RAM and no device of ours there */

static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pd[4][512] __attribute__((aligned(4096)));
static bool paging;

static void mem_paging_on(void)
{
    uint32_t i;

    for (i = 0; i < 4 * 512; i++) {
        pd[i / 512][i % 512] = (uint64_t)i * PAGE_2M | PDE_FLAGS;
    }
    for (i = 0; i < 4; i++) {
        pdpt[i] = (uint32_t)pd[i] | 1;
    }
    cpu_paging_on((uint32_t)pdpt);
    paging = true;
}

volatile void *mem_at(uint64_t addr)
{
    uint64_t *pde = &pd[WINDOW >> 30][0];
    uint64_t want = (addr & ~(uint64_t)(PAGE_2M - 1)) | PDE_FLAGS;

    if (!(addr >> 32)) {
        return (volatile void *)(uint32_t)addr;
    }
    if (!paging) {
        mem_paging_on();
    }
    if ((*pde & ~(uint64_t)0x60) != want) {     /* but for accessed, dirty */
        *(volatile uint64_t *)pde = want;
        cpu_flush_page(WINDOW);
    }
    return (volatile void *)(WINDOW | ((uint32_t)addr & (PAGE_2M - 1)));
}
