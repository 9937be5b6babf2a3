//! How much private memory the copies of a process may take where no store can be used. Such a copy
//! is a memfd or anonymous memory, which the kernel cannot reclaim, and each process has its own. So
//! copies of large libraries (1 GB and more are common for machine learning) would use up the memory
//! of a service. Relocated pages do not count: they are private memory before they are copied, too.
//!
//! The bounds are `SOPIN_PRIVATE_LIMIT`, and a quarter of the memory that the machine and the
//! cgroups of the process that makes the copies have left.

use crate::available_memory;

/// The size in bytes up to which copies are made without asking the kernel how much memory is
/// left.
const SMALL: u64 = 1 << 20;

/// The reason why a private copy may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The private copies would exceed the user's limit.
    Limited,
    /// The private copies would take too much of the memory that is left.
    Short,
}

/// Counts the bytes of the private copies that a process maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrivateMemory {
    held: u64,
}

impl PrivateMemory {
    /// Makes a count of 0.
    pub const fn new() -> Self {
        Self { held: 0 }
    }

    /// Returns an error if private copies of so many more `bytes` may not be made. `limit` is
    /// `SOPIN_PRIVATE_LIMIT`.
    #[inline(never)]
    pub fn check(&self, bytes: usize, limit: u64) -> Result<(), NoRoom> {
        let held = self.held.saturating_add(bytes as u64);
        if held > limit {
            return Err(NoRoom::Limited);
        }
        // The bound is a quarter of the memory that was left before the existing copies were made:
        // what is left now, and what they hold.
        let left = if bytes as u64 <= SMALL { None } else { available_memory::find() };
        if left.is_some_and(|left| held > left.saturating_add(self.held) / 4) { Err(NoRoom::Short) } else { Ok(()) }
    }

    /// Adds private copies of so many bytes.
    pub fn add(&mut self, bytes: usize) {
        self.held = self.held.saturating_add(bytes as u64);
    }

    /// Subtracts private copies of so many bytes, which are no longer mapped.
    pub fn subtract(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copies_of_a_process_are_limited_all_together() {
        let mut memory = PrivateMemory::new();
        assert_eq!((memory.check(4096, 4096), memory.check(4097, 4096)), (Ok(()), Err(NoRoom::Limited)));
        memory.add(4000);
        assert_eq!((memory.check(96, 4096), memory.check(97, 4096)), (Ok(()), Err(NoRoom::Limited)));
        memory.subtract(4000);
        assert_eq!(memory.check(4096, 4096), Ok(()));
        memory.add(usize::MAX);
        assert_eq!(memory.check(usize::MAX, u64::MAX - 1), Err(NoRoom::Limited));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn more_than_the_memory_of_the_machine_is_never_taken() {
        assert_eq!(PrivateMemory::new().check(1 << 60, u64::MAX), Err(NoRoom::Short));
    }
}
