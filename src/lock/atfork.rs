//! Calling `pthread_atfork(3)` by a direct jump.
//!
//! glibc links the code of that function into every library that calls it, and Rust calls
//! foreign functions through pointers. A function that is called through a pointer must begin
//! with a marked branch target, which this one does not on every distribution.

use core::arch::naked_asm;
use core::ffi::c_int;

/// Calls `pthread_atfork(3)`.
///
/// # Safety
/// The handlers must stay loaded until the process ends. They must be sound to call at every
/// fork, in the thread that forks.
#[unsafe(naked)]
pub unsafe extern "C" fn register_fork_handlers(
    _before: unsafe extern "C" fn(),
    _in_parent: unsafe extern "C" fn(),
    _in_child: unsafe extern "C" fn(),
) -> c_int {
    naked_asm!(
        ".cfi_startproc",
        #[cfg(target_arch = "x86_64")]
        "jmp {register}",
        #[cfg(target_arch = "aarch64")]
        "b {register}",
        ".cfi_endproc",
        register = sym libc::pthread_atfork,
    )
}
