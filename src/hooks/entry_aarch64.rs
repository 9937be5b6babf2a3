//! Entry stubs for aarch64, AAPCS64: arguments in x0, x1, x2, result in x0,
//! the return address in x30.
//!
//! Each stub begins with `bti c` (a hint, so a no-op on older processors), because other
//! objects call it through a pointer. The stubs jump and call through x16, because `bti c`
//! at the target accepts a jump only through x16 or x17.

use core::arch::naked_asm;

use super::announced;

/// Passes an address in the `_init` that has called it on to [`announced`], which finds the
/// object by it. `_init` of crti.o calls `call_weak_fn`, which jumps here, so x30 is that address.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn __gmon_start__() {
    naked_asm!(
        ".cfi_startproc",
        ".hidden sopin_own_gmon_start",
        ".globl sopin_own_gmon_start",
        "sopin_own_gmon_start:",
        "hint #34",
        "mov x0, x30",
        "b {announced}",
        ".cfi_endproc",
        announced = sym announced,
    )
}

/// The body of a hook, as [`super`] describes it, with its operands.
macro_rules! hook {
    (own_name = $name:literal, $($operands:tt)*) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            concat!(".hidden ", $name),
            concat!(".globl ", $name),
            concat!($name, ":"),
            "hint #34",
            "stp x29, x30, [sp, #-48]!",
            ".cfi_adjust_cfa_offset 48",
            ".cfi_rel_offset x29, 0",
            ".cfi_rel_offset x30, 8",
            "stp x0, x1, [sp, #16]",
            "str x2, [sp, #32]",
            "mov x29, sp",
            "bl {route}",
            "mov x16, x0",
            "mov x17, x1",
            "ldp x0, x1, [sp, #16]",
            "ldr x2, [sp, #32]",
            "cbnz x17, 2f",
            ".cfi_remember_state",
            "ldp x29, x30, [sp], #48",
            ".cfi_adjust_cfa_offset -48",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "br x16",
            "2:",
            ".cfi_restore_state",
            "str x17, [sp, #40]",
            "blr x16",
            "ldr x16, [sp, #40]",
            "blr x16",
            "ldp x29, x30, [sp], #48",
            ".cfi_adjust_cfa_offset -48",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_endproc",
            $($operands)*
        )
    };
}
pub(super) use hook;

/// The body of an iteration with a visitor, as [`super`] describes it, with its operands.
macro_rules! visit_all {
    ($($operands:tt)*) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "hint #34",
            "stp x29, x30, [sp, #-48]!",
            ".cfi_adjust_cfa_offset 48",
            ".cfi_rel_offset x29, 0",
            ".cfi_rel_offset x30, 8",
            "stp x19, x20, [sp, #16]",
            ".cfi_rel_offset x19, 16",
            ".cfi_rel_offset x20, 24",
            "str x21, [sp, #32]",
            ".cfi_rel_offset x21, 32",
            "mov x29, sp",
            "sub sp, sp, #{room}",
            ".cfi_adjust_cfa_offset {room}",
            "mov x19, x0",
            "mov x20, x1",
            "mov x1, x0",
            "mov x0, sp",
            "bl {begin}",
            "mov w21, w0",
            "2:",
            "mov x0, sp",
            "bl {next}",
            "cbz x0, 3f",
            "mov x1, x20",
            "mov x16, x19",
            "blr x16",
            "cbz w0, 2b",
            "3:",
            "mov x0, sp",
            "bl {end}",
            "mov w0, w21",
            "add sp, sp, #{room}",
            ".cfi_adjust_cfa_offset -{room}",
            "ldr x21, [sp, #32]",
            "ldp x19, x20, [sp, #16]",
            "ldp x29, x30, [sp], #48",
            ".cfi_adjust_cfa_offset -48",
            ".cfi_restore x19",
            ".cfi_restore x20",
            ".cfi_restore x21",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_endproc",
            $($operands)*
        )
    };
}
pub(crate) use visit_all;
