//! Private copies of an object's bytes: a sealed memfd or, where a seccomp filter may kill
//! for creating one, a file without a name (`O_TMPFILE` of `open(2)`). Creating such a file
//! takes only calls that the loader makes as well, and writing. No other process can open
//! the file or give it a name, and the kernel frees it when no page of it is mapped any
//! more. A page to which the program stores becomes anonymous memory.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation};
use sopin_core::object::{Span, file_name};
use sopin_core::plan::Replacement;
use sopin_core::steps::{self, File, PIECE};
use sopin_core::sys::{self, Errno, Fd, gate};
use sopin_core::unnamed;

use crate::object_path::ObjectPath;

/// Returns whether the filters in force permit the calls that move memory and that create and
/// seal a memfd.
pub fn can_use_memfds() -> bool {
    let calls = [libc::SYS_mremap, libc::SYS_memfd_create, libc::SYS_pwrite64];
    let seals = [0, libc::F_ADD_SEALS as usize];
    calls.into_iter().all(gate::passes_number) && gate::passes(libc::SYS_fcntl, &seals)
}

/// Creates a sealed memfd with the contents that [`steps::contents`] lists for `file`. Fails if
/// one of the ranges cannot be read, so that none of them is replaced: if the object's file is
/// being truncated, a copy of half the object would not keep the program running.
pub fn make_memfd(path: ObjectPath<'_>, ranges: &[Replacement], file: File) -> Result<Fd, Cause> {
    let mut name = [0; 128];
    let memfd = sys::memfd_create(memfd_name(path, &mut name)).map_err(Operation::MemfdCreate.failed())?;
    for (span, offset) in steps::contents(ranges, file) {
        let write = |address, len: usize, done: usize| {
            let (len, offset) = (PIECE.min(len), offset + done as u64);
            sys::absorbing(libc::SIGXFSZ, || sys::pwrite_from(&memfd, address, len, offset))
        };
        write_all(span, write).map_err(Operation::Pwrite.failed())?;
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    sys::fcntl(memfd.raw(), libc::F_ADD_SEALS, seals).map_err(Operation::Fcntl.failed())?;
    Ok(memfd)
}

/// Writes `sopin:<file name>`, which `/proc/PID/maps` shows, into `buffer` as a C string. It
/// cuts a name that does not fit; the kernel accepts up to 249 bytes.
fn memfd_name<'a>(path: ObjectPath<'_>, buffer: &'a mut [u8; 128]) -> &'a CStr {
    let name = file_name(path.without_deleted());
    let bytes = b"sopin:".iter().chain(name).take(buffer.len() - 1);
    for (slot, byte) in buffer.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"sopin")
}

/// Opens a file without a name, on a file system that permits mapping code if the copy
/// `needs_execution`.
pub fn open_unnamed(needs_execution: bool) -> Result<Fd, Cause> {
    let flags = libc::O_TMPFILE | libc::O_EXCL | libc::O_RDWR;
    let mut first_error = None;
    for directory in unnamed::DIRECTORIES {
        let opened = sys::open(directory, flags, 0o600).and_then(|file| {
            if needs_execution {
                check_execution(&file)?;
            }
            Ok(file)
        });
        match opened {
            Ok(file) => return Ok(file),
            Err(errno) => drop(first_error.get_or_insert(errno)),
        }
    }
    Err(Cause::call(Operation::OpenFileWithoutName, first_error.unwrap_or(Errno(libc::ENOENT))))
}

/// Fails if code cannot be mapped from a file: with `EPERM` if its file system is mounted noexec.
fn check_execution(file: &Fd) -> sys::Result<()> {
    let (len, protection) = (sys::page_size(), libc::PROT_READ | libc::PROT_EXEC);
    // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
    let address = unsafe { sys::mmap(0, len, protection, libc::MAP_PRIVATE, Some((file, 0))) }?;
    // SAFETY: this function has just made the mapping, and no other code knows its address.
    unsafe { sys::munmap(address, len) }
}

/// Returns whether the bytes of a file may be in memory only: whether its file system has no
/// device, as tmpfs, or cannot be found out.
pub fn is_in_memory(file: &Fd) -> bool {
    sys::fstat(file.raw()).map_or(true, |status| libc::major(status.st_dev) == 0)
}

/// Returns whether copies of the writable ranges among `ranges` take memory: not if they become a
/// file without a name on a disk, whose pages the kernel can write back.
pub fn take_memory(ranges: &[Replacement]) -> bool {
    let needs_execution = ranges.iter().any(|range| range.protection & libc::PROT_EXEC != 0);
    can_use_memfds() || open_unnamed(needs_execution).as_ref().map_or(true, is_in_memory)
}

/// Writes the bytes of `spans` to a file without a name, one after the other.
pub fn fill_unnamed<Spans: Iterator<Item = Span>>(file: &Fd, spans: impl Fn() -> Spans) -> Result<(), Cause> {
    let size: usize = spans().map(|span| span.len()).sum();
    // For a write beyond the limit the kernel raises SIGXFSZ, which ends the program.
    let limit = sys::file_size_limit().map_err(Operation::Prlimit64.failed())?;
    if size as u64 > limit {
        return Err(Cause::call(Operation::Write, Errno(libc::EFBIG)));
    }
    for span in spans() {
        write_all(span, |address, len, _| sys::write_from(file, address, len)).map_err(Operation::Write.failed())?;
    }
    Ok(())
}

/// Writes all bytes of `span`. `write` gets an address, how many bytes are left and how many
/// are done, and returns how many it has written. It must pass the address to the kernel, which
/// reports memory that cannot be read.
fn write_all(span: Span, write: impl Fn(usize, usize, usize) -> sys::Result<usize>) -> sys::Result<()> {
    let mut done = 0;
    while done < span.len() {
        match write(span.start + done, span.len() - done, done)? {
            0 => return Err(Errno(libc::EFAULT)),
            // After a short count, the next attempt returns the reason.
            written => done += written,
        }
    }
    Ok(())
}
