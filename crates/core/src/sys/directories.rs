//! Directories and the names in them, all relative to an open directory.

use core::ffi::{CStr, c_int};

use super::mapping::Scratch;
use super::{Fd, Result, raw};

/// `mkdirat(2)`.
pub fn mkdirat(directory: &Fd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the name is a valid C string for the duration of the call.
    unsafe { raw!(libc::SYS_mkdirat, directory.raw(), name.as_ptr(), mode) }.map(drop)
}

/// `unlinkat(2)`; with `AT_REMOVEDIR` in `flags` an empty directory.
pub fn unlinkat(directory: &Fd, name: &CStr, flags: c_int) -> Result<()> {
    // SAFETY: the name is a valid C string for the duration of the call.
    unsafe { raw!(libc::SYS_unlinkat, directory.raw(), name.as_ptr(), flags) }.map(drop)
}

/// `linkat(2)` that follows a symbolic link at `from`.
pub fn linkat(from_directory: &Fd, from: &CStr, directory: &Fd, name: &CStr) -> Result<()> {
    let (from_directory, from, flags) = (from_directory.raw(), from.as_ptr(), libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both names are valid C strings for the duration of the call.
    unsafe { raw!(libc::SYS_linkat, from_directory, from, directory.raw(), name.as_ptr(), flags) }.map(drop)
}

/// `symlinkat(2)`.
pub fn symlinkat(target: &CStr, directory: &Fd, name: &CStr) -> Result<()> {
    // SAFETY: both are valid C strings for the duration of the call.
    unsafe { raw!(libc::SYS_symlinkat, target.as_ptr(), directory.raw(), name.as_ptr()) }.map(drop)
}

/// `readlinkat(2)`; what fits of the target.
pub fn readlinkat<'a>(directory: &Fd, name: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let (start, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    let len = unsafe { raw!(libc::SYS_readlinkat, directory.raw(), name.as_ptr(), start, len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Calls `each` with every name in an open directory but `.` and `..`, from
/// its current position on.
pub fn for_each_name(directory: &Fd, mut each: impl FnMut(&CStr)) -> Result<()> {
    /// Offsets in a `struct linux_dirent64`: `d_reclen` and `d_name`.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut scratch = Scratch::new(1 << 14)?;
    let buffer = scratch.bytes();
    loop {
        let (start, len) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the kernel writes at most `len` bytes into the live buffer.
        let len = unsafe { raw!(libc::SYS_getdents64, directory.raw(), start, len) }?;
        let mut rest = buffer.get(..len).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while let (Some([low, high]), Some(name)) = (rest.get(LENGTH..LENGTH + 2), rest.get(NAME..)) {
            if let Ok(name) = CStr::from_bytes_until_nul(name)
                && name != c"."
                && name != c".."
            {
                each(name);
            }
            // At least the fixed part, so that nonsense cannot stop the walk.
            let length = usize::from(u16::from_ne_bytes([*low, *high])).max(NAME);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
