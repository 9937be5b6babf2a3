//! Copies of large files, made while this thread does not hold the library's lock and does
//! not block signals. Copying a gigabyte takes seconds. With the lock held, other threads
//! that load, unload or fork would wait for it, and so would signal handlers.
//!
//! ```text
//! sweep, locked:    finds large new objects ──> asks for copies, does nothing else
//! unlocked:         copies each file, or finds its cache entry in a store
//! sweep, locked:    finds the same objects, and takes the prepared copies
//! ```
//!
//! Objects can be unloaded in between. So this module reads their memory only through
//! [`ProcessMemory`], and a sweep uses a copy only for an object at the same address with the
//! same file, if no object was unloaded meanwhile and the process still has the rights of the
//! same user.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation, Reason};
use sopin_core::credentials::User;
use sopin_core::memory::ProcessMemory;
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
use crate::sources::{CopySearch, Modified, Sources, WantedCopy};

mod in_progress;

pub use in_progress::{is_anothers, remove_others};

/// The size in bytes from which an object's copy is made without the lock. Copying a smaller
/// one takes some milliseconds at most.
const LARGE: usize = 4 << 20;
/// How many copies can be prepared at a time. Each of them takes a descriptor.
const MAX_COPIES: usize = 48;

/// An object and the result of preparing a copy for it.
#[derive(Clone, Copy)]
struct Slot {
    loaded: Loaded,
    /// The identity of its file; `None` if no copy was prepared.
    identity: Option<Identity>,
    /// The descriptor of the cache entry, or why there is none.
    file: Result<i32, Cause>,
    /// The place in which the descriptor is noted, so that forked children close it.
    kept: Option<usize>,
    proof: Proof,
    complaints: [Option<Cause>; 2],
}

impl Slot {
    /// Returns the prepared descriptor, and empties the slot.
    fn release(&mut self) -> Result<Fd, Cause> {
        self.identity = None;
        if let Some(place) = self.kept.take() {
            sys::stop_keeping(place);
        }
        self.file.map(Fd::from_raw)
    }
}

/// The copies that the sweeps of one event have asked for.
#[derive(Default)]
pub struct LargeCopies {
    slots: PageVec<Slot>,
    /// How many of the slots [`LargeCopies::make`] is done with.
    done: usize,
    /// The loader's count of unloads when a sweep asked for them.
    subs: u64,
    user: Option<User>,
    /// The stores, which the sweep has opened while it held the lock.
    sources: Sources,
    /// How many objects were recorded when the first sweep of the process asked for copies.
    pub recorded_at_first: Option<usize>,
    /// Why the sweep that asked could not read an object that may have run.
    pub unreadable: Option<Cause>,
}

impl LargeCopies {
    /// Returns whether a copy should be prepared for an object that takes up `span`.
    pub fn should_prepare(&self, loaded: &Loaded, span: Span) -> bool {
        span.len() >= LARGE
            && self.slots.len() < MAX_COPIES
            && !self.slots.iter().any(|slot| slot.loaded.headers == loaded.headers)
    }

    /// Asks for a copy. Returns false if there is no memory for the request.
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

    /// Ends a sweep that has asked for copies, and takes over the stores that it has opened.
    pub fn begin(&mut self, sources: Sources, subs: u64) {
        // Copies that were prepared earlier in this call are not used if objects were unloaded.
        self.check(subs);
        self.user = sources.user();
        (self.sources, self.subs) = (sources, subs);
    }

    /// Makes the copies. The caller may hold the loader's locks, but not the library's.
    pub fn make(&mut self, memory: &ProcessMemory) {
        let sources = core::mem::take(&mut self.sources);
        let stores = sources.directories();
        let kept = stores.map(|store| store.and_then(KeptFromChildren::new));
        let mut buffer = PageVec::new();
        while let Some(slot) = self.slots.get_mut(self.done) {
            self.done += 1;
            // The previous copy may have taken seconds, and the program may have confined itself
            // meanwhile.
            if filters::look().is_none() {
                break;
            }
            let Some((identity, found)) = prepare(&slot.loaded, memory, &sources, &mut buffer) else { continue };
            let CopySearch { entry, complaints } = found;
            // A signal handler has interrupted the copying. If it has forked, the child continues
            // here with its descriptors closed. The sweep makes such a copy itself.
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

    /// Returns the copy that was prepared for an object whose file has this identity, if it was
    /// prepared for this user.
    pub fn take(
        &mut self,
        headers: usize,
        identity: &Identity,
        user: impl FnOnce() -> Option<User>,
    ) -> Option<CopySearch> {
        let is_it = |slot: &&mut Slot| slot.loaded.headers == headers && slot.identity == Some(*identity);
        let slot = self.slots.iter_mut().find(is_it).filter(|_| user() == self.user)?;
        let entry = slot.release().map(|file| CacheEntry { file, proof: slot.proof });
        Some(CopySearch { entry, complaints: slot.complaints })
    }

    /// Closes the prepared copies if objects were unloaded since they were asked for.
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

/// Finds or makes the copy for one object. `None` if it needs none, or if its file cannot be
/// found without the lock; then the sweep decides.
fn prepare(
    loaded: &Loaded,
    memory: &ProcessMemory,
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
        // With `stores_possible` the plan has no writable ranges, whose bytes may differ from the
        // file's and so must not be compared with a copy.
        let inputs = PlanInputs {
            mode: Mode::Full,
            has_text_relocations: candidate.dynamic.has_text_relocations,
            stores_possible: true,
            may_have_run: true,
        };
        plan::plan(&candidate.object, &vmas, inputs, &mut replacements).ok()?;
        let path = CStr::from_bytes_until_nul(&path).ok()?;
        let original = sources.find_original(&mut maps, path, lowest.file, &candidate, &replacements)?;
        if original.is_immutable {
            return None;
        }
        let mut runs = PageVec::new();
        let modified = Sources::default().leave_modified_pages(memory, Some(&original), &mut replacements, &mut runs);
        let Ok(Modified::Bytes(_)) = modified else { return None };
        original
    };
    let _kept = KeptFromChildren::new(&original.file);
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let object = &candidate.object;
    let wanted = WantedCopy { path, original: &original, memory, object, replacements: &replacements };
    // The sweep that has asked for the copy has opened both stores.
    let found = sources.find_copy(&wanted, buffer, None);
    Some((original.identity, found))
}
