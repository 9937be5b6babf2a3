//! Mappings, and copying from them.

use core::ffi::{c_int, c_void};

use super::{Fd, Result, raw};

/// `_IOWR('f', 17, struct procmap_query)`
pub const PROCMAP_QUERY: u64 = 0xc068_6611;

/// Copies `len` bytes from any address of process `pid` to `to` with `process_vm_readv(2)`;
/// returns the number of bytes copied. A page that cannot be read gives `EFAULT` or a short
/// count, never a signal.
///
/// # Safety
/// `[to, to + len)` must be writable memory that nothing else uses during the call.
pub unsafe fn copy_process_memory(pid: i32, to: *mut u8, from: usize, len: usize) -> Result<usize> {
    // SAFETY: `[to, to + len)` is writable and unused: this function's contract.
    unsafe { copy_process_ranges(pid, [(to, from, len)]) }
}

/// Copies several ranges by one call, each `(to, from, len)` as [`copy_process_memory`] does; returns
/// the number of bytes copied. Where one cannot be read, the ones before it have been copied, and none
/// behind it.
///
/// # Safety
/// Each `[to, to + len)` must be writable memory that nothing else uses during the call.
pub unsafe fn copy_process_ranges<const N: usize>(pid: i32, ranges: [(*mut u8, usize, usize); N]) -> Result<usize> {
    let local = ranges.map(|(to, _, len)| libc::iovec { iov_base: to.cast(), iov_len: len });
    let remote = ranges.map(|(_, from, len)| libc::iovec { iov_base: from as *mut c_void, iov_len: len });
    let (local, remote) = (local.as_ptr(), remote.as_ptr());
    // SAFETY: the arrays of iovecs are live locals with `N` items. The kernel writes only to the
    // ranges `[to, to + len)`, which are writable and unused: this function's contract.
    unsafe { raw!(libc::SYS_process_vm_readv, pid, local, N, remote, N, 0) }
}

/// Calls `mmap(2)`; returns the address of the mapping.
///
/// # Safety
/// With `MAP_FIXED` in `flags`, no reference may point into `[address, address + len)` unless
/// the new mapping holds the same bytes with at least the same accesses.
pub unsafe fn mmap(
    address: usize,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: Option<(&Fd, u64)>,
) -> Result<usize> {
    let (fd, offset) = file.map_or((-1, 0), |(fd, offset)| (fd.raw(), offset));
    // SAFETY: without `MAP_FIXED` the kernel chooses a range that is free; with it, replacing
    // the range breaks no reference: this function's contract.
    unsafe { raw!(libc::SYS_mmap, address, len, protection, flags, fd, offset) }
}

/// `MADV_POPULATE_WRITE` of `madvise(2)`, as an argument.
pub(super) const POPULATE_WRITE: usize = libc::MADV_POPULATE_WRITE as usize;

/// Has the kernel provide the pages of a writable range, which is faster than a fault for each. Fails
/// before Linux 5.14, and if there is no memory for all of them.
pub fn populate(address: usize, len: usize) -> Result<()> {
    // SAFETY: the kernel provides pages that are missing, as it would at an access, and changes none.
    unsafe { raw!(libc::SYS_madvise, address, len, POPULATE_WRITE) }.map(drop)
}

/// Calls `munmap(2)`.
///
/// # Safety
/// No reference or pointer into `[address, address + len)` may be used afterwards.
pub unsafe fn munmap(address: usize, len: usize) -> Result<()> {
    // SAFETY: nothing uses the range any more: this function's contract.
    unsafe { raw!(libc::SYS_munmap, address, len) }.map(drop)
}

/// Calls `mprotect(2)`.
///
/// # Safety
/// No reference into `[address, address + len)` may be used for an access that the new
/// protection forbids.
pub unsafe fn mprotect(address: usize, len: usize, protection: c_int) -> Result<()> {
    // SAFETY: no reference needs an access that `protection` forbids: this function's contract.
    unsafe { raw!(libc::SYS_mprotect, address, len, protection) }.map(drop)
}

/// Calls `mremap(2)`, which moves `[from, from + len)` over `[to, to + len)`.
///
/// # Safety
/// No reference may point into the source. No reference may point into the target unless the
/// source holds the same bytes with at least the same accesses.
pub unsafe fn mremap_onto(from: usize, len: usize, to: usize) -> Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: moving the source and replacing the target break no reference: this function's
    // contract.
    unsafe { raw!(libc::SYS_mremap, from, len, len, flags, to) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn reading_unmapped_memory_is_an_error_not_a_signal() {
        let mut byte = 0;
        // SAFETY: the target is a live local.
        let read = unsafe { copy_process_memory(crate::sys::getpid(), &raw mut byte, 8, 1) };
        assert_eq!(read, Err(Errno(libc::EFAULT)));
    }
}
