//! Under Miri: the calls that arrays of pages are made of, through the C
//! library's functions, which the interpreter knows, and reading the own memory.
//! It knows no system calls.

use core::ffi::{c_int, c_long, c_void};

use super::{Errno, Result, errno};

/// No process has anything below this address (`vm.mmap_min_addr`).
const LOWEST_ADDRESS: usize = 1 << 16;

/// Makes a system call; `ENOSYS` for all but `mmap`, `munmap`, `getpid`, and
/// `process_vm_readv` from one range of the own memory. The last knows one kind of bad
/// address, those next to null; the interpreter stops at any other, and wants the
/// provenance of a good one exposed.
///
/// # Safety
/// As for the call of that number.
pub unsafe fn call_ungated(number: c_long, arguments: [usize; 6]) -> Result<usize> {
    match (number, arguments) {
        (libc::SYS_mmap, [address, len, protection, flags, fd, offset]) => {
            let (address, protection, flags) = (address as *mut c_void, protection as c_int, flags as c_int);
            // SAFETY: the caller keeps the contract of mmap(2).
            let start = unsafe { libc::mmap(address, len, protection, flags, fd as c_int, offset as i64) };
            if start == libc::MAP_FAILED { Err(Errno(errno())) } else { Ok(start.expose_provenance()) }
        }
        // SAFETY: the caller keeps the contract of munmap(2).
        (libc::SYS_munmap, [address, len, ..]) => match unsafe { libc::munmap(address as *mut c_void, len) } {
            0 => Ok(0),
            _ => Err(Errno(errno())),
        },
        // SAFETY: getpid has no arguments.
        (libc::SYS_getpid, _) => Ok(unsafe { libc::getpid() } as usize),
        (libc::SYS_process_vm_readv, [_, local, 1, remote, 1, 0]) => {
            // SAFETY: the caller passes the addresses of live ranges.
            let [local, remote] = [local, remote].map(|range| unsafe { *(range as *const libc::iovec) });
            if remote.iov_base.addr() < LOWEST_ADDRESS {
                return Err(Errno(libc::EFAULT));
            }
            let len = local.iov_len.min(remote.iov_len);
            // SAFETY: the target is the caller's; the source is checked by the
            // interpreter, as the kernel does.
            unsafe { core::ptr::copy(remote.iov_base.cast::<u8>(), local.iov_base.cast(), len) };
            Ok(len)
        }
        _ => Err(Errno(libc::ENOSYS)),
    }
}
