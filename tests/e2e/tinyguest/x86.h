/*
 * Tiny guest: the machine instructions it needs, and memory beyond 4 GiB.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TINY_X86_H
#define TINY_X86_H

#include <stdbool.h>
#include <stdint.h>

static inline void out8(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t v)
{
    asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t v)
{
    asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint16_t in16(uint16_t port)
{
    uint16_t v;
    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdtsc(void)
{
    uint64_t v;
    asm volatile("rdtsc" : "=A"(v));
    return v;
}

static inline void cpu_cli(void)
{
    asm volatile("cli" : : : "memory");
}

static inline void cpu_sti(void)
{
    asm volatile("sti" : : : "memory");
}

/* Interrupts stay shut until the halt has begun: no wake-up is lost. */
static inline void cpu_sti_hlt(void)
{
    asm volatile("sti; hlt" : : : "memory");
}

static inline void cpu_relax(void)
{
    asm volatile("pause" : : : "memory");
}

static inline void cpu_load_idt(const void *idtr)
{
    asm volatile("lidt (%0)" : : "r"(idtr) : "memory");
}

static inline void cpu_paging_on(uint32_t pdpt)
{
    uint32_t r;

    asm volatile("movl %%cr4, %0; orl $0x20, %0; movl %0, %%cr4\n\t"
                 "movl %1, %%cr3\n\t"
                 "movl %%cr0, %0; orl $0x80000000, %0; movl %0, %%cr0"
                 : "=&r"(r) : "r"(pdpt) : "memory");
}

static inline void cpu_flush_page(uint32_t a)
{
    asm volatile("invlpg (%0)" : : "r"(a) : "memory");
}

/* Device memory by physical address below 4 GiB; one plain mov each. */
static inline uint32_t mmio_r32(uint32_t a)
{
    uint32_t v;
    asm volatile("movl (%1), %0" : "=r"(v) : "r"(a) : "memory");
    return v;
}

static inline void mmio_w32(uint32_t a, uint32_t v)
{
    asm volatile("movl %0, (%1)" : : "r"(v), "r"(a) : "memory");
}

#endif
