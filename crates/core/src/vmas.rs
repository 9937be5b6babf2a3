//! The mappings of this process.
//!
//! It uses the first of two interfaces that works: the `PROCMAP_QUERY` ioctl (Linux 6.11), which
//! looks one VMA up in a fraction of a microsecond (`vmas/query.rs`), and the text of
//! `/proc/PID/maps`, of which it reads as much as a question needs and keeps that for the next
//! ones (`vmas/text.rs`).
//!
//! For each object that is pinned, a sweep may ask whether a page that was just mapped, behind
//! most of the text, is of the same file as the object. The text answers this by its first line:
//! the file is mapped once more for a moment, below all other mappings.

use crate::object::Span;
use crate::pages::PageVec;
use crate::sys::{self, Errno, Fd, Result, ThreadIds};

mod line;
mod query;
mod text;

pub use line::{parse_line, unescape};
pub(crate) use text::MapsText;

/// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` of a VMA.
pub type Protection = i32;

/// The file that a VMA maps, in the numbers that the kernel shows in
/// `/proc/PID/maps`. Overlayfs and btrfs may show other numbers in `stat(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId {
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
}

/// One mapping of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vma {
    /// The pages.
    pub span: Span,
    /// What accesses are allowed.
    pub protection: Protection,
    /// `MAP_SHARED`.
    pub is_shared: bool,
    /// Offset in the file of the first byte.
    pub offset: u64,
    /// The file.
    pub file: FileId,
}

impl Vma {
    /// Returns whether loads are allowed.
    pub fn is_readable(&self) -> bool {
        self.protection & libc::PROT_READ != 0
    }

    /// Returns whether stores are allowed.
    pub fn is_writable(&self) -> bool {
        self.protection & libc::PROT_WRITE != 0
    }

    /// Returns whether execution is allowed.
    pub fn is_executable(&self) -> bool {
        self.protection & libc::PROT_EXEC != 0
    }

    /// Returns the part of it that lies in `span`, if there is one.
    fn cut_to(&self, span: &Span) -> Option<Self> {
        let cut = self.span.intersection(span);
        let offset = self.offset.wrapping_add(cut.start.wrapping_sub(self.span.start) as u64);
        (!cut.is_empty()).then_some(Self { span: cut, offset, ..*self })
    }
}

enum Interface {
    /// The ioctl, as long as it has not failed.
    Query,
    /// The text.
    Text,
}

/// Memory for a part of the text, which a caller with many sweeps can use again. Where the ioctl
/// works, none is mapped.
#[derive(Default)]
pub struct MapsRoom(MapsText);

impl MapsRoom {
    /// Makes room that maps no memory yet.
    pub const fn new() -> Self {
        Self(MapsText::new())
    }
}

/// The mappings of this process. Holds a descriptor: made for one sweep.
///
/// The text shows a mapping as it was when its line was read. So a caller must not ask again for
/// addresses whose mappings it has changed.
pub struct Maps {
    file: Fd,
    interface: Interface,
    text: MapsText,
}

impl Maps {
    /// Opens the mappings of this process.
    pub fn open() -> Result<Self> {
        Self::open_with(MapsRoom::new(), ThreadIds::ask())
    }

    /// Opens the mappings of this process for the calling thread, with memory that was used before.
    pub fn open_with(MapsRoom(text): MapsRoom, caller: ThreadIds) -> Result<Self> {
        Ok(Self { file: open_file(caller)?, interface: Interface::Query, text })
    }

    /// Closes the mappings; returns the memory.
    pub fn into_room(mut self) -> MapsRoom {
        self.text.clear();
        MapsRoom(self.text)
    }

    /// Closes the descriptor and keeps the whole text, for answers about what is mapped now. `None`
    /// if the text is not needed because the ioctl works, or cannot be read.
    pub fn without_descriptor(mut self) -> Option<Self> {
        if matches!(self.interface, Interface::Query) {
            return None;
        }
        self.text.read_up_to(usize::MAX, &mut |buffer| sys::read(&self.file, buffer)).ok()?;
        // A whole text is never read again.
        Some(Self { file: Fd::CWD, ..self })
    }

    /// Replaces `found` by the file-backed VMAs that lie in `span`, cut to it.
    pub fn file_backed_in(&mut self, span: Span, found: &mut PageVec<Vma>) -> Result<()> {
        found.clear();
        let mut rest = span;
        while let Some(vma) = self.next_file_backed(rest)? {
            if let Some(cut) = vma.cut_to(&rest) {
                found.push(cut)?;
            }
            rest.start = vma.span.end;
        }
        Ok(())
    }

    /// Returns the file-backed VMA that contains `address`.
    pub fn file_backed_at(&mut self, address: usize) -> Result<Option<Vma>> {
        self.next_file_backed(Span { start: address, end: address.saturating_add(1) })
    }

    /// Returns the lowest file-backed VMA that has an address in `span`.
    pub fn next_file_backed(&mut self, span: Span) -> Result<Option<Vma>> {
        if span.is_empty() {
            return Ok(None);
        }
        if matches!(self.interface, Interface::Query) {
            match query::file_backed_at_or_after(&self.file, span.start) {
                Ok(vma) => return Ok(Some(vma).filter(|vma| vma.span.start < span.end)),
                Err(Errno(libc::ENOENT)) => return Ok(None),
                // ENOTTY of older kernels, EPERM and others of filters.
                Err(_) => self.interface = Interface::Text,
            }
        }
        self.text.next_file_backed(span, &mut |buffer| sys::read(&self.file, buffer))
    }

    /// Returns the path of the file mapped at `address`, as `/proc/PID/maps` shows it:
    /// absolute, with " (deleted)" behind the path of an unlinked file.
    pub fn path_at<'a>(&mut self, address: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        if matches!(self.interface, Interface::Query) {
            match query::path_at(&self.file, address, &mut *buffer).map(<[u8]>::len) {
                Ok(len) => return Ok(buffer.get(..len).unwrap_or_default()),
                Err(error @ Errno(libc::ENOENT | libc::ENAMETOOLONG)) => return Err(error),
                Err(_) => self.interface = Interface::Text,
            }
        }
        self.text.read_up_to(address, &mut |buffer| sys::read(&self.file, buffer))?;
        self.text.path_at(address, buffer)
    }

    /// Returns the numbers that the kernel shows for mappings of `file`, of which the page at
    /// `mapped` is one.
    pub fn file_id_of(&mut self, file: &Fd, mapped: usize) -> Result<Option<FileId>> {
        if matches!(self.interface, Interface::Query)
            && let Ok(vma) = query::file_backed_at_or_after(&self.file, mapped)
        {
            return Ok(vma.span.contains(mapped).then_some(vma.file));
        }
        if let Some(lowest) = self.text.lowest()
            && let Some(found) = file_id_by_first_line(file, lowest)
        {
            return Ok(Some(found));
        }
        // The lines read so far may be older than the mapping.
        let mut maps = Self { file: open_file(ThreadIds::ask())?, interface: Interface::Text, text: MapsText::new() };
        Ok(maps.file_backed_at(mapped)?.map(|vma| vma.file))
    }
}

/// Finds out whether the kernel answers `PROCMAP_QUERY`, by making it once.
pub fn try_query() -> Result<()> {
    match query::file_backed_at_or_after(&open_file(ThreadIds::ask())?, 0) {
        Ok(_) | Err(Errno(libc::ENOENT)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open_file(caller: ThreadIds) -> Result<Fd> {
    sys::open_proc_file_of(caller, c"/proc/self/maps", c"/proc/thread-self/maps")
}

/// Returns the numbers that the kernel shows for mappings of `file`, by mapping a page of it below
/// `lowest`, the address of the first mapping. `None` if the kernel does not map it there, or
/// another thread has mapped something below it.
///
/// Programs that are not position-independent, and some emulators, map at fixed addresses below
/// 4 GiB. They may replace the page with a mapping of their own, which must not be unmapped.
fn file_id_by_first_line(file: &Fd, lowest: usize) -> Option<FileId> {
    /// Longer than any line without its path.
    const LINE: usize = 128;
    const FIXED: usize = 1 << 32;
    let page = sys::page_size();
    let wanted = lowest.checked_sub(page).filter(|address| *address >= FIXED)?;
    // No access to the page is allowed, so the program still faults for an address in it.
    // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing: the kernel takes `wanted`
    // only as a hint and never replaces a mapping.
    let start = unsafe { sys::mmap(wanted, page, libc::PROT_NONE, libc::MAP_PRIVATE, Some((file, 0))) }.ok()?;
    let mut text = [0; LINE];
    let read =
        if start == wanted { open_file(ThreadIds::ask()).and_then(|maps| sys::read(&maps, &mut text)) } else { Ok(0) };
    // SAFETY: the page was mapped just now, and nothing refers to it.
    let _ = unsafe { sys::munmap(start, page) };
    let (vma, _) = parse_line(text.get(..read.ok()?)?.split(|byte| *byte == b'\n').next()?)?;
    (vma.span == Span { start, end: start + page } && vma.file.inode != 0).then_some(vma.file)
}

#[cfg(test)]
impl Maps {
    /// Mappings as this text has them.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        let (mut rest, mut parsed) = (text, MapsText::new());
        let mut read = |buffer: &mut [u8]| {
            let (now, later) = rest.split_at(rest.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            rest = later;
            Ok(now.len())
        };
        parsed.read_up_to(usize::MAX, &mut read).unwrap();
        // Nothing is read from the file, because the text is whole.
        Self { file: Fd::CWD, interface: Interface::Text, text: parsed }
    }
}

#[cfg(test)]
mod tests;
