/*
 * Tiny guest: interrupts, idling, other processors and ringing. Not responsible
 * for commands (tiny.c) nor for the devices' set-up (pci.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

extern const uint8_t isr_stubs[256][ISR_STUB_SIZE];

static uint64_t idt[256];
volatile uint32_t counts[256];
volatile uint32_t echo_on[256];
volatile uint32_t echo_bell[256];
volatile uint32_t doorbell;

static bool has_apic;

static struct {
    volatile uint32_t online, go, done;
    uint32_t bell, n;
    uint64_t ticks[MAX_CPUS];
} job;

void tiny_isr(uint32_t vector, const uint32_t *frame)
{
    if (vector == IVEC_SERIAL) {
        serial_drain();
        return;
    }
    put_str("err fault");
    put_num(vector);
    put_num(frame[0]);
    put_num(frame[1]);
    put_char('\n');
    for (;;) {
        asm volatile("cli; hlt");
    }
}

static void idt_load(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint32_t)idt };

    cpu_load_idt(&idtr);
}

static void idt_fill(void)
{
    uint32_t v, a;

    for (v = 0; v < 256; v++) {
        a = (uint32_t)isr_stubs[v];
        idt[v] = (uint64_t)((a & 0xffff0000u) | 0x8e00) << 32 |
                 (8 << 16 | (a & 0xffff));
    }
}

/* Without a local APIC (KVM with kernel-irqchip=off) nothing can interrupt. */
void idle(void)
{
    if (has_apic) {
        cpu_wait_interrupt();
    } else {
        serial_drain();
    }
}

/* Whether the test has sent a byte meanwhile, which ends a wait: eats it. */
static bool interrupted(void)
{
    if (!serial_has_byte()) {
        return false;
    }
    serial_byte();
    return true;
}

bool await(uint32_t ivec, uint32_t n, bool spin)
{
    while ((int32_t)(counts[ivec] - n) < 0) {
        if (interrupted()) {
            return false;
        }
        if (spin) {
            cpu_let_interrupts_in();
        } else {
            idle();
        }
    }
    return true;
}

void machine_init(void)
{
    out8(0x21, 0xff);                           /* no interrupts by the 8259s */
    out8(0xa1, 0xff);
    idt_fill();
    idt_load();
    has_apic = cpu_has_apic();
    if (has_apic) {
        mmio_w32(LAPIC + LAPIC_SPURIOUS, 0x1ff);
    }
    mmio_w32(IOAPIC, 0x11 + 2 * 4);             /* COM1: IRQ 4, edge, to CPU 0 */
    mmio_w32(IOAPIC + 0x10, 0);
    mmio_w32(IOAPIC, 0x10 + 2 * 4);
    mmio_w32(IOAPIC + 0x10, IVEC_SERIAL);
    mmio_w32(HPET + 0x10, mmio_r32(HPET + 0x10) | 1);
    serial_init();
}

uint64_t ring_many(uint32_t bell, uint32_t n)
{
    uint64_t start = rdtsc();

    while (n--) {
        mmio_w32(doorbell, bell);
    }
    return rdtsc() - start;
}

/* The other processors take no interrupts: they ring when told to. */
void tiny_ap_main(uint32_t id)
{
    uint32_t seen = 0;

    __atomic_fetch_add(&job.online, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        while (job.go == seen) {
            cpu_relax();
        }
        seen = job.go;
        if (id < MAX_CPUS && (seen >> 8) > id) {
            job.ticks[id] = ring_many(job.bell, job.n);
            __atomic_fetch_add(&job.done, 1, __ATOMIC_SEQ_CST);
        }
    }
}

/*
 * INIT, then start-up IPIs with vector F0h, to all but this processor: again
 * and again, since one that comes before INIT has been obeyed is lost.
 */
static bool cpus_start(uint32_t cpus)
{
    uint32_t spins;

    if (cpus < 2 || job.online) {
        return job.online + 1 >= cpus;
    }
    mmio_lone_w32(LAPIC + LAPIC_ICR_LOW, 0xc4500);
    while (job.online + 1 < cpus) {
        mmio_lone_w32(LAPIC + LAPIC_ICR_LOW, 0xc46f0);
        for (spins = 0; spins < 1000 && job.online + 1 < cpus; spins++) {
            cpu_relax();
        }
        cpu_let_interrupts_in();
        if (interrupted()) {
            return false;
        }
    }
    return true;
}

bool ring_together(uint32_t cpus, uint32_t bell, uint32_t n, uint64_t *ticks)
{
    uint32_t i;

    if (!cpus_start(cpus)) {
        return false;
    }
    job.bell = bell;
    job.n = n;
    job.done = 0;
    job.go = cpus << 8 | ((job.go + 1) & 0xff);
    job.ticks[0] = ring_many(bell, n);
    while (job.done + 1 < cpus) {
        cpu_relax();
    }
    for (i = 0; i < cpus; i++) {
        ticks[i] = job.ticks[i];
    }
    return true;
}
