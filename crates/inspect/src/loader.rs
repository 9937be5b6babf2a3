//! The dynamic loader's list of objects, read from the memory of the process: auxv, the
//! executable's DT_DEBUG, `struct r_debug`, `struct link_map` (`link.h`).
//!
//! An executable whose own dynamic section has reverted to the file's contents has no DT_DEBUG
//! any more; then the loader's symbol `_r_debug` leads to the list.

use object::elf::{DT_DEBUG, DT_GNU_HASH, DT_STRTAB, DT_SYMTAB};

use crate::image::{self, DynamicEntries, Headers, PROGRAM_HEADER};
use crate::memory::{Bytes, word_at};

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
/// More objects than any process loads: each has about four mappings, of which a process has at most
/// 65,530 by default (`vm.max_map_count`).
const MAX_OBJECTS: usize = 20_000;
const MAX_NAMESPACES: usize = 64;

/// The auxiliary vector, which the kernel passes to a program at its start (`/proc/PID/auxv`).
pub struct Auxv(Vec<u8>);

impl Auxv {
    /// Takes the bytes of `/proc/PID/auxv`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn get(&self, kind: u64) -> Option<u64> {
        let entries = self.0.chunks_exact(16);
        entries
            .filter_map(|entry| Some((word_at(entry, 0)?, word_at(entry, 8)?)))
            .find(|(k, _)| *k == kind)
            .map(|e| e.1)
    }

    /// Returns the address of the dynamic loader; `None` for a static program.
    pub fn loader(&self) -> Option<u64> {
        self.get(AT_BASE).filter(|base| *base != 0)
    }

    /// Returns the bytes of a page.
    pub fn page(&self) -> Option<u64> {
        self.get(AT_PAGESZ).filter(|page| page.is_power_of_two() && (4096..=1 << 20).contains(page))
    }

    /// Address and number of the executable's program headers.
    fn headers(&self) -> Option<(u64, usize)> {
        Some((self.get(AT_PHDR)?, usize::try_from(self.get(AT_PHNUM)?).ok()?))
    }
}

/// The executable of a process.
#[derive(Clone, Debug)]
pub struct Executable {
    /// Load bias.
    pub base: u64,
    /// Its program headers, as the kernel has passed them.
    pub headers: Headers,
}

impl Executable {
    /// Reads the program headers of the executable.
    pub fn read(memory: &impl Bytes, auxv: &Auxv) -> Option<Self> {
        let (at, count) = auxv.headers()?;
        let headers = Headers::parse(&memory.read_exact(at, count.min(256) * PROGRAM_HEADER).ok()?).ok()?;
        // Without PT_PHDR they are behind the ELF header, where every linker puts them.
        let own = headers.own.or_else(|| {
            let first = headers.segments.iter().find(|segment| segment.offset == 0)?;
            Some(first.address + image::ELF_HEADER as u64)
        })?;
        Some(Self { base: at.wrapping_sub(own), headers })
    }
}

/// An object in the loader's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Load bias.
    pub base: u64,
    /// The name that the loader has for it, empty for the executable.
    pub name: Vec<u8>,
    /// Address of its dynamic section.
    pub dynamic: u64,
    /// 0 for the program's own namespace, others are of `dlmopen(3)`.
    pub namespace: usize,
}

/// The loader's list, of all namespaces that it shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The objects, in the order of loading in each namespace.
    pub objects: Vec<Listed>,
    /// The loader itself is not in the list, so the list is incomplete: musl allocates a part
    /// of its list in unused parts of objects' pages, and those can be damaged.
    pub is_cut: bool,
}

/// Reads the list; `None` for a static program, a loader with another list, or memory whose
/// contents contradict themselves.
pub fn list(memory: &impl Bytes, auxv: &Auxv, executable: Option<&Executable>) -> Option<List> {
    let debug = executable
        .and_then(|executable| debug_of(memory, executable))
        .or_else(|| exported_debug(memory, auxv.loader()?))?;
    let mut list = walk(memory, debug)?;
    list.is_cut = auxv.loader().is_some_and(|loader| list.objects.iter().all(|object| object.base != loader));
    Some(list)
}

/// Returns the address in DT_DEBUG of the executable, if a `struct r_debug` is there.
fn debug_of(memory: &impl Bytes, executable: &Executable) -> Option<u64> {
    let (address, size) = executable.headers.dynamic?;
    let dynamic = DynamicEntries::read(memory, executable.base.wrapping_add(address), size).ok()?;
    dynamic.get(DT_DEBUG).filter(|debug| is_debug(memory, *debug))
}

/// Returns the address of the symbol `_r_debug` of the loader.
fn exported_debug(memory: &impl Bytes, loader: u64) -> Option<u64> {
    let (_, headers) = image::read(memory, loader).ok()?;
    let (address, size) = headers.dynamic?;
    let symbol = symbol(memory, loader, loader.wrapping_add(address), size, b"_r_debug")?;
    is_debug(memory, symbol).then_some(symbol)
}

/// Returns whether this may be a `struct r_debug` in use.
fn is_debug(memory: &impl Bytes, at: u64) -> bool {
    let Ok(bytes) = memory.read_array::<40>(at) else { return false };
    let version = word_at(&bytes, 0).unwrap_or(0) & 0xffff_ffff;
    (1..=2).contains(&version) && word_at(&bytes, 8).is_some_and(|map| map != 0)
}

fn walk(memory: &impl Bytes, first: u64) -> Option<List> {
    let mut list = List::default();
    let mut debug = first;
    for namespace in 0..MAX_NAMESPACES {
        let head: [u8; 40] = memory.read_array(debug).ok()?;
        let mut next = word_at(&head, 8)?;
        while next != 0 && list.objects.len() < MAX_OBJECTS {
            // l_addr, l_name, l_ld, l_next
            let Ok(map) = memory.read_array::<32>(next) else { break };
            let name = word_at(&map, 8).filter(|name| *name != 0).and_then(|name| memory.string(name).ok());
            list.objects.push(Listed {
                base: word_at(&map, 0)?,
                name: name.unwrap_or_default(),
                dynamic: word_at(&map, 16)?,
                namespace,
            });
            next = word_at(&map, 24)?;
        }
        // `struct r_debug_extended` begins with version 2.
        if word_at(&head, 0)? & 0xffff_ffff < 2 {
            break;
        }
        match memory.word(debug.wrapping_add(40)) {
            Ok(next) if next != 0 => debug = next,
            _ => break,
        }
    }
    (!list.objects.is_empty()).then_some(list)
}

/// Looks a defined symbol up in the GNU hash table of a loaded object.
pub fn symbol(memory: &impl Bytes, base: u64, dynamic: u64, size: u64, name: &[u8]) -> Option<u64> {
    let dynamic = DynamicEntries::read(memory, dynamic, size).ok()?;
    // glibc adds the base to these in place and musl does not, and they may have reverted: a
    // value below the base is not an address of this object.
    let table = |tag| dynamic.get(tag).map(|value| if value >= base { value } else { base.wrapping_add(value) });
    let (hash, symbols, strings) = (table(DT_GNU_HASH)?, table(DT_SYMTAB)?, table(DT_STRTAB)?);
    let head: [u8; 16] = memory.read_array(hash).ok()?;
    let field = |index: usize| Some(u64::from(crate::memory::half_at(&head, index * 4)?));
    let (buckets, first, bloom) = (field(0)?, field(1)?, field(2)?);
    let half = |at: u64| Some(u32::from_ne_bytes(memory.read_array(at).ok()?));
    let element = |array: u64, index: u64, size: u64| array.wrapping_add(index.wrapping_mul(size));
    let bucket_array = element(hash.wrapping_add(16), bloom, 8);
    let chains = element(bucket_array, buckets, 4);
    let wanted = gnu_hash(name);
    let start = u64::from(half(element(bucket_array, u64::from(wanted).checked_rem(buckets)?, 4))?);
    for index in (start..).take(MAX_OBJECTS) {
        let found = half(element(chains, index.checked_sub(first)?, 4))?;
        if found | 1 == wanted | 1 {
            let entry: [u8; 24] = memory.read_array(element(symbols, index, 24)).ok()?;
            let offset = u64::from(crate::memory::half_at(&entry, 0)?);
            if memory.string(strings.wrapping_add(offset)).is_ok_and(|found| found == name) {
                return Some(base.wrapping_add(word_at(&entry, 8)?));
            }
        }
        if found & 1 != 0 {
            return None;
        }
    }
    None
}

fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Array;
    use crate::memory::{FileBytes, word_at};
    use crate::process::Process;

    fn own() -> (FileBytes, Auxv, Executable) {
        let own = Process::open(std::process::id()).unwrap();
        let memory = FileBytes::memory_of(&own).unwrap();
        let auxv = Auxv::new(own.read("auxv").unwrap());
        let executable = Executable::read(&memory, &auxv).unwrap();
        (memory, auxv, executable)
    }

    #[test]
    fn the_list_of_this_process() {
        let (memory, auxv, executable) = own();
        let list = list(&memory, &auxv, Some(&executable)).unwrap();
        assert_eq!(list.objects[0].base, executable.base);
        assert!(list.objects[0].name.is_empty());
        let libc = list.objects.iter().find(|object| object.name.windows(8).any(|part| part == b"/libc.so")).unwrap();
        assert!(libc.dynamic > libc.base && libc.namespace == 0);
        assert!(list.objects.iter().any(|object| Some(object.base) == auxv.loader()));
    }

    #[test]
    fn the_loader_leads_to_the_same_list() {
        let (memory, auxv, executable) = own();
        let exported = exported_debug(&memory, auxv.loader().unwrap());
        assert!(exported.is_some());
        assert_eq!(exported, debug_of(&memory, &executable));
    }

    /// Returns the bytes of `count` link maps, the last of which leads back to the first.
    fn circle(count: u64) -> Array {
        let debug = [1, 0x1000 + 40, 0, 0, 0];
        let maps = (0..count).flat_map(|index| [0x7000 * index, 0, 0, 0x1000 + 40 + 32 * ((index + 1) % count)]);
        Array(0x1000, debug.into_iter().chain(maps).flat_map(u64::to_ne_bytes).collect())
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let list = walk(&circle(3), 0x1000).unwrap();
        assert_eq!(list.objects.len(), MAX_OBJECTS);
    }

    #[test]
    fn a_list_with_a_bad_address_ends() {
        let mut memory = circle(2);
        let next = memory.1.len() - 8;
        memory.1[next..].copy_from_slice(&0xdead_u64.to_ne_bytes());
        assert_eq!(walk(&memory, 0x1000).unwrap().objects.len(), 2);
        assert!(walk(&memory, 0x9000).is_none());
        assert!(!is_debug(&memory, 0x1008));
        assert_eq!(word_at(&memory.1, 0), Some(1));
    }
}
