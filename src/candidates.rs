//! The candidates of a sweep, what proves that each of them is relocated, and which of them
//! depend on one another.
//!
//! glibc's loader lists an object before it has relocated it. There are three proofs that
//! it has finished: the object's RELRO is read-only, which is the loader's last step;
//! an initialised object depends on it, since the loader relocates all objects of a
//! group before it initialises one of them; or it has no relocations. musl's loader lists
//! only relocated objects ([`loader::is_musl`]).
//! [`crate::write_safety`] finds out whether stores to its data are possible.

use sopin_core::cause::{Cause, Operation, Stopped};
use sopin_core::crtbegin::{self, Before};
use sopin_core::crti::{self, INIT_LEN};
use sopin_core::memory::{Along, ProcessMemory};
use sopin_core::names::{self, FileName, NameHashes};
use sopin_core::object::{Bound, Dynamic, Object, ObjectError, file_name};
use sopin_core::pages::PageVec;
use sopin_core::sys::{Errno, Result};
use sopin_core::vmas::Vma;
use sopin_core::write_safety::Progress;

use crate::loader::{self, Loaded};
use crate::own;
use crate::registry::Registry;

/// Longest SONAME and path that a DT_NEEDED entry is compared with, in bytes.
const NAME: usize = 512;

/// An object that is not recorded yet.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Candidate {
    /// The loader's entry for it.
    pub loaded: Loaded,
    pub object: Object,
    pub dynamic: Dynamic,
    /// The beginning of its code, if that was read along with the dynamic section.
    code: Along<INIT_LEN>,
    /// An initialised object depends on it, or it is one.
    pub is_in_initialised_group: bool,
    /// Its file name, if that was read along with the headers.
    file_name: Option<FileName>,
    /// The names by which a DT_NEEDED entry may refer to it, once they have been read.
    names: Option<NameHashes>,
    /// Whether its code may have run; [`crate::write_safety`] finds that out.
    pub progress: Progress,
    /// An object that may have run knows an address in its data, see [`crate::reach`].
    pub is_known: bool,
    /// It certainly depends on the object that has announced itself, see [`mark_dependents`].
    pub depends_on_root: bool,
    /// musl has left words of it unbound, and stores to them at a later `dlopen`.
    pub has_unbound: bool,
    /// Another thread may be running the code that it has before its announcement.
    pub may_be_beginning: bool,
}

impl Candidate {
    /// Reads the headers of `loaded`.
    pub fn read(memory: &ProcessMemory, loaded: Loaded) -> core::result::Result<Self, Cause> {
        let read_error = |errno| Cause::call(memory.operation(), errno);
        let Loaded { base, headers, header_count, name } = loaded;
        let mut path = Along::in_block_of(name);
        let read = Object::read_along(memory, base, headers, header_count, &mut path);
        let object = read.map_err(|error| match error {
            ObjectError::Read(errno) => read_error(errno),
            ObjectError::TooManySegments => Cause::words(Operation::ReadProgramHeaders, "too many PT_LOAD segments"),
            ObjectError::Malformed => {
                Cause::words(Operation::ReadProgramHeaders, "PT_LOAD segments missing or out of order")
            }
        })?;
        // The GNU linkers place `_init` there.
        let code = object.segments().iter().find(|segment| segment.executable);
        let mut code = code.map_or(Along::nothing(), |segment| Along::in_block_of(segment.span.start));
        let dynamic = Dynamic::read_along(memory, &object, &mut code).map_err(read_error)?;
        Ok(Self {
            loaded,
            object,
            dynamic,
            code,
            is_in_initialised_group: false,
            file_name: path.string().map(FileName::of),
            names: None,
            progress: Progress::MayHaveRun,
            is_known: false,
            depends_on_root: false,
            has_unbound: false,
            may_be_beginning: false,
        })
    }

    /// Returns whether it is proven relocated, in a sweep during which constructors of its
    /// group have begun to run. `relro_vmas` are the parts of its RELRO that still map the
    /// file.
    pub fn is_relocated(&self, relro_vmas: &[Vma]) -> bool {
        self.is_in_initialised_group || !self.dynamic.has_relocations || self.has_protected_relro(relro_vmas)
    }

    /// Returns whether it is proven relocated, in a sweep after a `dlopen` has returned,
    /// while other threads may be inside theirs. Its RELRO proves it. Without RELRO, it is
    /// relocated if the opened object depends on it and it does not announce itself. The
    /// dependence alone is not enough: a `dlopen` that is called from inside another one
    /// (from an interposed `malloc`, for example) returns a handle of an object that the
    /// other one has not relocated yet. An object that announces itself is pinned when it
    /// does so.
    pub fn is_relocated_after_opening(&self, relro_vmas: &[Vma], memory: &ProcessMemory) -> bool {
        if self.object.relro.is_empty() {
            self.is_in_initialised_group && self.will_announce(memory) == Ok(false)
        } else {
            self.has_protected_relro(relro_vmas)
        }
    }

    /// Returns whether its code may have run before a sweep has seen it.
    pub fn may_have_run(&self) -> bool {
        self.progress == Progress::MayHaveRun
    }

    fn has_protected_relro(&self, relro_vmas: &[Vma]) -> bool {
        !self.object.relro.is_empty() && !relro_vmas.iter().any(Vma::is_writable)
    }

    /// Returns the names by which a DT_NEEDED entry may refer to it.
    pub fn names(&self, memory: &ProcessMemory) -> NameHashes {
        self.names.unwrap_or_else(|| {
            let file_name = self.file_name.unwrap_or_else(|| FileName::read(memory, self.loaded.name));
            NameHashes::read(memory, file_name, self.dynamic.soname_address())
        })
    }

    /// Returns whether a word of it is bound to this library's `__register_frame_info`.
    pub fn refers_to_registration(&self, memory: &ProcessMemory) -> core::result::Result<bool, Cause> {
        let mut refers = false;
        let read = self.dynamic.for_each_reference(memory, &self.object, |reference| {
            refers |= reference.bound == Bound::Address(own::register_frame_info());
            Ok(())
        });
        read.map_err(|errno: Errno| Cause::call(memory.operation(), errno)).map(|()| refers)
    }

    /// Calls `each` with the index and the value of every candidate that a DT_NEEDED entry of this
    /// object refers to. It leaves out an entry that could mean several objects, see
    /// [`mark_groups`]; `others` are the names of those of the loader's list that are no
    /// candidates.
    fn for_each_needed_candidate(
        &self,
        memory: &ProcessMemory,
        candidates: &[Self],
        others: &[NameHashes],
        mut each: impl FnMut(usize, &Self) -> core::result::Result<(), Cause>,
    ) -> core::result::Result<(), Cause> {
        let followed = self.dynamic.for_each_needed(memory, &self.object, |needed| {
            let names = candidates.iter().map(|candidate| candidate.names(memory));
            let found = names::only_object(needed, names, others);
            if let Some((index, other)) = found.and_then(|index| Some((index, candidates.get(index)?)))
                && is_named(memory, other, needed)
            {
                each(index, other)?;
            }
            Ok(())
        });
        followed.map_err(|stopped: Stopped| stopped.cause(memory.operation()))
    }

    /// Returns whether its `_init` has made a call that returns to `caller`, so that it is announcing
    /// itself to this library.
    pub fn is_announcing(&self, memory: &ProcessMemory, caller: usize) -> bool {
        crti::init_has_called(memory, self.dynamic.init, &self.code, caller).unwrap_or(false)
    }

    /// Returns whether it will announce itself to this library before any of its constructors runs.
    pub fn will_announce(&self, memory: &ProcessMemory) -> core::result::Result<bool, Cause> {
        self.before_announcement(memory).map(|before| before.is_some())
    }

    /// Returns what it does before it announces itself; `None` if it does not announce itself, or runs
    /// a constructor before that.
    pub fn before_announcement(&self, memory: &ProcessMemory) -> core::result::Result<Option<Before>, Cause> {
        let (init, failed) = (self.dynamic.init, |errno| Cause::call(memory.operation(), errno));
        if init != 0 && crti::init_calls(memory, init, &self.code, own::gmon_start()).map_err(failed)? {
            return Ok(Some(Before::Nothing));
        }
        if !loader::is_musl() {
            return Ok(None);
        }
        crtbegin::begins_by_calling(memory, &self.dynamic, own::register_frame_info()).map_err(failed)
    }
}

/// Memory that [`mark_groups`] uses again.
#[derive(Default)]
pub struct GroupWork {
    others: PageVec<NameHashes>,
    worklist: PageVec<usize>,
}

impl GroupWork {
    pub const fn new() -> Self {
        Self { others: PageVec::new(), worklist: PageVec::new() }
    }
}

/// Marks the candidates at `roots`, whose groups the loader has relocated, and all
/// candidates on which they depend, directly or indirectly. It follows a DT_NEEDED entry
/// only if a single object can be meant by it, because another object of the same name may
/// be one that another thread is just loading. The candidates must be in the order of
/// `objects`, the loader's list.
pub fn mark_groups(
    memory: &ProcessMemory,
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
        candidate.for_each_needed_candidate(memory, candidates, others, |index, other| {
            if other.is_in_initialised_group { Ok(()) } else { worklist.push(index).map_err(Cause::no_memory) }
        })?;
    }
    Ok(())
}

/// Marks the candidates that certainly depend, directly or indirectly, on the one at `root`, which
/// does not depend on them. The group of `root` must be marked, see [`mark_groups`], with the same
/// `work`.
pub fn mark_dependents(
    memory: &ProcessMemory,
    candidates: &mut [Candidate],
    work: &mut GroupWork,
    root: usize,
) -> core::result::Result<(), Cause> {
    for index in 0..candidates.len() {
        let depends = depends_on(memory, candidates, work, index, root)?;
        if let Some(candidate) = candidates.get_mut(index) {
            candidate.depends_on_root = depends;
        }
    }
    Ok(())
}

fn depends_on(
    memory: &ProcessMemory,
    candidates: &[Candidate],
    work: &mut GroupWork,
    index: usize,
    root: usize,
) -> core::result::Result<bool, Cause> {
    let GroupWork { others, worklist } = work;
    if candidates.get(index).is_none_or(|candidate| candidate.is_in_initialised_group) {
        return Ok(false);
    }
    worklist.clear();
    worklist.push(index).map_err(Cause::no_memory)?;
    let mut next = 0;
    while let Some(index) = worklist.get(next).copied() {
        next += 1;
        let Some(candidate) = candidates.get(index) else { continue };
        candidate.for_each_needed_candidate(memory, candidates, others, |index, _| {
            if worklist.contains(&index) { Ok(()) } else { worklist.push(index).map_err(Cause::no_memory) }
        })?;
    }
    Ok(worklist.contains(&root))
}

/// Replaces `others` by the names of those of `objects` that are no candidates.
/// An object that is neither a candidate nor recorded could not be read, so it may have
/// any name.
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

/// Returns whether the DT_NEEDED entry `needed` refers to `candidate`: by its path if the
/// entry has a slash, else by its SONAME or file name.
fn is_named(memory: &ProcessMemory, candidate: &Candidate, needed: &[u8]) -> bool {
    let mut buffer = [0; NAME];
    if let Ok(path) = memory.read_string(candidate.loaded.name, &mut buffer) {
        let path = if needed.contains(&b'/') { path } else { file_name(path) };
        if path == needed {
            return true;
        }
    }
    candidate.dynamic.soname(memory, &mut buffer) == Some(needed)
}
