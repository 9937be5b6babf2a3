//! Under Miri: the calls that arrays of pages are made of, through the C
//! library's functions, which the interpreter knows. It knows no system calls.

use core::ffi::{c_int, c_long, c_void};

/// As `syscall(2)`; `ENOSYS` for all but `mmap`, `mremap` without a new address,
/// and `munmap`.
///
/// # Safety
/// As for the call of that number.
pub unsafe fn syscall(number: c_long, arguments: &[usize]) -> c_long {
    match (number, arguments) {
        (libc::SYS_mmap, &[address, len, protection, flags, fd, offset]) => {
            let (address, protection, flags) = (address as *mut c_void, protection as c_int, flags as c_int);
            // SAFETY: per the caller.
            address_of(unsafe { libc::mmap(address, len, protection, flags, fd as c_int, offset as i64) })
        }
        (libc::SYS_mremap, &[from, old, new, flags]) => {
            // SAFETY: per the caller.
            address_of(unsafe { libc::mremap(from as *mut c_void, old, new, flags as c_int) })
        }
        // SAFETY: per the caller.
        (libc::SYS_munmap, &[address, len]) => unsafe { libc::munmap(address as *mut c_void, len) }.into(),
        _ => {
            super::set_errno(libc::ENOSYS);
            -1
        }
    }
}

fn address_of(pointer: *mut c_void) -> c_long {
    pointer.expose_provenance() as c_long
}
