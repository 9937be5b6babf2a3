//! Compares the library's own `memcpy` and similar functions, which this program
//! contains as well, with the simplest implementation, for all lengths up to some
//! hundred bytes, including overlaps.

#[path = "../src/memory_functions.rs"]
mod memory_functions;

use std::ffi::c_void;
use std::hint::black_box;

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: i32, len: usize) -> *mut c_void;
    fn memcmp(one: *const c_void, other: *const c_void, len: usize) -> i32;
    fn bcmp(one: *const c_void, other: *const c_void, len: usize) -> i32;
    fn strlen(string: *const c_void) -> usize;
}

/// Returns every length that has a code path of its own, and some that use the loops.
fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain([511, 512, 1000, 2047, 2048, 2049, 4096, 5000])
}

/// Returns bytes that differ from their neighbours.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 131 + index / 256 * 7).to_le_bytes()[0]).collect()
}

#[test]
fn copies_and_nothing_else() {
    for len in lengths() {
        for (from, to) in [(0, 0), (1, 3), (7, 16), (15, 8)] {
            let source = pattern(len + 32);
            let mut target = vec![0xee_u8; len + 48];
            // SAFETY: memcpy needs `len` readable bytes and `len` writable ones that do
            // not overlap. The offsets are below 32, and the vectors, which are different
            // ones, are at least 32 bytes longer than `len`.
            let returned = unsafe { memcpy(target[to..].as_mut_ptr().cast(), source[from..].as_ptr().cast(), len) };
            assert_eq!(returned.addr(), target[to..].as_ptr().addr());
            for (index, byte) in target.iter().enumerate() {
                let expected = if (to..to + len).contains(&index) { source[from + index - to] } else { 0xee };
                assert_eq!(*byte, expected, "length {len}, from {from} to {to}, at {index}");
            }
        }
    }
}

#[test]
fn moves_over_itself() {
    for len in lengths() {
        for (from, to) in [(0, 1), (1, 0), (0, 15), (16, 0), (3, 70), (70, 3), (5, 5), (0, 200), (300, 100)] {
            let before = pattern(len + 400);
            let mut bytes = before.clone();
            let start = bytes.as_mut_ptr();
            // SAFETY: memmove needs `len` readable and `len` writable bytes. The offsets
            // are at most 300, and the vector is 400 bytes longer than `len`.
            unsafe { memmove(start.add(to).cast(), start.add(from).cast(), len) };
            for (index, byte) in bytes.iter().enumerate() {
                let expected = if (to..to + len).contains(&index) { before[from + index - to] } else { before[index] };
                assert_eq!(*byte, expected, "length {len}, from {from} to {to}, at {index}");
            }
        }
    }
}

#[test]
fn sets_the_lowest_byte() {
    for len in lengths() {
        for start in [0, 1, 9] {
            let mut bytes = vec![0xee_u8; len + 32];
            // SAFETY: memset needs `len` writable bytes, and the slice from `start` on
            // has as many.
            let returned = unsafe { memset(bytes[start..].as_mut_ptr().cast(), 0x1_23a5, len) };
            assert_eq!(returned.addr(), bytes[start..].as_ptr().addr());
            for (index, byte) in bytes.iter().enumerate() {
                let expected = if (start..start + len).contains(&index) { 0xa5 } else { 0xee };
                assert_eq!(*byte, expected, "length {len} from {start}, at {index}");
            }
        }
    }
}

#[test]
fn the_first_difference_decides() {
    for len in lengths() {
        let one = pattern(len + 1);
        let mut other = one.clone();
        // Bytes behind the length must not count.
        other[len] ^= 1;
        let compare = |other: &[u8]| {
            let (one, other): (*const c_void, *const c_void) = (one.as_ptr().cast(), other.as_ptr().cast());
            // SAFETY: both functions need `len` readable bytes, and both slices are
            // longer.
            unsafe { (memcmp(one, other, black_box(len)), bcmp(one, other, black_box(len))) }
        };
        assert_eq!(compare(&other), (0, 0), "length {len}");
        for at in (0..len).step_by(1 + len / 50) {
            let mut other = other.clone();
            other[at] ^= 0x80;
            if let Some(last) = other[..len].last_mut() {
                *last ^= 1;
            }
            let (order, equality) = compare(&other);
            assert_eq!(order.signum(), one[..len].cmp(&other[..len]) as i32, "length {len}, at {at}");
            assert_ne!(equality, 0);
        }
    }
}

#[test]
fn strings_end_at_the_first_nul() {
    for len in lengths() {
        for start in 0..17 {
            let mut bytes = vec![0_u8; start];
            bytes.extend(std::iter::repeat_n(0xff, len));
            bytes.extend([0, 1, 0]);
            // SAFETY: strlen needs a NUL in the readable bytes from its argument on,
            // and the vector has one.
            assert_eq!(unsafe { strlen(bytes[start..].as_ptr().cast()) }, len, "from {start}");
        }
    }
}
