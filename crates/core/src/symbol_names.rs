//! Giving exported functions of this library other names, in its own symbol table. It is for
//! names that one loader must find and another must not.
//!
//! A name in the table is an offset into the string table, so the name without a prefix is there
//! as well: it is the end of the longer one. The hash table (DT_GNU_HASH) is made fit for the new
//! names. Every bucket begins with the first symbol, and every chain goes on to the last one, so
//! that the loader looks at all symbols, of which this library has few. The filter lets every name
//! through.
//!
//! The pages with both tables are replaced in one step by an anonymous copy, which no file can take
//! back. Other threads may be looking symbols up: what one of them has read of the old tables leads
//! to the same symbols in the new ones. If a seccomp filter forbids that step, the tables are
//! written to where they are, provided that there are no other threads.

use core::ffi::{CStr, c_char};

use libc::Elf64_Sym;

use crate::symbols::gnu_hash;
use crate::sys::{self, Result};

/// The tables of an object that are replaced.
#[derive(Clone, Copy, Debug)]
pub struct NameTables {
    /// Address of DT_SYMTAB.
    pub symbols: usize,
    /// Address of DT_STRTAB.
    pub strings: usize,
    /// Address of DT_GNU_HASH.
    pub gnu_hash: usize,
}

/// Takes `prefix` away from the names of all exported symbols that have it before two underscores.
/// `has_one_thread` is whether no other thread can be looking symbols up.
///
/// # Safety
/// The tables must be those of a well-formed object that stays loaded, in pages that can be read
/// and hold nothing that is written to. No reference may point into them.
pub unsafe fn drop_prefix(tables: NameTables, prefix: &CStr, has_one_thread: bool) -> Result<()> {
    // SAFETY: the table is that of a loaded object: this function's contract.
    let hashes = unsafe { Hashes::read(tables.gnu_hash) };
    let end_of_symbols = tables.symbols + (hashes.last as usize + 1) * size_of::<Elf64_Sym>();
    let end_of_hashes = hashes.chain(hashes.last + 1).addr();
    let mask = sys::page_size() - 1;
    let start = tables.symbols.min(tables.gnu_hash) & !mask;
    let len = ((end_of_symbols.max(end_of_hashes) + mask) & !mask) - start;
    let copy = Copy::of(start, len)?;
    // SAFETY: the copy has the same bytes, so its tables are as well-formed, and only this function
    // knows of it. The names are in the object, which stays loaded.
    unsafe { rewrite(tables, copy.address.wrapping_sub(start), prefix) };
    let replaced = copy.put_over(start);
    if replaced.is_ok() || !has_one_thread {
        return replaced;
    }
    // SAFETY: nothing writes to these pages but this function, so they may become read-only again:
    // this function's contract. While it writes, no other thread reads the tables.
    unsafe {
        sys::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE)?;
        rewrite(tables, 0, prefix);
        sys::mprotect(start, len, libc::PROT_READ)
    }
}

/// Rewrites the tables `distance` bytes from those of the object: in a copy, or themselves.
///
/// # Safety
/// They must be writable and have the bytes of the object's tables, which must be well-formed. No
/// reference may point into them.
unsafe fn rewrite(tables: NameTables, distance: usize, prefix: &CStr) {
    // SAFETY: the table is there: this function's contract.
    let hashes = unsafe { Hashes::read(tables.gnu_hash.wrapping_add(distance)) };
    let symbols = tables.symbols.wrapping_add(distance) as *mut Elf64_Sym;
    // SAFETY: DT_STRTAB has the name of every symbol at its offset.
    let name = |offset: u32| unsafe { CStr::from_ptr((tables.strings + offset as usize) as *const c_char) };
    for index in hashes.first..=hashes.last {
        // SAFETY: the index is that of a symbol in the hash table, so the tables have it and its hash.
        unsafe {
            let offset = &raw mut (*symbols.wrapping_add(index as usize)).st_name;
            if is_prefixed(name(*offset), prefix) {
                *offset += prefix.count_bytes() as u32;
            }
            // The lowest bit marks the end of a chain.
            *hashes.chain(index) = gnu_hash(name(*offset)) & !1 | u32::from(index == hashes.last);
        }
    }
    for word in 0..hashes.filter_words {
        // SAFETY: the filter has this many words.
        unsafe { *hashes.filter.wrapping_add(word) = u64::MAX };
    }
    for bucket in 0..hashes.bucket_count {
        // SAFETY: the table has this many buckets.
        unsafe { *hashes.buckets.wrapping_add(bucket) = hashes.first };
    }
}

/// Returns whether `name` is `prefix` and a name of the C library's implementation, which begins
/// with two underscores. The library's own names go on with one.
fn is_prefixed(name: &CStr, prefix: &CStr) -> bool {
    name.to_bytes().strip_prefix(prefix.to_bytes()).is_some_and(|rest| rest.starts_with(b"__"))
}

/// The addresses of the parts of a hash table, and the first and the last symbol in it.
struct Hashes {
    filter: *mut u64,
    filter_words: usize,
    buckets: *mut u32,
    bucket_count: usize,
    first: u32,
    last: u32,
}

impl Hashes {
    /// Reads the table at an address.
    ///
    /// # Safety
    /// It must be a well-formed table.
    unsafe fn read(table: usize) -> Self {
        let table = table as *mut u32;
        // SAFETY: the table begins with these four words.
        let [bucket_count, first, filter_words, _] = unsafe { *table.cast::<[u32; 4]>() };
        let filter = table.wrapping_add(4);
        let buckets = filter.wrapping_add(2 * filter_words as usize);
        let (bucket_count, filter_words) = (bucket_count as usize, filter_words as usize);
        let mut hashes = Self { filter: filter.cast(), filter_words, buckets, bucket_count, first, last: first };
        for bucket in 0..bucket_count {
            // SAFETY: the table has this many buckets.
            hashes.last = hashes.last.max(unsafe { *buckets.wrapping_add(bucket) });
        }
        // SAFETY: a chain goes on until a hash with the lowest bit set.
        while unsafe { *hashes.chain(hashes.last) } & 1 == 0 {
            hashes.last += 1;
        }
        hashes
    }

    /// Returns the address of a symbol's hash.
    fn chain(&self, index: u32) -> *mut u32 {
        self.buckets.wrapping_add(self.bucket_count + (index - self.first) as usize)
    }
}

/// An anonymous copy of pages.
struct Copy {
    address: usize,
    len: usize,
}

impl Copy {
    fn of(start: usize, len: usize) -> Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
        let address = unsafe { sys::mmap(0, len, protection, flags, None) }?;
        // SAFETY: both ranges are mapped and can be read, the new one can be written to, and they
        // do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(start as *const u8, address as *mut u8, len) };
        Ok(Self { address, len })
    }

    /// Moves the copy over the pages at `start`, which can only be read then.
    fn put_over(&self, start: usize) -> Result<()> {
        // SAFETY: no reference points into the copy. The bytes at `start` are the same, but for
        // those that were rewritten, into which no reference points.
        let moved = unsafe {
            sys::mprotect(self.address, self.len, libc::PROT_READ)
                .and_then(|()| sys::mremap_onto(self.address, self.len, start))
        };
        if moved.is_err() {
            // SAFETY: nothing refers to the copy.
            let _ = unsafe { sys::munmap(self.address, self.len) };
        }
        moved
    }
}
