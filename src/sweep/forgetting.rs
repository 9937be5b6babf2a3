//! The step of a sweep that forgets objects: those that are no longer loaded, and those at
//! whose address another object lies now.

use sopin_core::private_memory::PrivateMemory;
use sopin_core::sys;
use sopin_core::vmas::Maps;

use super::{Sweep, file_at};
use crate::candidates::Candidate;
use crate::loader::Loaded;
use crate::original;
use crate::registry::{Entry, Registry};
use crate::state::Parts;

impl Sweep<'_> {
    /// Forgets the objects that are not in `objects`, the loader's list.
    pub(super) fn forget_unlisted(&mut self, objects: &[Loaded]) {
        forget_unlisted(self.registry, self.private_memory, objects);
    }

    /// Forgets the recorded objects at whose address a candidate lies now.
    pub(super) fn forget_replaced(&mut self) {
        for candidate in self.work.candidates.iter() {
            forget(self.registry, self.private_memory, candidate.loaded.headers);
        }
    }

    /// Forgets the objects that are no longer loaded, and those at whose address another one of
    /// `objects`, the loader's list, lies now.
    pub(super) fn forget_gone(&mut self, objects: &[Loaded], maps: &mut Maps) {
        for loaded in objects {
            if let Some(entry) = self.registry.recorded(loaded.headers)
                && Candidate::read(self.memory, *loaded).is_ok_and(|candidate| is_replaced(&entry, &candidate, maps))
            {
                forget(self.registry, self.private_memory, loaded.headers);
            }
        }
        self.forget_unlisted(objects);
    }
}

/// Returns whether `candidate` is another object than the one recorded in `entry`, at whose
/// address it lies.
pub(super) fn is_replaced(entry: &Entry, candidate: &Candidate, maps: &mut Maps) -> bool {
    let dynamic = candidate.object.dynamic.start;
    entry.is_replaced_by(dynamic, file_at(dynamic, maps))
}

/// Forgets the objects that are no longer in `objects`, the loader's list, without a sweep.
pub fn forget_unloaded(Parts { registry, private_memory, .. }: &mut Parts<'_>, objects: &[Loaded]) {
    forget_unlisted(registry, private_memory, objects);
}

fn forget_unlisted(registry: &mut Registry, private_memory: &mut PrivateMemory, objects: &[Loaded]) {
    registry.forget_unlisted(
        objects,
        // Objects of other namespaces are not in the list. If such an object was unloaded, its
        // address is unmapped, or belongs to another object that will be a candidate.
        |headers, entry| !entry.in_other_namespace || !sys::is_readable(headers),
        |entry| release(entry, private_memory),
    );
}

fn forget(registry: &mut Registry, private_memory: &mut PrivateMemory, headers: usize) {
    if let Some(entry) = registry.forget(headers) {
        release(&entry, private_memory);
    }
}

/// Unmaps the witness of a forgotten object, and subtracts its private copies.
fn release(entry: &Entry, private_memory: &mut PrivateMemory) {
    private_memory.subtract(entry.private);
    original::unmap_witness(entry.witness);
}
