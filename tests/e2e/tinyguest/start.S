/*
 * Tiny guest: from the reset vector to flat 32-bit C, and the interrupt stubs.
 * Everything else is in tiny.c, which also describes the memory map.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/*
 * Start of the image: the boot processor comes here from the reset vector
 * (CS base ffff0000h), the others by a start-up IPI with vector F0h (CS base
 * f0000h, where the chipset shows the same image). Offsets are the same.
 */
        .section .entry16, "ax"
        .code16
        .globl entry16
entry16:
        cli
        lgdtl   %cs:(gdtr - entry16)
        movl    $0x11, %eax             /* PE, ET; caches on */
        movl    %eax, %cr0
        ljmpl   $8, $entry32

        /* "Accessed" is set: loading a segment must not write to this ROM. */
        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* 08h: flat code */
        .quad   0x00cf93000000ffff      /* 10h: flat data */
gdtr:
        .word   gdtr - gdt - 1
        .long   gdt

        .text
        .code32
entry32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        cld
        movl    0xfee00020, %ebx        /* local APIC ID */
        shrl    $24, %ebx
        movl    %ebx, %eax              /* a 4 KiB stack each, down from 90000h */
        shll    $12, %eax
        movl    $0x90000, %esp
        subl    %eax, %esp
        testl   %ebx, %ebx
        jnz     1f
        xorl    %eax, %eax
        movl    $bss_start, %edi
        movl    $bss_end, %ecx
        subl    %edi, %ecx
        rep stosb
        call    tiny_main
1:      movl    %ebx, %eax
        call    tiny_ap_main

/* 256 stubs of 16 bytes; the vector number is all that a stub adds. */
        .balign 16
        .globl isr_stubs
isr_stubs:
        .set    v, 0
        .rept   256
        .balign 16
        pushl   $v
        jmp     isr_common
        .set    v, v + 1
        .endr

isr_common:
        pushal
        movl    32(%esp), %eax          /* vector */
        movl    36(%esp), %edx          /* EIP, or the error code of a fault */
        cld
        call    tiny_isr
        popal
        addl    $4, %esp
        /*
         * iret in pieces, since a software KVM may lack it in protected mode.
         * Interrupts open behind the instruction after sti.
         */
        andl    $~0x200, 8(%esp)
        pushl   8(%esp)
        popfl
        sti
        lretl   $4

        .section .reset, "ax"
        .code16
        jmp     entry16
