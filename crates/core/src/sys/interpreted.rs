//! Under Miri: the calls that arrays of pages are made of, through the C
//! library's functions, which the interpreter knows, and reading the own memory.
//! It knows no system calls.

use core::ffi::{c_int, c_long, c_void};

/// No process has anything below this address (`vm.mmap_min_addr`).
const LOWEST_ADDRESS: usize = 1 << 16;

/// As `syscall(2)`; `ENOSYS` for all but `mmap`, `munmap`, `getpid`, and
/// `process_vm_readv` from one range of the own memory. The last knows one kind of bad address, those next to null; the interpreter
/// stops at any other, and wants the provenance of a good one exposed.
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
        // SAFETY: per the caller.
        (libc::SYS_munmap, &[address, len]) => unsafe { libc::munmap(address as *mut c_void, len) }.into(),
        // SAFETY: getpid has no arguments.
        (libc::SYS_getpid, []) => unsafe { libc::getpid() }.into(),
        (libc::SYS_process_vm_readv, &[_, local, 1, remote, 1, 0]) => {
            // SAFETY: per the caller, both are live and of this type.
            let [local, remote] = [local, remote].map(|range| unsafe { *(range as *const libc::iovec) });
            if remote.iov_base.addr() < LOWEST_ADDRESS {
                return failure(libc::EFAULT);
            }
            let len = local.iov_len.min(remote.iov_len);
            // SAFETY: the target is the caller's; the source is checked by the
            // interpreter, as the kernel does.
            unsafe { core::ptr::copy(remote.iov_base.cast::<u8>(), local.iov_base.cast(), len) };
            len as c_long
        }
        _ => failure(libc::ENOSYS),
    }
}

fn failure(errno: c_int) -> c_long {
    super::set_errno(errno);
    -1
}

fn address_of(pointer: *mut c_void) -> c_long {
    pointer.expose_provenance() as c_long
}
