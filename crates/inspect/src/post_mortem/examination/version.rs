//! Finds out whether a file, or its first page in a dump, is the version of the object that was loaded.

use super::{DumpExaminer, ObjectFinding};
use crate::core_dump::{DumpedRange, MappedRange};
use crate::image::{DynamicEntries, Headers, LoadHeader};
use crate::memory::Bytes;
use crate::post_mortem::candidate_file::CandidateFile;
use crate::post_mortem::objects::{self, DumpedObject};
use crate::reversion::is_same_dynamic;

impl<B: Bytes> DumpExaminer<'_, '_, B> {
    /// Returns whether headers cannot be those of the object that was loaded: its mappings, or the
    /// place of its dynamic section in the loader's list, are others.
    pub fn contradicts(&self, object: &DumpedObject, headers: &Headers) -> bool {
        let Some(start) = object.beginning() else { return false };
        let base = object.base.unwrap_or_else(|| objects::base_of(headers, start, self.page));
        if let (Some(listed), Some((address, _))) = (&object.listed, headers.dynamic)
            && base.wrapping_add(address) != listed.dynamic
        {
            return true;
        }
        let down = |value: u64| value & !(self.page - 1);
        let up = |value: u64| value.checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
        let is_elsewhere = |range: &MappedRange| {
            let dumped = self.dump.range(range.start);
            if !dumped.is_none_or(DumpedRange::is_accessible) {
                // Gaps between segments are mapped by some loaders.
                return false;
            }
            // Neighbouring segments with the same rights are one VMA.
            let mut at = range.start;
            while at < range.end {
                let place = at.wrapping_sub(base);
                let within = |segment: &&LoadHeader| {
                    down(segment.address) <= place && place < up(segment.address + segment.size)
                };
                let next = headers.segments.iter().map(|segment| down(segment.address)).find(|start| *start > place);
                let Some(segment) = headers.segments.iter().rfind(within) else { return !self.is_gap(headers, place) };
                let offset = down(segment.offset).wrapping_add(place - down(segment.address));
                let file_end = up(segment.address + segment.file_size);
                let stop = base.wrapping_add(next.map_or(file_end, |next| next.min(file_end)));
                let is_other_code = segment.is_executable && dumped.is_some_and(|range| !range.is_executable());
                if range.offset + (at - range.start) != offset || stop <= at || is_other_code {
                    return true;
                }
                at = stop;
            }
            false
        };
        // Writable segments may have been put out of the file's reach.
        let is_missing = |segment: &LoadHeader| {
            let end = base.wrapping_add(up(segment.address + segment.file_size));
            !segment.is_writable && segment.file_size != 0 && object.range(end.wrapping_sub(1)).is_none()
        };
        object.ranges.iter().any(is_elsewhere) || headers.segments.iter().any(is_missing)
    }

    fn is_gap(&self, headers: &Headers, place: u64) -> bool {
        let (start, end) = headers.span(self.page);
        start <= place && place < end
    }

    /// Returns whether the file is the one that was mapped when the process died, by its build-id, or
    /// else by its first page; `None` if the dump does not show that.
    pub fn is_at_crash(&self, object: &DumpedObject, file: &CandidateFile, finding: &ObjectFinding) -> Option<bool> {
        if !finding.mapped_build_id.is_empty() {
            return Some(file.build_id == finding.mapped_build_id);
        }
        let start = object.beginning()?;
        let len = usize::try_from(self.page.min(file.size)).ok()?;
        let in_dump = self.dump.read_exact(start, len).ok()?;
        Some(file.bytes.read_exact(0, len).ok()? == in_dump)
    }

    /// Returns whether the dynamic section in the dump is another than the file's.
    pub fn has_other_dynamic(&self, object: &DumpedObject, file: &CandidateFile, base: u64) -> bool {
        let Some((address, size)) = file.image.headers.dynamic else { return object.listed.is_some() };
        let at = base.wrapping_add(address);
        match DynamicEntries::read(self.dump, at, size) {
            // A lost page is zeroes.
            Ok(dumped) if !dumped.0.is_empty() => !is_same_dynamic(&dumped, &file.image.dynamic, base),
            _ => false,
        }
    }

    /// Returns whether the dynamic section has lost what glibc stores to it: the base in addresses.
    pub fn has_reverted_dynamic(&self, object: &DumpedObject, headers: Option<&Headers>) -> bool {
        let (Some(base), Some(listed), Some(headers)) = (object.base, &object.listed, headers) else { return false };
        let place = listed.dynamic.wrapping_sub(base);
        let is_within = |segment: &&LoadHeader| place.checked_sub(segment.address).is_some_and(|at| at < segment.size);
        let is_written = headers.segments.iter().find(is_within).is_some_and(|segment| segment.is_writable);
        let is_object = headers.dynamic.is_some_and(|(address, _)| address == place);
        if !self.is_glibc || base == 0 || !is_written || !is_object {
            return false;
        }
        let Some((_, size)) = headers.dynamic else { return false };
        let Ok(dynamic) = DynamicEntries::read(self.dump, listed.dynamic, size) else { return false };
        let tables = [object::elf::DT_STRTAB, object::elf::DT_SYMTAB];
        tables.iter().all(|tag| dynamic.get(*tag).is_some_and(|value| value != 0 && value < base))
    }

    /// Returns whether the loader had not yet made the relocated range read-only: then its words
    /// may not have been relocated when the process died.
    pub fn is_being_loaded(&self, file: &CandidateFile, base: u64) -> bool {
        let Some((address, size)) = file.image.headers.relro else { return false };
        let start = base.wrapping_add(address) & !(self.page - 1);
        let end = base.wrapping_add(address).wrapping_add(size) & !(self.page - 1);
        start < end && self.dump.range(start).is_some_and(DumpedRange::is_writable)
    }
}
