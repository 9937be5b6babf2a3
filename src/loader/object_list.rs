//! A copy of the loader's list of objects, kept from one sweep to the next. The next sweep changes
//! only what has changed, and need not look for those objects in the table that the last one has
//! recorded. So loading one more object costs little more where thousands are loaded.
//!
//! That an entry is equal to the one of the last sweep does not prove that the same object is
//! loaded: another one may lie at its address. The counters of the loader show that an object was
//! unloaded meanwhile ([`super::Counters`]), and then a sweep looks at every object.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use sopin_core::pages::PageVec;
use sopin_core::sys::Result;

use super::Loaded;

/// The objects, and which of them are recorded.
#[derive(Default)]
pub struct KeptObjects {
    objects: PageVec<Loaded>,
    /// The first so many of the objects were recorded in the registry, if no object was removed
    /// from it since it had removed so many.
    recorded: (usize, u64),
}

impl KeptObjects {
    const fn new() -> Self {
        Self { objects: PageVec::new(), recorded: (0, 0) }
    }

    /// Makes `object` the one at `index`, which the list must reach. If another one is there, that
    /// one and all behind it are removed.
    pub fn set(&mut self, index: usize, object: Loaded) -> Result<()> {
        if self.objects.get(index) == Some(&object) {
            return Ok(());
        }
        self.truncate(index);
        self.objects.push(object)
    }

    /// Removes all objects but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.objects.truncate(len);
        self.recorded.0 = self.recorded.0.min(len);
    }
}

/// The list of the last sweep, which no sweep uses now.
#[unsafe(link_section = ".data.sopin")]
static SPARE: Spare = Spare { is_taken: AtomicBool::new(false), list: UnsafeCell::new(KeptObjects::new()) };

struct Spare {
    is_taken: AtomicBool,
    list: UnsafeCell<KeptObjects>,
}

// SAFETY: only the thread that has set `is_taken` accesses the list. It sets the flag by an
// acquiring exchange and clears it by a releasing store, so two accesses never overlap.
unsafe impl Sync for Spare {}

/// The list of the last sweep, until [`super::snapshot`] makes it that of the loader. If another
/// thread uses that one, or did when this process was forked, it is an empty list with memory of
/// its own.
pub struct ObjectList {
    pub(super) list: KeptObjects,
    is_spare: bool,
}

impl ObjectList {
    /// Takes the list.
    pub fn take() -> Self {
        let is_spare = !SPARE.is_taken.swap(true, Ordering::Acquire);
        // SAFETY: this thread has just changed `is_taken` from false to true, so no other thread
        // accesses the list until this one clears the flag.
        let list = if is_spare { core::mem::take(unsafe { &mut *SPARE.list.get() }) } else { KeptObjects::new() };
        Self { list, is_spare }
    }

    /// Empties the list, and returns it for the objects of another namespace.
    pub fn of_other_namespace(&mut self) -> &mut PageVec<Loaded> {
        self.list.truncate(0);
        &mut self.list.objects
    }

    /// Notes that all objects are recorded in the registry, which has removed so many objects.
    pub fn note_recorded(&mut self, removed: u64) {
        self.list.recorded = (self.list.objects.len(), removed);
    }

    /// Returns how many of the first objects are certainly recorded in the registry, which has
    /// removed so many objects.
    pub fn recorded(&self, removed: u64) -> usize {
        let (count, removed_then) = self.list.recorded;
        if removed_then == removed { count } else { 0 }
    }
}

impl core::ops::Deref for ObjectList {
    type Target = [Loaded];

    fn deref(&self) -> &Self::Target {
        &self.list.objects
    }
}

impl Drop for ObjectList {
    fn drop(&mut self) {
        if self.is_spare {
            // SAFETY: `take` has changed `is_taken` from false to true for this value, and the flag
            // is cleared only after this store. So no other thread accesses the list.
            unsafe { *SPARE.list.get() = core::mem::take(&mut self.list) };
            SPARE.is_taken.store(false, Ordering::Release);
        }
    }
}
