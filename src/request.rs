//! What the host asks for through the C interface: from a request to a sweep,
//! or to a copy of the records. No lock is held when anything here returns.
//!
//! Objects are pinned while the loader can unload none of them (see
//! [`crate::held_list`]).

use core::ffi::{CStr, c_void};

use sopin_core::memory::OwnMemory;
use sopin_core::mode::Mode;
use sopin_core::pages::PageVec;
use sopin_core::records::Record;
use sopin_core::settings::Level;
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::vmas::{FileId, Maps};

use crate::filters;
use crate::held_list::{self, Namespace};
use crate::large_copies::LargeCopies;
use crate::loader::{self, Counters, Loaded, ObjectList};
use crate::registry::{self, Guard, State};
use crate::sweep::{Sweep, Verdict, Wanted};
use crate::{candidates, original, pinner};

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
pub fn pin_everything(announce: usize) -> Pinned {
    pin(Wanted::Everything, Namespace::Program, announce)
}

/// Pins the object that was loaded from `path`.
pub fn pin_path(path: &CStr, announce: usize) -> Pinned {
    filters::look().ok_or(Refusal::Busy)?;
    let given = path.to_bytes();
    if given.is_empty() {
        return Err(Refusal::Invalid);
    }
    let mut buffer = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| Refusal::System)?;
    // The kernel's path for the file that this leads to now; none if the file
    // has been removed since it was loaded.
    let canonical = if given.contains(&b'/') { canonical(path, &mut buffer).unwrap_or_default() } else { &[] };
    pin(Wanted::Path { given, canonical }, Namespace::Program, announce)
}

/// Pins the object of an open `handle` and those that it needs.
///
/// # Safety
/// `handle` must be null or come from `dlopen(3)` or `dlmopen(3)`, and stay open.
pub unsafe fn pin_handle(handle: *mut c_void, announce: usize) -> Pinned {
    filters::look().ok_or(Refusal::Busy)?;
    // A mistaken handle is no reason to take the host down.
    if OwnMemory::new().read::<[u64; 5]>(handle.addr()).is_err() {
        return Err(Refusal::Invalid);
    }
    let map = loader::link_map(handle).ok_or(Refusal::Invalid)?;
    let namespace = Namespace::of(handle).ok_or(Refusal::Invalid)?;
    pin(Wanted::Dynamic(map.dynamic), namespace, announce)
}

fn pin(wanted: Wanted<'_>, namespace: Namespace, announce: usize) -> Pinned {
    let memory = OwnMemory::new();
    pinner::prepare(registry::lock_in_handler).ok_or(Refusal::Busy)?.map_err(|_| Refusal::System)?;
    if pinner::is_off() {
        return Err(Refusal::Off);
    }
    let mut large = LargeCopies::default();
    loop {
        let mut objects = ObjectList::take();
        let naps_for_fork = registry::MAX_NAPS_FOR_FORK;
        let mut work = |guard: Guard, objects: &[Loaded], counters: Counters| {
            let mut sweep = Sweep::new(guard, &memory, &mut large, announce, namespace.is_other());
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
    let has_unloaded = counters.subs != registry::recorded_counters().subs;
    sweep.run_request(objects, wanted, has_unloaded, counters.subs).map_err(|cause| {
        let State { settings, log, .. } = &mut *sweep.guard;
        log.line(settings, Level::Warn, format_args!("request: {cause}"));
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
    original: FileId,
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
    let mut guard = registry::lock_in_handler(looked).ok_or(Refusal::Busy)?;
    pinner::initialise(&mut guard).map_err(|_| Refusal::System)?;
    let mode = guard.settings.mode;
    let copied = copy_records(&mut guard, &loaded);
    drop(guard);
    copied.map(|objects| Description { mode, objects }).map_err(|Errno(_)| Refusal::System)
}

fn copy_records(state: &mut State, listed: &[Loaded]) -> sys::Result<PageVec<Described>> {
    let mut objects = PageVec::new();
    for loaded in listed {
        let record = state.published(loaded.headers).unwrap_or_else(|| {
            let mut unknown = Record::default();
            unknown.headers = loaded.headers as u64;
            unknown.base = loaded.base as u64;
            unknown.name = loaded.name as u64;
            unknown
        });
        let original = state.recorded(loaded.headers).unwrap_or_default().original;
        objects.push(Described { record, original })?;
    }
    for index in 0..state.all_published().len() {
        let Some(record) = state.all_published().get(index).copied() else { break };
        if record.is_in_other_namespace() {
            let original = state.recorded(record.headers as usize).unwrap_or_default().original;
            objects.push(Described { record, original })?;
        }
    }
    Ok(objects)
}

/// Reads the path of an object's original file into `buffer`, with a NUL behind
/// it, or the loader's name for it where that cannot be found out; its length.
pub fn read_path(object: &Described, maps: Option<&mut Maps>, memory: &OwnMemory, buffer: &mut [u8]) -> usize {
    let room = buffer.len().saturating_sub(1);
    let (path, end) = buffer.split_at_mut(room);
    let shown = maps.and_then(|maps| {
        let address = original::shown_at(&object.record, object.original, maps)
            // Not recorded: nothing of it has been replaced.
            .or_else(|| (object.record.start == 0).then_some(object.record.headers as usize))?;
        maps.path_at(address, path).ok().map(<[u8]>::len)
    });
    let len = shown.filter(|len| *len != 0).unwrap_or_else(|| {
        let loaded = Loaded {
            base: object.record.base as usize,
            headers: object.record.headers as usize,
            header_count: 0,
            name: object.record.name as usize,
        };
        candidates::read_loader_name(memory, &loaded, path)
    });
    if let Some(slot) = path.get_mut(len).or_else(|| end.first_mut()) {
        *slot = 0;
    }
    len
}
