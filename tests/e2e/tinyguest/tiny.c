/*
 * Tiny guest: a firmware image of our own that drives one ivshmem device at a
 * time, interrupts included, by commands on COM1. It needs no operating system
 * and only plain instructions, so it runs where a software KVM boots nothing
 * else. Not responsible for what a test expects: it does and counts, no more.
 *
 * Memory map (flat 32-bit; mem.c reaches beyond 4 GiB)
 *   00010000  variables          00090000  stacks, 4 KiB per processor, downward
 *   c0000000  BARs (pci.c)
 *   fec00000  I/O APIC           fed00000  HPET        fee00000  local APIC
 *   ffff0000  this image, seen at 000f0000 as well
 *
 * Interrupt vectors ("ivec", 30h..efh) are counted each for itself; which
 * MSI-X entry raises which ivec is for the test to say.
 *
 * Protocol: one line in, one line out; "ready 1" after every start. Words are
 * separated by one space, numbers are hexadecimal. Answers are "ok [N..]" or
 * "err WHY". SPACE is a BAR number, or: a absolute memory, c the device's
 * configuration, d I/O ports, f configuration of any function, ADDR =
 * bus/device/function << 8 | offset. A wait ends early, with the count so
 * far, when any byte arrives (the byte is eaten).
 *
 *   scan HIGH               number of devices; HIGH=1: 64-bit BARs beyond 4 GiB
 *   use N                   choose device N: bdf, vectors, MSI-X capability,
 *                           BAR0, BAR1, BAR2, size of BAR2
 *   r8|r16|r32 SPACE ADDR   read              w8|.. SPACE ADDR VALUE   write
 *   msix ENABLE FMASK       MSI-X enable and function mask
 *   entry V ADDR DATA CTRL  write one table entry, with it masked meanwhile
 *   fill V N IVEC CTRL      entries V..V+N-1 to this processor, at ivecs that
 *                           count up from IVEC and wrap within 30h..efh
 *   mask V CTRL             write the vector control of one entry
 *   pba V                   its pending bit
 *   count IVEC              interrupts since start or clear
 *   clear                   all counts to 0
 *   total                   sum of all counts
 *   wait IVEC N SPIN        until count >= N; halted, or busy with SPIN=1
 *   ring BELL N             write N times to the doorbell; TSC ticks it took
 *   mring CPUS BELL N       the same on CPUS processors at once; ticks of each
 *   echo IVEC BELL ON       answer every interrupt on IVEC with BELL
 *   pingpong IVEC BELL N OFF SPIN
 *                           N times: ring, wait for IVEC; round trips done and
 *                           ticks in all; each one as 32 bits in BAR2 from OFF
 *                           on (OFF=ffffffff: not kept)
 *   time                    TSC, HPET counter, HPET period in femtoseconds
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

#define COM1            0x3f8
#define DOORBELL        0x0c
#define MAX_CPUS        8
#define MAX_ARGS        5
#define NO_OFFSET       0xffffffffu

enum { SPACE_MEM = 0xa, SPACE_CFG = 0xc, SPACE_IO = 0xd, SPACE_FN = 0xf };

extern const uint8_t isr_stubs[256][ISR_STUB_SIZE];

static uint64_t idt[256];
volatile uint32_t counts[256];
volatile uint32_t echo_on[256];
volatile uint32_t echo_bell[256];
volatile uint32_t doorbell;

static bool has_apic;
static volatile uint8_t rx[256];
static volatile uint8_t rx_head, rx_tail;
static char line[256];

static PciDev *dev;
static uint32_t n_devs;

static struct {
    volatile uint32_t online, go, done;
    uint32_t bell, n;
    uint64_t ticks[MAX_CPUS];
} job;

/* ---- Answers ---- */

static void put_char(char c)
{
    while (!(in8(COM1 + 5) & 0x20)) {
        cpu_relax();
    }
    out8(COM1, c);
}

static void put_str(const char *s)
{
    while (*s) {
        put_char(*s++);
    }
}

static void put_num(uint64_t v)
{
    int shift = 60;

    while (shift && !(v >> shift)) {
        shift -= 4;
    }
    put_char(' ');
    for (; shift >= 0; shift -= 4) {
        put_char("0123456789abcdef"[v >> shift & 15]);
    }
}

static bool fail(const char *why)
{
    put_str("err ");
    put_str(why);
    return false;
}

/* ---- Interrupts ---- */

static void ring(uint32_t bell)
{
    mmio_w32(doorbell, bell);
}

static void serial_drain(void)
{
    while (in8(COM1 + 5) & 1) {
        rx[rx_head++] = in8(COM1);
    }
}

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
static void idle(void)
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
    if (rx_head == rx_tail) {
        return false;
    }
    rx_tail++;
    return true;
}

static bool await(uint32_t ivec, uint32_t n, bool spin)
{
    while ((int32_t)(counts[ivec] - n) < 0) {
        if (interrupted()) {
            return false;
        }
        if (spin) {
            cpu_take_interrupts();
        } else {
            idle();
        }
    }
    return true;
}

/* ---- Machine ---- */

static void machine_init(void)
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
    out8(COM1 + 3, 3);                          /* 8n1 */
    out8(COM1 + 2, 1);                          /* FIFO on, a byte is enough */
    out8(COM1 + 4, 0xb);
    out8(COM1 + 1, 1);
    serial_drain();
}

static uint64_t ring_many(uint32_t bell, uint32_t n)
{
    uint64_t start = rdtsc();

    while (n--) {
        ring(bell);
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

/* ---- Commands: each has its arguments in a[], and answers ---- */

static void dev_choose(PciDev *d)
{
    dev = d;
    doorbell = d ? d->bar[0] + DOORBELL : 0;
}

static bool cmd_scan(const uint64_t *a)
{
    n_devs = pci_scan(a[0]);
    dev_choose(n_devs ? &pci_devs[0] : 0);
    put_str("ok");
    put_num(n_devs);
    return true;
}

static bool cmd_use(const uint64_t *a)
{
    if (a[0] >= n_devs) {
        return fail("no such device, scan first");
    }
    dev_choose(&pci_devs[a[0]]);
    put_str("ok");
    put_num(dev->bdf);
    put_num(dev->vectors);
    put_num(dev->msix_cap);
    put_num(dev->bar[0]);
    put_num(dev->bar[1]);
    put_num(dev->bar[2]);
    put_num(dev->size[2]);
    return true;
}

/*
 * Where an access goes: *addr becomes a memory address, or else *port an I/O
 * port, through which configuration space is reached as well.
 */
static bool locate(uint32_t space, uint64_t *addr, uint16_t *port)
{
    *port = 0;
    if ((space < 6 || space == SPACE_CFG) && !dev) {
        return fail("no device, scan first");
    }
    switch (space) {
    case SPACE_MEM:
        return true;
    case SPACE_IO:
        *port = *addr;
        return true;
    case SPACE_CFG:
        out32(0xcf8, pci_addr(dev->bdf, *addr));
        *port = 0xcfc + (*addr & 3);
        return true;
    case SPACE_FN:
        out32(0xcf8, pci_addr(*addr >> 8, *addr & 0xff));
        *port = 0xcfc + (*addr & 3);
        return true;
    default:
        if (space > 5 || !dev->size[space]) {
            return fail("no such space");
        }
        *addr += dev->bar[space];
        return true;
    }
}

static bool do_read(const uint64_t *a, int width)
{
    uint64_t addr = a[1];
    uint16_t port;
    uint32_t v;

    if (!locate(a[0], &addr, &port)) {
        return false;
    }
    if (!port) {
        v = mem_read(addr, width);
    } else if (width == 8) {
        v = in8(port);
    } else if (width == 16) {
        v = in16(port);
    } else {
        v = in32(port);
    }
    put_str("ok");
    put_num(v);
    return true;
}

static bool do_write(const uint64_t *a, int width)
{
    uint64_t addr = a[1];
    uint16_t port;

    if (!locate(a[0], &addr, &port)) {
        return false;
    }
    if (!port) {
        mem_write(addr, width, a[2]);
    } else if (width == 8) {
        out8(port, a[2]);
    } else if (width == 16) {
        out16(port, a[2]);
    } else {
        out32(port, a[2]);
    }
    put_str("ok");
    return true;
}

static bool cmd_r8(const uint64_t *a)
{
    return do_read(a, 8);
}

static bool cmd_r16(const uint64_t *a)
{
    return do_read(a, 16);
}

static bool cmd_r32(const uint64_t *a)
{
    return do_read(a, 32);
}

static bool cmd_w8(const uint64_t *a)
{
    return do_write(a, 8);
}

static bool cmd_w16(const uint64_t *a)
{
    return do_write(a, 16);
}

static bool cmd_w32(const uint64_t *a)
{
    return do_write(a, 32);
}

static bool cmd_msix(const uint64_t *a)
{
    if (!dev->msix_cap) {
        return fail("no MSI-X");
    }
    pci_w16(dev->bdf, dev->msix_cap + 2, (a[0] & 1) << 15 | (a[1] & 1) << 14);
    put_str("ok");
    return true;
}

enum { ENTRY_ADDR = 0, ENTRY_ADDR_HIGH = 4, ENTRY_DATA = 8, ENTRY_CTRL = 12 };

static void entry_set(uint32_t v, uint32_t field, uint32_t val)
{
    mmio_lone_w32(dev->table + 16 * v + field, val);
}

static bool check_vectors(uint64_t first, uint64_t n)
{
    return first + n <= dev->vectors || fail("no such vector");
}

static void entry_write(uint32_t v, uint64_t addr, uint32_t data, uint32_t ctrl)
{
    entry_set(v, ENTRY_CTRL, 1);
    entry_set(v, ENTRY_ADDR, addr);
    entry_set(v, ENTRY_ADDR_HIGH, addr >> 32);
    entry_set(v, ENTRY_DATA, data);
    if (!(ctrl & 1)) {
        entry_set(v, ENTRY_CTRL, ctrl);
    }
}

static bool cmd_entry(const uint64_t *a)
{
    if (!check_vectors(a[0], 1)) {
        return false;
    }
    entry_write(a[0], a[1], a[2], a[3]);
    put_str("ok");
    return true;
}

static bool cmd_fill(const uint64_t *a)
{
    uint32_t ivec = a[2], i;

    if (!check_vectors(a[0], a[1])) {
        return false;
    }
    for (i = 0; i < a[1]; i++) {
        entry_write(a[0] + i, LAPIC, ivec, a[3]);
        ivec = ivec + 1 < IVEC_END ? ivec + 1 : IVEC_FIRST;
    }
    put_str("ok");
    return true;
}

static bool cmd_mask(const uint64_t *a)
{
    if (!check_vectors(a[0], 1)) {
        return false;
    }
    entry_set(a[0], ENTRY_CTRL, a[1]);
    put_str("ok");
    return true;
}

static bool cmd_pba(const uint64_t *a)
{
    if (!check_vectors(a[0], 1)) {
        return false;
    }
    put_str("ok");
    put_num(mmio_lone_r32(dev->pba + (uint32_t)a[0] / 32 * 4) >> (a[0] & 31) & 1);
    return true;
}

static bool cmd_count(const uint64_t *a)
{
    put_str("ok");
    put_num(counts[(uint8_t)a[0]]);
    return true;
}

static bool cmd_clear(const uint64_t *a)
{
    uint32_t i;

    (void)a;
    for (i = 0; i < 256; i++) {
        counts[i] = 0;
    }
    put_str("ok");
    return true;
}

static bool cmd_total(const uint64_t *a)
{
    uint32_t i, sum = 0;

    (void)a;
    for (i = 0; i < 256; i++) {
        sum += counts[i];
    }
    put_str("ok");
    put_num(sum);
    return true;
}

static bool cmd_wait(const uint64_t *a)
{
    await((uint8_t)a[0], a[1], a[2]);
    put_str("ok");
    put_num(counts[(uint8_t)a[0]]);
    return true;
}

static bool cmd_ring(const uint64_t *a)
{
    uint64_t ticks = ring_many(a[0], a[1]);

    put_str("ok");
    put_num(ticks);
    return true;
}

static bool cmd_mring(const uint64_t *a)
{
    uint32_t cpus = a[0], i;

    if (cpus < 1 || cpus > MAX_CPUS || !cpus_start(cpus)) {
        return fail("not that many processors");
    }
    job.bell = a[1];
    job.n = a[2];
    job.done = 0;
    job.go = cpus << 8 | ((job.go + 1) & 0xff);
    job.ticks[0] = ring_many(job.bell, job.n);
    while (job.done + 1 < cpus) {
        cpu_relax();
    }
    put_str("ok");
    for (i = 0; i < cpus; i++) {
        put_num(job.ticks[i]);
    }
    return true;
}

static bool cmd_echo(const uint64_t *a)
{
    echo_bell[(uint8_t)a[0]] = a[1];
    echo_on[(uint8_t)a[0]] = a[2];
    put_str("ok");
    return true;
}

static bool cmd_pingpong(const uint64_t *a)
{
    uint32_t ivec = (uint8_t)a[0], i;
    uint64_t start = rdtsc(), before = start, now;

    for (i = 0; i < a[2]; i++) {
        uint32_t next = counts[ivec] + 1;

        ring(a[1]);
        if (!await(ivec, next, a[4])) {
            break;
        }
        now = rdtsc();
        if (a[3] != NO_OFFSET) {
            mem_write(dev->bar[2] + a[3] + 4 * i, 32, now - before);
        }
        before = now;
    }
    put_str("ok");
    put_num(i);
    put_num(before - start);
    return true;
}

static bool cmd_time(const uint64_t *a)
{
    (void)a;
    put_str("ok");
    put_num(rdtsc());
    put_num(mmio_r32(HPET + 0xf0));
    put_num(mmio_r32(HPET + 4));
    return true;
}

typedef struct Command {
    const char *name;
    uint8_t args;
    bool needs_device;
    bool (*run)(const uint64_t *a);
} Command;

static const Command commands[] = {
    { "scan", 1, false, cmd_scan },
    { "use", 1, false, cmd_use },
    { "r8", 2, false, cmd_r8 },
    { "r16", 2, false, cmd_r16 },
    { "r32", 2, false, cmd_r32 },
    { "w8", 3, false, cmd_w8 },
    { "w16", 3, false, cmd_w16 },
    { "w32", 3, false, cmd_w32 },
    { "msix", 2, true, cmd_msix },
    { "entry", 4, true, cmd_entry },
    { "fill", 4, true, cmd_fill },
    { "mask", 2, true, cmd_mask },
    { "pba", 1, true, cmd_pba },
    { "count", 1, false, cmd_count },
    { "clear", 0, false, cmd_clear },
    { "total", 0, false, cmd_total },
    { "wait", 3, false, cmd_wait },
    { "ring", 2, true, cmd_ring },
    { "mring", 3, true, cmd_mring },
    { "echo", 3, true, cmd_echo },
    { "pingpong", 5, true, cmd_pingpong },
    { "time", 0, false, cmd_time },
};

/* ---- Command line ---- */

static void line_read(void)
{
    uint32_t n = 0;
    char c;

    for (;;) {
        while (rx_head == rx_tail) {
            idle();
        }
        c = rx[rx_tail++];
        if (c == '\n') {
            line[n] = 0;
            return;
        }
        if (n < sizeof(line) - 1) {
            line[n++] = c;
        }
    }
}

/* The word at the cursor is NAME: steps over it. */
static bool word_is(const char **cursor, const char *name)
{
    const char *p = *cursor;

    while (*name && *p == *name) {
        p++;
        name++;
    }
    if (*name || (*p && *p != ' ')) {
        return false;
    }
    *cursor = p;
    return true;
}

static bool parse_number(const char **cursor, uint64_t *value)
{
    const char *p = *cursor;
    uint64_t v = 0;
    uint32_t digit;

    if (*p++ != ' ' || !*p) {
        return false;
    }
    for (; *p && *p != ' '; p++) {
        digit = *p >= 'a' ? *p - 'a' + 10u : *p - '0' + 0u;
        if (digit > 15) {
            return false;
        }
        v = v << 4 | digit;
    }
    *cursor = p;
    *value = v;
    return true;
}

static bool line_run(void)
{
    uint64_t args[MAX_ARGS] = { 0 };
    const char *cursor = line;
    const Command *c;
    uint32_t i, n;

    for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        c = &commands[i];
        if (!word_is(&cursor, c->name)) {
            continue;
        }
        for (n = 0; n < c->args; n++) {
            if (!parse_number(&cursor, &args[n])) {
                return fail("too few numbers");
            }
        }
        if (c->needs_device && !dev) {
            return fail("no device, scan first");
        }
        return c->run(args);
    }
    return fail("no such command");
}

void tiny_main(void)
{
    machine_init();
    put_str("ready 1\n");
    for (;;) {
        line_read();
        cpu_let_interrupts_in();
        line_run();
        put_char('\n');
    }
}
