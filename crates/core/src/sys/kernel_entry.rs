//! The instruction that enters the kernel, one function per architecture. Not the C
//! library's `syscall(2)`: another library can interpose that, and it sets `errno`.

use core::ffi::c_long;

use super::{Errno, Result};

/// Makes a system call, whatever the [gate](super::gate) says.
///
/// # Safety
/// As for the call of that number.
pub unsafe fn call_ungated(number: c_long, arguments: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller keeps the contract of the call.
    match unsafe { enter_kernel(number, arguments) } {
        error @ -4095..=-1 => Err(Errno(-error as i32)),
        value => Ok(value.cast_unsigned()),
    }
}

/// # Safety
/// As for the call of that number.
#[cfg(target_arch = "x86_64")]
unsafe fn enter_kernel(number: c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // The kernel keeps all registers but rax, rcx and r11 (x86-64 psABI, A.2.1).
    // SAFETY: the instruction is a call into the kernel, whose contract the caller keeps.
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

/// # Safety
/// As for the call of that number.
#[cfg(target_arch = "aarch64")]
unsafe fn enter_kernel(number: c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // The kernel keeps all registers but x0 (arch/arm64/kernel/entry.S).
    // SAFETY: the instruction is a call into the kernel, whose contract the caller keeps.
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
