//! A hash table from addresses to plain values, in pages of its own.
//!
//! The standard library's table allocates. This one uses open addressing with linear probing.
//! Removal closes the gap, so there are no tombstones, and the table does not get slower while
//! a process loads and unloads objects for months.

use crate::pages::PageVec;
use crate::sys::Result;

/// Slots of the smallest table that is not empty.
const MIN_SLOTS: usize = 16;

/// The table. Keys are addresses other than 0.
pub struct AddressMap<V: Copy + Default> {
    /// A power of two of them, at most half in use; key 0 is an empty slot.
    slots: PageVec<(usize, V)>,
    used: usize,
}

impl<V: Copy + Default> AddressMap<V> {
    /// Returns an empty table; maps no memory.
    pub const fn new() -> Self {
        Self { slots: PageVec::new(), used: 0 }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns the value of `key`.
    pub fn get_mut(&mut self, key: usize) -> Option<&mut V> {
        let index = self.find(key)?;
        self.slots.get_mut(index).map(|(_, value)| value)
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: usize, value: V) -> Result<()> {
        debug_assert!(key != 0);
        if let Some(old) = self.get_mut(key) {
            *old = value;
            return Ok(());
        }
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow()?;
        }
        place(&mut self.slots, key, value);
        self.used += 1;
        Ok(())
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: usize) -> Option<V> {
        let index = self.find(key)?;
        let (_, value) = *self.slots.get(index)?;
        self.remove_at(index);
        Some(value)
    }

    fn find(&self, key: usize) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut index = hash(key) & mask;
        loop {
            match self.slots.get(index)?.0 {
                0 => return None,
                found if found == key => return Some(index),
                _ => index = (index + 1) & mask,
            }
        }
    }

    fn grow(&mut self) -> Result<()> {
        let count = (self.slots.len() * 2).max(MIN_SLOTS);
        let mut larger = PageVec::filled((0, V::default()), count)?;
        for (key, value) in self.slots.iter().filter(|(key, _)| *key != 0) {
            place(&mut larger, *key, *value);
        }
        self.slots = larger;
        Ok(())
    }

    fn remove_at(&mut self, index: usize) {
        let mask = self.slots.len() - 1;
        let (mut gap, mut next) = (index, (index + 1) & mask);
        while let Some(entry) = self.slots.get(next).copied().filter(|(key, _)| *key != 0) {
            // An entry may move to the gap unless its home lies behind the gap.
            let (from_home, from_gap) = (next.wrapping_sub(hash(entry.0)) & mask, next.wrapping_sub(gap) & mask);
            if from_home >= from_gap {
                if let Some(slot) = self.slots.get_mut(gap) {
                    *slot = entry;
                }
                gap = next;
            }
            next = (next + 1) & mask;
        }
        if let Some(slot) = self.slots.get_mut(gap) {
            *slot = (0, V::default());
        }
        self.used -= 1;
    }
}

impl<V: Copy + Default> Default for AddressMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds a key that the table does not have; the table must have room.
fn place<V: Copy>(slots: &mut [(usize, V)], key: usize, value: V) {
    let mask = slots.len() - 1;
    let mut index = hash(key) & mask;
    while slots.get(index).is_some_and(|(key, _)| *key != 0) {
        index = (index + 1) & mask;
    }
    if let Some(slot) = slots.get_mut(index) {
        *slot = (key, value);
    }
}

/// Returns the slot that a key hashes to, before it is masked. The keys are addresses of
/// program headers, which have the same offset within a page, so that only the page numbers
/// differ: hence Fibonacci hashing and its upper bits.
fn hash(key: usize) -> usize {
    (key >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Returns a fixed sequence of numbers without pattern (xorshift64).
    fn numbers(count: usize) -> impl Iterator<Item = usize> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        (0..count).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        })
    }

    #[test]
    fn agrees_with_a_tree_over_many_insertions_and_removals() {
        let mut ours = AddressMap::new();
        let mut theirs = BTreeMap::new();
        for number in numbers(if cfg!(miri) { 1000 } else { 50_000 }) {
            let key = 0x7f00_0000_0040 + (number % 700) * 0x1000;
            if number & 0x1_0000 == 0 {
                assert_eq!(ours.remove(key), theirs.remove(&key));
            } else {
                ours.insert(key, number).unwrap();
                theirs.insert(key, number);
            }
            assert_eq!(ours.len(), theirs.len());
        }
        for (key, value) in &theirs {
            assert_eq!(ours.get_mut(*key).copied(), Some(*value));
        }
    }

    #[test]
    fn an_empty_map_has_nothing() {
        let mut map = AddressMap::<u8>::new();
        assert!(map.is_empty() && map.get_mut(64).is_none() && map.remove(64).is_none());
    }
}
