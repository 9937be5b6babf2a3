//! Seccomp filters: finding out whether some are in force, before anything else is
//! asked of the kernel, and making only calls that they do not kill for
//! ([`sopin_core::sys::gate`]).
//!
//! Filters are a thread's own, are inherited, and can be added to but not taken away.
//! So all threads that have as many as the process had when it began have the same:
//!
//! | filters in force | calls that are made |
//! |---|---|
//! | none | all |
//! | as many as when the program was started | the loader's, some that it makes at startup, and those that a child has tried |
//! | more: the program has confined itself, or this thread | none: nothing is done |
//!
//! A filter cannot be asked, so a child process tries one call after the other
//! ([`trial`]). It can kill for making that child, too; so there is one only where a
//! process has been made under these filters before (this process was forked), and where
//! an engine of containers has installed the only one: those answer with errors unless
//! somebody has written a profile of his own, and let programs make processes.
//!
//! During a fork or an unload the library makes no calls but those that glibc makes, so it
//! does not look then.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};

use sopin_core::image_layers;
use sopin_core::sys::gate::{self, Kinds, KnownKinds};
use sopin_core::sys::{Errno, Result};
use sopin_core::thread_status::ThreadStatus;

use crate::loader;

mod trial;

/// Says that the calling thread has looked for filters, and may go on.
#[derive(Clone, Copy)]
pub struct Looked(());

/// No number of filters: nothing has been found out.
const UNKNOWN: u32 = u32::MAX;
/// As many filters as no process begins with.
const TOO_MANY: u32 = u32::MAX - 1;

/// How many filters were in force when the program was started.
static AT_BEGINNING: AtomicU32 = AtomicU32::new(UNKNOWN);
/// What passes those filters, as far as that is known.
static PASSING: KnownKinds = KnownKinds::new(Kinds::NONE);
/// This process was forked, under the filters of the beginning unless it has more.
static WAS_FORKED: AtomicBool = AtomicBool::new(false);
/// Whether children have tried, or are trying, what passes.
static TRIAL: AtomicU8 = AtomicU8::new(NOT_TRIED);
const NOT_TRIED: u8 = 0;
const TRYING: u8 = 1;
const TRIED: u8 = 2;
/// This process and its parent, as the status says; the former is 0 before that was read.
static PROCESS: AtomicI32 = AtomicI32::new(0);
static PARENT: AtomicI32 = AtomicI32::new(-1);
/// The parent of the process that this one was forked from.
static GRANDPARENT: AtomicI32 = AtomicI32::new(-1);
/// The program could add filters when it was first looked at.
static COULD_ADD: AtomicBool = AtomicBool::new(false);

/// Looks which filters are in force for this thread, and restricts the calls that
/// are made. To be called on every way in, before the lock is taken. `None` if nothing
/// may be done: filters are in force of which nothing is known, or may be.
pub fn look() -> Option<Looked> {
    let is_first = AT_BEGINNING.load(Ordering::Relaxed) == UNKNOWN;
    match count(is_first) {
        Ok(filters) => judge(filters, is_first),
        Err(_) if is_first && loader::is_preloaded() => {
            // Whatever is in force later on may have been added.
            AT_BEGINNING.store(0, Ordering::Relaxed);
            PASSING.set(Kinds::ALL);
            gate::close(Kinds::AT_STARTUP);
            Some(Looked(()))
        }
        // This thread has no /proc, without which no object can be pinned either, or a
        // sandbox refuses it.
        Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EPERM | libc::ENOSYS | libc::ESRCH)) => None,
        // Short of something for a moment. The loader was not when it has opened an object
        // just now, so what was known still holds.
        Err(_) => (!is_first).then_some(Looked(())),
    }
}

/// Returns how many filters are in force for this thread. Linux before 5.9 does not count them:
/// one, or [`TOO_MANY`] if the program may have added some.
fn count(is_first: bool) -> Result<u32> {
    let [process, parent, older] = [&PROCESS, &PARENT, &GRANDPARENT].map(|id| id.load(Ordering::Relaxed));
    // Whoever opens the file for this thread (the broker of a sandbox) may show its own. A
    // process that was forked does not know its id yet, but those of two that are older.
    let is_ours = |status: &ThreadStatus| match process {
        0 => status.process != parent && status.process != older,
        process => status.process == process,
    };
    let status = ThreadStatus::read_if(is_ours)?;
    PROCESS.store(status.process, Ordering::Relaxed);
    PARENT.store(status.parent, Ordering::Relaxed);
    if is_first {
        COULD_ADD.store(status.can_install_filters(), Ordering::Relaxed);
    }
    Ok(match (status.is_filtered, status.filters) {
        (false, _) => 0,
        (true, Some(filters)) => filters,
        (true, None) if is_first => 1,
        (true, None) if COULD_ADD.load(Ordering::Relaxed) || status.can_install_filters() => TOO_MANY,
        (true, None) => 1,
    })
}

fn judge(filters: u32, is_first: bool) -> Option<Looked> {
    if is_first {
        // A program that has loaded this library itself may have installed them, too.
        let is_from_start = filters == 0 || loader::is_preloaded();
        AT_BEGINNING.store(if is_from_start { filters } else { 0 }, Ordering::Relaxed);
        PASSING.set(if filters == 0 { Kinds::ALL } else { Kinds::AT_STARTUP });
    }
    if filters > AT_BEGINNING.load(Ordering::Relaxed) {
        return None;
    }
    gate::close(PASSING.get());
    let can_try = filters != 0 && (WAS_FORKED.load(Ordering::Relaxed) || is_first && filters == 1 && is_an_engines());
    if can_try && TRIAL.compare_exchange(NOT_TRIED, TRYING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let tried = trial::run(PASSING.get());
        TRIAL.store(if tried.is_ok() { TRIED } else { NOT_TRIED }, Ordering::Relaxed);
        PASSING.set(tried.ok().flatten().unwrap_or(PASSING.get()));
        gate::close(PASSING.get());
    }
    Some(Looked(()))
}

/// Returns whether an engine of containers has installed the only filter: it has made the root
/// directory, and the first process has one filter too.
fn is_an_engines() -> bool {
    image_layers::is_root_of_an_engine()
        && ThreadStatus::of_first_process().is_ok_and(|status| status.filters == Some(1))
}

/// Notes that this process was forked, which shows that processes can be made.
pub fn note_forked() {
    WAS_FORKED.store(true, Ordering::Relaxed);
    GRANDPARENT.store(PARENT.load(Ordering::Relaxed), Ordering::Relaxed);
    PARENT.store(PROCESS.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    // What another thread was trying is not known here.
    let _ = TRIAL.compare_exchange(TRYING, NOT_TRIED, Ordering::Relaxed, Ordering::Relaxed);
}
