//! Handles of `dlopen(3)`, the link maps to which they lead, and the objects of other namespaces,
//! which `dl_iterate_phdr(3)` does not list.

use core::ffi::{c_int, c_long, c_void};
use core::ptr;

use sopin_core::memory::ProcessMemory;
use sopin_core::object::Object;
use sopin_core::pages::PageVec;
use sopin_core::sys::{Errno, Result};

use super::{DLINFO, Loaded, is_musl};

/// The public part of the loader's `struct link_map` (`<link.h>`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LinkMap {
    base: usize,
    name: usize,
    /// Address of the dynamic section.
    pub dynamic: usize,
    next: usize,
    previous: usize,
}

type DlInfo = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;

/// A handle that stays open while this value or a copy of it is used.
#[derive(Clone, Copy)]
pub struct OpenHandle(*mut c_void);

impl OpenHandle {
    /// Takes a handle.
    ///
    /// # Safety
    /// `handle` must come from `dlopen(3)` or `dlmopen(3)`, and no thread may close it while the
    /// result or a copy of it is used.
    pub const unsafe fn new(handle: *mut c_void) -> Self {
        Self(handle)
    }
}

/// Asks `dlinfo(3)` about a `handle`. The result of `request` must have the type `T`.
fn dlinfo<T>(OpenHandle(handle): OpenHandle, request: c_int, mut answer: T) -> Option<T> {
    let address = DLINFO.address()?;
    // SAFETY: the address is that of a function which an object defines by this name, so it has
    // the type that dlinfo(3) states.
    let function = unsafe { core::mem::transmute::<usize, DlInfo>(address) };
    // SAFETY: `answer` is a local of the type that the request stores: `RTLD_DI_LINKMAP` a
    // pointer, `RTLD_DI_LMID` a `c_long`, the only two requests of this module. The handle is
    // open, by the contract of `OpenHandle::new`.
    let status = unsafe { function(handle, request, (&raw mut answer).cast()) };
    (status == 0).then_some(answer)
}

/// The address of the link map of a handle that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMapAddress(usize);

/// Returns the address of the link map of `handle`.
pub fn link_map_address(handle: OpenHandle) -> Option<LinkMapAddress> {
    let map = dlinfo(handle, libc::RTLD_DI_LINKMAP, ptr::null::<LinkMap>())?;
    (!map.is_null()).then_some(LinkMapAddress(map.addr()))
}

/// Returns the link map of `handle`.
pub fn link_map(handle: OpenHandle) -> Option<LinkMap> {
    let LinkMapAddress(address) = link_map_address(handle)?;
    // SAFETY: dlinfo(3) has returned the address of the `struct link_map` of this handle, which
    // begins with the members of `LinkMap`. The loader frees it only after the last handle was
    // closed, and this one is open.
    Some(unsafe { *(address as *const LinkMap) })
}

/// Returns whether `handle` belongs to a namespace other than the program's, whose objects
/// `dl_iterate_phdr(3)` does not list for a caller in the program's. musl has no other namespace,
/// and its `dlinfo(3)` would leave an error that `dlerror(3)` returns to the host.
pub fn is_in_other_namespace(handle: OpenHandle) -> bool {
    const LM_ID_BASE: c_long = 0;
    !is_musl() && dlinfo(handle, libc::RTLD_DI_LMID, LM_ID_BASE).is_some_and(|namespace| namespace != LM_ID_BASE)
}

/// Replaces `objects` by those of the namespace that the link map at `start` is
/// in. The caller must be inside of [`super::while_held`], so that the list does not change.
/// The list is nevertheless read through `memory`, which reports what it cannot read. An
/// object whose headers do not lead to the dynamic section that its link map names is left
/// out.
pub fn namespace_of(start: LinkMapAddress, memory: &ProcessMemory, objects: &mut PageVec<Loaded>) -> Result<()> {
    /// More objects than any process loads. It bounds the loop if the list has a cycle.
    const LIMIT: usize = 1 << 16;
    objects.clear();
    let LinkMapAddress(mut first) = start;
    for _ in 0..LIMIT {
        match read_link_map(memory, first)?.previous {
            0 => break,
            previous => first = previous,
        }
    }
    let mut address = first;
    for _ in 0..LIMIT {
        if address == 0 {
            return Ok(());
        }
        let map = read_link_map(memory, address)?;
        if let Some(object) = describe(memory, &map) {
            objects.push(object)?;
        }
        address = map.next;
    }
    Err(Errno(libc::ELOOP))
}

fn read_link_map(memory: &ProcessMemory, address: usize) -> Result<LinkMap> {
    let [base, name, dynamic, next, previous] = memory.read::<[u64; 5]>(address)?.map(|word| word as usize);
    Ok(LinkMap { base, name, dynamic, next, previous })
}

/// Finds the program headers of an object through its ELF header, which linkers place at the
/// load bias.
fn describe(memory: &ProcessMemory, map: &LinkMap) -> Option<Loaded> {
    const MAGIC: u64 = u32::from_le_bytes(*b"\x7fELF") as u64;
    // These are the words of an Elf64_Ehdr: e_phoff is the fifth, e_phnum a part of the eighth.
    let header = memory.read::<[u64; 8]>(map.base).ok()?;
    let [identification, _, _, _, program_headers, _, _, counts] = header;
    if identification & 0xffff_ffff != MAGIC {
        return None;
    }
    let header_count = (counts & 0xffff) as usize;
    let headers = map.base.checked_add(program_headers as usize)?;
    let object = Object::read(memory, map.base, headers, header_count).ok()?;
    (object.dynamic.start == map.dynamic).then_some(Loaded { base: map.base, headers, header_count, name: map.name })
}
