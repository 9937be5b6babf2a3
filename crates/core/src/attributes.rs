//! What VMAs carry beside their protection: locks, advice, protection keys, registrations with
//! a userfaultfd. A mapping that replaces a range has none of these attributes, except those
//! that the process has requested for all of its mappings.
//!
//! The source is the text of `/proc/PID/smaps` (`proc_pid_smaps(5)`), for which the kernel
//! walks all page tables: so it is read only for objects whose code has run, because only then
//! can the program have requested something for their ranges, and where
//! [`crate::branch_protection`] cannot find out otherwise whether a range has `PROT_BTI`. It contains
//! the lines of `/proc/PID/maps`, so it also shows the mappings by which the kernel stores
//! ([`crate::kernel_stores`]).

use crate::cause::{Cause, Operation};
use crate::kernel_stores::{self, KernelStore};
use crate::object::Span;
use crate::pages::PageVec;
use crate::slices;
use crate::sys::{self, Errno, Fd};
use crate::vmas;

/// Flags that a replacement has by itself, or that do not show a request of the program
/// (`show_smap_vma_flags` in `fs/proc/task_mmu.c`, Linux 5.4 to 6.18).
///
/// | flags | meaning |
/// |---|---|
/// | `rd wr ex` | protection, which the plan keeps |
/// | `mr mw me` | protection that `mprotect(2)` may give |
/// | `ac nr` | counted against the limit on committed memory, or not |
/// | `sd` | stored to since `/proc/PID/clear_refs` was written; set in every new VMA |
/// | `dw` | the file could not be written when it was mapped (until Linux 5.14) |
/// | `mm` | the file's pages are those of a device (DAX) |
const HARMLESS: &[[u8; 2]] = &[*b"rd", *b"wr", *b"ex", *b"mr", *b"mw", *b"me", *b"ac", *b"nr", *b"sd", *b"dw", *b"mm"];

/// Flags that a replacement may have too, each with its bit in [`Attributes`]: those that a
/// process can request in advance. All others are lost with the VMA:
///
/// | flags | from |
/// |---|---|
/// | `dc wf dd sr rr hg nh` | `madvise(2)`: DONTFORK, WIPEONFORK, DONTDUMP, SEQUENTIAL, RANDOM, (NO)HUGEPAGE |
/// | `um uw ui` | `UFFDIO_REGISTER` |
/// | `sl` | `mseal(2)` |
/// | `mt ss ar` | `PROT_MTE`, a shadow stack, of the architecture |
/// | `gd dp de io pf ht sf sh ms` | no private mapping of a file in a file system, as the loader makes them |
/// | whatever else | a kernel that is newer than this table |
const INHERITED: &[([u8; 2], u32)] = &[
    // mlock(2); mlockall(MCL_FUTURE), with MCL_ONFAULT `lf` as well
    (*b"lo", 1),
    (*b"lf", 1 << 1),
    // MADV_MERGEABLE; PR_SET_MEMORY_MERGE
    (*b"mg", 1 << 2),
    // PROT_BTI, see `crate::branch_protection`
    (*b"bt", BRANCH_TARGETS),
];
const BRANCH_TARGETS: u32 = 1 << 3;
/// A flag that is in neither table, or an entry without flags.
const OTHER: u32 = 1 << 31;

/// Bytes of the text that are parsed together. A line has at most four for each of a path's
/// 4096, and some sixty before it.
const BLOCK: usize = 1 << 16;
/// Bytes behind the first line of an entry that are not worth a look at each line: the amounts of
/// memory, nineteen lines of 28 bytes on Linux 4.18 and more on later ones.
const AMOUNTS: usize = 504;
/// Number of VMAs that the table has room for at first: more than most processes have.
const ENTRIES: usize = 2048;

/// What one VMA carries beside its protection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    flags: u32,
    key: u32,
}

impl Attributes {
    /// Parses what follows `VmFlags:`.
    fn of_flags(text: &[u8]) -> Self {
        let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let flags = words.map(|word| {
            let Ok(word) = <[u8; 2]>::try_from(word) else { return OTHER };
            let inherited = || INHERITED.iter().find(|(flag, _)| *flag == word).map(|(_, bit)| *bit);
            if HARMLESS.contains(&word) { 0 } else { inherited().unwrap_or(OTHER) }
        });
        Self { flags: flags.fold(0, |all, flag| all | flag), key: 0 }
    }

    /// Returns whether a mapping with the attributes `fresh` lacks something of this one.
    fn exceed(self, fresh: Self) -> bool {
        self.flags & (!fresh.flags | OTHER) != 0 || self.key != fresh.key
    }
}

/// One VMA.
#[derive(Clone, Copy)]
struct AttributedVma {
    span: Span,
    attributes: Attributes,
    /// `r`, `w` and `x`
    protection: vmas::Protection,
}

/// The attributes of all VMAs of a process at one time.
pub struct AttributeMap {
    entries: PageVec<AttributedVma>,
    /// The attributes of a new mapping, for which the program has requested none.
    fresh: Attributes,
    /// The facility by which the kernel may store to the memory, if one of the VMAs belongs to such a facility.
    kernel_store: Option<KernelStore>,
}

impl AttributeMap {
    /// Reads the attributes of all VMAs of this process.
    pub fn read() -> Result<Self, Cause> {
        let file = sys::open_own_proc_file(c"/proc/self/smaps", c"/proc/thread-self/smaps")
            .map_err(Operation::OpenSmaps.failed())?;
        // The array lies in a new mapping, so its attributes are those of every new mapping.
        Self::read_file(&file, |block| Some(block.as_ptr().addr()))
    }

    /// Reads the attributes of all VMAs from `file`, the `/proc/PID/smaps` of some process. At
    /// the address `fresh` that process has a new mapping, for which it has requested no
    /// attributes. Without such an address no attribute counts as that of every new mapping.
    pub fn of(file: &Fd, fresh: Option<usize>) -> Result<Self, Cause> {
        Self::read_file(file, |_| fresh)
    }

    /// Reads a file through a block, whose address `fresh` may be given.
    fn read_file(file: &Fd, fresh: impl FnOnce(&[u8]) -> Option<usize>) -> Result<Self, Cause> {
        const READ: Operation = Operation::ReadSmaps;
        let mut map = Self::with_room()?;
        let mut block = PageVec::zeroed(BLOCK).map_err(Cause::no_memory)?;
        let (mut offset, mut held) = (0, 0);
        loop {
            let free = block.get_mut(held..).unwrap_or_default();
            let len = sys::pread(file, free, offset).map_err(READ.failed())?;
            let filled = held + len;
            let text = block.get(..filled).unwrap_or_default();
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            map.add(text.get(..whole).unwrap_or_default())?;
            if len == 0 {
                return match fresh(&block) {
                    Some(address) => map.with_fresh(address).ok_or(Cause::call(READ, Errno(libc::EIO))),
                    None => Ok(map),
                };
            }
            slices::move_down(&mut block, whole..filled, 0);
            (offset, held) = (offset + len as u64, filled - whole);
        }
    }

    /// Parses the text of an smaps file, in which the VMA at the address `fresh` is a new
    /// mapping for which the program has requested no attributes.
    #[cfg(test)]
    pub(crate) fn of_text(text: &[u8], fresh: usize) -> Option<Self> {
        let mut map = Self::with_room().unwrap();
        map.add(text).unwrap();
        map.with_fresh(fresh)
    }

    fn with_room() -> Result<Self, Cause> {
        let mut map = Self { entries: PageVec::new(), fresh: Attributes::default(), kernel_store: None };
        map.entries.reserve(ENTRIES).map_err(Cause::no_memory)?;
        Ok(map)
    }

    /// Adds the VMAs and attributes of whole lines.
    fn add(&mut self, lines: &[u8]) -> Result<(), Cause> {
        let mut rest = lines;
        while let Some(end) = slices::position(rest, b'\n') {
            let line = rest.get(..end).unwrap_or_default();
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some((vma, name)) = vmas::parse_line(line) {
                let name = line.get(name..).unwrap_or_default();
                self.kernel_store = self.kernel_store.or_else(|| kernel_stores::find(name));
                let attributes = Attributes { flags: OTHER, key: 0 };
                let entry = AttributedVma { span: vma.span, attributes, protection: vma.protection };
                self.entries.push(entry).map_err(Operation::Mremap.failed())?;
                rest = rest.get(amounts_in(rest)..).unwrap_or_default();
            } else if let (Some(text), Some(entry)) = (line.strip_prefix(b"VmFlags:"), self.entries.last_mut()) {
                entry.attributes.flags = Attributes::of_flags(text).flags;
            } else if let (Some(text), Some(entry)) = (line.strip_prefix(b"ProtectionKey:"), self.entries.last_mut()) {
                let number = core::str::from_utf8(text.trim_ascii()).ok().and_then(|number| number.parse().ok());
                // A number that cannot be parsed must count as a key, so that the plan does not
                // lose it.
                entry.attributes.key = number.unwrap_or(u32::MAX);
            }
        }
        Ok(())
    }

    fn with_fresh(mut self, address: usize) -> Option<Self> {
        self.fresh = self.at(address)?.attributes;
        Some(self)
    }

    fn at(&self, address: usize) -> Option<&AttributedVma> {
        let first = self.entries.partition_point(|entry| entry.span.end <= address);
        self.entries.get(first).filter(|entry| entry.span.contains(address))
    }

    /// Returns by what the kernel may store to the memory, as far as the VMAs show it.
    pub const fn kernel_store(&self) -> Option<KernelStore> {
        self.kernel_store
    }

    /// Returns whether indirect branches to `span` are checked (`PROT_BTI`). `None` if that is not
    /// shown for any VMA: the processor does not check them, or an emulator does not show it.
    pub fn has_branch_targets(&self, span: Span) -> Option<bool> {
        let has = |entry: &AttributedVma| entry.attributes.flags & BRANCH_TARGETS != 0;
        if !self.entries.iter().any(has) {
            return None;
        }
        let mut address = span.start;
        while address < span.end {
            match self.at(address) {
                Some(entry) if has(entry) => address = entry.span.end,
                Some(_) | None => return Some(false),
            }
        }
        Some(true)
    }

    /// Returns whether new mappings of this `protection` in place of `span` would lack
    /// something that the range has. Returns true as well if the VMAs of the range are not
    /// known.
    pub fn would_lose(&self, span: Span, protection: vmas::Protection) -> bool {
        let mut fresh = self.fresh;
        if protection & !(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) != 0 {
            fresh.flags |= BRANCH_TARGETS;
        }
        let mut address = span.start;
        while address < span.end {
            let Some(entry) = self.at(address) else { return true };
            let mut attributes = entry.attributes;
            if entry.protection == libc::PROT_EXEC {
                // The kernel gives mappings that may only be executed a key that
                // keeps loads and stores away, and does so again.
                attributes.key = fresh.key;
            }
            if attributes.exceed(fresh) {
                return true;
            }
            address = entry.span.end;
        }
        false
    }
}

/// Returns how many bytes of `text`, which follows the first line of an entry, are whole lines that
/// certainly come before the entry's flags and the protection key in front of these.
fn amounts_in(text: &[u8]) -> usize {
    // Of all lines only that of the flags has this letter, and it ends the entry. That of
    // the key comes right before it.
    match text.get(..=AMOUNTS) {
        Some(seen) if slices::position(seen, b'V').is_none() => {
            let seen = text.get(..AMOUNTS).unwrap_or_default();
            seen.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
