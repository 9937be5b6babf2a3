//! Blocks of memory for small arrays. A sweep needs a dozen arrays, most of them smaller than a
//! page: to map, touch and unmap a page for each would cost the start of a tiny program more than
//! all other calls for an object. The blocks are in `.bss`, so they take no memory before they are
//! used, and several share a page.
//!
//! Which blocks are taken is one word, so that any thread or signal handler may take some at any
//! time. A child of a fork, or a thread that is killed, leaves blocks taken for good; arrays are
//! mapped then.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a block.
const BLOCK: usize = 1024;
/// The number of blocks, one bit of a word for each.
const BLOCKS: usize = u32::BITS as usize;
/// The most blocks that one array gets.
const MOST: usize = 8;

/// The blocks, and behind the words about them, so that both are on the first page that is used.
#[repr(C, align(64))]
struct Pool {
    taken: AtomicU32,
    /// The blocks that may hold other bytes than zeroes.
    used: AtomicU32,
    blocks: Blocks,
}

#[repr(align(64))]
struct Blocks(UnsafeCell<[[u8; BLOCK]; BLOCKS]>);

// SAFETY: no code makes a reference to the blocks as a whole, and each block has one owner at a
// time: the array that has set its bit in `taken`.
unsafe impl Sync for Blocks {}

static POOL: Pool =
    Pool { taken: AtomicU32::new(0), used: AtomicU32::new(0), blocks: Blocks(UnsafeCell::new([[0; BLOCK]; BLOCKS])) };

fn start() -> usize {
    POOL.blocks.0.get().expose_provenance()
}

/// Returns the bits of so many blocks from the `first` one on.
const fn bits(first: usize, count: usize) -> u32 {
    ((1 << count) - 1) << first
}

/// Takes zeroed blocks for at least `bytes`; returns their address and size. `None` if they are too
/// many, or not free.
pub fn take(bytes: usize) -> Option<(usize, usize)> {
    let count = bytes.div_ceil(BLOCK);
    if count == 0 || count > MOST {
        return None;
    }
    let free = |taken: u32| (0..=BLOCKS - count).find(|first| taken & bits(*first, count) == 0);
    // A guess, and not a load: one page fault instead of two when the word is used first.
    let mut taken = 0;
    let first = loop {
        let first = free(taken)?;
        // Acquire: the stores of the blocks' last owner come before those of the next one.
        let now = taken | bits(first, count);
        match POOL.taken.compare_exchange_weak(taken, now, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => break first,
            Err(other) => taken = other,
        }
    };
    let (address, size) = (start() + first * BLOCK, count * BLOCK);
    if POOL.used.fetch_or(bits(first, count), Ordering::Relaxed) & bits(first, count) != 0 {
        // SAFETY: the blocks are part of the pool, and this call has made the caller their owner.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, size) };
    }
    Some((address, size))
}

/// Gives back the blocks at `address`. Returns false if that is not in the pool.
pub fn give_back(address: usize, bytes: usize) -> bool {
    let Some(offset) = address.checked_sub(start()).filter(|offset| *offset < BLOCK * BLOCKS) else { return false };
    // Release: the owner's stores come before those of the next one.
    POOL.taken.fetch_and(!bits(offset / BLOCK, bytes / BLOCK), Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageVec;

    #[test]
    fn blocks_of_many_threads_are_apart_and_zeroed() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 1..=3_u8 {
                scope.spawn(move || {
                    for round in 0..rounds {
                        let mut bytes = PageVec::zeroed(1 + round % (MOST * BLOCK)).unwrap();
                        assert!(bytes.iter().all(|byte| *byte == 0), "round {round}");
                        bytes.fill(thread);
                        assert!(bytes.iter().all(|byte| *byte == thread), "round {round}");
                    }
                });
            }
        });
    }

    #[test]
    fn an_array_that_outgrows_the_pool_keeps_its_values() {
        let mut numbers = PageVec::new();
        for number in 0..3 * BLOCK {
            numbers.push(number).unwrap();
        }
        assert!(numbers.iter().copied().eq(0..3 * BLOCK));
        assert_eq!(take(0), None);
        assert_eq!(take(MOST * BLOCK + 1), None);
        assert!(!give_back(start() - 1, BLOCK) && !give_back(start() + BLOCKS * BLOCK, BLOCK));
    }

    #[test]
    fn arrays_are_mapped_when_no_block_is_free() {
        let mut all: std::vec::Vec<_> = (0..2 * BLOCKS).map(|_| PageVec::zeroed(1).unwrap()).collect();
        for (index, bytes) in all.iter_mut().enumerate() {
            bytes[0] = u8::try_from(index).unwrap();
        }
        assert!(all.iter().enumerate().all(|(index, bytes)| usize::from(bytes[0]) == index));
    }
}
