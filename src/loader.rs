//! Asking the dynamic loader: its real functions and its list of objects, and which C library it
//! belongs to.
//!
//! A function that calls the loader must not be called while the library's lock is held. The
//! loader's locks are taken before it: the loader holds them when it calls this library.
//! [`is_musl`], [`musl_address`] and [`register_fork_handlers`] do not call the loader.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use sopin_core::symbols;
use sopin_core::sys::{Errno, Result};

pub mod iterations;
mod link_maps;
mod next;
mod object_list;
pub mod unwinding;

pub use link_maps::{LinkMapAddress, OpenHandle, is_in_other_namespace, link_map, link_map_address, namespace_of};
pub use next::{drop_prefix, is_behind_executable, is_preloaded};
use object_list::KeptObjects;
pub use object_list::ObjectList;

/// A function of the next object in the search order, which is looked up once.
pub struct RealFunction {
    name: &'static CStr,
    /// The name that another C library has for it.
    other_name: Option<&'static CStr>,
    /// 0 until it has been found.
    address: AtomicUsize,
}

impl RealFunction {
    const fn new(name: &'static CStr) -> Self {
        Self { name, other_name: None, address: AtomicUsize::new(0) }
    }

    /// Returns its address; `None` if no other object defines it.
    pub fn address(&self) -> Option<usize> {
        if self.known().is_none() {
            // The first look-up, while this library is initialised, looks up all functions.
            // Threads that do so at the same time find the same addresses. Only a function that
            // was not found is looked up again.
            for function in ALL.into_iter().filter(|function| function.known().is_none()) {
                if let Some(found) = function.find() {
                    function.address.store(found, Ordering::Relaxed);
                }
            }
        }
        self.known()
    }

    /// Returns the address if it has been found.
    fn known(&self) -> Option<usize> {
        match self.address.load(Ordering::Relaxed) {
            0 => None,
            address => Some(address),
        }
    }

    fn find(&self) -> Option<usize> {
        next::find(self.name).or_else(|| next::find(self.other_name?))
    }
}

/// `dlopen(3)`
pub static DLOPEN: RealFunction = RealFunction::new(c"dlopen");
/// `dlmopen(3)`
pub static DLMOPEN: RealFunction = RealFunction::new(c"dlmopen");
/// `dlclose(3)`
pub static DLCLOSE: RealFunction = RealFunction::new(c"dlclose");
/// The C library's `dl_iterate_phdr(3)`. Programs such as those built on Seastar export a
/// function of that name which answers from a cache.
static DL_ITERATE_PHDR: RealFunction = RealFunction::new(c"dl_iterate_phdr");
static DLINFO: RealFunction = RealFunction::new(c"dlinfo");
/// glibc has `pthread_atfork(3)` in every object that calls it, and there it calls this
/// function, which gets a fourth argument. musl has it in the C library.
static REGISTER_ATFORK: RealFunction =
    RealFunction { other_name: Some(c"pthread_atfork"), ..RealFunction::new(c"__register_atfork") };

/// A function that only musl defines.
static OF_MUSL: RealFunction = RealFunction::new(symbols::MUSL_FUNCTION);

const ALL: [&RealFunction; 7] = [&DLOPEN, &DLMOPEN, &DLCLOSE, &DL_ITERATE_PHDR, &DLINFO, &REGISTER_ATFORK, &OF_MUSL];

/// Returns whether the C library is musl. It differs from glibc in what the library relies on
/// (source: musl, `ldso/dynlink.c`):
///
/// * `dlclose` unloads nothing, and there are no namespaces.
/// * `dlopen` looks at neither its return address nor the object in which that lies.
/// * The loader holds its lock while it maps and relocates objects, and releases it before their
///   constructors run. The list shows an object only to those who have taken that lock since it
///   was added, so every listed object is relocated.
/// * The constructors of preloaded objects run before all others, after the executable's entry
///   point.
pub fn is_musl() -> bool {
    musl_address().is_some()
}

/// Returns an address in musl's only object, if the C library is musl.
pub fn musl_address() -> Option<usize> {
    // The look-up of this function looks up the other one, too.
    DLOPEN.address()?;
    OF_MUSL.known()
}

/// Calls `pthread_atfork(3)` of the C library. It may be called with the library's lock held,
/// because it looks nothing up: that has happened with [`DLOPEN`]. If it fails, for lack of
/// memory, all children are like those made by `_Fork`.
///
/// # Safety
/// The handlers must stay loaded until the process ends. They must be sound to call at every
/// fork, in the thread that forks.
pub unsafe fn register_fork_handlers(before: ForkHandler, in_parent: ForkHandler, in_child: ForkHandler) {
    type RegisterAtfork = unsafe extern "C" fn(ForkHandler, ForkHandler, ForkHandler, usize) -> c_int;
    /// `__dso_handle` of an object that is never unloaded: glibc takes no handler back for it.
    const NO_OBJECT: usize = 0;
    let Some(address) = REGISTER_ATFORK.known() else { return };
    // SAFETY: the address is that of a function which the C library defines by one of these names.
    // One has the type of `__register_atfork` (source: nptl/libc_pthread_init.c), the other that of
    // pthread_atfork(3), to which a fourth argument in a register makes no difference.
    let function = unsafe { core::mem::transmute::<usize, RegisterAtfork>(address) };
    // SAFETY: the handlers stay loaded and are sound to call: this function's contract.
    unsafe { function(before, in_parent, in_child, NO_OBJECT) };
}

type ForkHandler = unsafe extern "C" fn();
type IterateCallback = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;
type Iterate = unsafe extern "C" fn(Option<IterateCallback>, *mut c_void) -> c_int;

/// An object in the loader's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Load bias.
    pub base: usize,
    /// Address of the program headers, which identifies the object.
    pub headers: usize,
    /// Number of program headers.
    pub header_count: usize,
    /// Address of the name, a C string that lives as long as the object.
    pub name: usize,
}

/// How often objects were loaded and unloaded since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `dlpi_adds`: while it is unchanged, no object was loaded in any namespace.
    pub adds: u64,
    /// `dlpi_subs`: if it has changed, an object was unloaded. It may wrap around in glibc.
    pub subs: u64,
}

/// Returns the counters, which the loader passes with the first object of the list.
pub fn counters() -> Option<Counters> {
    while_held(|counters| counters)
}

/// Replaces `list` by the loader's list, in its order: the executable first. Entries that have not
/// changed stay.
pub fn snapshot(list: &mut ObjectList) -> Result<Counters> {
    struct Collector<'a> {
        list: &'a mut KeptObjects,
        /// How many entries of the loader's list are in `list`.
        len: usize,
        counters: Counters,
        failure: Option<Errno>,
    }
    unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes an info that lives during the callback. `data` is the address
        // of the local `collector` below, to which only this callback refers during the iteration.
        let (collector, info) = unsafe { (&mut *data.cast::<Collector<'_>>(), &*info) };
        collector.counters = counters_of(info);
        let object = Loaded {
            base: info.dlpi_addr as usize,
            headers: info.dlpi_phdr.addr(),
            header_count: info.dlpi_phnum.into(),
            name: info.dlpi_name.addr(),
        };
        match collector.list.set(collector.len, object) {
            Ok(()) => {
                collector.len += 1;
                0
            }
            Err(error) => {
                collector.failure = Some(error);
                1
            }
        }
    }
    let mut collector = Collector { list: &mut list.list, len: 0, counters: Counters::default(), failure: None };
    // SAFETY: `collect` accepts the address of a `Collector`, which `data` is.
    let iterated = unsafe { iterate(collect, (&raw mut collector).cast()) };
    let Collector { list, len, counters, failure } = collector;
    list.truncate(len);
    iterated.ok_or(Errno(libc::ENOSYS))?;
    failure.map_or(Ok(counters), Err)
}

/// Runs `work` with the counters while no object of any namespace can be unloaded, and returns
/// its result. glibc holds `dl_load_write_lock` during the callback, and only with that lock does
/// it unmap an object (source: `_dl_close_worker`) or extend a list (source:
/// `_dl_add_to_namespace_list`). musl holds no lock and never unloads; there objects may be added
/// meanwhile, which changes the counters. `work` must neither call the loader nor wait for another
/// thread. `None`, without a run of `work`, if the loader lacks the function or while the process
/// is forking.
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
        // SAFETY: the loader passes an info that lives during the callback. `data` is the address
        // of the local `held` below, to which only this callback refers during the iteration.
        let (held, info) = unsafe { (&mut *data.cast::<Held<T, Work>>(), &*info) };
        held.done = Some((held.work)(counters_of(info)));
        1
    }
    let mut held = Held { work, done: None };
    // SAFETY: `first` accepts the address of a `Held` of the same types, which `data` is.
    unsafe { iterate(first::<T, Work>, (&raw mut held).cast()) };
    held.done
}

fn counters_of(info: &libc::dl_phdr_info) -> Counters {
    Counters { adds: info.dlpi_adds, subs: info.dlpi_subs }
}

/// Calls the C library's `dl_iterate_phdr(3)`. `None` if no object defines it, or if no
/// iteration can begin because the process is forking or this thread is already iterating.
///
/// # Safety
/// `callback` must be sound to call with `data` and any info that the loader passes.
unsafe fn iterate(callback: IterateCallback, data: *mut c_void) -> Option<c_int> {
    let function = dl_iterate_phdr()?;
    let _iteration = iterations::begin()?;
    // SAFETY: dl_iterate_phdr(3) only calls `callback` with `data` and infos of its own, which is
    // sound: this function's contract.
    Some(unsafe { function(Some(callback), data) })
}

/// Calls the C library's `dl_iterate_phdr(3)` like [`iterate`], on musl also if a fork takes too
/// long. No child of musl's `fork` finds the lock of the list taken: `fork` takes it before it
/// makes the child, and frees it in both processes (source: `__ldso_atfork`, since musl 1.2.2,
/// which is the first version with `_Fork`).
///
/// # Safety
/// As for [`iterate`].
unsafe fn iterate_despite_fork(callback: IterateCallback, data: *mut c_void) -> Option<c_int> {
    let function = dl_iterate_phdr()?;
    let iteration = iterations::begin();
    if iteration.is_none() && (!is_musl() || iterations::is_within() || next::find(c"_Fork").is_none()) {
        return None;
    }
    // SAFETY: as in `iterate`, by this function's contract.
    Some(unsafe { function(Some(callback), data) })
}

/// Returns the C library's function, if an object defines it.
fn dl_iterate_phdr() -> Option<Iterate> {
    let address = DL_ITERATE_PHDR.address()?;
    // SAFETY: the address is that of a function which an object defines by this name, so it has
    // the type that dl_iterate_phdr(3) states.
    Some(unsafe { core::mem::transmute::<usize, Iterate>(address) })
}
