//! Copies of large files, made while no lock of ours is held and signals are
//! delivered. Copying a gigabyte takes seconds, and whoever needs the lock would
//! wait for it: other threads that load, unload or fork, and handlers of signals.
//!
//! ```text
//! sweep, locked:    finds large objects that are new ──> asks for copies, does nothing else
//! unlocked:         copies each file, or finds that the store has it
//! sweep, locked:    finds the same objects, and takes what was prepared
//! ```
//!
//! Objects can be unloaded in between. So nothing here trusts their memory, and a
//! copy is used only for an object at the same address with the same file, if no
//! object was unloaded meanwhile, by a process of the same user.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation, Reason};
use sopin_core::credentials::User;
use sopin_core::memory::OwnMemory;
use sopin_core::mode::Mode;
use sopin_core::object::Span;
use sopin_core::pages::PageVec;
use sopin_core::plan::{self, PlanInputs, Replacement};
use sopin_core::sys::{self, Errno, Fd, KeptFromChildren};
use sopin_core::vmas::{Maps, Vma};
use sopin_store::{CacheEntry, Identity, Proof};

use crate::candidates::Candidate;
use crate::filters;
use crate::loader::Loaded;
use crate::sources::{self, CopySearch, Modified, Sources};

mod in_progress;

pub use in_progress::{is_anothers, remove_others};

/// Bytes of an object from which on its copy is made without the lock. Smaller ones
/// take some milliseconds at most.
const LARGE: usize = 4 << 20;
/// Copies that are prepared at a time, each with a descriptor.
const MAX_COPIES: usize = 48;

/// An object and what came of preparing a copy for it.
#[derive(Clone, Copy)]
struct Slot {
    loaded: Loaded,
    /// Of its file; `None` if nothing was prepared.
    identity: Option<Identity>,
    /// The entry's descriptor, or why there is none.
    file: Result<i32, Cause>,
    /// Where that is noted for children.
    kept: Option<usize>,
    proof: Proof,
    complaints: [Option<Cause>; 2],
}

impl Slot {
    /// Gives up the descriptor, which was prepared.
    fn release(&mut self) -> Result<Fd, Cause> {
        self.identity = None;
        if let Some(place) = self.kept.take() {
            sys::stop_keeping(place);
        }
        self.file.map(Fd::from_raw)
    }
}

/// What sweeps ask for and get.
#[derive(Default)]
pub struct LargeCopies {
    slots: PageVec<Slot>,
    /// How many of them are done.
    done: usize,
    /// The loader's count of unloads when they were asked for.
    subs: u64,
    user: Option<User>,
    /// The stores, which were opened with the lock.
    sources: Sources,
    /// How many objects were recorded when the first sweep of the process asked.
    pub recorded_at_first: Option<usize>,
    /// Why that sweep could not read an object that may have run.
    pub unreadable: Option<Cause>,
}

impl LargeCopies {
    /// Returns whether a copy should be prepared for an object that takes up `span`.
    pub fn should_prepare(&self, loaded: &Loaded, span: Span) -> bool {
        span.len() >= LARGE
            && self.slots.len() < MAX_COPIES
            && !self.slots.iter().any(|slot| slot.loaded.headers == loaded.headers)
    }

    /// Asks for a copy; whether that is possible.
    pub fn ask(&mut self, loaded: &Loaded) -> bool {
        let slot = Slot {
            loaded: *loaded,
            identity: None,
            file: Err(Cause::words(Operation::CopyToStore, "nothing was prepared")),
            kept: None,
            proof: Proof::Ranges,
            complaints: [None; 2],
        };
        let is_asked = self.slots.push(slot).is_ok();
        if is_asked {
            in_progress::add(loaded.headers);
        }
        is_asked
    }

    /// Ends a sweep that has asked, with the stores that it has opened.
    pub fn begin(&mut self, sources: Sources, subs: u64) {
        // What was prepared earlier in this call is of no use if objects are gone.
        self.check(subs);
        self.user = sources.user();
        (self.sources, self.subs) = (sources, subs);
    }

    /// Makes the copies. No lock may be held but the loader's.
    pub fn make(&mut self, memory: &OwnMemory) {
        let sources = core::mem::take(&mut self.sources);
        let stores = sources.directories();
        let kept = stores.map(|store| store.and_then(KeptFromChildren::new));
        let mut buffer = PageVec::new();
        while let Some(slot) = self.slots.get_mut(self.done) {
            self.done += 1;
            // The last copy may have taken seconds, in which the program may have
            // confined itself.
            if filters::look().is_none() {
                break;
            }
            let Some((identity, found)) = prepare(&slot.loaded, memory, &sources, &mut buffer) else { continue };
            let CopySearch { entry, complaints } = found;
            // The sweep does without what a signal has interrupted.
            let was_interrupted =
                matches!(entry, Err(Cause { reason: Reason::Errno(Errno(libc::EINTR | libc::EBADF)), .. }));
            if was_interrupted {
                continue;
            }
            (slot.identity, slot.complaints) = (Some(identity), complaints);
            slot.file = entry.map(|CacheEntry { file, proof }| {
                slot.proof = proof;
                slot.kept = KeptFromChildren::new(&file).map(KeptFromChildren::into_place);
                file.into_raw()
            });
        }
        drop(kept);
    }

    /// Returns what was prepared for an object whose file has this identity, if that is still
    /// good at this count of unloads for this user.
    pub fn take(&mut self, headers: usize, identity: &Identity, user: Option<User>) -> Option<CopySearch> {
        let is_it = |slot: &&mut Slot| slot.loaded.headers == headers && slot.identity == Some(*identity);
        let slot = self.slots.iter_mut().find(is_it).filter(|_| user == self.user)?;
        let entry = slot.release().map(|file| CacheEntry { file, proof: slot.proof });
        Some(CopySearch { entry, complaints: slot.complaints })
    }

    /// Forgets what was prepared if objects were unloaded since.
    pub fn check(&mut self, subs: u64) {
        if self.subs != subs {
            self.forget();
        }
    }

    fn forget(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.identity.is_some()) {
            let _ = slot.release();
        }
    }
}

impl Drop for LargeCopies {
    fn drop(&mut self) {
        self.forget();
        if !self.slots.is_empty() {
            in_progress::remove_own();
        }
    }
}

/// Finds or makes the copy for one object; `None` if that cannot be done here.
fn prepare(
    loaded: &Loaded,
    memory: &OwnMemory,
    sources: &Sources,
    buffer: &mut PageVec<u8>,
) -> Option<(Identity, CopySearch)> {
    let candidate = Candidate::read(memory, *loaded).ok()?;
    let mut path = PageVec::filled(0, libc::PATH_MAX as usize).ok()?;
    let (mut vmas, mut replacements) = (PageVec::<Vma>::new(), PageVec::<Replacement>::new());
    let original = {
        let mut maps = Maps::open().ok()?;
        maps.file_backed_in(candidate.object.span, &mut vmas).ok()?;
        let lowest = vmas.first().copied()?;
        let room = path.len() - 1;
        maps.path_at(lowest.span.start, path.get_mut(..room)?).ok()?;
        // Of data, where stores are possible, nothing is compared.
        let inputs = PlanInputs {
            mode: Mode::Full,
            has_text_relocations: candidate.dynamic.has_text_relocations,
            stores_possible: true,
        };
        plan::plan(&candidate.object, &vmas, inputs, &mut replacements).ok()?;
        let path = CStr::from_bytes_until_nul(&path).ok()?;
        let original = sources::find_original(&mut maps, path, lowest.file, &candidate, &replacements)?;
        let mut runs = PageVec::new();
        let modified = Sources::default().leave_modified_pages(memory, Some(&original), &mut replacements, &mut runs);
        let Ok(Modified::Bytes(_)) = modified else { return None };
        original
    };
    if sources.need_no_copy(&original) {
        return None;
    }
    let _kept = KeptFromChildren::new(&original.file);
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let found = sources.find_copy(path, &original, memory, &candidate.object, &replacements, buffer);
    Some((original.identity, found))
}
