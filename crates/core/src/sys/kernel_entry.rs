//! The instruction that enters the kernel, one function per architecture. Not the C
//! library's `syscall(2)`: another library can interpose that, and it sets `errno`.

use core::ffi::c_long;

use super::{Errno, Result};

/// Makes a system call, whatever the [gate](super::gate) says.
///
/// # Safety
/// The arguments must satisfy what the man page of the call with this number demands: addresses
/// that the kernel writes to must be writable memory that nothing else uses, and a call that
/// unmaps or replaces memory must leave every reference valid.
pub unsafe fn call_ungated(number: c_long, arguments: [usize; 6]) -> Result<usize> {
    // SAFETY: the arguments satisfy what this call demands: this function's contract.
    match unsafe { enter_kernel(number, arguments) } {
        error @ -4095..=-1 => Err(Errno(-error as i32)),
        value => Ok(value.cast_unsigned()),
    }
}

/// Enters the kernel; returns its answer, which is a negative error number on failure.
///
/// # Safety
/// The arguments must satisfy the contract of [`call_ungated`].
#[cfg(target_arch = "x86_64")]
unsafe fn enter_kernel(number: c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // The kernel keeps all registers but rax, rcx and r11 (x86-64 psABI, A.2.1).
    // SAFETY: the instruction enters the kernel, which does only what the call of this number
    // does, and the arguments are sound for that: this function's contract. The clobbers are
    // the registers that the kernel may change.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Enters the kernel; returns its answer, which is a negative error number on failure.
///
/// # Safety
/// The arguments must satisfy the contract of [`call_ungated`].
#[cfg(target_arch = "aarch64")]
unsafe fn enter_kernel(number: c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // The kernel keeps all registers but x0 (arch/arm64/kernel/entry.S).
    // SAFETY: the instruction enters the kernel, which does only what the call of this number
    // does, and the arguments are sound for that: this function's contract. The clobbers are
    // the registers that the kernel may change.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            options(nostack),
        );
    }
    result
}
