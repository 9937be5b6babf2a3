//! Mappings, and copying from them.

use core::ffi::{c_int, c_void};

use super::{Fd, Result, raw};

/// `_IOWR('f', 17, struct procmap_query)`
pub const PROCMAP_QUERY: u64 = 0xc068_6611;

/// Copies `len` bytes from any address of process `pid` to `to` with
/// `process_vm_readv(2)`; the number of bytes copied. A page that cannot be
/// read gives `EFAULT` or a short count, never a signal.
///
/// # Safety
/// `[to, to + len)` must be writable memory of the caller that nothing else uses.
pub unsafe fn copy_process_memory(pid: i32, to: *mut u8, from: usize, len: usize) -> Result<usize> {
    let local = libc::iovec { iov_base: to.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: from as *mut c_void, iov_len: len };
    let (local, remote) = (&raw const local, &raw const remote);
    // SAFETY: two live iovecs; the kernel writes only to the caller's buffer.
    unsafe { raw!(libc::SYS_process_vm_readv, pid, local, 1, remote, 1, 0) }
}

/// `mmap(2)`; the address.
///
/// # Safety
/// With `MAP_FIXED`, replacing `[address, address + len)` must be sound.
pub unsafe fn mmap(
    address: usize,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: Option<(&Fd, u64)>,
) -> Result<usize> {
    let (fd, offset) = file.map_or((-1, 0), |(fd, offset)| (fd.raw(), offset));
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mmap, address, len, protection, flags, fd, offset) }
}

/// `munmap(2)`.
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn munmap(address: usize, len: usize) -> Result<()> {
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_munmap, address, len) }.map(drop)
}

/// `mprotect(2)`.
///
/// # Safety
/// No reference may rely on an access that the new protection forbids.
pub unsafe fn mprotect(address: usize, len: usize, protection: c_int) -> Result<()> {
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mprotect, address, len, protection) }.map(drop)
}

/// `mremap(2)` that moves `[from, from + len)` over `[to, to + len)`.
///
/// # Safety
/// The source must be unused, and replacing the target must be sound.
pub unsafe fn mremap_onto(from: usize, len: usize, to: usize) -> Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mremap, from, len, len, flags, to) }.map(drop)
}

/// Memory for one call, unmapped when dropped: for callers in
/// [`crate::sys`], since arrays of pages are made of it and stand above it.
pub(super) struct Scratch {
    address: usize,
    len: usize,
}

impl Scratch {
    /// Maps `len` zero bytes, not 0.
    pub(super) fn new(len: usize) -> Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { mmap(0, len, protection, flags, None) }?;
        Ok(Self { address, len })
    }

    /// Borrows the bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the bytes are mapped to read and write until this is dropped, any byte is
        // a valid `u8`, and `&mut self` makes the borrow exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: `new` has made the mapping, and no borrow of it is left.
        let _ = unsafe { munmap(self.address, self.len) };
    }
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
