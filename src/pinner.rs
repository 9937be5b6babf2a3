//! From an event to a sweep: which objects the sweep is about, and what prevents their
//! being unloaded meanwhile. The steps of a sweep are in [`crate::sweep`].
//!
//! There are four reasons for a sweep after objects were loaded:
//!
//! | [`Event`] | what prevents unloading | objects considered |
//! |---|---|---|
//! | an object announces itself | the loader's lock, the process is starting, or musl, which never unloads | all new ones that are proven relocated |
//! | the library's constructor runs | the process is starting, or musl, which never unloads | the same |
//! | `dlopen` has returned | the open handle | the new ones of the handle's group |
//! | `dlmopen` has returned | the list is held, see [`crate::held_list`] | those of the handle's namespace that are proven relocated |
//!
//! After a `dlopen` the list is not held. The members of a group cannot be unloaded while
//! their handle is open. And if another thread creates a child without fork handlers
//! (`_Fork`, raw `clone`) while the list is held, that child finds the loader's lock taken
//! for ever. The list is copied before the library's lock is taken, since the loader's locks
//! are taken first.

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::ProcessMemory;
use sopin_core::sys::Errno;

use crate::filters;
use crate::freshness;
use crate::held_list::{self, Namespace};
use crate::large_copies::LargeCopies;
use crate::loader::{self, Counters, Loaded, ObjectList, OpenHandle};
use crate::lock::{self, Guard};
use crate::own;
use crate::preparation::{self, is_off};
use crate::sweep::{self, Root, Sweep, Swept};

/// What has happened.
#[derive(Clone, Copy)]
pub enum Event {
    /// An object's `_init` has called `__gmon_start__`, or its start-up code has called
    /// `__register_frame_info` on musl; an address in the object.
    Announced(usize),
    /// This library's constructor runs.
    Constructed,
    /// `dlopen` has returned this handle.
    Opened(OpenHandle),
    /// `dlmopen` has returned this handle.
    OpenedInNamespace(OpenHandle),
}

/// How many naps [`sweep_unloaded`] waits for the lock. If it gives up, the next sweep forgets
/// the objects.
const NAPS_FOR_UNLOAD: u32 = 100;

/// How often [`sweep_unloaded`] copies the list again because another sweep has ended since.
const MAX_ATTEMPTS: u32 = 4;

/// Pins the objects that `event` is about, unless pinning is off.
pub fn sweep(event: Event) {
    if is_off() {
        return;
    }
    match event {
        Event::Announced(caller) => sweep_initialised(caller),
        Event::Constructed => sweep_initialised(own::gmon_start()),
        Event::Opened(handle) => sweep_opened(handle, |_| Some(Namespace::Program)),
        Event::OpenedInNamespace(handle) => sweep_opened(handle, Namespace::of),
    }
}

/// Sweeps while the loader initialises the object that contains the address `inside`.
fn sweep_initialised(inside: usize) {
    if !sweep_program(Root::Containing(inside)) {
        freshness::note_missed_sweep();
    }
}

/// Sweeps after the loader has returned a `handle`. If the sweep is not possible, it does not
/// count as missed, because only a sweep after an announcement does.
fn sweep_opened(handle: OpenHandle, namespace_of: fn(OpenHandle) -> Option<Namespace>) {
    if loader::counters().is_none_or(freshness::is_current) {
        return;
    }
    let (Some(map), Some(namespace)) = (loader::link_map(handle), namespace_of(handle)) else { return };
    let root = Root::Dynamic(map.dynamic);
    if namespace.is_other() {
        sweep_namespace(namespace, root);
    } else {
        sweep_program(root);
    }
}

/// Sweeps the objects of the program's namespace. Returns whether that was possible.
fn sweep_program(root: Root) -> bool {
    let memory = ProcessMemory::own();
    let mut large = LargeCopies::default();
    loop {
        match sweep_program_once(root, &memory, &mut large) {
            Some(Swept::NeedsCopies) => large.make(&memory),
            Some(Swept::Done) => return true,
            None => return false,
        }
    }
}

/// Sweeps the objects of the program's namespace once. `None` if that was not possible.
fn sweep_program_once(root: Root, memory: &ProcessMemory, large: &mut LargeCopies) -> Option<Swept> {
    // The count is read before the list is copied, because sweeps that are missed later may be
    // about objects that are not in the list.
    let missed = freshness::missed_sweeps();
    if freshness::is_current(loader::counters()?) {
        return Some(Swept::Done);
    }
    let looked = filters::look()?;
    let mut objects = ObjectList::take();
    let listed = loader::snapshot(&mut objects);
    let mut guard = lock::lock(looked)?;
    preparation::initialise(&mut guard).ok()?;
    preparation::drop_preload_when_ready(&mut guard, memory, &objects);
    if is_off() {
        return Some(Swept::Done);
    }
    let recorded = objects.recorded(guard.registry().removed());
    let mut sweep = Sweep::new(&mut guard, memory, large, false);
    sweep.know_recorded(recorded);
    let done = listed.map_err(no_list).and_then(|counters| sweep.run(&objects, root, counters, missed));
    let swept = done.map_err(|cause| sweep.give_up(&objects, root, cause)).ok();
    let has_recorded_all = sweep.has_recorded_all();
    drop(sweep);
    // That the counters are those of this list would not prove it: another thread may have swept at
    // these counters, and a third one may since have forgotten an object of the list that it has
    // unloaded.
    if has_recorded_all {
        objects.note_recorded(guard.registry().removed());
    }
    swept
}

/// Sweeps another namespace while the list is held: any of its objects but that of the open
/// handle may otherwise be unloaded at any time.
fn sweep_namespace(namespace: Namespace, root: Root) {
    let missed = freshness::missed_sweeps();
    // Registering fork handlers may allocate, and an allocator may call the loader, which must
    // not happen while the list is held. So it happens before.
    if !matches!(preparation::prepare(lock::lock), Some(Ok(()))) || is_off() {
        return;
    }
    let memory = ProcessMemory::own();
    let mut large = LargeCopies::default();
    loop {
        let mut objects = ObjectList::take();
        let mut work = |mut guard: Guard, objects: &[Loaded], counters: Counters| {
            let mut sweep = Sweep::new(&mut guard, &memory, &mut large, true);
            let swept = sweep.run(objects, root, counters, missed);
            swept.unwrap_or_else(|cause| {
                sweep.give_up(objects, root, cause);
                Swept::Done
            })
        };
        match held_list::sweep(namespace, &memory, &mut objects, lock::MAX_NAPS, &mut work) {
            Ok(Swept::NeedsCopies) => large.make(&memory),
            Err(held_list::Refusal::NoList(errno)) => {
                if let Some(mut guard) = filters::look().and_then(lock::lock) {
                    Sweep::new(&mut guard, &memory, &mut large, true).give_up(&[], root, no_list(errno));
                }
                return;
            }
            Ok(Swept::Done) | Err(held_list::Refusal::Busy) => return,
        }
    }
}

fn no_list(errno: Errno) -> Cause {
    Cause::call(Operation::ListLoadedObjects, errno)
}

/// Forgets the objects that `dlclose` has unloaded. If sweeps of other threads end during each
/// attempt, the next sweep forgets them.
pub fn sweep_unloaded() {
    let Some(counters) = loader::counters() else { return };
    if is_off() || counters.subs == freshness::recorded_counters().subs {
        return;
    }
    let mut objects = ObjectList::take();
    // The list is copied without the lock. An object that another sweep has recorded since may
    // be missing in it, and must not be forgotten for that.
    for _ in 0..MAX_ATTEMPTS {
        let generation = lock::generation();
        let Ok(counters) = loader::snapshot(&mut objects) else { return };
        let Some(mut guard) = lock::lock_quietly(NAPS_FOR_UNLOAD) else { return };
        if !preparation::is_initialised() {
            return;
        }
        if lock::generation() != generation {
            continue;
        }
        sweep::forget_unloaded(&mut guard.parts(), &objects);
        // An object that was loaded since the last sweep may lie at the address of a recorded
        // one. Then the counters stay old, so that the next sweep looks at what is mapped there.
        if counters.adds == freshness::recorded_counters().adds {
            freshness::set_counters(guard.registry(), counters);
        }
        return;
    }
}
