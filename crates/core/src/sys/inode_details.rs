//! What the kernel reports about an inode beside its status: its handle and its attributes.

use core::ffi::c_int;
use core::ptr;

use super::{Errno, Fd, Result, raw};

/// The longest handle, in bytes: `MAX_HANDLE_SZ` of `name_to_handle_at(2)`.
const MAX_BYTES: usize = 128;

/// A handle that identifies a file: `struct file_handle` of `name_to_handle_at(2)`.
#[repr(C)]
pub struct FileHandle {
    len: u32,
    kind: c_int,
    bytes: [u8; MAX_BYTES],
}

impl FileHandle {
    /// Calls `name_to_handle_at(2)` for an open file. The handle only identifies the file
    /// (`AT_HANDLE_FID`, Linux 6.5); an overlay makes such handles since Linux 6.6.
    pub fn of(fd: &Fd) -> Result<Self> {
        let mut handle = Self { len: MAX_BYTES as u32, kind: 0, bytes: [0; MAX_BYTES] };
        let (empty, mut mount, flags) = (c"".as_ptr(), 0 as c_int, libc::AT_EMPTY_PATH | libc::AT_HANDLE_FID);
        // SAFETY: the path, the handle and the number are live for the duration of the call. The
        // handle has as many bytes as its length says, and the kernel writes no more.
        unsafe { raw!(libc::SYS_name_to_handle_at, fd.raw(), empty, &raw mut handle, &raw mut mount, flags) }?;
        Ok(handle)
    }

    /// Returns its type and its bytes, whose meaning depends on the type.
    pub fn parts(&self) -> (c_int, &[u8]) {
        (self.kind, self.bytes.get(..self.len as usize).unwrap_or_default())
    }
}

/// Returns the number of bytes that the names of a file's extended attributes take up
/// (`flistxattr(2)`), as the kernel reports it when asked for the size, and when asked for the
/// names. They differ only on an overlay: the first counts the names that the second leaves out.
pub fn attribute_name_lens(fd: &Fd) -> Result<(usize, usize)> {
    let mut names = [0_u8; 1024];
    // SAFETY: without room the kernel writes nothing.
    let counted = unsafe { raw!(libc::SYS_flistxattr, fd.raw(), ptr::null_mut::<u8>(), 0_usize) }?;
    if counted == 0 {
        return Ok((0, 0));
    }
    if counted > names.len() {
        return Err(Errno(libc::ERANGE));
    }
    // SAFETY: the kernel writes at most the length of the live array.
    let listed = unsafe { raw!(libc::SYS_flistxattr, fd.raw(), names.as_mut_ptr(), names.len()) }?;
    Ok((counted, listed))
}
