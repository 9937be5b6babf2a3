//! Which file names have entries. With this filter a process that adds an entry need not list a
//! large store to learn that there is no older version to replace.
//!
//! A Bloom filter with two functions, the halves of the hash: a name that the filter does not
//! have has no entry, or one that another process has added within the last seconds. An older
//! version that is missed for that reason is removed with the next unneeded entries.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Seconds for which a listing is used, although other processes may have added entries since.
const FRESH_SECONDS: i64 = 10;
/// One bit for each value of half a hash.
const WORDS: usize = (1 << 16) / 64;

/// The names in the store that this process used last.
pub struct NameFilter {
    bits: [AtomicU64; WORDS],
    /// The inode number of the directory of the store that was listed.
    store: AtomicU64,
    /// When it was listed, in seconds of the monotonic clock; 0: never.
    listed: AtomicI64,
}

impl NameFilter {
    /// Makes a filter that knows no store.
    pub const fn new() -> Self {
        Self { bits: [const { AtomicU64::new(0) }; WORDS], store: AtomicU64::new(0), listed: AtomicI64::new(0) }
    }

    /// Returns whether a file name of this hash may have an entry.
    pub fn may_have(&self, store: u64, name_hash: u32, now: i64) -> bool {
        // The bits are read first: if another thread clears them meanwhile, the listing is seen
        // not to be fresh.
        let is_known = self.places(name_hash).iter().all(|(bits, bit)| bits.load(Ordering::Acquire) & bit != 0);
        let listed = self.listed.load(Ordering::Acquire);
        let is_fresh = listed != 0 && now - listed < FRESH_SECONDS && self.store.load(Ordering::Relaxed) == store;
        is_known || !is_fresh
    }

    /// Begins a new listing.
    pub fn clear(&self, store: u64) {
        self.listed.store(0, Ordering::Relaxed);
        self.store.store(store, Ordering::Relaxed);
        for word in &self.bits {
            word.store(0, Ordering::Release);
        }
    }

    /// Notes that a file name of this hash has an entry.
    pub fn add(&self, name_hash: u32) {
        for (bits, bit) in self.places(name_hash) {
            bits.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Notes that all names were added. Does nothing if a thread has begun to list another
    /// store meanwhile.
    pub fn finish(&self, store: u64, now: i64) {
        if self.store.load(Ordering::Relaxed) == store {
            self.listed.store(now.max(1), Ordering::Release);
        }
    }

    fn places(&self, name_hash: u32) -> [(&AtomicU64, u64); 2] {
        [name_hash & 0xffff, name_hash >> 16]
            .map(|index| (&self.bits[(index / 64) as usize % WORDS], 1 << (index % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_listed_lately_is_known() {
        let names = NameFilter::new();
        assert!(names.may_have(1, 42, 100));
        names.clear(1);
        names.add(7);
        assert!(names.may_have(1, 42, 100), "not yet finished");
        names.finish(2, 100);
        assert!(names.may_have(1, 42, 100), "another one finished");
        names.finish(1, 100);
        assert!(names.may_have(1, 7, 101) && !names.may_have(1, 42, 101));
        assert!(names.may_have(2, 42, 101), "another store");
        assert!(names.may_have(1, 42, 100 + FRESH_SECONDS));
        names.add(42);
        assert!(names.may_have(1, 42, 101));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes the interpreter minutes")]
    fn few_names_are_taken_for_others() {
        let names = NameFilter::new();
        names.clear(1);
        let hash = |number: u32| crate::name::hash(number.to_le_bytes());
        (0..5000).for_each(|number| names.add(hash(number)));
        names.finish(1, 1);
        assert!((0..5000).all(|number| names.may_have(1, hash(number), 1)));
        let mistaken = (5000..10_000).filter(|number| names.may_have(1, hash(*number), 1)).count();
        assert!(mistaken < 250, "{mistaken} of 5000");
    }
}
