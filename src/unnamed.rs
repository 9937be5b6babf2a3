//! Replacing ranges of an object where a seccomp filter may kill for what
//! [`crate::remap`] does: no memory can be moved, and there is no memfd.
//!
//! All ranges that are not mapped from a shared copy are mapped from a file that has
//! no name (`O_TMPFILE` of `open(2)`): by calls that the loader makes, and writing. It
//! belongs to this process alone, as nobody can open it or give it a name, and goes
//! when nothing of it is mapped. Pages that are stored to become anonymous memory.

use sopin_core::cause::{Cause, Operation};
use sopin_core::object::Span;
use sopin_core::plan::{Replacement, Source};
use sopin_core::sys::{self, Errno, Fd, gate};
use sopin_core::unnamed;

use crate::remap::{self, Outcome};

/// Returns whether the calls of [`crate::remap`] pass the filters in force.
pub fn is_needless() -> bool {
    let calls = [libc::SYS_mremap, libc::SYS_memfd_create, libc::SYS_pwrite64];
    let seals = [0, libc::F_ADD_SEALS as usize];
    calls.into_iter().all(gate::passes_number) && gate::passes(libc::SYS_fcntl, &seals)
}

/// Replaces all of `replacements`: those that hold what is in the object's file from
/// `shared`, if given, or else if `room` allows a private copy of so many bytes.
///
/// # Safety
/// As for [`remap::replace`].
pub unsafe fn replace(
    replacements: &[Replacement],
    shared: Option<&Fd>,
    room: impl Fn(usize) -> Result<(), Cause>,
) -> Outcome {
    let mut outcome = Outcome { is_unnamed: true, ..Outcome::default() };
    let shared_by = |range: &Replacement| shared.filter(|_| matches!(range.source, Source::Copy | Source::CopyOnWrite));
    for (range, file) in replacements.iter().filter_map(|range| Some((range, shared_by(range)?))) {
        // SAFETY: per the caller.
        outcome.note(range.source, unsafe { remap::map_copy(file, range, range.offset) });
    }
    let private = || replacements.iter().filter(|range| shared_by(range).is_none());
    if private().next().is_none() {
        return outcome;
    }
    let needs_execution = private().any(|range| range.protection & libc::PROT_EXEC != 0);
    let file = match open(needs_execution) {
        Ok(file) => file,
        Err(cause) => {
            private().for_each(|range| outcome.note(range.source, Err(cause)));
            return outcome;
        }
    };
    // Relocated pages are this process's own anyway, and what is on a disk can be
    // written back there.
    let read_only = private().filter(|range| range.source == Source::Copy).map(|range| range.span.len()).sum();
    let refusal = if read_only != 0 && is_in_memory(&file) { room(read_only).err() } else { None };
    let is_refused = |range: &&Replacement| range.source == Source::Copy && refusal.is_some();
    if let Some(cause) = refusal {
        outcome.note(Source::Copy, Err(cause));
    } else if is_in_memory(&file) {
        outcome.private = read_only;
    }
    let kept = || private().filter(|range| !is_refused(range));
    let filled = fill(&file, kept);
    let mut offset = 0;
    for range in kept() {
        // SAFETY: per the caller; the file has the ranges one behind the other.
        outcome.note(range.source, filled.and_then(|()| unsafe { remap::map_copy(&file, range, offset) }));
        offset += range.span.len() as u64;
    }
    outcome
}

/// Writes the bytes of these `ranges` to a file, one behind the other.
fn fill<'a, Ranges: Iterator<Item = &'a Replacement>>(file: &Fd, ranges: impl Fn() -> Ranges) -> Result<(), Cause> {
    let size: usize = ranges().map(|range| range.span.len()).sum();
    // Beyond it the kernel would raise SIGXFSZ, which kills.
    let limit = sys::file_size_limit().map_err(Operation::Prlimit64.failed())?;
    if size as u64 > limit {
        return Err(Cause::call(Operation::Write, Errno(libc::EFBIG)));
    }
    for range in ranges() {
        write_all(file, range.span).map_err(Operation::Write.failed())?;
    }
    Ok(())
}

/// Returns whether a file may be in memory: on a file system without a device, such as tmpfs.
fn is_in_memory(file: &Fd) -> bool {
    sys::fstat(file.raw()).map_or(true, |status| libc::major(status.st_dev) == 0)
}

fn open(needs_execution: bool) -> Result<Fd, Cause> {
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

/// Returns whether code may be mapped from a file: `EPERM` where it is mounted noexec.
fn check_execution(file: &Fd) -> sys::Result<()> {
    let (len, protection) = (sys::page_size(), libc::PROT_READ | libc::PROT_EXEC);
    // SAFETY: a new mapping at an address of the kernel's choice, which goes at once.
    let address = unsafe { sys::mmap(0, len, protection, libc::MAP_PRIVATE, Some((file, 0))) }?;
    // SAFETY: ours, and nothing refers to it.
    unsafe { sys::munmap(address, len) }
}

/// Appends all bytes of `span`, straight from memory.
fn write_all(file: &Fd, span: Span) -> sys::Result<()> {
    let mut done = 0;
    while done < span.len() {
        match sys::write_from(file, span.start + done, span.len() - done)? {
            0 => return Err(Errno(libc::EFAULT)),
            // A short count: the next attempt says why.
            written => done += written,
        }
    }
    Ok(())
}
