// What `crtbeginS.o` of a GCC that is built for musl puts at the beginning of every object
// (source: `libgcc/crtstuff.c`). Debian's musl-gcc uses that of the GCC for glibc, which does not
// register unwinding information. The instructions are those of GCC 13 of Alpine Linux.

    .section .eh_frame, "a"
eh_frame_begin:

    .local object
    .comm object, 48, 16

    .section .data.rel.local, "aw"
    .globl __dso_handle
    .hidden __dso_handle
    .balign 8
__dso_handle:
    .quad __dso_handle

    .weak __register_frame_info
    .weak __deregister_frame_info
    .weak __cxa_finalize

    .section .init_array, "aw"
    .balign 8
    .quad frame_dummy
    .section .fini_array, "aw"
    .balign 8
    .quad do_global_dtors_aux

    .text
#if defined(__x86_64__)
frame_dummy:
    cmpq $0, __register_frame_info@GOTPCREL(%rip)
    je 1f
    push %rbp
    lea object(%rip), %rsi
    lea eh_frame_begin(%rip), %rdi
    mov %rsp, %rbp
    call *__register_frame_info@GOTPCREL(%rip)
    pop %rbp
1:  ret

do_global_dtors_aux:
    push %rbp
    cmpq $0, __cxa_finalize@GOTPCREL(%rip)
    je 1f
    mov __dso_handle(%rip), %rdi
    call *__cxa_finalize@GOTPCREL(%rip)
1:  cmpq $0, __deregister_frame_info@GOTPCREL(%rip)
    je 2f
    lea eh_frame_begin(%rip), %rdi
    call *__deregister_frame_info@GOTPCREL(%rip)
2:  pop %rbp
    ret
#elif defined(__aarch64__)
frame_dummy:
    adrp x0, :got:__register_frame_info
    ldr x0, [x0, :got_lo12:__register_frame_info]
    cbz x0, 1f
    stp x29, x30, [sp, #-16]!
    adrp x1, object
    adrp x0, eh_frame_begin
    mov x29, sp
    add x1, x1, :lo12:object
    add x0, x0, :lo12:eh_frame_begin
    bl __register_frame_info
    ldp x29, x30, [sp], #16
1:  ret

do_global_dtors_aux:
    stp x29, x30, [sp, #-16]!
    mov x29, sp
    adrp x0, :got:__cxa_finalize
    ldr x0, [x0, :got_lo12:__cxa_finalize]
    cbz x0, 1f
    adrp x0, __dso_handle
    ldr x0, [x0, :lo12:__dso_handle]
    bl __cxa_finalize
1:  adrp x0, :got:__deregister_frame_info
    ldr x0, [x0, :got_lo12:__deregister_frame_info]
    cbz x0, 2f
    adrp x0, eh_frame_begin
    add x0, x0, :lo12:eh_frame_begin
    bl __deregister_frame_info
2:  ldp x29, x30, [sp], #16
    ret
#else
#error "no start-up code for this architecture"
#endif
    .section .note.GNU-stack, "", @progbits
