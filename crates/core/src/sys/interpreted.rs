//! Under Miri: the calls that arrays of pages are made of, through the C library's functions,
//! which the interpreter knows, and reading the process's own memory. The interpreter knows no
//! system calls.

use core::ffi::{c_int, c_long, c_void};

use super::{Errno, Result, errno};

/// No process has anything below this address (`vm.mmap_min_addr`).
const LOWEST_ADDRESS: usize = 1 << 16;

/// Makes a system call; `ENOSYS` for all but `mmap`, `munmap`, `getpid`, and
/// `process_vm_readv` from as many ranges of the own memory as it copies to. The last knows one kind of bad
/// address, those next to null; the interpreter stops at any other, and wants the
/// provenance of a good one exposed.
///
/// # Safety
/// The arguments must satisfy what the man page of the call with this number demands, as for
/// the function of this name that enters the kernel.
pub unsafe fn call_ungated(number: c_long, arguments: [usize; 6]) -> Result<usize> {
    match (number, arguments) {
        (libc::SYS_mmap, [address, len, protection, flags, fd, offset]) => {
            let (address, protection, flags) = (address as *mut c_void, protection as c_int, flags as c_int);
            // SAFETY: the arguments are sound for mmap(2): this function's contract.
            let start = unsafe { libc::mmap(address, len, protection, flags, fd as c_int, offset as i64) };
            if start == libc::MAP_FAILED { Err(Errno(errno())) } else { Ok(start.expose_provenance()) }
        }
        // SAFETY: the arguments are sound for munmap(2): this function's contract.
        (libc::SYS_munmap, [address, len, ..]) => match unsafe { libc::munmap(address as *mut c_void, len) } {
            0 => Ok(0),
            _ => Err(Errno(errno())),
        },
        // SAFETY: getpid has no arguments.
        (libc::SYS_getpid, _) => Ok(unsafe { libc::getpid() } as usize),
        (libc::SYS_process_vm_readv, [_, local, count, remote, other_count, 0]) if count == other_count => {
            // SAFETY: for this call the arguments are addresses of arrays of so many live `iovec`
            // structures: this function's contract.
            let [local, remote] = [local, remote]
                .map(|ranges| unsafe { core::slice::from_raw_parts(ranges as *const libc::iovec, count) });
            let mut copied = 0;
            for (local, remote) in local.iter().zip(remote) {
                if remote.iov_base.addr() < LOWEST_ADDRESS {
                    return if copied == 0 { Err(Errno(libc::EFAULT)) } else { Ok(copied) };
                }
                let len = local.iov_len.min(remote.iov_len);
                // SAFETY: the local range is writable memory that nothing else uses: this
                // function's contract. The interpreter checks the source, as the kernel does.
                unsafe { core::ptr::copy(remote.iov_base.cast::<u8>(), local.iov_base.cast(), len) };
                copied += len;
            }
            Ok(copied)
        }
        _ => Err(Errno(libc::ENOSYS)),
    }
}
