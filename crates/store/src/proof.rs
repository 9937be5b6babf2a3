//! Whether an entry may be mapped in place of what the loader has mapped.

use sopin_core::build_id::{self, BuildId};
use sopin_core::cause::{Cause, Operation};
use sopin_core::comparison;
use sopin_core::memory::ProcessMemory;
use sopin_core::object::Object;
use sopin_core::plan::{Backing, Replacement};
use sopin_core::sys::{self, Errno, Fd};

use crate::origin_file::OriginFile;
use crate::{copy, mark};

/// The ranges of a file that the loader has mapped, with which copies are compared.
pub trait MappedRanges {
    /// Returns whether `copy` has the build-id that the object has in memory.
    fn build_id_of(&self, copy: &Fd) -> sys::Result<BuildId>;
    /// Returns whether `copy` has the bytes that are mapped now, in all ranges that are
    /// to be mapped from a copy.
    fn equals(&self, copy: &Fd) -> sys::Result<bool>;
}

/// The ranges of an object in the memory of its process.
pub struct InMemory<'a> {
    /// The memory of the process.
    pub memory: &'a ProcessMemory,
    /// The object.
    pub object: &'a Object,
    /// The ranges of the object that are to be replaced.
    pub replacements: &'a [Replacement],
}

impl MappedRanges for InMemory<'_> {
    fn build_id_of(&self, copy: &Fd) -> sys::Result<BuildId> {
        build_id::compare(copy, self.object, self.memory)
    }

    fn equals(&self, copy: &Fd) -> sys::Result<bool> {
        for range in self.replacements.iter().filter(|range| range.backing == Backing::Copy) {
            if comparison::for_each_equal(self.memory, copy, range.span, range.offset, |_| Ok::<_, Errno>(()))? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A copy that may be mapped in place of what the loader has mapped.
pub struct CacheEntry {
    /// Open for reading; in the user's store locked, and mappings of it keep the lock.
    pub file: Fd,
    /// How much of it is proven.
    pub proof: Proof,
}

impl CacheEntry {
    /// Returns whether its writable data is proven to be the file's, too. If only the ranges were
    /// compared that are to be mapped from it, its data may differ.
    pub fn has_data(&self) -> bool {
        self.proof == Proof::Whole
    }
}

/// How much of an entry is proven to be the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// All of it.
    Whole,
    /// The ranges that [`MappedRanges`] has compared.
    Ranges,
}

/// Returns how much of a new `copy` of `origin` is proven to be what is `mapped`; `None` if it is not
/// that.
///
/// If the file has a number of its own, what is mapped has the same number and is therefore the same
/// file. The kernel keeps the pages of a file once, so those that are mapped are those that were copied,
/// and a page that was modified in memory is in none of the ranges. Elsewhere the path may lead to
/// another file, so the bytes are compared.
pub fn of_new_copy(copy: &Fd, origin: &OriginFile<'_>, mapped: &impl MappedRanges) -> sys::Result<Option<Proof>> {
    let build_id = mapped.build_id_of(copy)?;
    if build_id != BuildId::Other && origin.is_identified_by_times(build_id) {
        return Ok(Some(Proof::Whole));
    }
    Ok(mapped.equals(copy)?.then_some(Proof::Ranges))
}

/// The result of examining an entry.
pub enum Examined {
    /// The entry is a copy of what is mapped.
    Right(Proof),
    /// The entry is a copy of the file, but not of what is mapped: the path now leads to
    /// another version that has the same identity.
    NotMapped(Cause),
    /// The entry is not a copy of the file.
    Damaged(Cause),
}

/// Decides whether an entry may be mapped in place of what is `mapped`. If it compares all of
/// an entry that `is_ours`, it marks the entry as being on the disk.
pub fn examine(
    entry: &Fd,
    status: &libc::stat,
    origin: &OriginFile<'_>,
    mapped: &impl MappedRanges,
    is_ours: bool,
) -> Result<Examined, Cause> {
    // An entry that cannot be read cannot be used.
    let Ok(build_id) = mapped.build_id_of(entry) else { return judge(entry, origin, "it cannot be read") };
    if build_id == BuildId::Other {
        return judge(entry, origin, "it has another build-id than the object");
    }
    match (mark::is_believed(status, build_id), origin.is_identified_by_times(build_id)) {
        (true, true) => return Ok(Examined::Right(Proof::Whole)),
        // After one comparison of the whole entry it is believed for the rest of this boot.
        (false, true) if is_ours => {
            if !copy::equals_origin(entry, origin)? {
                return Ok(Examined::Damaged(wrong("its bytes are not those of the file")));
            }
            // An entry without its mark is compared again, so a failure is ignored.
            let _ = mark::note_compared(entry, build_id == BuildId::Same);
            return Ok(Examined::Right(Proof::Whole));
        }
        _ => {}
    }
    match mapped.equals(entry) {
        Ok(true) => Ok(Examined::Right(Proof::Ranges)),
        Ok(false) | Err(_) => judge(entry, origin, "its bytes are not those that are mapped"),
    }
}

/// Decides what a difference means: the entry is damaged if it differs from its file
/// too; otherwise the process has mapped another version.
fn judge(entry: &Fd, origin: &OriginFile<'_>, reason: &'static str) -> Result<Examined, Cause> {
    let is_copy = copy::equals_origin(entry, origin)?;
    Ok(if is_copy { Examined::NotMapped(wrong(reason)) } else { Examined::Damaged(wrong(reason)) })
}

const fn wrong(reason: &'static str) -> Cause {
    Cause::words(Operation::UseStoreEntry, reason)
}
