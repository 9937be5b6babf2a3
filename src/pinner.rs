//! From "something was loaded" to a sweep: which objects it is about, and what
//! has to be ready before the first one. The steps of a sweep are in
//! [`crate::sweep`].
//!
//! There are four reasons for a sweep:
//!
//! | [`Event`] | what keeps objects from being unloaded | objects considered |
//! |---|---|---|
//! | an object announces itself | the loader's lock; startup | all new ones that are proven relocated |
//! | our own constructor (musl: nobody announces) | startup | the same |
//! | `dlopen` has returned | the handle | the new ones of the handle's group |
//! | `dlmopen` has returned | the list is held, see [`crate::held_list`] | those of the handle's namespace that are proven relocated |
//!
//! After a `dlopen` the list is not held: the members of a group cannot vanish
//! while their handle is open, and a child that another thread makes without fork
//! handlers (`_Fork`, raw `clone`) would find the loader's lock taken for ever.
//! The list is taken before our lock, since the loader's locks come first.

use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};

use sopin_core::cause::Cause;
use sopin_core::memory::OwnMemory;
use sopin_core::mode::Mode;
use sopin_core::object::{Object, file_name};
use sopin_core::settings::{Children, Complaint, Level, Settings};
use sopin_core::sys::{self, Errno};

use crate::environment;
use crate::filters::{self, Looked};
use crate::held_list::{self, Namespace};
use crate::large_copies::LargeCopies;
use crate::loader::{self, Loaded, ObjectList};
use crate::log::Log;
use crate::published;
use crate::registry::{self, Guard, State};
use crate::sweep::{self, Root, Sweep, Swept};

/// What has happened.
#[derive(Clone, Copy)]
pub enum Event {
    /// An object's `_init` has called `__gmon_start__`; the return address.
    Announced(usize),
    /// This library's constructor runs.
    Constructed,
    /// `dlopen` has returned this handle.
    Opened(*mut c_void),
    /// `dlmopen` has returned this handle.
    OpenedInNamespace(*mut c_void),
}

/// `SOPIN_MODE=off`, known after the first sweep.
static IS_OFF: AtomicBool = AtomicBool::new(false);

/// The settings are read and the fork handlers registered.
static IS_PREPARED: AtomicBool = AtomicBool::new(false);

/// How many naps it waits for the lock: the next sweep does it otherwise.
const NAPS_FOR_UNLOAD: u32 = 100;

/// How often `sweep_unloaded` tries to see a list that no sweep overtakes.
const MAX_ATTEMPTS: u32 = 4;

/// Whether the user has turned pinning off.
pub fn is_off() -> bool {
    IS_OFF.load(Ordering::Relaxed)
}

/// Pins what `event` has brought; `announce` is the address of our `__gmon_start__`.
pub fn sweep(event: Event, announce: usize) {
    if is_off() {
        return;
    }
    match event {
        Event::Announced(caller) => sweep_initialised(caller, announce),
        Event::Constructed => sweep_initialised(announce, announce),
        Event::Opened(handle) => sweep_opened(handle, |_| Some(Namespace::Program), announce),
        Event::OpenedInNamespace(handle) => sweep_opened(handle, Namespace::of, announce),
    }
}

/// Sweeps while the object with the address `inside` is initialised.
fn sweep_initialised(inside: usize, announce: usize) {
    if !sweep_program(Root::Containing(inside), announce) {
        registry::note_missed_sweep();
    }
}

/// Sweeps after the loader has returned a `handle`. Nothing was to announce itself
/// here, so nothing is missed if that is not possible.
fn sweep_opened(handle: *mut c_void, namespace_of: fn(*mut c_void) -> Option<Namespace>, announce: usize) {
    if loader::counters().is_none_or(registry::is_current) {
        return;
    }
    let (Some(map), Some(namespace)) = (loader::link_map(handle), namespace_of(handle)) else { return };
    let root = Root::Dynamic(map.dynamic);
    if namespace.is_other() {
        sweep_namespace(namespace, root, announce);
    } else {
        sweep_program(root, announce);
    }
}

/// Sweeps the objects of the program's namespace. Returns whether that was possible.
fn sweep_program(root: Root, announce: usize) -> bool {
    let memory = OwnMemory::new();
    let mut large = LargeCopies::default();
    loop {
        match sweep_program_once(root, announce, &memory, &mut large) {
            Some(Swept::NeedsCopies) => large.make(&memory),
            Some(Swept::Done) => return true,
            None => return false,
        }
    }
}

/// `None` if that was not possible.
fn sweep_program_once(root: Root, announce: usize, memory: &OwnMemory, large: &mut LargeCopies) -> Option<Swept> {
    // Before the list is taken: later ones may concern what is not in it.
    let missed = registry::missed_sweeps();
    if registry::is_current(loader::counters()?) {
        return Some(Swept::Done);
    }
    let looked = filters::look()?;
    let mut objects = ObjectList::take();
    let listed = loader::snapshot(&mut objects);
    let mut guard = registry::lock(looked)?;
    initialise(&mut guard).ok()?;
    drop_preload_when_ready(&mut guard, memory, &objects, announce);
    if is_off() {
        return Some(Swept::Done);
    }
    let mut sweep = Sweep::new(guard, memory, large, announce, false);
    let done = listed.map_err(no_list).and_then(|counters| sweep.run(&objects, root, counters, missed));
    done.map_err(|cause| sweep.give_up(&objects, root, cause)).ok()
}

/// Sweeps another namespace, in which any object but that of an open handle may
/// be unloaded at any time: while the loader can unload nothing.
fn sweep_namespace(namespace: Namespace, root: Root, announce: usize) {
    let missed = registry::missed_sweeps();
    // Registering fork handlers may allocate, and an allocator may load something:
    // not while the list is held.
    if !matches!(prepare(registry::lock), Some(Ok(()))) || is_off() {
        return;
    }
    let memory = OwnMemory::new();
    let mut large = LargeCopies::default();
    loop {
        let mut objects = ObjectList::take();
        let mut work = |guard: Guard, objects: &[Loaded], counters| {
            let mut sweep = Sweep::new(guard, &memory, &mut large, announce, true);
            let swept = sweep.run(objects, root, counters, missed);
            swept.unwrap_or_else(|cause| {
                sweep.give_up(objects, root, cause);
                Swept::Done
            })
        };
        match held_list::sweep(namespace, &memory, &mut objects, registry::MAX_NAPS, &mut work) {
            Ok(Swept::NeedsCopies) => large.make(&memory),
            Err(held_list::Refusal::NoList(errno)) => {
                if let Some(guard) = filters::look().and_then(registry::lock) {
                    Sweep::new(guard, &memory, &mut large, announce, true).give_up(&[], root, no_list(errno));
                }
                return;
            }
            Ok(Swept::Done) | Err(held_list::Refusal::Busy) => return,
        }
    }
}

fn no_list(errno: Errno) -> Cause {
    Cause::call("list the loaded objects", errno)
}

/// Forgets the objects that `dlclose` has unloaded. If other threads keep
/// getting in between, the next sweep does.
pub fn sweep_unloaded() {
    let Some(counters) = loader::counters() else { return };
    if is_off() || counters.subs == registry::recorded_counters().subs {
        return;
    }
    let mut objects = ObjectList::take();
    // The list is taken without the lock. What another sweep has recorded in
    // between may be missing in it, and must not be forgotten for that.
    for _ in 0..MAX_ATTEMPTS {
        let generation = registry::generation();
        let Ok(counters) = loader::snapshot(&mut objects) else { return };
        let Some(mut guard) = registry::lock_quietly(NAPS_FOR_UNLOAD) else { return };
        if !guard.is_initialised {
            return;
        }
        if registry::generation() != generation {
            continue;
        }
        sweep::forget_unloaded(&mut guard, &objects);
        // If something was loaded meanwhile it may lie where something known
        // was: then the next sweep has to look at what is mapped there.
        if counters.adds == registry::recorded_counters().adds {
            registry::set_counters(&guard, counters);
        }
        return;
    }
}

/// Prepares for a sweep with the lock that `lock` takes, unless that was done
/// before; `None` if the lock cannot be had.
pub fn prepare(lock: fn(Looked) -> Option<Guard>) -> Option<sys::Result<()>> {
    if IS_PREPARED.load(Ordering::Relaxed) {
        return Some(Ok(()));
    }
    filters::look().and_then(lock).map(|mut guard| initialise(&mut guard))
}

/// First sweep: reads the settings and prepares for forks. Without settings
/// nothing may be pinned, and the next sweep tries again.
pub fn initialise(guard: &mut Guard) -> sys::Result<()> {
    if guard.is_initialised {
        return Ok(());
    }
    guard.log.remember_stderr();
    let State { settings, log, .. } = &mut **guard;
    if let Err(errno) = read_settings(settings, log) {
        if log.is_new(Cause::call("read the settings", errno)) {
            log.line(settings, Level::Error, format_args!("the settings cannot be read: {errno}; left unmodified"));
        }
        return Err(errno);
    }
    IS_OFF.store(settings.mode == Mode::Off, Ordering::Relaxed);
    published::set_mode(settings.mode);
    registry::prepare_for_forks();
    guard.is_initialised = true;
    IS_PREPARED.store(true, Ordering::Relaxed);
    Ok(())
}

fn read_settings(settings: &mut Settings, log: &mut Log) -> sys::Result<()> {
    let mut complaints = 0;
    *settings = environment::settings(|_| complaints += 1)?;
    if complaints != 0 {
        let complain = |complaint: &Complaint<'_>| log.line(settings, Level::Error, format_args!("{complaint}"));
        environment::settings(complain)?;
    }
    Ok(())
}

/// For `SOPIN_CHILDREN=drop`: as soon as there is an environment to change.
fn drop_preload_when_ready(guard: &mut Guard, memory: &OwnMemory, objects: &[Loaded], announce: usize) {
    let state = &mut **guard;
    if state.settings.children == Children::Drop && !state.is_preload_dropped && environment::is_ready() {
        state.is_preload_dropped = true;
        drop_own_preload(memory, objects, announce, &mut state.path_buffer);
    }
}

/// `here` is an address in this library.
fn drop_own_preload(memory: &OwnMemory, objects: &[Loaded], here: usize, buffer: &mut [u8]) {
    let own = objects.iter().find(|loaded| {
        let object = Object::read(memory, loaded.base, loaded.headers, loaded.header_count);
        object.is_ok_and(|object| object.span.contains(here))
    });
    if let Some(Ok(path)) = own.map(|own| memory.read_string(own.name, buffer)) {
        environment::drop_from_preload(file_name(path));
    }
}
