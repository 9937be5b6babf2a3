//! How much private memory the copies of read-only ranges may take where no store
//! can be used. Such a copy is a memfd: the kernel cannot reclaim it, and each
//! process has its own, so that copies of large libraries (1 GB and more are
//! common for machine learning) would use up the memory of a service.
//!
//! The bound is `SOPIN_PRIVATE_LIMIT`, and a quarter of what the process's cgroups
//! and the machine have left. An object that does not fit keeps its read-only
//! ranges; unloading others makes room again. A child of fork has the account of
//! its parent, since it maps the same copies.

use sopin_core::available_memory;
use sopin_core::cause::{Cause, Operation};
use sopin_core::settings::Settings;

/// Smaller copies are made without asking the kernel what memory is left.
const SMALL: u64 = 1 << 20;

const OPERATION: Operation = Operation::CopyToPrivateMemory;
/// The copies would be larger than the user's limit.
pub const LIMITED: Cause =
    Cause::words(OPERATION, "more than SOPIN_PRIVATE_LIMIT; name a directory for the store with SOPIN_STORE");
/// They would take too much of what is left.
pub const SHORT: Cause =
    Cause::words(OPERATION, "too little memory is left; name a directory for the store with SOPIN_STORE");

/// What this process holds, in bytes.
pub struct PrivateMemory {
    held: u64,
}

impl PrivateMemory {
    /// Nothing is held.
    pub const fn new() -> Self {
        Self { held: 0 }
    }

    /// Returns whether so many more `bytes` may be held, or why not.
    pub fn check(&self, bytes: usize, settings: &Settings) -> Result<(), Cause> {
        let held = self.held.saturating_add(bytes as u64);
        if held > settings.private_limit {
            return Err(LIMITED);
        }
        // What is held already was left before it was copied.
        let left = if bytes as u64 <= SMALL { None } else { available_memory::find() };
        if left.is_some_and(|left| held > left.saturating_add(self.held) / 4) { Err(SHORT) } else { Ok(()) }
    }

    /// Notes that copies of so many bytes were mapped.
    pub fn add(&mut self, bytes: usize) {
        self.held = self.held.saturating_add(bytes as u64);
    }

    /// Notes that they are not mapped any more.
    pub fn subtract(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes as u64);
    }
}
