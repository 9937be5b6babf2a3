//! The file from which an object was loaded, found again by its path and proven
//! to be the one that is mapped.
//!
//! For the proof the library maps a page of the file, close to the object: the kernel shows
//! the same device and inode for that page as for the object. (The numbers of `stat(2)` are
//! not those of the maps on every file system.) The library keeps the page as the
//! *witness*. It is executable and never accessed, and it keeps the file visible in
//! `/proc/PID/maps` for people, `lsof` and needrestart when the object itself no longer maps
//! the file. The witness of the program itself is not executable, because py-spy would take
//! it for the program's text; `/proc/PID/exe` shows the program's file anyway.

use core::ffi::CStr;

use sopin_core::branch_protection;
use sopin_core::image_layers::ImageLayers;
use sopin_core::object::Span;
use sopin_core::records::Record;
use sopin_core::sys::{self, Fd, FileSystem};
use sopin_core::vmas::{FileId, Maps, Vma};
use sopin_core::witness;
use sopin_store::Identity;

/// The open file that an object maps.
pub struct Original {
    pub file: Fd,
    pub identity: Identity,
    /// The file system on which it is; of an unknown kind if that cannot be found out.
    pub file_system: FileSystem,
    /// Whether the maps show the same numbers as `stat(2)`. Then no other file has them. On
    /// btrfs the maps show one device number for all subvolumes, and a snapshot has the
    /// inode numbers of the subvolume of which it was made.
    pub has_own_numbers: bool,
    /// Whether no process can ever write to the file, so that nothing of the object needs to be
    /// replaced.
    pub is_immutable: bool,
    witness: Span,
}

/// Which page of an object's file is mapped, and how.
#[derive(Clone, Copy)]
pub struct WitnessPage {
    /// The pages of the object.
    pub object: Span,
    /// Whether the object is the program itself.
    pub is_executable: bool,
    /// Offset of the page in the file.
    pub offset: u64,
}

impl Original {
    /// Opens the file at `path` if that is still the file `mapped`, and maps the `page` of it
    /// where the file can be written to, or where the proof needs it. `None` if it is another
    /// file by now. Calls `layers` only if the file is on an overlay.
    pub fn find(
        maps: &mut Maps,
        path: &CStr,
        mapped: FileId,
        page: WitnessPage,
        layers: impl FnOnce() -> Option<ImageLayers>,
    ) -> sys::Result<Option<Self>> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
        let file = sys::open(path, flags, 0)?;
        let status = sys::fstat(file.raw())?;
        let (file_system, identity) = (FileSystem::of(&file).unwrap_or_default(), Identity::of(&status));
        let is_immutable = file_system.forbids_writes_to(&file, identity.device)
            || file_system.is_overlay() && layers().is_some_and(|layers| layers.have(&file));
        let shown = FileId { device: (libc::major(status.st_dev), libc::minor(status.st_dev)), inode: status.st_ino };
        let has_own_numbers = shown == mapped;
        let mut original =
            Self { file, identity, file_system, has_own_numbers, is_immutable, witness: Span::default() };
        if is_immutable && has_own_numbers {
            return Ok(Some(original));
        }
        let len = sys::page_size();
        // No code executes the page, so it can have the strictest protection: a branch to it must
        // not evade a check that the object's own text has.
        let executable = libc::PROT_EXEC | branch_protection::strictest_bits();
        let protection = libc::PROT_READ | if page.is_executable { 0 } else { executable };
        let place = witness::place_for(page.object, sys::stack_top(), len).unwrap_or_default();
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing: the kernel takes
        // `place` only as a hint and never replaces a mapping.
        let start =
            unsafe { sys::mmap(place, len, protection, libc::MAP_PRIVATE, Some((&original.file, page.offset))) }?;
        // From here on, dropping `original` unmaps the page.
        original.witness = Span { start, end: start + len };
        if has_own_numbers {
            return Ok(Some(original));
        }
        let is_same = maps.file_id_of(&original.file, start)? == Some(mapped);
        Ok(is_same.then_some(original))
    }

    /// Leaves the witness mapped; returns its page.
    pub fn keep_witness(mut self) -> Span {
        core::mem::take(&mut self.witness)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        unmap_witness(self.witness);
    }
}

/// Unmaps a witness that [`Original::keep_witness`] has left, if `page` is not empty.
pub fn unmap_witness(page: Span) {
    if !page.is_empty() {
        // SAFETY: `Original::find` has mapped the page. No code makes a reference into a witness.
        // The witness has one owner at a time, an `Original` or a registry entry, and the owner
        // is gone after this call, so the page is unmapped once.
        let _ = unsafe { sys::munmap(page.start, page.len()) };
    }
}

/// Returns an address at which `/proc/self/maps` shows the file from which an object was
/// loaded: that of the witness, or of a range that still maps the file.
pub fn shown_at(record: &Record, original: Option<FileId>, maps: &mut Maps) -> Option<usize> {
    let is_original = |vma: &Vma| original.is_none_or(|original| vma.file == original);
    if record.witness != 0 {
        return Some(record.witness as usize);
    }
    let mut rest = Span { start: record.start as usize, end: record.end as usize };
    loop {
        let vma = maps.next_file_backed(rest).ok()??;
        if is_original(&vma) {
            return Some(vma.span.start.max(rest.start));
        }
        rest.start = vma.span.end;
    }
}
