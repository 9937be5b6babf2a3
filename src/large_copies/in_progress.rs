//! The objects for which threads of this process are preparing copies: see
//! [`sopin_core::preparations`].

use sopin_core::preparations::Preparations;
use sopin_core::sys;

use super::MAX_COPIES;

#[unsafe(link_section = ".data.sopin")]
static PREPARATIONS: Preparations<MAX_COPIES> = Preparations::new();

/// Notes that this thread prepares a copy for an object.
pub fn add(headers: usize) {
    PREPARATIONS.add(headers, sys::thread_identity());
}

/// Removes the notes of this thread.
pub fn remove_own() {
    PREPARATIONS.remove(|thread| thread == sys::thread_identity());
}

/// Removes the notes of the parent's other threads, which do not exist in a forked child.
pub fn remove_others() {
    PREPARATIONS.remove(|thread| thread != sys::thread_identity());
}

/// Returns whether another thread prepares a copy for this object.
pub fn is_anothers(headers: usize) -> bool {
    PREPARATIONS.is_anothers(headers, sys::thread_identity())
}
