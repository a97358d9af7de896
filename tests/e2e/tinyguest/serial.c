/*
 * Tiny guest: the line to the test, on COM1. Received bytes wait in a ring,
 * filled by the interrupt. Not responsible for what they mean.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tiny.h"
#include "x86.h"

#define COM1            0x3f8

static volatile uint8_t rx[256];
static volatile uint8_t rx_head, rx_tail;

void serial_init(void)
{
    out8(COM1 + 3, 3);                          /* 8n1 */
    out8(COM1 + 2, 1);                          /* FIFO on, a byte is enough */
    out8(COM1 + 4, 0xb);
    out8(COM1 + 1, 1);
    serial_drain();
}

void serial_drain(void)
{
    while (in8(COM1 + 5) & 1) {
        rx[rx_head++] = in8(COM1);
    }
}

bool serial_has_byte(void)
{
    return rx_head != rx_tail;
}

uint8_t serial_byte(void)
{
    return rx[rx_tail++];
}

void put_char(char c)
{
    while (!(in8(COM1 + 5) & 0x20)) {
        cpu_relax();
    }
    out8(COM1, c);
}

void put_str(const char *s)
{
    while (*s) {
        put_char(*s++);
    }
}

void put_num(uint64_t v)
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
