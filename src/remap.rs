//! Replacing ranges of a loaded object. Nothing else changes a mapping of the
//! host, and nothing here decides what to replace.
//!
//! ```text
//! anonymous:  scratch  [ copy of the range ]──── mremap ────┐   one step: a fault
//!             object   [ file ][ file ][ file ]  <──────────┘   sees the old page
//!                                                               or the new one
//! copy:       store entry or sealed memfd  [ bytes at their offsets in the file ]
//!             object   [ file ]  <── mmap MAP_FIXED of the copy, one step
//! ```
//!
//! Between a copy and its swap there is no store to anything but the scratch
//! memory, since what is being swapped may be this library's own data. If a
//! step fails the range is what it was: every resource is obtained first.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::OwnMemory;
use sopin_core::object::{Span, file_name};
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::plan::{Replacement, Source};
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::vmas::Protection;

use crate::object_path::ObjectPath;
use crate::unnamed;

/// Bytes that are copied before they are swapped: bounds how much memory a
/// pin needs at a time beyond what it keeps.
const STEP: usize = 1 << 20;

const READ_WRITE: Protection = libc::PROT_READ | libc::PROT_WRITE;

/// What became of the ranges of one object.
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    /// Bytes replaced.
    pub bytes: usize,
    /// Whether writable and relocated ranges are mapped from a file without a name.
    pub is_unnamed: bool,
    /// Of these, bytes of read-only ranges that are mapped from a private copy.
    pub private: usize,
    /// Why a writable or relocated range was left as it was.
    pub relocated_failure: Option<Cause>,
    /// Why a read-only range was left as it was.
    pub read_only_failure: Option<Cause>,
}

impl Outcome {
    /// Notes what became of a range.
    pub fn note(&mut self, source: Source, result: Result<usize, Cause>) {
        let failure = match source {
            Source::Anonymous | Source::RelocatedCopy | Source::CopyOnWrite => &mut self.relocated_failure,
            Source::Copy => &mut self.read_only_failure,
        };
        match result {
            Ok(bytes) => self.bytes += bytes,
            Err(cause) => {
                failure.get_or_insert(cause);
            }
        }
    }
}

/// Replaces all of `replacements`, which belong to the object of this `path`.
/// Ranges that hold what is in the object's file are mapped from `shared`, if
/// given and possible, else from a memfd, if `room` allows one of so many bytes.
///
/// # Safety
/// `shared` must hold the bytes of the object's file and never change.
/// The ranges must be mapped, hold what the loader put there, and stay mapped
/// for the duration of the call; nobody may store to a range whose source is
/// [`Source::Anonymous`] in the meantime.
pub unsafe fn replace(
    memory: &OwnMemory,
    path: ObjectPath<'_>,
    replacements: &[Replacement],
    shared: Option<&Fd>,
    room: impl Fn(usize) -> Result<(), Cause>,
) -> Outcome {
    if !unnamed::is_needless() {
        // SAFETY: per the caller.
        return unsafe { unnamed::replace(replacements, shared, room) };
    }
    let mut outcome = Outcome::default();
    // SAFETY: per the caller.
    unsafe { replace_by_anonymous(memory, replacements, &mut outcome) };
    let (private, relocated) = (OnceCell::new(), OnceCell::new());
    for (index, range) in replacements.iter().enumerate().filter(|(_, range)| range.source != Source::Anonymous) {
        let shared = shared.filter(|_| range.source != Source::RelocatedCopy);
        // SAFETY: per the caller.
        let mapped = shared.map(|file| unsafe { map_copy(file, range, range.offset) });
        let result = if let Some(Ok(len)) = mapped {
            Ok(len)
        } else {
            // Relocated text is private anyway: the loader has copied its pages.
            let copy = if range.source == Source::RelocatedCopy {
                get_or_init(&relocated, || make_copy(path, replacements, |source| source == Source::RelocatedCopy))
            } else {
                get_or_init(&private, || {
                    room(private_bytes(replacements))?;
                    make_copy(path, replacements, is_file_copy)
                })
            };
            // SAFETY: per the caller; the copy holds every such range.
            let mapped = copy
                .as_ref()
                .map_err(|cause| *cause)
                .and_then(|file| unsafe { map_copy(file, range, offset_in_copy(replacements, index)) });
            outcome.private += mapped.unwrap_or(0) * usize::from(is_file_copy(range.source));
            mapped
        };
        outcome.note(range.source, result);
    }
    outcome
}

/// Memory for the copies, unmapped when dropped but for what has moved away.
struct Scratch {
    rest: Span,
}

impl Scratch {
    fn new(len: usize) -> Result<Self, Cause> {
        // All of a small object's pages at once are cheaper than one by one.
        // The loader does not ask for that, and some filters look at the flags.
        let populate = if len <= STEP && !sys::gate::is_closed() { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { sys::mmap(0, len, READ_WRITE, flags, None) }.map_err(Operation::Mmap.failed())?;
        Ok(Self { rest: Span { start, end: start + len } })
    }

    /// Takes the first `len` bytes off.
    fn take(&mut self, len: usize) -> Self {
        let start = self.rest.start;
        self.rest.start += len;
        Self { rest: Span { start, end: start + len } }
    }

    /// Fills the memory with the bytes at `target`, gives it `protection` and
    /// moves it there.
    ///
    /// # Safety
    /// As for [`replace`], for the pages at `target`.
    unsafe fn take_place_of(mut self, target: usize, protection: Protection, memory: &OwnMemory) -> Result<(), Cause> {
        let (copy, len) = (self.rest.start, self.rest.len());
        // SAFETY: the scratch memory is ours.
        unsafe { memory.copy(copy as *mut u8, target, len) }.map_err(|errno| Cause::call(memory.operation(), errno))?;
        if protection != READ_WRITE {
            // SAFETY: nothing refers to the scratch memory.
            unsafe { sys::mprotect(copy, len, protection) }.map_err(Operation::Mprotect.failed())?;
        }
        // SAFETY: the source is one VMA of ours; the target gets the same
        // bytes, and per the caller nobody stores to it.
        unsafe { sys::mremap_onto(copy, len, target) }.map_err(Operation::Mremap.failed())?;
        self.rest.start = self.rest.end;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            // SAFETY: ours, and nothing refers to it.
            let _ = unsafe { sys::munmap(self.rest.start, self.rest.len()) };
        }
    }
}

/// One scratch mapping serves all ranges, so that the steps of a large one end
/// up as one VMA again: the kernel merges what comes from neighbouring offsets.
///
/// # Safety
/// As for [`replace`].
unsafe fn replace_by_anonymous(memory: &OwnMemory, replacements: &[Replacement], outcome: &mut Outcome) {
    let ranges = replacements.iter().filter(|range| range.source == Source::Anonymous);
    let total = ranges.map(|range| range.span.len()).sum();
    if total == 0 {
        return;
    }
    let mut scratch = match Scratch::new(total) {
        Ok(scratch) => scratch,
        Err(cause) => return outcome.note(Source::Anonymous, Err(cause)),
    };
    let mut rest = replacements;
    while let (Some(first), Some((block, others))) = (rest.first(), rest.split_at_checked(block_len(rest))) {
        rest = others;
        if first.source != Source::Anonymous {
            continue;
        }
        let result = match block {
            // SAFETY: per the caller.
            [range] => unsafe { replace_in_steps(memory, range, &mut scratch) },
            // SAFETY: per the caller.
            block => unsafe { replace_block(memory, block, &mut scratch) },
        };
        outcome.note(Source::Anonymous, result);
    }
}

/// How many of the first `ranges` can be moved at once: RELRO and the data
/// behind it, if they are small. At least one.
fn block_len(ranges: &[Replacement]) -> usize {
    let is_plain = |range: &Replacement| {
        range.source == Source::Anonymous && matches!(range.protection, libc::PROT_READ | READ_WRITE)
    };
    let joined = |pair: &[Replacement]| match pair {
        [one, next] => is_plain(one) && is_plain(next) && one.span.end == next.span.start,
        _ => false,
    };
    let count = 1 + ranges.windows(2).take_while(|pair| joined(pair)).count();
    let total: usize = ranges.iter().take(count).map(|range| range.span.len()).sum();
    if total <= STEP { count } else { 1 }
}

/// Replaces neighbouring ranges by one move, which costs the kernel more than
/// all the rest. The bytes are right at any instant; what is read-only is
/// writable from the move until its protection is set, as it was in the loader's
/// hands a moment ago.
///
/// # Safety
/// As for [`replace`].
unsafe fn replace_block(memory: &OwnMemory, block: &[Replacement], scratch: &mut Scratch) -> Result<usize, Cause> {
    let (Some(first), Some(last)) = (block.first(), block.last()) else { return Ok(0) };
    let len = last.span.end - first.span.start;
    // SAFETY: per the caller.
    unsafe { scratch.take(len).take_place_of(first.span.start, READ_WRITE, memory) }?;
    for range in block.iter().filter(|range| range.protection != READ_WRITE) {
        // SAFETY: the protection that the range had.
        unsafe { sys::mprotect(range.span.start, range.span.len(), range.protection) }
            .map_err(Operation::Mprotect.failed())?;
    }
    Ok(len)
}

/// Replaces a range of any length and protection, a bounded number of bytes at
/// a time.
///
/// # Safety
/// As for [`replace`].
unsafe fn replace_in_steps(memory: &OwnMemory, range: &Replacement, scratch: &mut Scratch) -> Result<usize, Cause> {
    let mut target = range.span.start;
    let mut result = Ok(range.span.len());
    while target < range.span.end {
        let len = STEP.min(range.span.end - target);
        // SAFETY: per the caller.
        let replaced = unsafe { scratch.take(len).take_place_of(target, range.protection, memory) };
        result = result.and_then(|total| replaced.map(|()| total));
        target += len;
    }
    result
}

/// Where a range goes in a private copy: to its offset in the file, as debuggers
/// expect, unless an earlier range is there. Two segments can begin in one page of the
/// file and be relocated differently; the second one then goes behind all others.
fn offset_in_copy(replacements: &[Replacement], index: usize) -> u64 {
    let end = |range: &Replacement| range.offset + range.span.len() as u64;
    let is_copied = |range: &&Replacement| range.source != Source::Anonymous;
    let is_displaced = |index: usize| {
        let Some((earlier, rest)) = replacements.split_at_checked(index) else { return false };
        let overlaps =
            |range: &Replacement, other: &Replacement| range.offset < end(other) && other.offset < end(range);
        rest.first().is_some_and(|range| {
            is_copied(&range) && earlier.iter().filter(is_copied).any(|other| overlaps(range, other))
        })
    };
    let Some(range) = replacements.get(index).filter(|_| is_displaced(index)) else {
        return replacements.get(index).map_or(0, |range| range.offset);
    };
    let behind_all = replacements.iter().filter(is_copied).map(end).max().unwrap_or(range.offset);
    let displaced = replacements.iter().enumerate().take(index).filter(|(index, _)| is_displaced(*index));
    behind_all + displaced.map(|(_, range)| range.span.len() as u64).sum::<u64>()
}

/// Returns whether ranges of this source hold what is in the object's file.
fn is_file_copy(source: Source) -> bool {
    matches!(source, Source::Copy | Source::CopyOnWrite)
}

/// How large a private copy of all such ranges is.
fn private_bytes(replacements: &[Replacement]) -> usize {
    replacements.iter().filter(|range| is_file_copy(range.source)).map(|range| range.span.len()).sum()
}

/// A sealed memfd with the bytes of all ranges whose source is `included`, which
/// are not to become anonymous, see [`offset_in_copy`]. If one cannot be read, none is
/// replaced: half of an object in a file that is being truncated helps nobody.
fn make_copy(
    path: ObjectPath<'_>,
    replacements: &[Replacement],
    included: impl Fn(Source) -> bool,
) -> Result<Fd, Cause> {
    let mut name = [0; 128];
    let file = sys::memfd_create(memfd_name(path, &mut name)).map_err(Operation::MemfdCreate.failed())?;
    for (index, range) in replacements.iter().enumerate().filter(|(_, range)| included(range.source)) {
        let offset = offset_in_copy(replacements, index);
        write_all(&file, range.span, offset).map_err(Operation::Pwrite.failed())?;
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    sys::fcntl(file.raw(), libc::F_ADD_SEALS, seals).map_err(Operation::Fcntl.failed())?;
    Ok(file)
}

/// Writes all bytes of `span`, straight from memory.
fn write_all(file: &Fd, span: Span, offset: u64) -> sys::Result<()> {
    let mut done = 0;
    while done < span.len() {
        let len = STEP.min(span.len() - done);
        let write = || sys::pwrite_from(file, span.start + done, len, offset + done as u64);
        match sys::absorbing(libc::SIGXFSZ, write)? {
            0 => return Err(Errno(libc::EFAULT)),
            // A short count: the next attempt says why.
            written => done += written,
        }
    }
    Ok(())
}

/// Maps a range from `offset` of a copy.
///
/// # Safety
/// As for [`replace`]; `file` must hold the range's bytes from `offset` on.
pub unsafe fn map_copy(file: &Fd, range: &Replacement, offset: u64) -> Result<usize, Cause> {
    let (span, flags) = (range.span, libc::MAP_PRIVATE | libc::MAP_FIXED);
    // SAFETY: the same bytes with the same protection take the place of the
    // old ones in one step.
    let mapped = unsafe { sys::mmap(span.start, span.len(), range.protection, flags, Some((file, offset))) };
    mapped.map(|_| span.len()).map_err(Operation::Mmap.failed())
}

/// `sopin:<file name>`, which shows in `/proc/PID/maps`, as a C string in
/// `buffer`. A name that is too long (memfd takes 249 bytes) is cut.
fn memfd_name<'a>(path: ObjectPath<'_>, buffer: &'a mut [u8; 128]) -> &'a CStr {
    let name = file_name(path.without_deleted());
    let bytes = b"sopin:".iter().chain(name).take(buffer.len() - 1);
    for (slot, byte) in buffer.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"sopin")
}
