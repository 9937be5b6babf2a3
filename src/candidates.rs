//! The objects that are new to us, and what proves that each is relocated.
//!
//! The loader lists an object before it has relocated it. Proof is that its
//! RELRO is read-only (the loader's last step), that an initialised object
//! depends on it (the loader relocates all of a group before it initialises any
//! of it), or that it has no relocations. What is proven about stores to its
//! data is in [`crate::write_safety`].

use sopin_core::cause::{Cause, Operation, Stopped};
use sopin_core::crti;
use sopin_core::memory::OwnMemory;
use sopin_core::names::{self, NameHashes};
use sopin_core::object::{Dynamic, Object, ObjectError, file_name};
use sopin_core::pages::PageVec;
use sopin_core::sys::Result;
use sopin_core::vmas::Vma;
use sopin_core::write_safety::Progress;

use crate::loader::Loaded;
use crate::own;
use crate::registry::Registry;

/// Longest SONAME and path that names are compared with, in bytes.
const NAME: usize = 512;

/// An object that is not recorded yet.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// As the loader lists it.
    pub loaded: Loaded,
    /// Its segments.
    pub object: Object,
    /// Its dynamic section.
    pub dynamic: Dynamic,
    /// An initialised object depends on it, or it is one.
    pub is_in_initialised_group: bool,
    /// What a DT_NEEDED entry may call it, once that has been read.
    names: Option<NameHashes>,
    /// What is known of its code; to be found out by [`crate::write_safety`].
    pub progress: Progress,
    /// An object that may have run knows an address in its data, see [`crate::reach`].
    pub is_known: bool,
}

impl Candidate {
    /// Reads the headers of `loaded`.
    pub fn read(memory: &OwnMemory, loaded: Loaded) -> core::result::Result<Self, Cause> {
        let read_error = |errno| Cause::call(memory.operation(), errno);
        let object =
            Object::read(memory, loaded.base, loaded.headers, loaded.header_count).map_err(|error| match error {
                ObjectError::Read(errno) => read_error(errno),
                ObjectError::TooManySegments => {
                    Cause::words(Operation::ReadProgramHeaders, "too many PT_LOAD segments")
                }
                ObjectError::Malformed => {
                    Cause::words(Operation::ReadProgramHeaders, "PT_LOAD segments missing or out of order")
                }
            })?;
        let dynamic = Dynamic::read(memory, &object).map_err(read_error)?;
        Ok(Self {
            loaded,
            object,
            dynamic,
            is_in_initialised_group: false,
            names: None,
            progress: Progress::MayHaveRun,
            is_known: false,
        })
    }

    /// Returns whether its relocation is proven finished, when constructors of its
    /// group have begun to run, given what of its RELRO still maps the file.
    pub fn is_relocated(&self, relro_vmas: &[Vma]) -> bool {
        self.is_in_initialised_group || !self.dynamic.has_relocations || self.has_protected_relro(relro_vmas)
    }

    /// Returns whether its relocation is proven finished, when a `dlopen` has returned
    /// and other threads may be inside theirs: by its RELRO, or because what was
    /// opened depends on it. The latter alone is not enough: called from inside
    /// another `dlopen` (from an interposed `malloc`, say), it returns a handle of
    /// an object that the other one has not relocated yet. If that announces
    /// itself, it has not done so.
    pub fn is_relocated_after_opening(&self, relro_vmas: &[Vma], memory: &OwnMemory) -> bool {
        if self.object.relro.is_empty() {
            self.is_in_initialised_group && self.will_announce(memory) == Ok(false)
        } else {
            self.has_protected_relro(relro_vmas)
        }
    }

    /// Returns whether code of it may have run before anything was known of it.
    pub fn may_have_run(&self) -> bool {
        self.progress == Progress::MayHaveRun
    }

    fn has_protected_relro(&self, relro_vmas: &[Vma]) -> bool {
        !self.object.relro.is_empty() && !relro_vmas.iter().any(Vma::is_writable)
    }

    /// Returns what a DT_NEEDED entry may call it.
    pub fn names(&self, memory: &OwnMemory) -> NameHashes {
        self.names.unwrap_or_else(|| NameHashes::read(memory, self.loaded.name, self.dynamic.soname_address()))
    }

    /// Returns whether it will announce itself to this library before any of its constructors runs.
    pub fn will_announce(&self, memory: &OwnMemory) -> core::result::Result<bool, Cause> {
        if self.dynamic.init == 0 {
            return Ok(false);
        }
        crti::init_calls(memory, self.dynamic.init, own::gmon_start())
            .map_err(|errno| Cause::call(memory.operation(), errno))
    }
}

/// Memory for marking groups.
#[derive(Default)]
pub struct GroupWork {
    others: PageVec<NameHashes>,
    worklist: PageVec<usize>,
}

impl GroupWork {
    /// No memory yet.
    pub const fn new() -> Self {
        Self { others: PageVec::new(), worklist: PageVec::new() }
    }
}

/// Marks the candidates at `roots`, whose groups the loader has relocated, and all
/// candidates that they depend on, directly or not, as far as their names alone
/// prove that: a namesake may be an object that another thread is just loading.
/// The candidates must be in the order of `objects`, the loader's list.
pub fn mark_groups(
    memory: &OwnMemory,
    registry: &mut Registry,
    objects: &[Loaded],
    candidates: &mut [Candidate],
    work: &mut GroupWork,
    roots: impl IntoIterator<Item = usize>,
) -> core::result::Result<(), Cause> {
    let GroupWork { others, worklist } = work;
    for candidate in candidates.iter_mut() {
        candidate.names = Some(candidate.names(memory));
    }
    collect_other_names(registry, objects, candidates, others).map_err(Cause::no_memory)?;
    worklist.clear();
    for root in roots {
        worklist.push(root).map_err(Cause::no_memory)?;
    }
    let mut next = 0;
    while let Some(index) = worklist.get(next).copied() {
        next += 1;
        let Some(candidate) = candidates.get_mut(index) else { continue };
        if core::mem::replace(&mut candidate.is_in_initialised_group, true) {
            continue;
        }
        let candidate = *candidate;
        let followed = candidate.dynamic.for_each_needed(memory, &candidate.object, |needed| {
            let names = candidates.iter().map(|candidate| candidate.names(memory));
            let found = names::only_object(needed, names, others);
            if let Some((index, other)) = found.and_then(|index| Some((index, candidates.get(index)?)))
                && !other.is_in_initialised_group
                && is_named(memory, other, needed)
            {
                worklist.push(index).map_err(Cause::no_memory)?;
            }
            Ok(())
        });
        followed.map_err(|stopped: Stopped| stopped.cause(memory.operation()))?;
    }
    Ok(())
}

/// Replaces `others` by the names of those of `objects` that are no candidates.
/// What is neither a candidate nor recorded could not be read, and may have any
/// name.
fn collect_other_names(
    registry: &mut Registry,
    objects: &[Loaded],
    candidates: &[Candidate],
    others: &mut PageVec<NameHashes>,
) -> Result<()> {
    others.clear();
    let mut own = candidates.iter().peekable();
    for loaded in objects {
        if own.next_if(|candidate| candidate.loaded.headers == loaded.headers).is_none() {
            others.push(registry.names(loaded.headers))?;
        }
    }
    Ok(())
}

/// Returns whether a DT_NEEDED entry of this text leads to `candidate`: by its path if
/// it has a slash, else by its SONAME or file name.
fn is_named(memory: &OwnMemory, candidate: &Candidate, needed: &[u8]) -> bool {
    let mut buffer = [0; NAME];
    if let Ok(path) = memory.read_string(candidate.loaded.name, &mut buffer) {
        let path = if needed.contains(&b'/') { path } else { file_name(path) };
        if path == needed {
            return true;
        }
    }
    candidate.dynamic.soname(memory, &mut buffer) == Some(needed)
}
