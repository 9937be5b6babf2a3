//! What the host asks for through the C interface: from a request to a sweep,
//! or to a copy of the records. No lock is held when anything here returns.
//!
//! Objects are pinned while the loader can unload none of them (see
//! [`crate::held_list`]).

use core::ffi::{CStr, c_void};

use sopin_core::memory::OwnMemory;
use sopin_core::pages::PageVec;
use sopin_core::records::Record;
use sopin_core::settings::{Level, Mode};
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::vmas::{FileId, Maps};

use crate::filters;
use crate::freshness;
use crate::held_list::{self, Namespace};
use crate::large_copies::LargeCopies;
use crate::loader::{self, Counters, Loaded, ObjectList};
use crate::lock::{self, Guard};
use crate::object_path::ObjectPath;
use crate::original;
use crate::preparation;
use crate::published;
use crate::registry::Registry;
use crate::sweep::{Sweep, Verdict, Wanted};

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The handle or the path cannot be one.
    Invalid,
    /// `SOPIN_MODE=off`
    Off,
    /// A lock could not be had.
    Busy,
    /// The system refused something that everything needs.
    System,
}

/// The result of a request to pin.
pub type Pinned = Result<Verdict, Refusal>;

/// Pins every object of the program's namespace as far as that is possible.
pub fn pin_everything() -> Pinned {
    pin(Wanted::Everything, Namespace::Program)
}

/// Pins the object that was loaded from `path`.
pub fn pin_path(path: &CStr) -> Pinned {
    filters::look().ok_or(Refusal::Busy)?;
    let given = path.to_bytes();
    if given.is_empty() {
        return Err(Refusal::Invalid);
    }
    let mut buffer = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| Refusal::System)?;
    // The kernel's path for the file that this leads to now; none if the file
    // has been removed since it was loaded.
    let canonical = if given.contains(&b'/') { canonical(path, &mut buffer).unwrap_or_default() } else { &[] };
    pin(Wanted::Path { given, canonical }, Namespace::Program)
}

/// Pins the object of an open `handle` and those that it needs.
///
/// # Safety
/// `handle` must be null or come from `dlopen(3)` or `dlmopen(3)`, and stay open.
pub unsafe fn pin_handle(handle: *mut c_void) -> Pinned {
    filters::look().ok_or(Refusal::Busy)?;
    // A mistaken handle is no reason to take the host down.
    if OwnMemory::new().read::<[u64; 5]>(handle.addr()).is_err() {
        return Err(Refusal::Invalid);
    }
    let map = loader::link_map(handle).ok_or(Refusal::Invalid)?;
    let namespace = Namespace::of(handle).ok_or(Refusal::Invalid)?;
    pin(Wanted::Dynamic(map.dynamic), namespace)
}

fn pin(wanted: Wanted<'_>, namespace: Namespace) -> Pinned {
    let memory = OwnMemory::new();
    preparation::prepare(lock::lock_in_handler).ok_or(Refusal::Busy)?.map_err(|_| Refusal::System)?;
    if preparation::is_off() {
        return Err(Refusal::Off);
    }
    let mut large = LargeCopies::default();
    loop {
        let mut objects = ObjectList::take();
        let naps_for_fork = lock::MAX_NAPS_FOR_FORK;
        let mut work = |mut guard: Guard, objects: &[Loaded], counters: Counters| {
            let mut sweep = Sweep::new(&mut guard, &memory, &mut large, namespace.is_other());
            sweep_once(&mut sweep, objects, wanted, counters)
        };
        match held_list::sweep(namespace, &memory, &mut objects, naps_for_fork, &mut work) {
            Ok(Ok(None)) => large.make(&memory),
            Ok(Ok(Some(verdict))) => return Ok(verdict),
            Ok(Err(refusal)) => return Err(refusal),
            Err(held_list::Refusal::NoList(_)) if namespace.is_other() => return Err(Refusal::System),
            Err(_) => return Err(Refusal::Busy),
        }
    }
}

/// One sweep under the lock; `None` if copies are to be made first.
fn sweep_once(
    sweep: &mut Sweep<'_>,
    objects: &[Loaded],
    wanted: Wanted<'_>,
    counters: Counters,
) -> Result<Option<Verdict>, Refusal> {
    let has_unloaded = counters.subs != freshness::recorded_counters().subs;
    sweep.run_request(objects, wanted, has_unloaded, counters.subs).map_err(|cause| {
        sweep.reporter().line(Level::Warn, format_args!("request: {cause}"));
        Refusal::System
    })
}

/// The path without symbolic links, as the kernel shows it in
/// `/proc/PID/maps`.
fn canonical<'a>(path: &CStr, buffer: &'a mut [u8]) -> sys::Result<&'a [u8]> {
    let file = sys::open(path, libc::O_PATH, 0)?;
    let link = sopin_core::line::Line::<64>::format_raw(format_args!("/proc/self/fd/{}\0", file.raw()));
    sys::readlinkat(&Fd::CWD, link.as_c_str(), buffer)
}

/// One object as [`describe_all`] finds it.
#[derive(Clone, Copy)]
pub struct Described {
    /// What is published of it; nothing but names and addresses if it is not
    /// recorded.
    pub record: Record,
    /// The file that it was loaded from, if that is known.
    original: Option<FileId>,
}

/// What this process says about itself.
pub struct Description {
    /// The mode in force.
    pub mode: Mode,
    /// The objects: first the loader's list in its order, then those of other
    /// namespaces.
    pub objects: PageVec<Described>,
}

/// Copies the records.
pub fn describe_all() -> Result<Description, Refusal> {
    let looked = filters::look().ok_or(Refusal::Busy)?;
    let mut loaded = ObjectList::take();
    // A handler of the host's that asks too, from inside the walk, would wait for
    // a fork that waits for the walk.
    let signals = sys::SignalsBlocked::new().ok();
    loader::snapshot(&mut loaded).map_err(|_| Refusal::Busy)?;
    drop(signals);
    let mut guard = lock::lock_in_handler(looked).ok_or(Refusal::Busy)?;
    preparation::initialise(&mut guard).map_err(|_| Refusal::System)?;
    let mode = guard.reporter().settings().mode;
    let copied = copy_records(guard.registry(), &loaded);
    drop(guard);
    copied.map(|objects| Description { mode, objects }).map_err(|Errno(_)| Refusal::System)
}

fn copy_records(registry: &mut Registry, listed: &[Loaded]) -> sys::Result<PageVec<Described>> {
    let mut objects = PageVec::new();
    for loaded in listed {
        let (original, record) = match registry.look_up(loaded.headers) {
            Some((entry, record)) => (entry.original, record),
            None => (None, published::unrecorded(loaded)),
        };
        objects.push(Described { record, original })?;
    }
    for index in 0..registry.all_published().len() {
        let Some(record) = registry.all_published().get(index).copied() else { break };
        if record.is_in_other_namespace() {
            let original = registry.recorded(record.headers as usize).and_then(|entry| entry.original);
            objects.push(Described { record, original })?;
        }
    }
    Ok(objects)
}

/// Reads the path of an object's original file into `buffer`, or the loader's name for it
/// where that cannot be found out.
pub fn read_path<'a>(
    object: &Described,
    maps: Option<&mut Maps>,
    memory: &OwnMemory,
    buffer: &'a mut [u8],
) -> ObjectPath<'a> {
    let record = &object.record;
    let (base, headers, name) = (record.base as usize, record.headers as usize, record.name as usize);
    let loaded = Loaded { base, headers, header_count: 0, name };
    let shown = maps.and_then(|maps| {
        // Of an object that is not recorded nothing has been replaced.
        let unchanged = (record.start == 0).then_some(headers);
        Some((original::shown_at(record, object.original, maps).or(unchanged)?, maps))
    });
    match shown {
        Some((address, maps)) => ObjectPath::mapped_at(address, maps, memory, &loaded, buffer),
        None => ObjectPath::named_by_loader(memory, &loaded, buffer),
    }
}
