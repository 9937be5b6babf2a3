//! Looks functions up in the symbol tables of a loaded object (`elf(5)`), without the loader.
//! The tables are read in place, as the loader does at every look-up.

use core::ffi::{CStr, c_char};

use libc::Elf64_Sym;

use crate::symbol_names::NameTables;

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_SONAME: u64 = 14;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_VERSYM: u64 = 0x6fff_fff0;

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
/// Bit of a symbol's version: the loader binds only references that name this version.
const VERSYM_HIDDEN: u16 = 0x8000;

/// SONAMEs of the objects that hold the C library's functions: glibc's, which before 2.34 were
/// in two objects, and musl's.
const C_LIBRARY_SONAMES: [&[u8]; 3] = [b"libc.so.6", b"libdl.so.2", b"libc.so"];
/// How the SONAME of musl begins where a distribution has given it another.
const MUSL_SONAME_STARTS: [&[u8]; 2] = [b"libc.musl-", b"ld-musl-"];

/// The third stage of musl's loader, which the second one looks up by this name (source:
/// `ldso/dynlink.c`). No other C library has it.
pub const MUSL_FUNCTION: &CStr = c"__dls3";

/// Returns the entries of a dynamic section up to DT_NULL.
///
/// # Safety
/// `dynamic` must be 0 or the address of the dynamic section of an object that stays loaded
/// while the iterator is used. The section must end with DT_NULL (`elf(5)`).
pub unsafe fn entries(dynamic: usize) -> impl Iterator<Item = [u64; 2]> {
    let mut next = dynamic as *const [u64; 2];
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `next` begins at the dynamic section, which is mapped by this function's
        // contract, and the iterator never advances beyond DT_NULL, so it points to an entry.
        let entry = unsafe { *next };
        if entry[0] == DT_NULL {
            return None;
        }
        // SAFETY: this entry is not DT_NULL, so the section has another entry behind it.
        next = unsafe { next.add(1) };
        Some(entry)
    })
}

/// Addresses of the tables in which symbols of an object are looked up; 0 where the object has
/// none.
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
    /// Reads the addresses of the tables; `None` if the object has no symbols.
    ///
    /// # Safety
    /// `dynamic` must be 0 or the address of the dynamic section of a well-formed object that is
    /// loaded at `base`. The unsafe methods of the result rely on that, too.
    pub unsafe fn read(base: usize, dynamic: usize) -> Option<Self> {
        let mut tables = Self { base, ..Self::default() };
        // glibc has added the base to pointers, except in what it cannot write to.
        let absolute =
            |pointer: u64| if (pointer as usize) < base { base + pointer as usize } else { pointer as usize };
        // SAFETY: `dynamic` is 0 or the dynamic section of a loaded object: this function's
        // contract.
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

    /// Returns the tables that [`crate::symbol_names`] replaces; `None` without DT_GNU_HASH.
    pub fn name_tables(&self) -> Option<NameTables> {
        let Self { symbols, strings, gnu_hash, .. } = *self;
        (gnu_hash != 0).then_some(NameTables { symbols, strings, gnu_hash })
    }

    /// Returns whether the object is the C library: by its SONAME, or if it is musl, to which many
    /// distributions give none, by a function that only musl exports.
    ///
    /// # Safety
    /// The object must still be loaded.
    pub unsafe fn is_of_c_library(&self) -> bool {
        // SAFETY: the object is loaded, this function's contract; DT_SONAME is an offset into its
        // string table (`elf(5)`).
        let soname = self.soname.map(|offset| unsafe { self.string(offset) }.to_bytes());
        let is_named = soname.is_some_and(|soname| {
            C_LIBRARY_SONAMES.contains(&soname) || MUSL_SONAME_STARTS.iter().any(|start| soname.starts_with(start))
        });
        // SAFETY: the object is loaded: this function's contract.
        is_named || unsafe { self.function(MUSL_FUNCTION) }.is_some()
    }

    /// Returns the string at an offset into the string table.
    ///
    /// # Safety
    /// The object must still be loaded, and `offset` must come from one of its own tables.
    unsafe fn string(&self, offset: usize) -> &CStr {
        // SAFETY: the string table is mapped while the object is, and an offset that the
        // object's own tables hold leads to a NUL-terminated string in it: this function's
        // contract.
        unsafe { CStr::from_ptr((self.strings + offset) as *const c_char) }
    }

    /// Returns the address of a function that the object defines, the way `dlsym(3)` finds it.
    ///
    /// # Safety
    /// The object must still be loaded.
    pub unsafe fn function(&self, name: &CStr) -> Option<usize> {
        // SAFETY: the object is loaded, this function's contract, and `read` has taken each table's
        // address from the entry of that kind in its dynamic section.
        unsafe {
            match (self.gnu_hash, self.sysv_hash) {
                (0, 0) => None,
                (0, table) => self.in_sysv_table(table as *const u32, name),
                (table, _) => self.in_gnu_table(table as *const u32, name),
            }
        }
    }

    /// Looks a function up in DT_GNU_HASH. The table has a header (number of buckets, index of
    /// the first symbol, words of the Bloom filter, a shift), the filter, which this function
    /// does not need, the buckets, and the hashes of all symbols, the last of a bucket with its
    /// lowest bit set.
    ///
    /// # Safety
    /// The object must still be loaded, and `table` must be its DT_GNU_HASH.
    unsafe fn in_gnu_table(&self, table: *const u32, name: &CStr) -> Option<usize> {
        let hash = gnu_hash(name);
        // SAFETY: the table begins with its header of four words: this function's contract.
        let [buckets, first, filter, _] = unsafe { *table.cast::<[u32; 4]>() };
        if buckets == 0 {
            return None;
        }
        // SAFETY: the buckets are in the table, behind the header and the filter, whose words
        // have 64 bits.
        let bucket = unsafe { table.add(4 + 2 * filter as usize) };
        // SAFETY: the remainder is less than the number of buckets.
        let mut index = unsafe { *bucket.add((hash % buckets) as usize) };
        while index >= first {
            // SAFETY: a bucket holds 0 or the index of a symbol from `first` on, and its chain
            // goes on until a hash with the lowest bit set: `index` has a hash behind the
            // buckets.
            let found = unsafe { *bucket.add((buckets + index - first) as usize) };
            // SAFETY: for the same reason `index` is that of a symbol of this object.
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

    /// Looks a function up in DT_HASH. The table has the numbers of buckets and of symbols, the
    /// buckets, and for each symbol the index of the one that follows it in its bucket.
    ///
    /// # Safety
    /// The object must still be loaded, and `table` must be its DT_HASH.
    unsafe fn in_sysv_table(&self, table: *const u32, name: &CStr) -> Option<usize> {
        let hash = name.to_bytes().iter().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add((*byte).into());
            (hash ^ (hash >> 24 & 0xf0)) & 0x0fff_ffff
        });
        // SAFETY: the table begins with these two words: this function's contract.
        let [buckets, _] = unsafe { *table.cast::<[u32; 2]>() };
        if buckets == 0 {
            return None;
        }
        // SAFETY: the remainder is less than the number of buckets, which lie behind the two words.
        let mut index = unsafe { *table.add(2 + (hash % buckets) as usize) };
        while index != 0 {
            // SAFETY: buckets and chains hold indices of symbols of this object; 0 ends a chain.
            if let Some(address) = unsafe { self.defined(index, name) } {
                return Some(address);
            }
            // SAFETY: the table has one link for each symbol, so for this `index` too.
            index = unsafe { *table.add((2 + buckets + index) as usize) };
        }
        None
    }

    /// Returns the address of a symbol, if it is a function of this name that a reference
    /// without a version is bound to.
    ///
    /// # Safety
    /// The object must still be loaded, and `index` must be that of one of its symbols.
    unsafe fn defined(&self, index: u32, name: &CStr) -> Option<usize> {
        let index = index as usize;
        // SAFETY: the symbol table is mapped and has an entry for `index`: this function's
        // contract.
        let symbol = unsafe { &*(self.symbols as *const Elf64_Sym).add(index) };
        // SAFETY: DT_VERSYM has an entry for every symbol of the table (LSB Core, "Symbol
        // Versioning").
        let is_hidden = self.versions != 0 && unsafe { *(self.versions as *const u16).add(index) } & VERSYM_HIDDEN != 0;
        let is_function = matches!(symbol.st_info & 0xf, STT_NOTYPE | STT_FUNC);
        let is_defined = symbol.st_shndx != 0 && symbol.st_value != 0;
        // SAFETY: `st_name` is an offset into the string table of the same loaded object.
        let is_it = !is_hidden && is_function && is_defined && unsafe { self.string(symbol.st_name as usize) } == name;
        is_it.then(|| self.base.wrapping_add(symbol.st_value as usize))
    }
}

/// Returns the hash of a name in DT_GNU_HASH.
pub fn gnu_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add((*byte).into()))
}
