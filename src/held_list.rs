//! Sweeps that run while the loader can unload no object: those after `dlmopen` has
//! returned, and those that the host requests. The calling thread does not hold the
//! loader's `dl_load_lock` then, so without this another thread could unmap objects during
//! the sweep.
//!
//! glibc unmaps and unlinks objects, in every namespace, only while it holds
//! `dl_load_write_lock` (source: `_dl_close_worker`), which `dl_iterate_phdr`
//! holds during its callback. So the sweep runs in such a callback.
//!
//! The loader's locks are taken before the library's. A thread that holds the library's lock
//! may be waiting until no thread iterates, because it forks. So inside the callback this
//! thread only tries to take the library's lock, and waits for it outside.

use sopin_core::memory::ProcessMemory;
use sopin_core::sys::{self, Errno};

use crate::filters;
use crate::loader::{self, Counters, LinkMapAddress, Loaded, ObjectList, OpenHandle, iterations};
use crate::lock::{self, Attempt, Guard};

/// Whose objects a sweep is about.
#[derive(Clone, Copy)]
pub enum Namespace {
    /// The program's namespace, whose objects `dl_iterate_phdr` lists.
    Program,
    /// Another namespace: that of an object which is open and stays open.
    Other(LinkMapAddress),
}

impl Namespace {
    /// Returns the namespace of `handle`; `None` if the loader does not know it.
    pub fn of(handle: OpenHandle) -> Option<Self> {
        if loader::is_in_other_namespace(handle) {
            loader::link_map_address(handle).map(Self::Other)
        } else {
            Some(Self::Program)
        }
    }

    /// Returns whether it is not the program's.
    pub const fn is_other(self) -> bool {
        matches!(self, Self::Other(_))
    }
}

/// Why no sweep was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A lock could not be taken in time, or will never be free.
    Busy,
    /// The objects could not be listed.
    NoList(Errno),
}

/// The result of one attempt.
enum Attempted<T> {
    /// The list cannot be held, or the library's lock will never be free.
    Nothing,
    /// The loader's list has changed since it was copied, and must be copied again.
    Outdated,
    /// Another thread holds the library's lock.
    Locked,
    /// The sweep was made, or its objects could not be listed.
    Done(Result<T, Refusal>),
}

/// Calls `sweep` once with the lock, the objects of `namespace` and the loader's
/// counters, while none of these objects can be unloaded. `sweep` must neither call
/// the loader nor wait for another thread. This function waits for a fork for at most
/// `naps_for_fork` naps.
pub fn sweep<T>(
    namespace: Namespace,
    memory: &ProcessMemory,
    objects: &mut ObjectList,
    mut naps_for_fork: u32,
    sweep: &mut dyn FnMut(Guard, &[Loaded], Counters) -> T,
) -> Result<T, Refusal> {
    // Signals stay blocked until the callback has returned, not only while the library's lock
    // is held: a handler that called the loader from inside the callback would take the locks
    // in the wrong order.
    let looked = filters::look().ok_or(Refusal::Busy)?;
    let _signals = sys::SignalsBlocked::new();
    let mut guards_signals = sys::SignalsBlocked::new();
    for _ in 0..lock::MAX_NAPS {
        let listed_at = match namespace {
            Namespace::Program => Some(loader::snapshot(objects).map_err(no_list)?),
            Namespace::Other(_) => None,
        };
        let attempted = loader::while_held(|counters| {
            if listed_at.is_some_and(|listed_at| listed_at != counters) {
                return Attempted::Outdated;
            }
            match lock::try_lock(looked, &mut guards_signals) {
                Attempt::Locked(guard) => {
                    memory.know_process(guard.caller().process);
                    let listed = list_other(namespace, memory, objects);
                    Attempted::Done(listed.map(|()| sweep(guard, objects, counters)))
                }
                Attempt::Taken => Attempted::Locked,
                Attempt::Never => Attempted::Nothing,
            }
        });
        match attempted.unwrap_or(Attempted::Nothing) {
            Attempted::Done(result) => return result,
            Attempted::Outdated => {}
            Attempted::Locked if naps_for_fork != 0 => lock::nap(),
            Attempted::Locked | Attempted::Nothing => return Err(Refusal::Busy),
        }
        naps_for_fork = naps_for_fork.saturating_sub(iterations::is_forking().into());
    }
    Err(Refusal::Busy)
}

/// Lists the objects of another namespace, which is possible only while the list is held. For
/// the program's namespace `objects` has them already.
fn list_other(namespace: Namespace, memory: &ProcessMemory, objects: &mut ObjectList) -> Result<(), Refusal> {
    match namespace {
        Namespace::Program => Ok(()),
        Namespace::Other(start) => {
            loader::namespace_of(start, memory, objects.of_other_namespace()).map_err(Refusal::NoList)
        }
    }
}

/// Returns why the loader's list could not be copied. `ENOSYS` means that no iteration was
/// possible, because this thread or another is forking.
fn no_list(errno: Errno) -> Refusal {
    if errno == Errno(libc::ENOSYS) { Refusal::Busy } else { Refusal::NoList(errno) }
}
