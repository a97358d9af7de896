/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Tiny guest: a firmware image of our own that drives one ivshmem device at a
 * time, interrupts included, by commands on COM1. It needs no operating system
 * and only plain instructions, so it runs where a software KVM boots nothing
 * else. Not responsible for what a test expects: it does and counts, no more.
 *
 * Memory map (flat 32-bit; mem.c reaches beyond 4 GiB)
 *   00010000  code, variables    00090000  stacks, 4 KiB per processor, downward
 *   c0000000  BARs (pci.c)
 *   fec00000  I/O APIC           fed00000  HPET        fee00000  local APIC
 *   ffff0000  the image, seen at 000f0000 as well; it copies itself to RAM
 *
 * Interrupt vectors ("ivec", 30h..efh) are counted each for itself; which
 * MSI-X entry raises which ivec is for the test to say.
 *
 * Protocol: one line in, one line out; "ready 1" after every start. Words are
 * separated by one space, numbers are hexadecimal. Answers are "ok [N..]" or
 * "err WHY". SPACE is a BAR number, or: a absolute memory, c the device's
 * configuration, d I/O ports, f configuration of any function, ADDR =
 * bus/device/function << 8 | offset. "!" ends a wait, which then answers with
 * the count so far; at other times it does nothing.
 *
 *   scan HIGH               number of devices; HIGH=1: 64-bit BARs beyond 4 GiB
 *   use N                   choose device N: bdf, vectors, MSI-X capability,
 *                           BAR0, BAR1, BAR2, size of BAR2
 *   r8|r16|r32 SPACE ADDR   read              w8|.. SPACE ADDR VALUE   write
 *   w32s SPACE ADDR VALUE N write N times
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
 */
#include "tiny.h"
#include "x86.h"

#define DOORBELL        0x0c
#define MAX_ARGS        5
#define NO_OFFSET       0xffffffffu

enum { SPACE_MEM = 0xa, SPACE_CFG = 0xc, SPACE_IO = 0xd, SPACE_FN = 0xf };

static char line[256];
static PciDev *dev;
static uint32_t n_devs;

static bool fail(const char *why)
{
    put_str("err ");
    put_str(why);
    return false;
}

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

static bool do_write(const uint64_t *a, int width, uint32_t times)
{
    uint64_t addr = a[1];
    uint16_t port;

    if (!locate(a[0], &addr, &port)) {
        return false;
    }
    while (times--) {
        if (!port) {
            mem_write(addr, width, a[2]);
        } else if (width == 8) {
            out8(port, a[2]);
        } else if (width == 16) {
            out16(port, a[2]);
        } else {
            out32(port, a[2]);
        }
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
    return do_write(a, 8, 1);
}

static bool cmd_w16(const uint64_t *a)
{
    return do_write(a, 16, 1);
}

static bool cmd_w32(const uint64_t *a)
{
    return do_write(a, 32, 1);
}

static bool cmd_w32s(const uint64_t *a)
{
    return do_write(a, 32, a[3]);
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
    uint64_t ticks[MAX_CPUS];
    uint32_t i;

    if (a[0] < 1 || a[0] > MAX_CPUS || !ring_together(a[0], a[1], a[2], ticks)) {
        return fail("not that many processors");
    }
    put_str("ok");
    for (i = 0; i < a[0]; i++) {
        put_num(ticks[i]);
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

        mmio_w32(doorbell, a[1]);
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
    { "w32s", 4, false, cmd_w32s },
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
        while (!serial_has_byte()) {
            idle();
        }
        c = serial_byte();
        if (c == '!') {                 /* came too late to end a wait */
            continue;
        }
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
