//! Entry stubs for x86-64, System V ABI: arguments in rdi, rsi, rdx, result in
//! rax, the return address on top of the stack.
//!
//! `endbr64` comes first because these are called through pointers. Every `ret`
//! here returns to where its `call` came from, as a shadow stack demands.

use core::arch::{global_asm, naked_asm};
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

// DT_INIT and DT_FINI, which the loader calls through pointers, in place of crti.o's
// `_init` and `_fini`: those of some distributions (Debian) have no `endbr64`. The
// former is crti.o's byte for byte, as `sopin_core::crti` expects it, since this
// library announces itself like any other object. build.rs names them to the linker.
global_asm!(
    ".pushsection .text.sopin_init,\"ax\",@progbits",
    ".globl sopin_init",
    ".hidden sopin_init",
    ".type sopin_init,@function",
    ".p2align 4",
    "sopin_init:",
    ".cfi_startproc",
    "endbr64",
    "sub rsp, 8",
    ".cfi_adjust_cfa_offset 8",
    "mov rax, [rip + __gmon_start__@GOTPCREL]",
    "test rax, rax",
    "je 2f",
    "call rax",
    "2:",
    "add rsp, 8",
    ".cfi_adjust_cfa_offset -8",
    "ret",
    ".cfi_endproc",
    ".size sopin_init, . - sopin_init",
    ".globl sopin_fini",
    ".hidden sopin_fini",
    ".type sopin_fini,@function",
    "sopin_fini:",
    ".cfi_startproc",
    "endbr64",
    "ret",
    ".cfi_endproc",
    ".size sopin_fini, . - sopin_fini",
    ".popsection",
);

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
        "jmp {register}",
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
