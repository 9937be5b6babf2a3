//! Asking the dynamic loader: its real functions and its list of objects.
//!
//! Nothing here may be called while the registry's lock is held: the loader's
//! locks come first (they are held when it calls us).

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sopin_core::memory::OwnMemory;
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Errno, Result};

use crate::own;

pub mod iterations;
mod next;

pub use next::is_preloaded;

/// A function of the next object in the search order, looked up once.
pub struct RealFunction {
    name: &'static CStr,
    /// 0 until it has been found.
    address: AtomicUsize,
}

impl RealFunction {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// Returns its address; `None` if no other object defines it.
    pub fn address(&self) -> Option<usize> {
        if self.address.load(Ordering::Relaxed) == 0 {
            // All at the first one's time: while this library is initialised. Threads that
            // look at once find the same; what cannot be found is looked up again.
            for function in ALL {
                if let Some(found) = function.find() {
                    function.address.store(found, Ordering::Relaxed);
                }
            }
        }
        match self.address.load(Ordering::Relaxed) {
            0 => None,
            address => Some(address),
        }
    }

    fn find(&self) -> Option<usize> {
        next::find(self.name).or_else(|| ask_loader(self.name))
    }
}

/// Asks `dlsym(3)`, where no list of objects can be found. Another library may answer,
/// with our own function: that is none. One that calls `dlopen` to find out comes back
/// here, and gets none either.
fn ask_loader(name: &'static CStr) -> Option<usize> {
    /// The thread that asks, by the address of its `errno`.
    static ASKING: AtomicUsize = AtomicUsize::new(0);
    let this_thread = sys::thread_identity();
    if ASKING.swap(this_thread, Ordering::Relaxed) == this_thread {
        return None;
    }
    // SAFETY: the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.addr();
    ASKING.store(0, Ordering::Relaxed);
    (address != 0 && !own::contains(address)).then_some(address)
}

/// `dlopen(3)`
pub static DLOPEN: RealFunction = RealFunction::new(c"dlopen");
/// `dlmopen(3)`
pub static DLMOPEN: RealFunction = RealFunction::new(c"dlmopen");
/// `dlclose(3)`
pub static DLCLOSE: RealFunction = RealFunction::new(c"dlclose");
/// Programs such as those built on Seastar export a `dl_iterate_phdr` of their
/// own that answers from a cache: the C library's is asked.
static DL_ITERATE_PHDR: RealFunction = RealFunction::new(c"dl_iterate_phdr");
static DLINFO: RealFunction = RealFunction::new(c"dlinfo");

const ALL: [&RealFunction; 5] = [&DLOPEN, &DLMOPEN, &DLCLOSE, &DL_ITERATE_PHDR, &DLINFO];

type IterateCallback = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;
type Iterate = unsafe extern "C" fn(Option<IterateCallback>, *mut c_void) -> c_int;
type DlInfo = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;

/// An object in the loader's list.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Load bias.
    pub base: usize,
    /// Address of the program headers, by which objects are told apart.
    pub headers: usize,
    /// Number of program headers.
    pub header_count: usize,
    /// Address of the name, a C string that lives as long as the object.
    pub name: usize,
}

/// How often objects were loaded and unloaded since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `dlpi_adds`: unchanged means that nothing was loaded in any namespace.
    pub adds: u64,
    /// `dlpi_subs`: changed means that something was unloaded; glibc may wrap it.
    pub subs: u64,
}

/// Returns the counters alone, from the first object of the list.
pub fn counters() -> Option<Counters> {
    while_held(|counters| counters)
}

/// Replaces `objects` by the loader's list, in its order: the executable first.
pub fn snapshot(objects: &mut PageVec<Loaded>) -> Result<Counters> {
    struct Collector<'a> {
        objects: &'a mut PageVec<Loaded>,
        counters: Counters,
        failure: Option<Errno>,
    }
    unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a live info, `data` is the local below.
        let (collector, info) = unsafe { (&mut *data.cast::<Collector<'_>>(), &*info) };
        collector.counters = counters_of(info);
        let object = Loaded {
            base: info.dlpi_addr as usize,
            headers: info.dlpi_phdr.addr(),
            header_count: info.dlpi_phnum.into(),
            name: info.dlpi_name.addr(),
        };
        match collector.objects.push(object) {
            Ok(()) => 0,
            Err(error) => {
                collector.failure = Some(error);
                1
            }
        }
    }
    objects.clear();
    let mut collector = Collector { objects, counters: Counters::default(), failure: None };
    // SAFETY: the callback gets the type it expects.
    unsafe { iterate(collect, (&raw mut collector).cast()) }.ok_or(Errno(libc::ENOSYS))?;
    collector.failure.map_or(Ok(collector.counters), Err)
}

/// Runs `work` with the counters while no object of any namespace can be added
/// or unloaded: glibc holds `dl_load_write_lock` during the callback, without
/// which it neither extends a list (source: `_dl_add_to_namespace_list`) nor
/// unmaps anything (source: `_dl_close_worker`); musl never unloads. `work` must
/// neither call the loader nor wait for anybody. Returns what it returns; `None`, and it
/// is not run, if the loader lacks the function, or while the process is forking.
pub fn while_held<T, Work: FnMut(Counters) -> T>(work: Work) -> Option<T> {
    struct Held<T, Work> {
        work: Work,
        done: Option<T>,
    }
    unsafe extern "C" fn first<T, Work: FnMut(Counters) -> T>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a live info, `data` is the local below.
        let (held, info) = unsafe { (&mut *data.cast::<Held<T, Work>>(), &*info) };
        held.done = Some((held.work)(counters_of(info)));
        1
    }
    let mut held = Held { work, done: None };
    // SAFETY: the callback gets the type it expects.
    unsafe { iterate(first::<T, Work>, (&raw mut held).cast()) };
    held.done
}

fn counters_of(info: &libc::dl_phdr_info) -> Counters {
    Counters { adds: info.dlpi_adds, subs: info.dlpi_subs }
}

/// # Safety
/// `callback` must accept `data`.
unsafe fn iterate(callback: IterateCallback, data: *mut c_void) -> Option<c_int> {
    let address = DL_ITERATE_PHDR.address()?;
    // SAFETY: the address is that of dl_iterate_phdr(3).
    let function = unsafe { core::mem::transmute::<usize, Iterate>(address) };
    let _iteration = iterations::begin()?;
    // SAFETY: per the caller.
    Some(unsafe { function(Some(callback), data) })
}

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

/// Asks `dlinfo(3)` about an open `handle`.
fn dlinfo<T>(handle: *mut c_void, request: c_int, mut answer: T) -> Option<T> {
    let address = DLINFO.address()?;
    // SAFETY: the address is that of dlinfo(3).
    let function = unsafe { core::mem::transmute::<usize, DlInfo>(address) };
    // SAFETY: the callers ask for what fits T, of a handle just opened.
    let status = unsafe { function(handle, request, (&raw mut answer).cast()) };
    (status == 0).then_some(answer)
}

/// Where the link map of an open handle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMapAddress(usize);

/// Returns the address of the link map of an open `handle`.
pub fn link_map_address(handle: *mut c_void) -> Option<LinkMapAddress> {
    let map = dlinfo(handle, libc::RTLD_DI_LINKMAP, ptr::null::<LinkMap>())?;
    (!map.is_null()).then_some(LinkMapAddress(map.addr()))
}

/// Returns the link map of an open `handle`.
pub fn link_map(handle: *mut c_void) -> Option<LinkMap> {
    let LinkMapAddress(address) = link_map_address(handle)?;
    // SAFETY: the handle is open, so its link map lives.
    Some(unsafe { *(address as *const LinkMap) })
}

/// Returns whether an open `handle` belongs to a namespace other than the program's,
/// whose objects `dl_iterate_phdr` does not list to us.
pub fn is_in_other_namespace(handle: *mut c_void) -> bool {
    const LM_ID_BASE: c_long = 0;
    dlinfo(handle, libc::RTLD_DI_LMID, LM_ID_BASE).is_some_and(|namespace| namespace != LM_ID_BASE)
}

/// Replaces `objects` by those of the namespace that the link map at `start` is
/// in. To be called from [`while_held`]: then the list stands still. It is read
/// through `memory` all the same, and an object whose headers do not lead to the
/// dynamic section that its link map names is left out.
pub fn namespace_of(start: LinkMapAddress, memory: &OwnMemory, objects: &mut PageVec<Loaded>) -> Result<()> {
    /// More objects than any process loads: the end of a list that is not one.
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

fn read_link_map(memory: &OwnMemory, address: usize) -> Result<LinkMap> {
    let [base, name, dynamic, next, previous] = memory.read::<[u64; 5]>(address)?.map(|word| word as usize);
    Ok(LinkMap { base, name, dynamic, next, previous })
}

/// Finds the program headers through the ELF header, which the linkers place
/// at the load bias.
fn describe(memory: &OwnMemory, map: &LinkMap) -> Option<Loaded> {
    const MAGIC: u64 = u32::from_le_bytes(*b"\x7fELF") as u64;
    // An Elf64_Ehdr as words: e_phoff is the fifth, e_phnum within the eighth.
    let header = memory.read::<[u64; 8]>(map.base).ok()?;
    let [identification, _, _, _, program_headers, _, _, counts] = header;
    if identification & 0xffff_ffff != MAGIC {
        return None;
    }
    let header_count = (counts & 0xffff) as usize;
    let headers = map.base.checked_add(program_headers as usize)?;
    let object = sopin_core::object::Object::read(memory, map.base, headers, header_count).ok()?;
    (object.dynamic.start == map.dynamic).then_some(Loaded { base: map.base, headers, header_count, name: map.name })
}

/// Memory for one copy of the loader's list, kept between sweeps.
static SPARE: Spare = Spare { is_taken: AtomicBool::new(false), objects: UnsafeCell::new(PageVec::new()) };

struct Spare {
    is_taken: AtomicBool,
    objects: UnsafeCell<PageVec<Loaded>>,
}

// SAFETY: only who has set `is_taken` uses the list.
unsafe impl Sync for Spare {}

/// A list of objects in the spare memory or, where another thread uses that
/// (or did when this process was forked), in memory of its own.
pub struct ObjectList {
    objects: PageVec<Loaded>,
    is_spare: bool,
}

impl ObjectList {
    /// An empty list.
    pub fn take() -> Self {
        let is_spare = !SPARE.is_taken.swap(true, Ordering::Acquire);
        // SAFETY: this thread has set the flag.
        let objects = if is_spare { core::mem::take(unsafe { &mut *SPARE.objects.get() }) } else { PageVec::new() };
        Self { objects, is_spare }
    }
}

impl core::ops::Deref for ObjectList {
    type Target = PageVec<Loaded>;

    fn deref(&self) -> &Self::Target {
        &self.objects
    }
}

impl core::ops::DerefMut for ObjectList {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.objects
    }
}

impl Drop for ObjectList {
    fn drop(&mut self) {
        if self.is_spare {
            // SAFETY: this thread has set the flag.
            unsafe { *SPARE.objects.get() = core::mem::take(&mut self.objects) };
            SPARE.is_taken.store(false, Ordering::Release);
        }
    }
}
