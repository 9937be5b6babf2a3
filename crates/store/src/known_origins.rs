//! Which files have entries. With this filter a process that adds an entry need not list the store
//! to learn that there is no older version to replace.
//!
//! A Bloom filter with two functions, the halves of a hash: a file that the filter does not
//! have has no entry, or one that another process has added within the last seconds, or one among
//! entries that were not listed. An older version that is missed for that reason is removed with
//! the next unneeded entries.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Seconds for which a listing is used, although other processes may have added entries since.
const FRESH_SECONDS: i64 = 10;
/// The number of bits of a hash that one function uses.
const INDEX_BITS: u32 = 16;
const WORDS: usize = (1 << INDEX_BITS) / 64;

/// Hashes of the origins of the entries in the store that this process used last.
pub struct KnownOrigins {
    bits: [AtomicU64; WORDS],
    /// The inode number of the directory of the store that was listed.
    store: AtomicU64,
    /// When it was listed, in seconds of the monotonic clock; 0: never.
    listed: AtomicI64,
}

impl KnownOrigins {
    /// Makes a filter that knows no store.
    pub const fn new() -> Self {
        Self { bits: [const { AtomicU64::new(0) }; WORDS], store: AtomicU64::new(0), listed: AtomicI64::new(0) }
    }

    /// Returns whether this store has been listed lately.
    pub fn is_fresh(&self, store: u64, now: i64) -> bool {
        let listed = self.listed.load(Ordering::Acquire);
        listed != 0 && now - listed < FRESH_SECONDS && self.store.load(Ordering::Relaxed) == store
    }

    /// Returns whether an origin with one of these hashes may have an entry. The caller asks
    /// [`KnownOrigins::is_fresh`] afterwards: if another thread clears the filter meanwhile, the
    /// listing is seen not to be fresh.
    pub fn may_have(&self, hashes: &[u32]) -> bool {
        let has =
            |hash: u32| places(hash).iter().all(|place| self.word(*place).load(Ordering::Acquire) & bit(*place) != 0);
        hashes.iter().any(|hash| has(*hash))
    }

    /// Begins a new listing.
    pub fn clear(&self, store: u64) {
        self.listed.store(0, Ordering::Relaxed);
        self.store.store(store, Ordering::Relaxed);
        for word in &self.bits {
            word.store(0, Ordering::Release);
        }
    }

    /// Notes that an origin with this hash has an entry.
    pub fn add(&self, hash: u32) {
        for place in places(hash) {
            self.word(place).fetch_or(bit(place), Ordering::Relaxed);
        }
    }

    /// Notes that all origins were added. Does nothing if a thread has begun to list another
    /// store meanwhile.
    pub fn finish(&self, store: u64, now: i64) {
        if self.store.load(Ordering::Relaxed) == store {
            self.listed.store(now.max(1), Ordering::Release);
        }
    }

    fn word(&self, place: u32) -> &AtomicU64 {
        &self.bits[(place / 64) as usize % WORDS]
    }
}

/// Returns the numbers of the bits of a hash.
fn places(hash: u32) -> [u32; 2] {
    [hash & ((1 << INDEX_BITS) - 1), hash >> (u32::BITS - INDEX_BITS)]
}

fn bit(place: u32) -> u64 {
    1 << (place % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_listed_lately_is_known() {
        let known = KnownOrigins::new();
        assert!(!known.is_fresh(1, 100));
        known.clear(1);
        known.add(7);
        assert!(!known.is_fresh(1, 100), "not yet finished");
        known.finish(2, 100);
        assert!(!known.is_fresh(1, 100), "another one finished");
        known.finish(1, 100);
        assert!(known.is_fresh(1, 101) && known.may_have(&[7]) && known.may_have(&[42, 7]) && !known.may_have(&[42]));
        assert!(!known.is_fresh(2, 101), "another store");
        assert!(!known.is_fresh(1, 100 + FRESH_SECONDS));
        known.add(42);
        assert!(known.may_have(&[42]));
        known.clear(1);
        assert!(!known.may_have(&[7, 42]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes the interpreter minutes")]
    fn few_origins_are_taken_for_others() {
        let known = KnownOrigins::new();
        known.clear(1);
        let hash = |number: u32| crate::name::hash(number.to_le_bytes());
        // Two hashes for each entry of a full listing.
        (0..4096).for_each(|number| known.add(hash(number)));
        assert!((0..4096).all(|number| known.may_have(&[hash(number)])));
        let mistaken = (4096..14_096).filter(|number| known.may_have(&[hash(*number)])).count();
        assert!(mistaken < 250, "{mistaken} of 10,000");
    }
}
