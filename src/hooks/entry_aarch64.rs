//! Entry stubs for aarch64, AAPCS64: arguments in x0, x1, x2, result in x0,
//! the return address in x30.
//!
//! `bti c` (a hint, so a no-op on older processors) comes first because these
//! are called through pointers. The final jump goes through x16, which
//! `bti c` at its target accepts from a branch.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_long, c_void};

use super::{announced, open_and_sweep, open_in_namespace_and_sweep, route_open, route_open_in_namespace};

/// Called by `_init` of crti.o: `call_weak_fn` jumps here, so x30 is an
/// address in `_init`. Passes it on, which tells which object's it is.
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

/// `pthread_atfork(3)`. glibc links its code into every library that calls it, and
/// Rust calls functions of other libraries through pointers: without this jump the
/// code would have to begin with a marked branch target, and does not everywhere.
///
/// # Safety
/// As for `pthread_atfork(3)`: the handlers stay loaded.
#[unsafe(naked)]
pub unsafe extern "C" fn register_fork_handlers(
    _before: unsafe extern "C" fn(),
    _in_parent: unsafe extern "C" fn(),
    _in_child: unsafe extern "C" fn(),
) -> c_int {
    naked_asm!(
        ".cfi_startproc",
        "b {register}",
        ".cfi_endproc",
        register = sym libc::pthread_atfork,
    )
}

/// `dlopen(3)`: jumps to the real function if the result depends on the
/// caller, so that it sees the true return address.
///
/// # Safety
/// As for `dlopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "hint #34",
        "stp x29, x30, [sp, #-32]!",
        ".cfi_adjust_cfa_offset 32",
        ".cfi_rel_offset x29, 0",
        ".cfi_rel_offset x30, 8",
        "stp x0, x1, [sp, #16]",
        "mov x29, sp",
        "bl {route}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        ".cfi_adjust_cfa_offset -32",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "cbnz x16, 2f",
        "b {sweep}",
        "2:",
        "br x16",
        ".cfi_endproc",
        route = sym route_open,
        sweep = sym open_and_sweep,
    )
}

/// `dlmopen(3)`, in the same way.
///
/// # Safety
/// As for `dlmopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "hint #34",
        "stp x29, x30, [sp, #-48]!",
        ".cfi_adjust_cfa_offset 48",
        ".cfi_rel_offset x29, 0",
        ".cfi_rel_offset x30, 8",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "mov x29, sp",
        "mov x0, x1",
        "bl {route}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldr x2, [sp, #32]",
        "ldp x29, x30, [sp], #48",
        ".cfi_adjust_cfa_offset -48",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "cbnz x16, 2f",
        "b {sweep}",
        "2:",
        "br x16",
        ".cfi_endproc",
        route = sym route_open_in_namespace,
        sweep = sym open_in_namespace_and_sweep,
    )
}
