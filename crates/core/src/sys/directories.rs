//! Directories and the names in them, all relative to an open directory.

use core::ffi::{CStr, c_int};

use super::{Fd, Result, raw};

/// Calls `mkdirat(2)`.
pub fn mkdirat(directory: &Fd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the name is a valid C string for the duration of the call.
    unsafe { raw!(libc::SYS_mkdirat, directory.raw(), name.as_ptr(), mode) }.map(drop)
}

/// Calls `unlinkat(2)`, which with `AT_REMOVEDIR` in `flags` removes an empty directory.
pub fn unlinkat(directory: &Fd, name: &CStr, flags: c_int) -> Result<()> {
    // SAFETY: the name is a valid C string for the duration of the call.
    unsafe { raw!(libc::SYS_unlinkat, directory.raw(), name.as_ptr(), flags) }.map(drop)
}

/// Calls `linkat(2)`, which follows a symbolic link at `from`.
pub fn linkat(from_directory: &Fd, from: &CStr, directory: &Fd, name: &CStr) -> Result<()> {
    let (from_directory, from, flags) = (from_directory.raw(), from.as_ptr(), libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both names are valid C strings for the duration of the call.
    unsafe { raw!(libc::SYS_linkat, from_directory, from, directory.raw(), name.as_ptr(), flags) }.map(drop)
}

/// Calls `symlinkat(2)`.
pub fn symlinkat(target: &CStr, directory: &Fd, name: &CStr) -> Result<()> {
    // SAFETY: both are valid C strings for the duration of the call.
    unsafe { raw!(libc::SYS_symlinkat, target.as_ptr(), directory.raw(), name.as_ptr()) }.map(drop)
}

/// Calls `readlinkat(2)`; returns the part of the target that fits into `buffer`.
pub fn readlinkat<'a>(directory: &Fd, name: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let (start, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    let len = unsafe { raw!(libc::SYS_readlinkat, directory.raw(), name.as_ptr(), start, len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Calls `getdents64(2)`; returns the next entries of an open directory, as many as fit, and
/// none at its end.
pub fn getdents<'a>(directory: &Fd, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let (start, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    let len = unsafe { raw!(libc::SYS_getdents64, directory.raw(), start, len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Calls `lseek(2)` with `SEEK_SET`. For a directory, `position` is one that `getdents64(2)` has
/// returned behind a name.
pub fn seek(file: &Fd, position: i64) -> Result<()> {
    // SAFETY: the kernel changes the position of an open file, and no memory.
    unsafe { raw!(libc::SYS_lseek, file.raw(), position, libc::SEEK_SET) }.map(drop)
}
