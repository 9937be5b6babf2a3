//! The interpreter of [`sopin_core::steps`] in this process: it replaces ranges of a loaded
//! object by raw system calls. Nothing else changes a mapping of the host, and nothing here
//! decides what to replace.
//!
//! Between a copy and its move this code stores only to the scratch memory and the stack,
//! since the range that is being replaced may be this library's own data. If a step fails, the
//! range is unchanged, because all resources are obtained first.

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::ProcessMemory;
use sopin_core::object::Span;
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::plan::{Backing, Replacement};
use sopin_core::steps::{self, File, PIECE, Place, Step};
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::vmas::{FileId, Protection};

use crate::object_path::ObjectPath;
use crate::private_copies;

/// The result of replacing the ranges of one object.
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    /// Bytes that were replaced.
    pub bytes: usize,
    /// Whether writable and relocated ranges are mapped from a file without a name.
    pub is_unnamed: bool,
    /// Bytes that have become private memory: those of ranges that are mapped from a private copy.
    /// [`crate::sweep`] adds those of data to which no code had stored.
    pub private: usize,
    /// Why a writable or relocated range was left as it was.
    pub relocated_failure: Option<Cause>,
    /// Why a read-only range was left as it was.
    pub read_only_failure: Option<Cause>,
}

impl Outcome {
    /// Returns the file that is mapped where ranges were to become anonymous memory, which has inode
    /// 0. `None` if that may be another one, because a part was left or maps a copy.
    pub fn file_of_anonymous(&self) -> Option<FileId> {
        (self.relocated_failure.is_none() && !self.is_unnamed).then(FileId::default)
    }

    /// Adds the result of replacing one range, or several neighbouring ones.
    fn note(&mut self, backing: Backing, result: Result<usize, Cause>) {
        let failure = match backing {
            Backing::Anonymous | Backing::RelocatedCopy | Backing::CopyOnWrite => &mut self.relocated_failure,
            Backing::Copy => &mut self.read_only_failure,
        };
        match result {
            Ok(bytes) => self.bytes += bytes,
            Err(cause) => {
                failure.get_or_insert(cause);
            }
        }
    }
}

/// Replaces all of `ranges`, which belong to the object of this `path`. It maps the ranges that
/// hold the bytes of the object's file from `shared`, if that is given and can be mapped.
/// Otherwise it maps them from a private copy, if `room` permits one of so many bytes.
///
/// # Safety
/// * The ranges must be whole pages of an object that is not unloaded during the call, with the
///   protection that they have now. No other code may change their mappings meanwhile.
/// * A range whose backing is [`Backing::Copy`] or [`Backing::CopyOnWrite`] must hold the bytes
///   that `shared` has at the range's offset, and `shared` must never change.
/// * No thread may store to the ranges during the call.
pub unsafe fn replace(
    memory: &ProcessMemory,
    path: ObjectPath<'_>,
    ranges: &[Replacement],
    shared: Option<&Fd>,
    room: impl Fn(usize) -> Result<(), Cause>,
) -> Outcome {
    if !private_copies::can_use_memfds() {
        // SAFETY: `replace_unnamed` has the contract of this function, with the same arguments.
        return unsafe { replace_unnamed(memory, ranges, shared, room) };
    }
    let (private, relocated) = (OnceCell::new(), OnceCell::new());
    let file = |file: File| {
        let made = match file {
            File::Shared => return shared.ok_or(NO_FILE),
            File::Private => get_or_init(&private, || {
                let held = steps::contents(ranges, File::Private);
                room(held.map(|(span, _)| span.len()).sum())?;
                private_copies::make_memfd(path, ranges, File::Private)
            }),
            // `room` is not asked for relocated text, whose pages are private memory anyway: the
            // loader has stored to them.
            File::Relocated => get_or_init(&relocated, || private_copies::make_memfd(path, ranges, File::Relocated)),
        };
        made.as_ref().map_err(|cause| *cause)
    };
    // SAFETY: `steps::moving` makes the program for these ranges, for which this function's contract
    // holds. `shared` has the bytes of the ranges at their offsets, by the same contract.
    // `make_memfd` has written the bytes of the ranges to the other files, at the offsets of
    // `steps::contents`, which the program uses as well, and has sealed them.
    unsafe { run(&mut steps::moving(ranges, shared.is_some()), memory, &file) }
}

/// Replaces all of `ranges` where a seccomp filter may kill for moving memory or creating a
/// memfd: it maps those that `shared` does not have from a file without a name.
///
/// # Safety
/// As for [`replace`].
unsafe fn replace_unnamed(
    memory: &ProcessMemory,
    ranges: &[Replacement],
    shared: Option<&Fd>,
    room: impl Fn(usize) -> Result<(), Cause>,
) -> Outcome {
    let is_private = |range: &&Replacement| shared.is_none() || !range.backing.is_file_copy();
    let private = || ranges.iter().filter(is_private);
    let opened = match private().next() {
        None => Err(NO_FILE),
        Some(_) => private_copies::open_unnamed(private().any(|range| range.protection & libc::PROT_EXEC != 0)),
    };
    let is_in_memory = opened.as_ref().is_ok_and(private_copies::is_in_memory);
    // Only copies of read-only ranges in memory need room. Relocated pages are private memory
    // anyway, and the kernel can write pages of a file on a disk back.
    let read_only = private().filter(|range| range.backing == Backing::Copy).map(|range| range.span.len()).sum();
    let refusal = if read_only != 0 && is_in_memory { room(read_only).err() } else { None };
    let is_kept = |range: &Replacement| refusal.is_none() || range.backing != Backing::Copy;
    let kept = || private().filter(|range| is_kept(range)).map(|range| range.span);
    let filled = opened.and_then(|file| private_copies::fill_unnamed(&file, kept).map(|()| file));
    let file = |file: File| match file {
        File::Shared => shared.ok_or(NO_FILE),
        File::Private | File::Relocated => filled.as_ref().map_err(|cause| *cause),
    };
    // SAFETY: `steps::mapping` makes the program for these ranges, for which this function's
    // contract holds. `shared` has the bytes of the ranges at their offsets, by the same contract.
    // `fill_unnamed` has written the bytes of the kept ranges to the other file one after the
    // other, where the program expects them. No other process can open that file, and this one
    // does not write to it any more.
    let mut outcome = unsafe { run(&mut steps::mapping(ranges, shared.is_some(), is_kept), memory, &file) };
    outcome.is_unnamed = true;
    outcome.private = if is_in_memory && refusal.is_none() { read_only } else { 0 };
    if let Some(cause) = refusal {
        outcome.note(Backing::Copy, Err(cause));
    }
    outcome
}

/// Stands for a file that does not exist. No step asks for it, since the program was made for the
/// files that exist.
const NO_FILE: Cause = Cause::call(Operation::Mmap, Errno(libc::EBADF));

/// Runs a program.
///
/// # Safety
/// * [`steps`] must have made the program, for ranges that fulfil the contract of [`replace`].
/// * The files that `file` returns must have the bytes of these ranges at the places that the
///   program names, and never change.
unsafe fn run<'a>(
    program: &mut dyn Iterator<Item = Step>,
    memory: &ProcessMemory,
    file: &dyn Fn(File) -> Result<&'a Fd, Cause>,
) -> Outcome {
    let mut outcome = Outcome::default();
    // All ranges take their pieces from one scratch mapping. So the pieces of a large range
    // become one VMA again: the kernel merges neighbours that come from neighbouring offsets.
    let (mut scratch, mut copy) = (Scratch::EMPTY, Scratch::EMPTY);
    let (mut failure, mut is_skipping) = (None, false);
    for step in program {
        is_skipping &= !matches!(step, Step::Copy { .. } | Step::Done { .. });
        if is_skipping {
            continue;
        }
        let done = match step {
            Step::Map { len } => Scratch::new(len).map(|mapped| scratch = mapped),
            Step::Copy { span } => scratch.take(span.len()).and_then(|taken| {
                copy = taken;
                copy.fill(span, memory)
            }),
            Step::ProtectCopy { protection } => copy.protect(protection),
            // SAFETY: a program has a `Copy` of the same span before each `Move`, and a failed step
            // would have skipped this one. So the copy has the bytes and the length of the span. It
            // can be read and written, or `ProtectCopy` has given it the protection of the span.
            // No thread stores to the span: this function's contract, by that of `replace`.
            Step::Move { span } => unsafe { copy.move_to(span) },
            // SAFETY: the program sets the protection that the pages had before the move, so it
            // forbids no access that was permitted then: the contract of `protect`.
            Step::Protect { span, protection } => unsafe { protect(span, protection) },
            Step::MapFile { span, protection, place, otherwise } => {
                let map = |Place { file: from, offset }| {
                    // SAFETY: the file has the bytes of the span at this offset and never changes,
                    // and no thread stores to the span: this function's contract. The program keeps
                    // the protection of the pages.
                    file(from).and_then(|file| unsafe { map_file(span, protection, file, offset) }).map(|()| from)
                };
                let mapped = map(place).or_else(|cause| otherwise.map_or(Err(cause), map));
                mapped.map(|from| outcome.private += if from == File::Private { span.len() } else { 0 })
            }
            Step::Done { backing, bytes } => {
                outcome.note(backing, failure.take().map_or(Ok(bytes), Err));
                Ok(())
            }
        };
        if let Err(cause) = done {
            failure = failure.or(Some(cause));
            is_skipping = true;
        }
    }
    outcome
}

/// Memory for the copies. Dropping it unmaps the part that was not moved away. No code makes
/// references into it.
struct Scratch {
    rest: Span,
    /// True if the kernel has provided its pages already (MAP_POPULATE).
    is_populated: bool,
}

impl Scratch {
    const EMPTY: Self = Self { rest: Span { start: 0, end: 0 }, is_populated: true };

    fn new(len: usize) -> Result<Self, Cause> {
        // Populating all pages at once is faster than a fault for each. More than a piece is
        // populated piece by piece. The loader never sets the flag, and some seccomp filters look
        // at the flags of mmap(2).
        let is_populated = len <= PIECE && !sys::gate::is_closed();
        let populate = if is_populated { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
        let start = unsafe { sys::mmap(0, len, protection, flags, None) }.map_err(Cause::no_memory)?;
        Ok(Self { rest: Span { start, end: start + len }, is_populated })
    }

    /// Splits off the first `len` bytes. Fails if there are fewer, which happens only after a
    /// failure of `Map`.
    fn take(&mut self, len: usize) -> Result<Self, Cause> {
        if self.rest.len() < len {
            return Err(Cause::no_memory(Errno(libc::ENOMEM)));
        }
        let start = self.rest.start;
        self.rest.start += len;
        Ok(Self { rest: Span { start, end: start + len }, is_populated: self.is_populated })
    }

    /// Fills the memory with the bytes at `span`, which has the same length.
    fn fill(&mut self, span: Span, memory: &ProcessMemory) -> Result<(), Cause> {
        if !self.is_populated {
            // If it fails, the copy takes a fault for each page.
            let _ = sys::populate(self.rest.start, self.rest.len());
        }
        // SAFETY: `rest` is writable memory that `new` has mapped and no other value owns: `take`
        // splits it, and `move_to` empties it. Its protection changes only after the filling.
        let copied = unsafe { memory.copy_inaccessible(self.rest.start as *mut u8, span.start, self.rest.len()) };
        copied.map_err(|errno| Cause::call(memory.operation(), errno))
    }

    fn protect(&self, protection: Protection) -> Result<(), Cause> {
        // SAFETY: no reference points into scratch memory, so no protection forbids an access.
        unsafe { protect(self.rest, protection) }
    }

    /// Moves the memory to `span`.
    ///
    /// # Safety
    /// The memory must have the length of the span, its bytes, and a protection that permits at
    /// least the same accesses. No thread may store to the span between the copy and the move.
    unsafe fn move_to(&mut self, span: Span) -> Result<(), Cause> {
        let (copy, len) = (self.rest.start, self.rest.len());
        // SAFETY: no reference points into the source, which is scratch memory. The source holds
        // the bytes of the target with at least the same accesses, and no store to the target is
        // lost: this function's contract, and that of `mremap_onto`.
        unsafe { sys::mremap_onto(copy, len, span.start) }.map_err(Operation::Mremap.failed())?;
        self.rest = Self::EMPTY.rest;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            // SAFETY: `new` has mapped `rest`, this value owns it, and it was not moved away, since
            // `move_to` empties it. No reference points into scratch memory.
            let _ = unsafe { sys::munmap(self.rest.start, self.rest.len()) };
        }
    }
}

/// Sets the protection of `span`.
///
/// # Safety
/// As for [`sys::mprotect`]: no reference into `span` may be used for an access that the new
/// protection forbids.
unsafe fn protect(span: Span, protection: Protection) -> Result<(), Cause> {
    // SAFETY: the contracts of this function and of `sys::mprotect` are the same.
    unsafe { sys::mprotect(span.start, span.len(), protection) }.map_err(Operation::Mprotect.failed())
}

/// Maps `span` from `offset` of a file.
///
/// # Safety
/// The file must have the bytes of the span at `offset` and never change. `protection` must
/// permit at least the accesses that the span permits now. No thread may store to the span.
unsafe fn map_file(span: Span, protection: Protection, file: &Fd, offset: u64) -> Result<(), Cause> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: references may point into `span`, but the new mapping holds the same bytes with at
    // least the same accesses: this function's contract, and that of `mmap` with MAP_FIXED. The
    // kernel replaces the old mapping in one step.
    let mapped = unsafe { sys::mmap(span.start, span.len(), protection, flags, Some((file, offset))) };
    mapped.map(drop).map_err(Cause::no_memory)
}
