/*
 * Tiny guest: from the reset vector to flat 32-bit C in RAM, and the interrupt
 * stubs. Everything else is in C; tiny.c describes the memory map.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "x86.h"

/* "Accessed" is set: loading a segment must not write to the one in ROM. */
        .macro  GDT
        .quad   0
        .quad   0x00cf9b000000ffff      /* 08h: flat code */
        .quad   0x00cf93000000ffff      /* 10h: flat data */
        .endm

/*
 * Start of the image: the boot processor comes here from the reset vector
 * (CS base ffff0000h), the others by a start-up IPI with vector F0h (CS base
 * f0000h, where the chipset shows the same image). Offsets are the same.
 */
        .section .entry, "ax"
        .code16
        .globl entry16
entry16:
        cli
        lgdtl   %cs:(rom_gdtr - entry16)
        movl    $0x11, %eax             /* PE, ET; caches on */
        movl    %eax, %cr0
        ljmpl   $8, $rom32

        .balign 8
rom_gdt:
        GDT
rom_gdtr:
        .word   rom_gdtr - rom_gdt - 1
        .long   rom_gdt

        .code32
rom32:  movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        cld
        movl    LAPIC + LAPIC_ID, %ebx
        shrl    $24, %ebx
        jnz     1f
        movl    $text_load, %esi        /* the first processor copies the code */
        movl    $text_start, %edi
        movl    $text_end, %ecx
        subl    %edi, %ecx
        shrl    $2, %ecx
        rep movsl
        movl    $bss_start, %edi
        movl    $bss_end, %ecx
        subl    %edi, %ecx
        shrl    $2, %ecx
        xorl    %eax, %eax
        rep stosl
1:      lgdtl   gdtr
        ljmpl   $8, $entry32

        .text
        .balign 8
gdt:
        GDT
gdtr:
        .word   gdtr - gdt - 1
        .long   gdt

entry32:
        movl    %ebx, %eax              /* a 4 KiB stack each, down from 90000h */
        shll    $12, %eax
        movl    $0x90000, %esp
        subl    %eax, %esp
        testl   %ebx, %ebx
        jnz     1f
        call    tiny_main
1:      movl    %ebx, %eax
        call    tiny_ap_main

/*
 * Return from an interrupt: iret in pieces, since a software KVM may lack it in
 * protected mode. Interrupts open behind the instruction after sti.
 */
        .macro  INTERRUPT_RETURN
        andl    $~0x200, 8(%esp)
        pushl   8(%esp)
        popfl
        sti
        lretl   $4
        .endm

/*
 * One stub for each vector, ISR_STUB_SIZE bytes apart. Those that MSI-X entries
 * raise do it all without a call: where instructions are interpreted, each one
 * would show in the round-trip time.
 */
        .balign 16
        .globl isr_stubs
isr_stubs:
        .set    v, 0
        .rept   IVEC_FIRST
        .balign ISR_STUB_SIZE
        pushl   $v
        jmp     isr_call
        .set    v, v + 1
        .endr

        .rept   256 - IVEC_FIRST
        .balign ISR_STUB_SIZE
        incl    counts + 4 * v
        cmpl    $0, echo_on + 4 * v
        je      1f
        pushl   %eax
        pushl   %edx
        movl    doorbell, %edx
        movl    echo_bell + 4 * v, %eax
        movl    %eax, (%edx)
        popl    %edx
        popl    %eax
1:      movl    $0, LAPIC + LAPIC_EOI
        INTERRUPT_RETURN
        .set    v, v + 1
        .endr

isr_call:
        pushal
        movl    32(%esp), %eax          /* vector */
        leal    36(%esp), %edx          /* what the processor pushed */
        cld
        call    tiny_isr
        popal
        addl    $4, %esp
        movl    $0, LAPIC + LAPIC_EOI
        INTERRUPT_RETURN

        .section .reset, "ax"
        .code16
        jmp     entry16
