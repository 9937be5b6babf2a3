//! Entry stubs for x86-64, System V ABI: arguments in rdi, rsi, rdx, result in
//! rax, the return address on top of the stack.
//!
//! `endbr64` comes first because these are called through pointers.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_long, c_void};

use super::{announced, open_and_sweep, open_in_namespace_and_sweep, route_open, route_open_in_namespace};

/// Called by `_init` of crti.o. Passes the return address on, which tells
/// which object's `_init` it is.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn __gmon_start__() {
    naked_asm!(
        ".cfi_startproc",
        ".hidden sopin_own_gmon_start",
        ".globl sopin_own_gmon_start",
        "sopin_own_gmon_start:",
        "endbr64",
        "mov rdi, [rsp]",
        "jmp {announced}",
        ".cfi_endproc",
        announced = sym announced,
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
        "endbr64",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {route}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "test rax, rax",
        "jz {sweep}",
        "jmp rax",
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
        "endbr64",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "mov rdi, rsi",
        "call {route}",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "test rax, rax",
        "jz {sweep}",
        "jmp rax",
        ".cfi_endproc",
        route = sym route_open_in_namespace,
        sweep = sym open_in_namespace_and_sweep,
    )
}
