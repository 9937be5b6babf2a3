//! One object of the process: which of its ranges are to be replaced, and from what.

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs;
use sopin_core::attributes::AttributeMap;
use sopin_core::branch_protection;
use sopin_core::memory::ProcessMemory;
use sopin_core::mode::Mode as PinMode;
use sopin_core::object::{Dynamic, Object, Span};
use sopin_core::pagemap::Pagemap;
use sopin_core::pages::PageVec;
use sopin_core::plan::{self, Backing, Outlook, PlanInputs, Replacement};
use sopin_core::sys::Errno;
use sopin_core::untouched;
use sopin_core::vmas::{FileId, Vma};
use sopin_inspect::maps::{self, Mapping};
use sopin_inspect::memory;
use sopin_inspect::object::{InspectedObject, PartBacking};
use sopin_inspect::{ProcessObjects, descriptors};

use crate::calls::page;
use crate::copies::OriginalFile;
use crate::interpreter::ObjectOutcome;
use crate::kernel_stores::KernelStores;

/// Largest number of program headers that are read.
const MAX_HEADERS: usize = 64;
/// More ranges than an object has whose pages were not modified one by one. For each, steps look at
/// all others.
const MAX_RANGES: usize = 1024;
/// More bytes than an object has: its code and its data refer to each other by offsets of 32 bits.
const MAX_BYTES: usize = 8 << 30;
/// Bytes of a program header.
const HEADER: usize = 56;

/// The plan for one object.
pub struct ObjectPlan {
    /// The object.
    pub object: Object,
    /// The file that it maps.
    pub file: FileId,
    /// A mapping of that file.
    pub mapping: Mapping,
    /// The ranges to be replaced.
    pub ranges: PageVec<Replacement>,
    /// What is known already of ranges that are left.
    pub left: ObjectOutcome,
}

/// What planning needs to know of the process.
pub struct Surroundings<'a> {
    /// What was found in it.
    pub found: &'a ProcessObjects<'a>,
    /// Its memory, for sopin-core.
    pub memory: &'a ProcessMemory,
    /// Which pages were modified.
    pub pagemap: &'a Pagemap,
    /// The mode.
    pub mode: PinMode,
}

/// Plans an object. `None` if it maps no file any more.
///
/// # Errors
/// Why it cannot be pinned, in words.
pub fn plan(object: &InspectedObject<'_>, around: &Surroundings<'_>) -> Result<Option<ObjectPlan>, String> {
    let ProcessObjects { maps, view, .. } = around.found;
    let within = maps::within(maps, object.span.0, object.span.1);
    let is_original =
        |mapping: &&Mapping| mapping.has_file() && !(maps::copy_at(mapping).is_some() && view.may_be_copy(mapping));
    let Some(first) = within.iter().find(is_original) else { return Ok(None) };
    let vmas: Vec<Vma> = within.iter().filter(is_original).map(vma).collect();
    let described = describe(object, around)?;
    let has_text_relocations = Dynamic::read(around.memory, &described)
        .map_err(|_| "its dynamic section cannot be read".to_owned())?
        .has_text_relocations;
    let mut ranges = PageVec::new();
    // The process has been stopped, so nothing stores while its ranges are replaced.
    let inputs = PlanInputs { mode: around.mode, has_text_relocations, stores_possible: false, may_have_run: false };
    let no_memory = |errno: Errno| errno.to_string();
    let outlook = plan::plan(&described, &vmas, inputs, &mut ranges).map_err(no_memory)?;
    let mut plan =
        ObjectPlan { object: described, file: first.file, mapping: (*first).clone(), ranges, left: left_by(outlook) };
    // Only now what takes time for each page.
    if plan.ranges.iter().map(|range| range.span.len()).sum::<usize>() > MAX_BYTES {
        return Err("it is larger than 8 GiB".to_owned());
    }
    plan.leave_modified_pages(around.pagemap);
    if plan.ranges.len() > MAX_RANGES {
        return Err("it has too many mappings".to_owned());
    }
    Ok(Some(plan))
}

/// Reads the program headers of an object.
fn describe(object: &InspectedObject<'_>, around: &Surroundings<'_>) -> Result<Object, String> {
    let unreadable = || "its program headers cannot be read".to_owned();
    let base = object.base.ok_or_else(unreadable)?;
    let start = object.span.0 as usize;
    let header: [u8; 64] = around.memory.read(start).map_err(|_| unreadable())?;
    // `e_phoff`, `e_phentsize` and `e_phnum` of an ELFCLASS64 file; see elf(5).
    let offset = memory::word_at(&header, 32).ok_or_else(unreadable)?;
    let count = usize::from(u16::from_ne_bytes([header[56], header[57]]));
    let is_elf = header.starts_with(b"\x7fELF\x02");
    // They lie in the first page, which the object maps.
    if !is_elf || offset >= page() || count > MAX_HEADERS || usize::from(header[54]) != HEADER {
        return Err(unreadable());
    }
    Object::read(around.memory, base as usize, start + offset as usize, count).map_err(|_| unreadable())
}

fn vma(mapping: &Mapping) -> Vma {
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    Vma {
        span: Span { start: mapping.start as usize, end: mapping.end as usize },
        protection: bit(mapping.is_readable, libc::PROT_READ)
            | bit(mapping.is_writable, libc::PROT_WRITE)
            | bit(mapping.is_executable, libc::PROT_EXEC),
        is_shared: mapping.is_shared,
        offset: mapping.offset,
        file: mapping.file,
    }
}

/// Returns what a plan has left, as an outcome.
fn left_by(outlook: Outlook) -> ObjectOutcome {
    let mut left = ObjectOutcome::default();
    if outlook.relocated_contradicted != 0 {
        left.note(Backing::Anonymous, "its mappings contradict its program headers");
    }
    if outlook.read_only_contradicted != 0 {
        left.note(Backing::Copy, "its mappings contradict its program headers");
    }
    if outlook.inaccessible_left != 0 {
        left.note(Backing::Copy, "the program has made a part of its text or constants inaccessible");
    }
    if outlook.read_only_left != 0 {
        left.note(Backing::Copy, "SOPIN_MODE=relocated");
    }
    left
}

impl ObjectPlan {
    /// Returns whether there are ranges to be mapped from a copy of the file.
    pub fn needs_copy(&self) -> bool {
        self.ranges.iter().any(|range| range.backing == Backing::Copy)
    }

    /// Removes ranges with the file's bytes, for this reason.
    pub fn leave_read_only(&mut self, reason: &str) {
        if self.needs_copy() {
            self.left.note(Backing::Copy, reason);
            self.ranges.retain(|range| range.backing != Backing::Copy);
        }
    }

    /// Removes ranges that stay because no process can write to the file.
    pub fn leave_unwritable(&mut self) {
        self.ranges.retain(|range| range.backing != Backing::Copy);
    }

    /// Removes the pages that were modified in memory from the ranges that are to get the file's
    /// bytes: breakpoints, probes, patches.
    fn leave_modified_pages(&mut self, pagemap: &Pagemap) {
        let mut kept = PageVec::new();
        let mut modified = 0;
        for range in self.ranges.iter() {
            if range.backing != Backing::Copy {
                if kept.push(*range).is_err() {
                    return self.ranges.clear();
                }
                continue;
            }
            let found = pagemap.for_each_unmodified(range.span, |span| {
                let offset = range.offset + (span.start - range.span.start) as u64;
                kept.push(Replacement { span, offset, ..*range })
            });
            match found {
                Ok(bytes) => modified += bytes,
                Err(errno) => {
                    let reason = format!("the pages that were modified in memory are not known: {errno}");
                    return self.leave_read_only(&reason);
                }
            }
        }
        if kept.len() > MAX_RANGES {
            return self.leave_read_only("its text has too many mappings, or pages that were modified in memory");
        }
        if modified != 0 {
            self.left.note(Backing::Copy, "pages of its text were modified in memory");
        }
        std::mem::swap(&mut self.ranges, &mut kept);
    }

    /// Has the long runs of data to which nothing has stored mapped from the copy of the file.
    pub fn share_untouched_data(&mut self, pagemap: &Pagemap) {
        let (mut ranges, mut parts) = (PageVec::new(), PageVec::new());
        let is_split =
            ranges.extend(&self.ranges).is_ok() && untouched::share(&mut ranges, &mut parts, pagemap).is_ok();
        // What is not shared is bounded.
        if is_split && ranges.len() <= MAX_RANGES {
            self.ranges = ranges;
        }
    }

    /// Removes such runs if they would become memory of the process, and `take` refuses so many bytes.
    pub fn bound_untouched_data(&mut self, pagemap: &Pagemap, take: impl FnOnce(usize) -> Result<(), String>) {
        let bytes = untouched::bytes_in(&self.ranges, Some(pagemap));
        let refusal = if bytes == 0 { None } else { take(bytes).err() };
        let Some(reason) = refusal else { return };
        self.left.note(Backing::Anonymous, &reason);
        let mut kept = PageVec::new();
        if untouched::leave(&mut self.ranges, &mut kept, Some(pagemap)).is_err() || self.ranges.len() > MAX_RANGES {
            self.ranges.retain(|range| !untouched::may_be_in(range));
        }
    }

    /// Removes ranges with attributes that a replacement would lose, and gives the others the
    /// protection against branches that they have.
    pub fn leave_marked(&mut self, attributes: &AttributeMap) {
        const MARKED: &str =
            "they are locked, sealed or carry advice or a protection key, which a replacement would lose";
        for range in self.ranges.iter_mut() {
            if let Some(has) = attributes.has_branch_targets(range.span) {
                branch_protection::set(range, has);
            }
        }
        let is_lost = |range: &Replacement| attributes.would_lose(range.span, range.protection);
        let lost: Vec<Backing> = self.ranges.iter().filter(|range| is_lost(range)).map(|range| range.backing).collect();
        for backing in lost {
            self.left.note(backing, MARKED);
        }
        self.ranges.retain(|range| !is_lost(range));
    }

    /// Removes writable ranges to which the kernel may store now.
    pub fn leave_where_stored(&mut self, stores: &KernelStores) {
        let reason = |range: &Replacement| {
            // The process may make an inaccessible range writable again.
            let is_writable = range.protection & libc::PROT_WRITE != 0 || range.protection == libc::PROT_NONE;
            stores.reason_to_leave(range.span).filter(|_| is_writable)
        };
        if let Some(reason) = self.ranges.iter().find_map(&reason) {
            self.left.note(Backing::Anonymous, reason);
        }
        self.ranges.retain(|range| reason(range).is_none());
    }

    /// Returns whether replacing a range would lose one of its attributes.
    pub fn is_marked(&self, attributes: &AttributeMap) -> bool {
        self.ranges.iter().any(|range| attributes.would_lose(range.span, range.protection))
    }
}

/// Returns whether a part of an object maps its file.
pub fn is_exposed(object: &InspectedObject<'_>, mode: PinMode) -> bool {
    let is_file = |part: &&sopin_inspect::object::Part<'_>| part.backing == PartBacking::File;
    object.parts.iter().filter(is_file).any(|part| part.is_relocated || mode == PinMode::Full)
}

/// Opens the file that a mapping maps.
pub fn open_original(found: &ProcessObjects<'_>, mapping: &Mapping) -> Option<OriginalFile> {
    let path = CString::new(mapping.names().0).ok()?;
    let (file, is_proven) = found.view.open_and_judge(mapping).ok()?;
    let status = fs::fstat(&file).ok()?;
    let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
    let has_own_numbers = FileId { device: (major, minor), inode: status.st_ino } == mapping.file;
    let identity = descriptors::identity_of(&file.as_fd()).ok()?;
    (is_proven || has_own_numbers).then_some(OriginalFile { file, identity, path, has_own_numbers })
}

/// Returns the path of an object's file, as the mappings show it.
pub fn path_of(object: &InspectedObject<'_>) -> Vec<u8> {
    object.original.map_or_else(|| object.name.clone(), |mapping| mapping.names().0.to_owned())
}
