//! How much private memory the copies of read-only ranges may take where no store
//! can be used. Such a copy is a memfd, which the kernel cannot reclaim, and each process
//! has its own. So copies of large libraries (1 GB and more are common for machine learning)
//! would use up the memory of a service.
//!
//! The bounds are `SOPIN_PRIVATE_LIMIT`, and a quarter of the memory that the process's
//! cgroups and the machine have left. The read-only ranges of an object that does not fit
//! are left; unloading other objects makes room again. A forked child continues with the
//! count of its parent, since it maps the same copies.

use sopin_core::available_memory;
use sopin_core::cause::{Cause, Operation};
use sopin_core::settings::Settings;

/// The size in bytes up to which copies are made without asking the kernel how much memory is
/// left.
const SMALL: u64 = 1 << 20;

const OPERATION: Operation = Operation::CopyToPrivateMemory;
/// The private copies would exceed the user's limit.
pub const LIMITED: Cause =
    Cause::words(OPERATION, "more than SOPIN_PRIVATE_LIMIT; name a directory for the store with SOPIN_STORE");
/// The private copies would take too much of the memory that is left.
pub const SHORT: Cause =
    Cause::words(OPERATION, "too little memory is left; name a directory for the store with SOPIN_STORE");

/// Counts the bytes of the private copies that this process maps.
pub struct PrivateMemory {
    held: u64,
}

impl PrivateMemory {
    /// Makes a count of 0.
    pub const fn new() -> Self {
        Self { held: 0 }
    }

    /// Returns an error if private copies of so many more `bytes` may not be made.
    pub fn check(&self, bytes: usize, settings: &Settings) -> Result<(), Cause> {
        let held = self.held.saturating_add(bytes as u64);
        if held > settings.private_limit {
            return Err(LIMITED);
        }
        // The bound is a quarter of the memory that was left before the existing copies were made:
        // what is left now, and what they hold.
        let left = if bytes as u64 <= SMALL { None } else { available_memory::find() };
        if left.is_some_and(|left| held > left.saturating_add(self.held) / 4) { Err(SHORT) } else { Ok(()) }
    }

    /// Adds private copies of so many bytes, which have been mapped.
    pub fn add(&mut self, bytes: usize) {
        self.held = self.held.saturating_add(bytes as u64);
    }

    /// Subtracts private copies of so many bytes, which are no longer mapped.
    pub fn subtract(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes as u64);
    }
}
