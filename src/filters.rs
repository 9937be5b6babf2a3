//! Seccomp filters: finding out whether any are in force before the library makes other
//! system calls, and restricting those to calls for which the filters do not kill
//! ([`sopin_core::sys::gate`]).
//!
//! Each thread has its own filters. It inherits them, and can add to them but not remove
//! any. So all threads that have as many filters as the process had when it began have the
//! same ones:
//!
//! | filters in force | calls that the library makes |
//! |---|---|
//! | none | all |
//! | as many as when the program was started | those that the loader makes, some that programs make at startup, and those that passed in a child's trial |
//! | more, because the program or this thread has confined itself | none: the library does nothing |
//!
//! The kernel does not say what a filter permits, so a child process tries one call after
//! the other ([`trial`]). A filter may kill for creating that child, too. So the library
//! creates one in two cases only: a process has been created under these filters before,
//! since this process was forked; or a container engine has installed the only filter. The
//! default profiles of container engines permit programs to create processes and refuse
//! calls with errors instead of killing.
//!
//! During a fork or an unload the library makes only calls that glibc makes as well, so it
//! does not look for filters then.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use sopin_core::credentials::ShownRights;
use sopin_core::image_layers;
use sopin_core::sys::gate::{self, Kinds, KnownKinds};
use sopin_core::sys::{self, Errno, Result, ThreadIds};
use sopin_core::thread_status::ThreadStatus;

use crate::loader;

mod trial;

/// Proves that the calling thread has looked for filters and may continue. It has the ids of that
/// thread.
#[derive(Clone, Copy)]
pub struct Looked {
    caller: ThreadIds,
    /// The rights that the thread's status has shown, if that was read.
    shown: Option<ShownRights>,
}

impl Looked {
    /// Returns a proof without rights: the status could not be read.
    fn without_status() -> Self {
        Self { caller: ThreadIds::ask(), shown: None }
    }

    /// Returns the ids of the thread that has looked. Where a filter keeps the library from asking
    /// for them, they are -1.
    pub const fn caller(self) -> ThreadIds {
        self.caller
    }

    /// Returns the rights that the thread had when it looked.
    pub const fn shown(self) -> Option<ShownRights> {
        self.shown
    }
}

/// Stands for a number of filters that has not been found out.
const UNKNOWN: u32 = u32::MAX;
/// More filters than any process begins with.
const TOO_MANY: u32 = u32::MAX - 1;

/// How many filters were in force when the program was started.
static AT_BEGINNING: AtomicU32 = AtomicU32::new(UNKNOWN);
/// The kinds of calls that are known to pass those filters.
#[unsafe(link_section = ".data.sopin")]
static PASSING: KnownKinds = KnownKinds::new(Kinds::NONE);
/// Whether this process was forked. Then its filters are those of the beginning, unless it has
/// more of them.
#[unsafe(link_section = ".data.sopin")]
static WAS_FORKED: AtomicBool = AtomicBool::new(false);
/// Whether children have tried, or are trying, which calls pass: one of the three values below.
#[unsafe(link_section = ".data.sopin")]
static TRIAL: AtomicU8 = AtomicU8::new(NOT_TRIED);
const NOT_TRIED: u8 = 0;
const TRYING: u8 = 1;
const TRIED: u8 = 2;
/// The ids of this process and its parent, as its status file has them; the former is 0 before
/// that file was read.
#[unsafe(link_section = ".data.sopin")]
static PROCESS: AtomicI32 = AtomicI32::new(0);
static PARENT: AtomicI32 = AtomicI32::new(-1);
/// The id of the parent of the process that this one was forked from.
static GRANDPARENT: AtomicI32 = AtomicI32::new(-1);
/// The id of this process if both its status file and getpid(2) have shown it; otherwise 0.
#[unsafe(link_section = ".data.sopin")]
static CONFIRMED: AtomicI32 = AtomicI32::new(0);
/// The identity of the thread with which the program was started, while that is known to be the main
/// thread of this process; otherwise 0. The C library never frees the memory by which this thread is
/// identified, so that no other thread gets its identity. A thread that another one has created and
/// that has become the main thread of a child by a fork is not noted: its memory may be used again
/// after it has ended. A library that the program has loaded later does not know of earlier forks,
/// and notes no thread.
#[unsafe(link_section = ".data.sopin")]
static INITIAL_THREAD: AtomicUsize = AtomicUsize::new(0);
/// Whether the program could add filters when the library first looked.
#[unsafe(link_section = ".data.sopin")]
static COULD_ADD: AtomicBool = AtomicBool::new(false);

/// Finds out which filters are in force for this thread, and restricts the library's calls
/// accordingly. Every entry point of the library calls it before taking the lock. `None` if
/// the library must do nothing, because filters that it does not know are or may be in force.
pub fn look() -> Option<Looked> {
    let is_first = AT_BEGINNING.load(Ordering::Relaxed) == UNKNOWN;
    match count(is_first) {
        Ok((filters, status)) => judge(filters, is_first).map(|()| {
            let shown = status.reader();
            let caller = caller(shown);
            // Other ids are those of a broker, which has opened its own file.
            Looked { caller, shown: (shown == Some(caller)).then(|| ShownRights::of(&status)) }
        }),
        Err(_) if is_first && loader::is_preloaded() => {
            // With 0 stored, filters that are counted later are taken for ones that the program
            // has added.
            AT_BEGINNING.store(0, Ordering::Relaxed);
            PASSING.set(Kinds::ALL);
            gate::close(Kinds::AT_STARTUP);
            Some(Looked::without_status())
        }
        // This thread has no /proc, without which the library cannot pin objects either, or a
        // sandbox refuses access to it.
        Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EPERM | libc::ENOSYS | libc::ESRCH)) => None,
        // The process is short of descriptors or memory for a moment. The loader has just opened
        // an object, so this error does not come from a filter, and what was known still holds.
        Err(_) => (!is_first).then(Looked::without_status),
    }
}

/// Returns the ids of this thread, which the status file has `shown`. The ids in that file are used
/// if the kernel itself has once named the same ids in this process. So a broker's file, whose
/// numbers might pass for those of a process that was just forked, is not believed.
fn caller(shown: Option<ThreadIds>) -> ThreadIds {
    if let Some(shown) = shown
        && CONFIRMED.load(Ordering::Relaxed) == shown.process
    {
        return shown;
    }
    let asked = ThreadIds::ask();
    if shown == Some(asked) {
        CONFIRMED.store(asked.process, Ordering::Relaxed);
        if asked.is_main_thread() && !WAS_FORKED.load(Ordering::Relaxed) && loader::is_preloaded() {
            INITIAL_THREAD.store(sys::thread_identity(), Ordering::Relaxed);
        }
    }
    asked
}

/// Returns how many filters are in force for this thread, and its status. Linux before 5.9 does not
/// count them; there the result is 1, or [`TOO_MANY`] if the program may have added some.
fn count(is_first: bool) -> Result<(u32, ThreadStatus)> {
    let [process, parent, older] = [&PROCESS, &PARENT, &GRANDPARENT].map(|id| id.load(Ordering::Relaxed));
    // The broker of a sandbox opens files for confined threads, and may return its own status
    // file. A process that was just forked does not know its own id yet, but knows those of its
    // parent and grandparent, which are the brokers that may have opened the file.
    let is_ours = |status: &ThreadStatus| match process {
        0 => status.process != parent && status.process != older,
        process => status.process == process,
    };
    let is_main_thread = INITIAL_THREAD.load(Ordering::Relaxed) == sys::thread_identity();
    let status = ThreadStatus::read_for(is_main_thread, is_ours)?;
    PROCESS.store(status.process, Ordering::Relaxed);
    PARENT.store(status.parent, Ordering::Relaxed);
    if is_first {
        COULD_ADD.store(status.can_install_filters(), Ordering::Relaxed);
    }
    let filters = match (status.is_filtered, status.filters) {
        (false, _) => 0,
        (true, Some(filters)) => filters,
        (true, None) if is_first => 1,
        (true, None) if COULD_ADD.load(Ordering::Relaxed) || status.can_install_filters() => TOO_MANY,
        (true, None) => 1,
    };
    Ok((filters, status))
}

fn judge(filters: u32, is_first: bool) -> Option<()> {
    if is_first {
        // A program that has loaded this library at run time may have installed filters before.
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
    Some(())
}

/// Returns whether a container engine has installed the only filter: the engine has made the
/// root directory, and the first process of the container has one filter, too.
fn is_an_engines() -> bool {
    image_layers::is_root_of_an_engine()
        && ThreadStatus::of_first_process().is_ok_and(|status| status.filters == Some(1))
}

/// Notes that this process was forked, which shows that the filters permit creating processes.
pub fn note_forked() {
    WAS_FORKED.store(true, Ordering::Relaxed);
    CONFIRMED.store(0, Ordering::Relaxed);
    if INITIAL_THREAD.load(Ordering::Relaxed) != sys::thread_identity() {
        INITIAL_THREAD.store(0, Ordering::Relaxed);
    }
    GRANDPARENT.store(PARENT.load(Ordering::Relaxed), Ordering::Relaxed);
    PARENT.store(PROCESS.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    // The thread that was running a trial in the parent does not exist here, so that its result
    // will not be known.
    let _ = TRIAL.compare_exchange(TRYING, NOT_TRIED, Ordering::Relaxed, Ordering::Relaxed);
}
