//! The one lock of this library.
//!
//! A mutex of parking_lot's making, but not its waiting: parking allocates and needs
//! thread-local storage, so a thread that finds the lock
//! taken sleeps in short naps. The owner waits for nobody, so naps are few.
//! Fork handlers take the lock, so that a child starts with a free lock and a
//! whole table. A child made without them (`_Fork`, raw `clone`) may start with
//! a lock whose owner does not exist: it is recognised and left alone.
//!
//! While the lock is held all signals but the synchronous ones are blocked, because a
//! handler may fork; under a seccomp filter that may kill for that, none are.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use lock_api::{GuardNoSend, Mutex, MutexGuard, RawMutex};

use sopin_core::sys::{self, Errno, Result};

use crate::filters::Looked;
use crate::loader::iterations;
use crate::state::State;

mod atfork;
mod forks;

pub use forks::prepare_for_forks;

/// A nap, and how many of them before giving up: 10 seconds, which only a
/// process that is being debugged thread by thread can reach.
const NAP_NS: i64 = 50_000;
pub const MAX_NAPS: u32 = 200_000;
/// How many of them are for a fork, where it may be waiting for us.
pub const MAX_NAPS_FOR_FORK: u32 = 1_000;

static STATE: Mutex<NappingLock, State> = Mutex::from_raw(NappingLock::INIT, State::new());
/// Process and thread that hold the lock; 0 while nobody has said so. The process is
/// -1 where a filter keeps us from asking.
static OWNER_PROCESS: AtomicI32 = AtomicI32::new(0);
/// This process, as it was last asked for; 0 in a child that has not asked.
static LAST_PROCESS: AtomicI32 = AtomicI32::new(0);
static OWNER_THREAD: AtomicUsize = AtomicUsize::new(0);
/// Counts how often the lock was released: unchanged means that no sweep ran.
static RELEASES: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes with every sweep.
pub fn generation() -> u64 {
    RELEASES.load(Ordering::Acquire)
}

/// A lock whose waiters sleep.
struct NappingLock(AtomicBool);

// SAFETY: the exchange lets one thread in until `unlock`, whose release it acquires.
unsafe impl RawMutex for NappingLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "initial value of a static")]
    const INIT: Self = Self(AtomicBool::new(false));

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            nap();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The lock, held; signals stay blocked until it is dropped.
pub struct Guard {
    // Fields drop in this order, after `drop` below has ended the ownership.
    state: MutexGuard<'static, NappingLock, State>,
    signals: Result<sys::SignalsBlocked>,
}

/// Takes the lock. `None` if this thread holds it already (a signal handler
/// or a function of the host called from inside a sweep), if its owner does not
/// exist or does not release it, or if it may be waiting for this thread.
pub fn lock(looked: Looked) -> Option<Guard> {
    lock_with(looked, MAX_NAPS)
}

/// Does the same for a caller that may have interrupted anything, also an allocator that a
/// fork waits for: it waits for a fork for a tenth of a second only.
pub fn lock_in_handler(looked: Looked) -> Option<Guard> {
    lock_with(looked, MAX_NAPS_FOR_FORK)
}

/// Takes the lock by no system call but `futex(2)`: for a fork, or an unload, for which
/// glibc makes none that a filter has to pass. Signals are not blocked: a handler that
/// wants the lock finds that its thread has it.
/// Gives up after so many `naps`, since an owner that does not exist is not recognised.
pub fn lock_quietly(naps: u32) -> Option<Guard> {
    for _ in 0..naps {
        if let Some(state) = STATE.try_lock() {
            OWNER_PROCESS.store(LAST_PROCESS.load(Ordering::Relaxed), Ordering::Relaxed);
            OWNER_THREAD.store(sys::thread_identity(), Ordering::Relaxed);
            return Some(Guard { state, signals: Err(Errno(libc::EALREADY)) });
        }
        if is_own() || iterations::is_within() {
            return None;
        }
        nap();
    }
    None
}

/// Returns whether this thread has the lock.
fn is_own() -> bool {
    OWNER_THREAD.load(Ordering::Relaxed) == sys::thread_identity()
}

fn lock_with(looked: Looked, mut naps_for_fork: u32) -> Option<Guard> {
    let mut signals = sys::SignalsBlocked::new();
    for _ in 0..MAX_NAPS {
        match try_lock(looked, &mut signals) {
            Attempt::Locked(guard) => return Some(guard),
            Attempt::Taken if !iterations::is_within() && naps_for_fork != 0 => nap(),
            Attempt::Taken | Attempt::Never => return None,
        }
        naps_for_fork = naps_for_fork.saturating_sub(iterations::is_forking().into());
    }
    None
}

/// One attempt to take the lock.
pub enum Attempt {
    /// It succeeded.
    Locked(Guard),
    /// Another thread has the lock.
    Taken,
    /// This thread has it, or one that does not exist.
    Never,
}

/// Tries to take the lock once; a guard takes over `signals`.
pub fn try_lock(_looked: Looked, signals: &mut Result<sys::SignalsBlocked>) -> Attempt {
    if let Some(state) = STATE.try_lock() {
        LAST_PROCESS.store(sys::getpid(), Ordering::Relaxed);
        OWNER_PROCESS.store(LAST_PROCESS.load(Ordering::Relaxed), Ordering::Relaxed);
        OWNER_THREAD.store(sys::thread_identity(), Ordering::Relaxed);
        let signals = core::mem::replace(signals, Err(Errno(libc::EALREADY)));
        return Attempt::Locked(Guard { state, signals });
    }
    let process = OWNER_PROCESS.load(Ordering::Relaxed);
    if process != 0 && process != sys::getpid() || is_own() { Attempt::Never } else { Attempt::Taken }
}

/// Waits a moment for the lock's owner.
pub fn nap() {
    sys::nap(NAP_NS);
}

impl Guard {
    /// Returns whether signal handlers are kept from running in this thread, or why not.
    pub fn blocks_signals(&self) -> Result<()> {
        self.signals.as_ref().map(|_| ()).map_err(|errno| *errno)
    }
}

impl core::ops::Deref for Guard {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl core::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        OWNER_THREAD.store(0, Ordering::Relaxed);
        OWNER_PROCESS.store(0, Ordering::Relaxed);
        RELEASES.fetch_add(1, Ordering::Release);
    }
}
