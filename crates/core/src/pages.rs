//! Arrays that live outside of the heap.
//!
//! The preloaded library must not call the host's `malloc` (it may be
//! interposed, may itself call `dlopen`, or may be locked by the very thread
//! that entered us), so everything of variable size is a [`PageVec`]. Small ones live in blocks of
//! the library's own memory ([`pool`]), which cost no system call.

use crate::sys::{self, Errno, Fd, Result};

mod pool;

/// A growable array of plain values in the pool or in anonymous private memory. Growing can
/// fail and then changes nothing.
pub struct PageVec<T: Copy> {
    address: usize,
    /// Bytes from there that belong to the array.
    room: usize,
    len: usize,
    marker: core::marker::PhantomData<T>,
}

impl<T: Copy> PageVec<T> {
    const SIZE_IS_NOT_ZERO: () = assert!(size_of::<T>() != 0, "zero-sized elements need no pages");

    /// Returns an empty array; maps nothing.
    pub const fn new() -> Self {
        () = Self::SIZE_IS_NOT_ZERO;
        Self { address: 0, room: 0, len: 0, marker: core::marker::PhantomData }
    }

    /// Returns an array of `len` copies of `value`.
    pub fn filled(value: T, len: usize) -> Result<Self> {
        let mut array = Self::new();
        array.reserve(len)?;
        for _ in 0..len {
            // SAFETY: `reserve` has made room for `len` values.
            unsafe { array.push_within_capacity(value) };
        }
        Ok(array)
    }

    /// Appends `value`.
    pub fn push(&mut self, value: T) -> Result<()> {
        self.reserve(1)?;
        // SAFETY: `reserve` has succeeded, so there is room for one more value.
        unsafe { self.push_within_capacity(value) };
        Ok(())
    }

    /// Appends all of `values`, or nothing.
    pub fn extend(&mut self, values: &[T]) -> Result<()> {
        self.reserve(values.len())?;
        for value in values {
            // SAFETY: `reserve` has made room for all values of the slice.
            unsafe { self.push_within_capacity(*value) };
        }
        Ok(())
    }

    /// Makes room for `additional` more values.
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        let needed = self.len.checked_add(additional).ok_or(Errno(libc::ENOMEM))?;
        let bytes = needed.checked_mul(size_of::<T>()).ok_or(Errno(libc::ENOMEM))?;
        if bytes <= self.room {
            return Ok(());
        }
        let (address, bytes) = match pool::take(bytes.max(self.room.saturating_mul(2))) {
            Some(taken) => taken,
            None => map_zeroed(bytes.max(self.room.saturating_mul(2)))?,
        };
        let old = (self.address, self.room);
        if old.1 != 0 {
            // SAFETY: the old memory holds `len` values, the new one is larger, both belong to
            // this array, and they do not overlap because the new one was free.
            unsafe { core::ptr::copy_nonoverlapping(old.0 as *const T, address as *mut T, self.len) };
        }
        // At every instant the array has memory: the task that changes it may be killed while others
        // go on that share the memory.
        (self.address, self.room) = (address, bytes);
        // SAFETY: all references to values borrow from `self`, and `&mut self` proves that there
        // are none. The array does not refer to the old memory any more.
        unsafe { release(old.0, old.1) };
        Ok(())
    }

    /// Appends a value without growing.
    ///
    /// # Safety
    /// The memory must have room for one more value.
    unsafe fn push_within_capacity(&mut self, value: T) {
        debug_assert!((self.len + 1) * size_of::<T>() <= self.room);
        let end = (self.address as *mut T).wrapping_add(self.len);
        // SAFETY: `end` lies in the memory of the array, which has room for one more value: this
        // function's contract. It is aligned, because the memory begins at a page or a block.
        unsafe { end.write(value) };
        self.len += 1;
    }

    /// Removes all values and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes all values, and keeps the memory only if that is a page at most.
    pub fn clear_to_one_page(&mut self) {
        if self.room > sys::page_size() {
            *self = Self::new();
        }
        self.clear();
    }

    /// Removes the values for which `keep` does not hold.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let Ok(()) = self.try_retain(|value| Ok::<_, core::convert::Infallible>(keep(value)));
    }

    /// Removes the values for which `keep` does not hold. After an error only those are
    /// left that were kept before it.
    pub fn try_retain<E>(
        &mut self,
        mut keep: impl FnMut(&T) -> core::result::Result<bool, E>,
    ) -> core::result::Result<(), E> {
        let (len, mut kept) = (self.len, 0);
        let mut judge = |index: usize| {
            let Some(value) = self.get(index).copied() else { return Ok(()) };
            if keep(&value)?
                && let Some(slot) = self.get_mut(kept)
            {
                *slot = value;
                kept += 1;
            }
            Ok(())
        };
        let judged = (0..len).try_for_each(&mut judge);
        self.truncate(kept);
        judged
    }

    /// Removes all values but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl PageVec<u8> {
    /// Returns an array of `len` zero bytes, whose pages are not touched yet.
    pub fn zeroed(len: usize) -> Result<Self> {
        let mut array = Self::new();
        array.reserve(len)?;
        // New memory is zero.
        array.len = len;
        Ok(array)
    }

    /// Appends what `read` writes to a buffer of `len` bytes; returns how many those are. After an
    /// error nothing is appended.
    pub fn extend_by(&mut self, len: usize, read: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<usize> {
        self.reserve(len)?;
        let end = (self.address as *mut u8).wrapping_add(self.len);
        // SAFETY: `reserve` has made room for `len` bytes behind the values. They are initialised:
        // new memory is zero until something is stored there. The exclusive borrow of `self` makes
        // that of the buffer exclusive.
        let room = unsafe { core::slice::from_raw_parts_mut(end, len) };
        let read = read(room)?.min(len);
        self.len += read;
        Ok(read)
    }
}

/// Reads all of `file`, from its beginning.
pub fn read_whole(file: &Fd) -> Result<PageVec<u8>> {
    let (mut whole, mut block) = (PageVec::new(), PageVec::zeroed(1 << 16)?);
    loop {
        match sys::pread(file, &mut block, whole.len() as u64)? {
            0 => return Ok(whole),
            len => whole.extend(block.get(..len).unwrap_or_default())?,
        }
    }
}

impl<T: Copy> core::ops::Deref for PageVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the first `len` values have memory and are initialised, which `push`, `extend` and
        // `zeroed` maintain, and the shared borrow of `self` keeps them so.
        unsafe { core::slice::from_raw_parts(self.address as *const T, self.len) }
    }
}

impl<T: Copy> core::ops::DerefMut for PageVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: the first `len` values have memory and are initialised, and
        // `&mut self` makes the borrow exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut T, self.len) }
    }
}

impl<T: Copy> Default for PageVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Drop for PageVec<T> {
    fn drop(&mut self) {
        // SAFETY: the memory belongs to this array, and every reference into it borrows from
        // `self`, which is being dropped.
        unsafe { release(self.address, self.room) };
    }
}

/// Maps at least `bytes` of zeroed memory; returns its address and size. It uses only calls that
/// the loader makes, and not mremap(2), because arrays grow before the library knows whether a
/// seccomp filter is in force.
fn map_zeroed(bytes: usize) -> Result<(usize, usize)> {
    let bytes = bytes.checked_next_multiple_of(sys::page_size()).ok_or(Errno(libc::ENOMEM))?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: without MAP_FIXED the kernel maps a free range, so no reference is affected.
    let address = unsafe { sys::mmap(0, bytes, protection, flags, None) }?;
    Ok((address, bytes))
}

/// Gives memory of an array back, to the pool or to the kernel.
///
/// # Safety
/// `bytes` must be 0, or this memory must belong to an array, to which no reference exists and
/// which does not use it any more.
unsafe fn release(address: usize, bytes: usize) {
    if bytes != 0 && !pool::give_back(address, bytes) {
        // SAFETY: the memory is not of the pool, so `map_zeroed` has mapped it, and nothing refers
        // to it: this function's contract. A failure would only leak the mapping.
        let _ = unsafe { sys::munmap(address, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_over_many_pages_and_keeps_its_values() {
        // The interpreter takes minutes for the larger number.
        let count = if cfg!(miri) { 5_000_u64 } else { 100_000 };
        let mut numbers = PageVec::new();
        for number in 0..count {
            numbers.push(number).unwrap();
        }
        assert!(numbers.iter().copied().eq(0..count));
        numbers.truncate(3);
        numbers.extend(&[7, 8]).unwrap();
        numbers.retain(|number| number % 2 == 0);
        assert_eq!(*numbers, [0, 2, 8]);
        assert_eq!(
            numbers.try_retain(|number| if *number == 8 { Err("failed") } else { Ok(*number != 0) }),
            Err("failed")
        );
        assert_eq!(*numbers, [2]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "the interpreter has no limit on addresses")]
    fn impossible_growth_is_an_error_and_loses_nothing() {
        let mut numbers = PageVec::new();
        numbers.push(1_u64).unwrap();
        assert_eq!(numbers.reserve(usize::MAX / 4), Err(Errno(libc::ENOMEM)));
        assert!(numbers.reserve(1 << 50).is_err());
        assert_eq!(*numbers, [1]);
    }

    #[test]
    fn what_a_reader_writes_is_appended() {
        let mut bytes = PageVec::new();
        let put = |text: &'static [u8]| {
            move |buffer: &mut [u8]| {
                buffer[..text.len()].copy_from_slice(text);
                Ok(text.len())
            }
        };
        assert_eq!(bytes.extend_by(5, put(b"one ")), Ok(4));
        assert_eq!(bytes.extend_by(3, put(b"two")), Ok(3));
        assert_eq!(bytes.extend_by(9, |_| Err(Errno(libc::EIO))), Err(Errno(libc::EIO)));
        assert_eq!(*bytes, *b"one two");
    }

    #[test]
    fn clearing_keeps_one_page_at_most() {
        let mut bytes = PageVec::zeroed(sys::page_size()).unwrap();
        bytes.clear_to_one_page();
        assert!(bytes.is_empty() && bytes.room == sys::page_size());
        let mut bytes = PageVec::zeroed(sys::page_size() + 1).unwrap();
        bytes.clear_to_one_page();
        assert!(bytes.is_empty() && bytes.room == 0);
    }

    #[test]
    fn new_pages_are_zero() {
        let len = 3 * sys::page_size() + 1;
        let zeros = PageVec::zeroed(len).unwrap();
        assert!(zeros.len() == len && zeros.iter().all(|byte| *byte == 0));
        assert!(PageVec::zeroed(0).unwrap().is_empty());
    }

    #[test]
    fn an_empty_array_is_an_empty_slice() {
        assert!(PageVec::<u8>::new().is_empty());
    }
}
