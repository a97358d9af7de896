/*
 * Tiny guest: what its C files and interrupt stubs share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TINY_H
#define TINY_H

#include <stdbool.h>
#include <stdint.h>

/* mem.c: width in bits */
uint32_t mem_read(uint64_t addr, int width);
void mem_write(uint64_t addr, int width, uint32_t val);

/* pci.c */
typedef struct PciDev {
    uint32_t bdf;
    uint64_t bar[6];
    uint64_t size[6];
    uint32_t msix_cap;          /* 0: none */
    uint32_t vectors;
    uint64_t table;
    uint64_t pba;
} PciDev;

#define PCI_MAX_DEVS 32
extern PciDev pci_devs[PCI_MAX_DEVS];

uint32_t pci_addr(uint32_t bdf, uint32_t off);
uint32_t pci_r32(uint32_t bdf, uint32_t off);
void pci_w32(uint32_t bdf, uint32_t off, uint32_t val);
void pci_w16(uint32_t bdf, uint32_t off, uint16_t val);
uint32_t pci_scan(bool high);

/* serial.c: the line to the test */
void serial_init(void);
void serial_drain(void);
bool serial_has_byte(void);
uint8_t serial_byte(void);
void put_char(char c);
void put_str(const char *s);
void put_num(uint64_t v);

/* machine.c */
#define MAX_CPUS 8

void machine_init(void);
void idle(void);

/* Until the interrupt came n times, or a byte from the test; false: the byte. */
bool await(uint32_t ivec, uint32_t n, bool spin);

/* TSC ticks that it took: here, on each of cpus processors. */
uint64_t ring_many(uint32_t bell, uint32_t n);
bool ring_together(uint32_t cpus, uint32_t bell, uint32_t n, uint64_t *ticks);

/* Called by start.S */
void tiny_main(void) __attribute__((noreturn));
void tiny_ap_main(uint32_t id) __attribute__((noreturn));
void tiny_isr(uint32_t vector, const uint32_t *frame);

/* Shared with the interrupt stubs, by vector. */
extern volatile uint32_t counts[256];
extern volatile uint32_t echo_on[256];
extern volatile uint32_t echo_bell[256];
extern volatile uint32_t doorbell;      /* address of the register */

#endif
