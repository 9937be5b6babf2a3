//! Functions that `core` has for slices too, but without code that can panic, which the
//! preloaded library must not contain, or without a call of the C library.

use core::cell::Cell;
use core::ops::Range;

/// Sorts in place, in n log n steps in the worst case (heap sort). It is not stable: equal
/// items may change their order.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &key);
    }
    for last in (1..items.len()).rev() {
        swap(items, 0, last);
        sift_down(items.get_mut(..last).unwrap_or_default(), 0, &key);
    }
}

/// Restores the heap property at `root`, whose two subtrees are heaps.
fn sift_down<T, K: Ord>(items: &mut [T], mut root: usize, key: &impl Fn(&T) -> K) {
    loop {
        let below = [2 * root + 1, 2 * root + 2];
        let largest = below.into_iter().filter_map(|index| Some((key(items.get(index)?), index))).max();
        match (largest, items.get(root)) {
            (Some((largest, index)), Some(item)) if key(item) < largest => {
                swap(items, root, index);
                root = index;
            }
            _ => return,
        }
    }
}

fn swap<T>(items: &mut [T], left: usize, right: usize) {
    if let Ok([left, right]) = items.get_disjoint_mut([left, right]) {
        core::mem::swap(left, right);
    }
}

/// Moves the items of `from` to the positions from `to` on, which must not be behind `from`;
/// the ranges may overlap. It moves nothing from or to positions outside of `items`.
pub fn move_down<T: Copy>(items: &mut [T], from: Range<usize>, to: usize) {
    let cells = Cell::from_mut(items).as_slice_of_cells();
    let (from, to) = (cells.get(from).unwrap_or_default(), cells.get(to..).unwrap_or_default());
    for (from, to) in from.iter().zip(to) {
        to.set(from.get());
    }
}

/// Returns the index of the first `byte`. It looks at eight bytes at a time, which takes a
/// fraction of the time that one after the other would.
pub fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let equal = equal_bytes(u64::from_le_bytes(*word), byte);
        if equal != 0 {
            return Some(index * 8 + lowest(equal));
        }
    }
    rest.iter().position(|found| *found == byte).map(|index| bytes.len() - rest.len() + index)
}

/// Returns a word that has the high bit of each byte where `word` has `byte`, and no other bits.
pub const fn equal_bytes(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LOW: u64 = ONES * 0x7f;
    // A byte that is equal becomes 0. The addition carries into the high bit of each other one that
    // has low bits, and beyond none.
    let differing = word ^ (ONES * byte as u64);
    !(((differing & LOW) + LOW) | differing | LOW)
}

/// Returns the index of the lowest byte of a word that has its high bit, of a result of
/// [`equal_bytes`].
pub const fn lowest(equal: u64) -> usize {
    equal.trailing_zeros() as usize / 8
}

/// Returns whether `part` is somewhere in `bytes`.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    (0..=bytes.len()).any(|start| bytes.get(start..).is_some_and(|rest| rest.starts_with(part)))
}

/// Returns whether both have the same bytes. It does not call `memcmp`, because musl's compares
/// one byte after the other, which takes long where they are many.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    // Small enough for the compiler to compare without a call.
    let (left_blocks, left_rest) = left.as_chunks::<32>();
    let (right_blocks, right_rest) = right.as_chunks::<32>();
    left.len() == right.len()
        && left_blocks.iter().zip(right_blocks).all(|(left, right)| left == right)
        && left_rest == right_rest
}

/// Returns whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().all(|block| *block == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_a_slice_other_than_zero() {
        let mut bytes = [0; 100];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for index in 0..bytes.len() {
            bytes[index] = 1;
            assert!(!is_zero(&bytes) && is_zero(&bytes[..index]) && is_zero(&bytes[index + 1..]));
            bytes[index] = 0;
        }
    }

    #[test]
    fn one_byte_makes_slices_different() {
        let bytes: [u8; 100] = core::array::from_fn(|index| index as u8);
        for len in (0..bytes.len()).step_by(if cfg!(miri) { 7 } else { 1 }) {
            let mut other = bytes;
            assert!(equal(&bytes[..len], &other[..len]));
            assert!(!equal(&bytes[..len], &other[..=len]));
            for changed in 0..len {
                other[changed] ^= 0x80;
                assert!(!equal(&bytes[..len], &other[..len]), "{changed} of {len}");
                other[changed] ^= 0x80;
            }
        }
    }

    #[test]
    fn the_first_of_equal_bytes_is_found() {
        // Neighbours that differ by 1 or by the high bit would be taken for it by a wrong carry.
        let bytes: [u8; 40] = core::array::from_fn(|index| [0x0a, 0x0b, 0x8a, 0x09][index % 4]);
        for start in 0..bytes.len() {
            for byte in [0x0a, 0x0b, 0x8a, 0x09, 0, 0xff] {
                let rest = &bytes[start..];
                assert_eq!(position(rest, byte), rest.iter().position(|found| *found == byte), "{start} {byte}");
            }
        }
        assert_eq!((position(b"", 0), position(&[1; 100], 0)), (None, None));
    }

    #[test]
    fn moves_what_overlaps() {
        let mut items = [1, 2, 3, 4, 5];
        move_down(&mut items, 1..4, 0);
        assert_eq!(items, [2, 3, 4, 4, 5]);
        move_down(&mut items, 3..9, 0);
        assert_eq!(items, [2, 3, 4, 4, 5]);
    }

    #[test]
    fn finds_parts() {
        assert!(contains(b"abc", b"abc") && contains(b"abc", b"bc") && contains(b"abc", b""));
        assert!(!contains(b"abc", b"ac") && !contains(b"", b"a"));
    }
}
