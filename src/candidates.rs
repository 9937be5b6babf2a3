//! The objects that are new to us, and what is proven about each.
//!
//! Two proofs decide what may be done to an object:
//!
//! * **It is relocated.** The loader lists an object before it has relocated
//!   it. Proof is that its RELRO is read-only (the loader's last step), that an
//!   initialised object depends on it (the loader relocates all of a group
//!   before it initialises any of it), or that it has no relocations.
//! * **Nobody is storing to it.** Proof is that this is the only thread, or
//!   that no constructor of the object has run (see [`sopin_core::crti`]).

use sopin_core::cause::Cause;
use sopin_core::crti;
use sopin_core::memory::OwnMemory;
use sopin_core::object::{Dynamic, Object, ObjectError, file_name};
use sopin_core::pages::PageVec;
use sopin_core::vmas::Vma;

use crate::environment;
use crate::loader::Loaded;
use crate::registry::Guard;

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
}

impl Candidate {
    /// Reads the headers of `loaded`.
    pub fn read(memory: &OwnMemory, loaded: Loaded) -> core::result::Result<Self, Cause> {
        let read_error = |errno| Cause::call(memory.operation(), errno);
        let object =
            Object::read(memory, loaded.base, loaded.headers, loaded.header_count).map_err(|error| match error {
                ObjectError::Read(errno) => read_error(errno),
                ObjectError::TooManySegments => Cause::words("read program headers", "too many PT_LOAD segments"),
                ObjectError::Malformed => {
                    Cause::words("read program headers", "PT_LOAD segments missing or out of order")
                }
            })?;
        let dynamic = Dynamic::read(memory, &object).map_err(read_error)?;
        Ok(Self { loaded, object, dynamic, is_in_initialised_group: false })
    }

    /// Whether its relocation is proven finished, when constructors of its
    /// group have begun to run, given what of its RELRO still maps the file.
    pub fn is_relocated(&self, relro_vmas: &[Vma]) -> bool {
        self.is_in_initialised_group || !self.dynamic.has_relocations || self.has_protected_relro(relro_vmas)
    }

    /// Whether its relocation is proven finished, when a `dlopen` of something
    /// that depends on it has returned. That alone is not enough: called from
    /// inside another `dlopen` (from an interposed `malloc`, say), it returns a
    /// handle of an object that the other one has not relocated yet. Such an
    /// object has not announced itself either.
    pub fn is_relocated_after_opening(&self, relro_vmas: &[Vma], memory: &OwnMemory, announce: usize) -> bool {
        let is_protected = if self.object.relro.is_empty() {
            self.will_announce(memory, announce) == Ok(false)
        } else {
            self.has_protected_relro(relro_vmas)
        };
        self.is_in_initialised_group && is_protected
    }

    fn has_protected_relro(&self, relro_vmas: &[Vma]) -> bool {
        !self.object.relro.is_empty() && !relro_vmas.iter().any(Vma::is_writable)
    }

    /// Whether it will announce itself to `announce`, our `__gmon_start__`,
    /// before any of its constructors.
    pub fn will_announce(&self, memory: &OwnMemory, announce: usize) -> core::result::Result<bool, Cause> {
        if self.dynamic.init == 0 {
            return Ok(false);
        }
        crti::init_calls(memory, self.dynamic.init, announce).map_err(|errno| Cause::call(memory.operation(), errno))
    }
}

/// What is known about stores to the candidates of one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// This is the only thread and signals are blocked.
    NoOtherThread,
    /// An object that has yet to announce itself has run no code; why somebody
    /// may be storing to the others.
    NotBeforeAnnouncement(Cause),
    /// Anybody may be storing to any of them, for this reason.
    Possible(Cause),
}

const OTHER_THREADS: Cause = Cause::words("pin writable ranges", "other threads may be storing to them");

impl Stores {
    /// What can be known with this lock held. `trusts_announcements`: an object
    /// that has yet to announce itself has run no code.
    pub fn now(
        guard: &Guard,
        memory: &OwnMemory,
        announce: usize,
        candidates: &[Candidate],
        trusts_announcements: bool,
    ) -> Self {
        let cause = match (guard.blocks_signals(), environment::has_one_thread()) {
            (Ok(()), Ok(true)) => return Self::NoOtherThread,
            (Err(errno), _) => Cause::call("rt_sigprocmask", errno),
            (Ok(()), Err(errno)) => Cause::call("stat /proc/self/task", errno),
            (Ok(()), Ok(false)) => OTHER_THREADS,
        };
        if trusts_announcements {
            Self::with_threads(memory, announce, candidates, cause)
        } else {
            Self::Possible(cause)
        }
    }

    /// What threads could be doing when an object announces itself. If one of
    /// the candidates may have run constructors without announcing itself,
    /// they may have started threads that store to the others.
    fn with_threads(memory: &OwnMemory, announce: usize, candidates: &[Candidate], cause: Cause) -> Self {
        for candidate in candidates.iter().filter(|candidate| candidate.dynamic.has_constructors()) {
            match candidate.will_announce(memory, announce) {
                Ok(true) => {}
                Ok(false) => return Self::Possible(cause),
                Err(unknown) => return Self::Possible(unknown),
            }
        }
        Self::NotBeforeAnnouncement(cause)
    }

    /// Why somebody may be storing to `candidate`, if that may be.
    pub fn possible_to(self, memory: &OwnMemory, announce: usize, candidate: &Candidate) -> Option<Cause> {
        match self {
            Self::NoOtherThread => None,
            Self::NotBeforeAnnouncement(cause) => match candidate.will_announce(memory, announce) {
                Ok(will) => (!will).then_some(cause),
                Err(unknown) => Some(unknown),
            },
            Self::Possible(cause) => Some(cause),
        }
    }
}

/// Marks the candidate at `root`, whose group the loader has relocated, and all
/// candidates that it depends on, directly or not.
pub fn mark_group(memory: &OwnMemory, candidates: &mut [Candidate], root: usize) -> core::result::Result<(), Cause> {
    let no_memory = |errno| Cause::call("mmap", errno);
    let mut worklist = PageVec::new();
    worklist.push(root).map_err(no_memory)?;
    let mut next = 0;
    while let Some(index) = worklist.get(next).copied() {
        next += 1;
        let Some(candidate) = candidates.get_mut(index) else { continue };
        if core::mem::replace(&mut candidate.is_in_initialised_group, true) {
            continue;
        }
        let candidate = *candidate;
        let mut no_room = false;
        let followed = candidate.dynamic.for_each_needed(memory, &candidate.object, |needed| {
            for (index, other) in candidates.iter().enumerate() {
                if !other.is_in_initialised_group && is_named(memory, other, needed) {
                    worklist.push(index).inspect_err(|_| no_room = true)?;
                }
            }
            Ok(())
        });
        followed.map_err(|errno| if no_room { no_memory(errno) } else { Cause::call(memory.operation(), errno) })?;
    }
    Ok(())
}

/// Whether a DT_NEEDED entry of this text leads to `candidate`: by its path if
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

/// Reads the loader's name of an object into `buffer`, for one whose mappings do
/// not tell it; its length. That of the executable is empty.
pub fn read_loader_name(memory: &OwnMemory, loaded: &Loaded, buffer: &mut [u8]) -> usize {
    match memory.read_string(loaded.name, buffer) {
        Ok(name) if !name.is_empty() => name.len(),
        Ok(_) => set_name(b"the executable", buffer),
        Err(_) => set_name(b"an object whose name cannot be read", buffer),
    }
}

/// Copies a name into `buffer`; its length.
pub fn set_name(name: &[u8], buffer: &mut [u8]) -> usize {
    buffer.iter_mut().zip(name).map(|(slot, byte)| *slot = *byte).count()
}
