/*
 * Tiny guest: the machine's fixed addresses and the instructions that C lacks.
 * Assembly includes the first part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TINY_X86_H
#define TINY_X86_H

#define IOAPIC          0xfec00000
#define HPET            0xfed00000
#define LAPIC           0xfee00000
#define LAPIC_ID        0x20
#define LAPIC_EOI       0xb0
#define LAPIC_SPURIOUS  0xf0
#define LAPIC_ICR_LOW   0x300

#define IVEC_SERIAL     0x20
#define IVEC_FIRST      0x30    /* for MSI-X entries: from here */
#define IVEC_END        0xf0    /* up to here, exclusive */
#define ISR_STUB_SIZE   64

#ifndef __ASSEMBLER__

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

/*
 * The guest runs with interrupts shut but for these two: the software KVM
 * that asks for mmio_lone_r32() below was seen to lose register contents where
 * an interrupt comes between any two instructions.
 */
static inline void cpu_wait_interrupt(void)
{
    asm volatile("sti; hlt; cli" : : : "memory");
}

/* The port access is where a KVM that interprets in batches looks for them. */
static inline void cpu_let_interrupts_in(void)
{
    uint8_t v;

    asm volatile("sti; inb $0x80, %0; cli" : "=a"(v) : : "memory");
}

static inline void cpu_relax(void)
{
    asm volatile("pause" : : : "memory");
}

static inline bool cpu_has_apic(void)
{
    uint32_t a = 1, b, c, d;

    asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return d & 1 << 9;
}

static inline void cpu_load_idt(const void *idtr)
{
    asm volatile("lidt (%0)" : : "r"(idtr) : "memory");
}

/*
 * Long mode's page tables, but the code stays 32-bit (compatibility mode).
 * Interrupts are shut: they would want a 64-bit IDT.
 */
static inline void cpu_paging_on(uint32_t pml4)
{
    uint32_t r;

    asm volatile("movl %%cr4, %0; orl $0x20, %0; movl %0, %%cr4\n\t"
                 "movl %1, %%cr3\n\t"
                 "movl $0xc0000080, %%ecx; movl $0x100, %%eax; xorl %%edx, %%edx\n\t"
                 "wrmsr\n\t"
                 "movl %%cr0, %0; orl $0x80000000, %0; movl %0, %%cr0"
                 : "=&r"(r) : "r"(pml4) : "eax", "ecx", "edx", "memory");
}

static inline void cpu_paging_off(void)
{
    uint32_t r;

    asm volatile("movl %%cr0, %0; andl $0x7fffffff, %0; movl %0, %%cr0\n\t"
                 "movl $0xc0000080, %%ecx; xorl %%eax, %%eax; xorl %%edx, %%edx\n\t"
                 "wrmsr"
                 : "=&r"(r) : : "eax", "ecx", "edx", "memory");
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

/*
 * The same with a port access before it. A software KVM was seen to interpret
 * instructions in batches and, for the second and later accesses of a batch to
 * a page of device memory, to lose bits 12 to 15 of the address. A port access
 * ends the batch; pages at multiples of 64 KiB do not need it.
 */
static inline uint32_t mmio_lone_r32(uint32_t a)
{
    in8(0x80);
    return mmio_r32(a);
}

static inline void mmio_lone_w32(uint32_t a, uint32_t v)
{
    in8(0x80);
    mmio_w32(a, v);
}

#endif /* __ASSEMBLER__ */
#endif
