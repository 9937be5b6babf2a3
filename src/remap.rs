//! The interpreter of [`sopin_core::steps`] in this process: it replaces ranges of a loaded
//! object by raw system calls. Nothing else changes a mapping of the host, and nothing here
//! decides what to replace.
//!
//! Between a copy and its move there is no store to anything but the scratch
//! memory and the stack, since what is being moved may be this library's own data. If a
//! step fails the range is what it was: every resource is obtained first.

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::OwnMemory;
use sopin_core::object::Span;
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::plan::{Backing, Replacement};
use sopin_core::steps::{self, File, PIECE, Place, Step};
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::vmas::Protection;

use crate::object_path::ObjectPath;
use crate::private_copies;

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

/// Replaces all of `ranges`, which belong to the object of this `path`.
/// Ranges that hold what is in the object's file are mapped from `shared`, if
/// given and possible, else from a private copy, if `room` allows one of so many bytes.
///
/// # Safety
/// * `shared` must hold the bytes of the object's file and never change.
/// * The ranges must be mapped, hold what the loader put there, and stay mapped
///   for the duration of the call.
/// * No thread may store to a range whose backing is [`Backing::Anonymous`] in the meantime.
pub unsafe fn replace(
    memory: &OwnMemory,
    path: ObjectPath<'_>,
    ranges: &[Replacement],
    shared: Option<&Fd>,
    room: impl Fn(usize) -> Result<(), Cause>,
) -> Outcome {
    if !private_copies::can_use_memfds() {
        // SAFETY: this function demands the same.
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
            // Relocated text is private anyway: the loader has copied its pages.
            File::Relocated => get_or_init(&relocated, || private_copies::make_memfd(path, ranges, File::Relocated)),
        };
        made.as_ref().map_err(|cause| *cause)
    };
    // SAFETY: the program is one for these ranges, of which the caller says what `run`
    // demands. A private file is made of what is mapped.
    unsafe { run(&mut steps::moving(ranges, shared.is_some()), memory, &file) }
}

/// Replaces all of `ranges` where a seccomp filter may kill for moving memory and for a
/// memfd: those that are not mapped from `shared` are mapped from a file without a name.
///
/// # Safety
/// As for [`replace`].
unsafe fn replace_unnamed(
    memory: &OwnMemory,
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
    // Relocated pages are this process's own anyway, and what is on a disk can be
    // written back there.
    let read_only = private().filter(|range| range.backing == Backing::Copy).map(|range| range.span.len()).sum();
    let refusal = if read_only != 0 && is_in_memory { room(read_only).err() } else { None };
    let is_kept = |range: &Replacement| refusal.is_none() || range.backing != Backing::Copy;
    let kept = || private().filter(|range| is_kept(range)).map(|range| range.span);
    let filled = opened.and_then(|file| private_copies::fill_unnamed(&file, kept).map(|()| file));
    let file = |file: File| match file {
        File::Shared => shared.ok_or(NO_FILE),
        File::Private | File::Relocated => filled.as_ref().map_err(|cause| *cause),
    };
    // SAFETY: as in `replace`; the file has the kept ranges one behind the other.
    let mut outcome = unsafe { run(&mut steps::mapping(ranges, shared.is_some(), is_kept), memory, &file) };
    outcome.is_unnamed = true;
    outcome.private = if is_in_memory && refusal.is_none() { read_only } else { 0 };
    if let Some(cause) = refusal {
        outcome.note(Backing::Copy, Err(cause));
    }
    outcome
}

/// No step asks for a file that the program was not made for.
const NO_FILE: Cause = Cause::call(Operation::Mmap, Errno(libc::EBADF));

/// Runs a program.
///
/// # Safety
/// * The program must be one of [`steps`] for ranges of which holds what [`replace`] demands.
/// * `file` must return files that have the bytes of these ranges where the program says.
unsafe fn run<'a>(
    program: &mut dyn Iterator<Item = Step>,
    memory: &OwnMemory,
    file: &dyn Fn(File) -> Result<&'a Fd, Cause>,
) -> Outcome {
    let mut outcome = Outcome::default();
    // One scratch mapping serves all ranges, so that the pieces of a large one end
    // up as one VMA again: the kernel merges what comes from neighbouring offsets.
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
            // SAFETY: the copy has the bytes of the span, no thread stores to that, as this
            // function demands, and nothing refers to the copy.
            Step::Move { span } => unsafe { copy.move_to(span) },
            // SAFETY: the protection that the range had.
            Step::Protect { span, protection } => unsafe { protect(span, protection) },
            Step::MapFile { span, protection, place, otherwise } => {
                let map = |Place { file: from, offset }| {
                    // SAFETY: the file has the bytes of the span there, as this function demands.
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

/// Memory for the copies, unmapped when dropped but for what has moved away.
struct Scratch {
    rest: Span,
}

impl Scratch {
    const EMPTY: Self = Self { rest: Span { start: 0, end: 0 } };

    fn new(len: usize) -> Result<Self, Cause> {
        // All of a small object's pages at once are cheaper than one by one.
        // The loader does not ask for that, and some filters look at the flags.
        let populate = if len <= PIECE && !sys::gate::is_closed() { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { sys::mmap(0, len, protection, flags, None) }.map_err(Cause::no_memory)?;
        Ok(Self { rest: Span { start, end: start + len } })
    }

    /// Takes the first `len` bytes off. There are fewer only if none could be mapped.
    fn take(&mut self, len: usize) -> Result<Self, Cause> {
        if self.rest.len() < len {
            return Err(Cause::no_memory(Errno(libc::ENOMEM)));
        }
        let start = self.rest.start;
        self.rest.start += len;
        Ok(Self { rest: Span { start, end: start + len } })
    }

    /// Fills the memory with the bytes at `span`, which is as long.
    fn fill(&mut self, span: Span, memory: &OwnMemory) -> Result<(), Cause> {
        // SAFETY: the memory is this scratch's alone, and was taken with the length of the span.
        let copied = unsafe { memory.copy(self.rest.start as *mut u8, span.start, self.rest.len()) };
        copied.map_err(|errno| Cause::call(memory.operation(), errno))
    }

    fn protect(&self, protection: Protection) -> Result<(), Cause> {
        // SAFETY: nothing refers to the scratch memory.
        unsafe { protect(self.rest, protection) }
    }

    /// Moves the memory to `span`, which is as long.
    ///
    /// # Safety
    /// The memory must have the bytes of the span, to which no thread may store.
    unsafe fn move_to(&mut self, span: Span) -> Result<(), Cause> {
        let (copy, len) = (self.rest.start, self.rest.len());
        // SAFETY: the source is one VMA that nothing refers to; the target gets the bytes
        // that it has, and no store to it is lost, as this function demands.
        unsafe { sys::mremap_onto(copy, len, span.start) }.map_err(Operation::Mremap.failed())?;
        self.rest = Self::EMPTY.rest;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            // SAFETY: the memory was mapped by `new` and has not moved, and nothing refers to it.
            let _ = unsafe { sys::munmap(self.rest.start, self.rest.len()) };
        }
    }
}

/// # Safety
/// As for [`sys::mprotect`].
unsafe fn protect(span: Span, protection: Protection) -> Result<(), Cause> {
    // SAFETY: this function demands the same.
    unsafe { sys::mprotect(span.start, span.len(), protection) }.map_err(Operation::Mprotect.failed())
}

/// Maps `span` from `offset` of a file.
///
/// # Safety
/// The file must have the bytes of the span there and never change.
unsafe fn map_file(span: Span, protection: Protection, file: &Fd, offset: u64) -> Result<(), Cause> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the same bytes with the same protection take the place of the old ones in one step.
    let mapped = unsafe { sys::mmap(span.start, span.len(), protection, flags, Some((file, offset))) };
    mapped.map(drop).map_err(Cause::no_memory)
}
