//! Looking a function up in the symbol tables of a loaded object (`elf(5)`), without
//! the loader. The tables are read in place, as the loader does at every look-up.

use core::ffi::{CStr, c_char};

use libc::Elf64_Sym;

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_SONAME: u64 = 14;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_VERSYM: u64 = 0x6fff_fff0;

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
/// Of a version: only references that name it are bound to the symbol.
const VERSYM_HIDDEN: u16 = 0x8000;

/// SONAMEs of the objects that have the C library's functions, glibc's (before 2.34 in
/// two of them) and musl's own.
const C_LIBRARY: [&[u8]; 3] = [b"libc.so.6", b"libdl.so.2", b"libc.so"];
/// How the SONAME of musl begins where a distribution has given it another.
const MUSL: [&[u8]; 2] = [b"libc.musl-", b"ld-musl-"];

/// The entries of a dynamic section up to DT_NULL.
///
/// # Safety
/// `dynamic` must be the address of the dynamic section of a loaded object, or 0.
pub unsafe fn entries(dynamic: usize) -> impl Iterator<Item = [u64; 2]> {
    let mut next = dynamic as *const [u64; 2];
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: not behind DT_NULL, after which nothing is read.
        let entry = unsafe { *next };
        if entry[0] == DT_NULL {
            return None;
        }
        // SAFETY: there is at least DT_NULL behind another entry.
        next = unsafe { next.add(1) };
        Some(entry)
    })
}

/// Where the tables of an object are that a symbol is looked up in; 0: it has none.
#[derive(Default)]
pub struct Tables {
    base: usize,
    symbols: usize,
    strings: usize,
    versions: usize,
    gnu_hash: usize,
    sysv_hash: usize,
    soname: Option<usize>,
}

impl Tables {
    /// `None` if the object has no symbols.
    ///
    /// # Safety
    /// As for [`entries`].
    pub unsafe fn read(base: usize, dynamic: usize) -> Option<Self> {
        let mut tables = Self { base, ..Self::default() };
        // glibc has added the base to pointers, except in what it cannot write to.
        let absolute =
            |pointer: u64| if (pointer as usize) < base { base + pointer as usize } else { pointer as usize };
        // SAFETY: per the caller.
        for [tag, value] in unsafe { entries(dynamic) } {
            match tag {
                DT_SYMTAB => tables.symbols = absolute(value),
                DT_STRTAB => tables.strings = absolute(value),
                DT_VERSYM => tables.versions = absolute(value),
                DT_GNU_HASH => tables.gnu_hash = absolute(value),
                DT_HASH => tables.sysv_hash = absolute(value),
                DT_SONAME => tables.soname = Some(value as usize),
                _ => {}
            }
        }
        (tables.symbols != 0 && tables.strings != 0).then_some(tables)
    }

    /// # Safety
    /// The object must be loaded.
    pub unsafe fn is_of_c_library(&self) -> bool {
        // SAFETY: per the caller.
        let soname = self.soname.map(|offset| unsafe { self.string(offset) }.to_bytes());
        soname.is_some_and(|soname| C_LIBRARY.contains(&soname) || MUSL.iter().any(|start| soname.starts_with(start)))
    }

    /// # Safety
    /// As above; the offset must be one of the object's own.
    unsafe fn string(&self, offset: usize) -> &CStr {
        // SAFETY: a string of the object's table.
        unsafe { CStr::from_ptr((self.strings + offset) as *const c_char) }
    }

    /// The address of a function that the object defines, the way `dlsym(3)` finds it.
    ///
    /// # Safety
    /// The object must be loaded.
    pub unsafe fn function(&self, name: &CStr) -> Option<usize> {
        // SAFETY: per the caller.
        unsafe {
            match (self.gnu_hash, self.sysv_hash) {
                (0, 0) => None,
                (0, table) => self.in_sysv_table(table as *const u32, name),
                (table, _) => self.in_gnu_table(table as *const u32, name),
            }
        }
    }

    /// DT_GNU_HASH: number of buckets, index of the first symbol, words of the Bloom
    /// filter (which is not needed to be right), a shift; the filter, buckets, and the
    /// hashes of all symbols, the last of a bucket with its lowest bit set.
    ///
    /// # Safety
    /// As for [`Self::function`].
    unsafe fn in_gnu_table(&self, table: *const u32, name: &CStr) -> Option<usize> {
        let hash =
            name.to_bytes().iter().fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add((*byte).into()));
        // SAFETY: the header.
        let [buckets, first, filter, _] = unsafe { *table.cast::<[u32; 4]>() };
        if buckets == 0 {
            return None;
        }
        // SAFETY: behind the header and the filter, whose words are 64 bits.
        let bucket = unsafe { table.add(4 + 2 * filter as usize) };
        // SAFETY: one of the buckets.
        let mut index = unsafe { *bucket.add((hash % buckets) as usize) };
        while index >= first {
            // SAFETY: the hash of a symbol that is in the table.
            let found = unsafe { *bucket.add((buckets + index - first) as usize) };
            // SAFETY: as above.
            if let (true, Some(address)) = (found | 1 == hash | 1, unsafe { self.defined(index, name) }) {
                return Some(address);
            }
            if found & 1 != 0 {
                break;
            }
            index += 1;
        }
        None
    }

    /// DT_HASH: numbers of buckets and of symbols, the buckets, and the index of the
    /// symbol that follows each in its bucket.
    ///
    /// # Safety
    /// As for [`Self::function`].
    unsafe fn in_sysv_table(&self, table: *const u32, name: &CStr) -> Option<usize> {
        let hash = name.to_bytes().iter().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add((*byte).into());
            (hash ^ (hash >> 24 & 0xf0)) & 0x0fff_ffff
        });
        // SAFETY: the header.
        let [buckets, _] = unsafe { *table.cast::<[u32; 2]>() };
        if buckets == 0 {
            return None;
        }
        // SAFETY: one of the buckets.
        let mut index = unsafe { *table.add(2 + (hash % buckets) as usize) };
        while index != 0 {
            // SAFETY: a symbol that is in the table.
            if let Some(address) = unsafe { self.defined(index, name) } {
                return Some(address);
            }
            // SAFETY: as above.
            index = unsafe { *table.add((2 + buckets + index) as usize) };
        }
        None
    }

    /// The address of a symbol, if it is a function of this name that a reference
    /// without a version is bound to.
    ///
    /// # Safety
    /// As for [`Self::function`]; `index` must be that of a symbol.
    unsafe fn defined(&self, index: u32, name: &CStr) -> Option<usize> {
        let index = index as usize;
        // SAFETY: per the caller.
        let symbol = unsafe { &*(self.symbols as *const Elf64_Sym).add(index) };
        // SAFETY: every symbol has a version, if any has.
        let is_hidden = self.versions != 0 && unsafe { *(self.versions as *const u16).add(index) } & VERSYM_HIDDEN != 0;
        let is_function = matches!(symbol.st_info & 0xf, STT_NOTYPE | STT_FUNC);
        let is_defined = symbol.st_shndx != 0 && symbol.st_value != 0;
        // SAFETY: the name of a symbol.
        let is_it = !is_hidden && is_function && is_defined && unsafe { self.string(symbol.st_name as usize) } == name;
        is_it.then(|| self.base.wrapping_add(symbol.st_value as usize))
    }
}
