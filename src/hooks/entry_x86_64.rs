//! Entry stubs for x86-64, System V ABI: arguments in rdi, rsi, rdx, result in
//! rax, the return address on top of the stack.
//!
//! Each stub begins with `endbr64`, because other objects call it through a pointer. Every
//! `ret` here returns to the instruction after its `call`, as a shadow stack demands.

use core::arch::{global_asm, naked_asm};

use super::announced;

/// Passes its return address on to [`announced`], which finds the object by it: `_init` of
/// crti.o calls this function, so the address is in the `_init` of an object.
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

// DT_INIT and DT_FINI, which the loader calls through pointers. They replace `_init` and
// `_fini` of crti.o, which have no `endbr64` on some distributions (Debian). `sopin_init` has
// the same bytes as crti.o's `_init` with `endbr64`, because this library announces itself like
// any other object and `sopin_core::crti` recognises the code. build.rs names both to the linker.
// mold would remove them as unused and leave addresses of 0, so the section has the flag R.
global_asm!(
    ".pushsection .text.sopin_init,\"axR\",@progbits",
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

/// The body of a hook, as [`super`] describes it, with its operands.
macro_rules! hook {
    (own_name = $name:literal, $($operands:tt)*) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            concat!(".hidden ", $name),
            concat!(".globl ", $name),
            concat!($name, ":"),
            "endbr64",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "push rdx",
            ".cfi_adjust_cfa_offset 8",
            "call {route}",
            "mov r11, rdx",
            "pop rdx",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "test r11, r11",
            "jnz 2f",
            "jmp rax",
            "2:",
            "push r11",
            ".cfi_adjust_cfa_offset 8",
            "call rax",
            "mov rdi, rax",
            "call [rsp]",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
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
            "endbr64",
            "push rbx",
            ".cfi_adjust_cfa_offset 8",
            ".cfi_rel_offset rbx, 0",
            "push r13",
            ".cfi_adjust_cfa_offset 8",
            ".cfi_rel_offset r13, 0",
            "push r12",
            ".cfi_adjust_cfa_offset 8",
            ".cfi_rel_offset r12, 0",
            "sub rsp, {room}",
            ".cfi_adjust_cfa_offset {room}",
            "mov rbx, rdi",
            "mov r13, rsi",
            "mov rsi, rdi",
            "mov rdi, rsp",
            "call {begin}",
            "mov r12d, eax",
            "2:",
            "mov rdi, rsp",
            "call {next}",
            "test rax, rax",
            "jz 3f",
            "mov rdi, rax",
            "mov rsi, r13",
            "call rbx",
            "test eax, eax",
            "jz 2b",
            "3:",
            "mov rdi, rsp",
            "call {end}",
            "mov eax, r12d",
            "add rsp, {room}",
            ".cfi_adjust_cfa_offset -{room}",
            "pop r12",
            ".cfi_adjust_cfa_offset -8",
            ".cfi_restore r12",
            "pop r13",
            ".cfi_adjust_cfa_offset -8",
            ".cfi_restore r13",
            "pop rbx",
            ".cfi_adjust_cfa_offset -8",
            ".cfi_restore rbx",
            "ret",
            ".cfi_endproc",
            $($operands)*
        )
    };
}
pub(crate) use visit_all;
