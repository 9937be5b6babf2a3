//! The only lock of this library.
//!
//! Its mutex is that of lock_api, but without the waiting of parking_lot, because parking
//! allocates and needs thread-local storage. A thread that finds the lock taken sleeps in
//! short naps. The owner waits for no other thread, so naps are few. Fork handlers take the
//! lock, so that a child starts with a free lock and a consistent table. A child made
//! without them (`_Fork`, raw `clone`), or while another thread held the lock for too long,
//! may start with a lock whose owner does not exist. The library recognises that, and does
//! nothing in such a child.
//!
//! While a thread holds the lock it blocks all signals but the synchronous ones, because a
//! handler may fork. Under a seccomp filter that may kill for blocking them, it blocks none.

use core::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use lock_api::{GuardNoSend, Mutex, MutexGuard, RawMutex};

use sopin_core::credentials::ShownRights;
use sopin_core::sys::{self, Errno, Result, ThreadIds};

use crate::filters::Looked;
use crate::loader::iterations;
use crate::state::State;

mod forks;

pub use forks::prepare_for_forks;

/// The length of a nap. With [`MAX_NAPS`] of them a thread waits for 10 seconds, which happens
/// only in a process that is being debugged thread by thread.
const NAP_NS: i64 = 50_000;
pub const MAX_NAPS: u32 = 200_000;
/// How many naps a thread waits for a fork that may be waiting for this thread.
pub const MAX_NAPS_FOR_FORK: u32 = 1_000;

static STATE: Mutex<NappingLock, State> = Mutex::from_raw(NappingLock::INIT, State::new());
/// The process that holds the lock; 0 while the lock is free or its owner has not stored this
/// yet. It is -1 where a filter keeps the library from asking for the process's id, and
/// [`NO_PROCESS`] in a child whose fork handler has found the lock taken.
#[unsafe(link_section = ".data.sopin")]
static OWNER_PROCESS: AtomicI32 = AtomicI32::new(0);
/// The id of an owner that does not exist.
const NO_PROCESS: i32 = i32::MIN;
/// The id of this process as the library has last read it; 0 in a child that has not read it.
#[unsafe(link_section = ".data.sopin")]
static LAST_PROCESS: AtomicI32 = AtomicI32::new(0);
/// Counts how often the lock was released. While it is unchanged, no sweep has ended.
#[unsafe(link_section = ".data.sopin")]
static RELEASES: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes with every sweep.
pub fn generation() -> u64 {
    RELEASES.load(Ordering::Acquire)
}

/// A lock whose waiters sleep: the identity of the thread that holds it, or 0. One exchange takes
/// the lock and names its owner. So a signal handler, which interrupts its thread before or after
/// that, finds out whether the thread holds the lock.
struct NappingLock(AtomicUsize);

impl NappingLock {
    fn is_own(&self) -> bool {
        self.0.load(Ordering::Relaxed) == sys::thread_identity()
    }
}

// SAFETY: `try_lock` succeeds only for the thread that changes the word from 0 to its identity,
// which is not 0 because it is the address of the thread's errno. So there is one owner until
// `unlock` stores 0. The exchange acquires what that store releases, so each owner sees the writes
// of the one before it.
unsafe impl RawMutex for NappingLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "initial value of a static")]
    const INIT: Self = Self(AtomicUsize::new(0));

    type GuardMarker = GuardNoSend;

    /// The trait demands it. This library only tries, because an owner may never release the
    /// lock.
    fn lock(&self) {
        while !self.try_lock() {
            nap();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(0, sys::thread_identity(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Proves that this thread holds the lock. Signals stay blocked until it is dropped.
pub struct Guard {
    // `drop` below clears the owning process. Then the fields drop in this order: the lock is free
    // before signals are delivered again.
    state: MutexGuard<'static, NappingLock, State>,
    signals: Result<sys::SignalsBlocked>,
    /// The ids of this thread, if it has looked for filters.
    caller: Option<ThreadIds>,
    /// The rights that it had then, as its status has shown them.
    shown: Option<ShownRights>,
}

/// Takes the lock. `None` if this thread holds it already (in a signal handler or a function
/// of the host that was called from inside a sweep), if the owner does not exist or does not
/// release the lock, or if the owner may be waiting for this thread.
pub fn lock(looked: Looked) -> Option<Guard> {
    lock_with(looked, MAX_NAPS)
}

/// Takes the lock like [`lock`], but waits for a fork for at most a tenth of a second: the
/// caller may have interrupted any function, also an allocator whose lock the fork waits for.
pub fn lock_in_handler(looked: Looked) -> Option<Guard> {
    lock_with(looked, MAX_NAPS_FOR_FORK)
}

/// Takes the lock for a fork or an unload, during which the library does not look for filters.
/// Its only system call is futex(2), by which it naps, and for which no filter kills (see
/// [`sys::nap`]). It does not block signals: a handler that tries to take the lock finds that
/// its thread holds it. It gives up after so many `naps`, because it may not recognise an
/// owner that does not exist.
pub fn lock_quietly(naps: u32) -> Option<Guard> {
    for _ in 0..naps {
        if let Some(state) = STATE.try_lock() {
            return Some(Guard::new(state, Err(Errno(libc::EALREADY)), None, None));
        }
        let is_lost = OWNER_PROCESS.load(Ordering::Relaxed) == NO_PROCESS;
        if is_lost || is_own() || iterations::is_within() {
            return None;
        }
        nap();
    }
    None
}

/// Returns whether this thread holds the lock.
fn is_own() -> bool {
    // SAFETY: the reference is used to read the lock's word only.
    unsafe { STATE.raw() }.is_own()
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

/// The result of one attempt to take the lock.
pub enum Attempt {
    /// This thread holds the lock now.
    Locked(Guard),
    /// Another thread holds the lock.
    Taken,
    /// The lock will not become free: this thread holds it, or one that does not exist.
    Never,
}

/// Tries to take the lock once. On success the guard takes over `signals`.
pub fn try_lock(looked: Looked, signals: &mut Result<sys::SignalsBlocked>) -> Attempt {
    if let Some(state) = STATE.try_lock() {
        let caller = caller_now(looked);
        LAST_PROCESS.store(caller.process, Ordering::Relaxed);
        let signals = core::mem::replace(signals, Err(Errno(libc::EALREADY)));
        return Attempt::Locked(Guard::new(state, signals, Some(caller), looked.shown()));
    }
    let process = OWNER_PROCESS.load(Ordering::Relaxed);
    if process != 0 && process != sys::getpid() || is_own() { Attempt::Never } else { Attempt::Taken }
}

/// Returns the ids of this thread. Since it has looked for filters, a signal handler may have forked,
/// and the child has returned from it. The child must not take the parent's ids for its own: it
/// would read the parent's memory and pin those bytes.
fn caller_now(looked: Looked) -> ThreadIds {
    let caller = looked.caller();
    if caller.process == sys::getpid() { caller } else { ThreadIds::ask() }
}

/// Waits a moment for the lock's owner.
pub fn nap() {
    sys::nap(NAP_NS);
}

impl Guard {
    /// Notes which process owns the lock, which this thread has just taken.
    fn new(
        state: MutexGuard<'static, NappingLock, State>,
        signals: Result<sys::SignalsBlocked>,
        caller: Option<ThreadIds>,
        shown: Option<ShownRights>,
    ) -> Self {
        OWNER_PROCESS.store(LAST_PROCESS.load(Ordering::Relaxed), Ordering::Relaxed);
        Self { state, signals, caller, shown }
    }

    /// Returns the ids of this thread.
    pub fn caller(&self) -> ThreadIds {
        self.caller.unwrap_or_else(ThreadIds::ask)
    }

    /// Returns the rights that this thread's status has shown before the lock was taken.
    pub const fn shown_rights(&self) -> Option<ShownRights> {
        self.shown
    }

    /// Leaves the lock taken, in the name of this thread.
    fn leave_taken(self) {
        core::mem::forget(self);
    }

    /// Returns a guard for the lock, which [`Guard::leave_taken`] has left taken.
    ///
    /// # Safety
    /// The lock must be taken, and no other guard for it may exist in a thread of this process.
    unsafe fn of_taken() -> Self {
        // SAFETY: the lock is taken and no other guard exists: this function's contract.
        let state = unsafe { STATE.make_guard_unchecked() };
        Self { state, signals: Err(Errno(libc::EALREADY)), caller: None, shown: None }
    }

    /// Returns an error if signals are not blocked in this thread: why they are not.
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
        OWNER_PROCESS.store(0, Ordering::Relaxed);
        RELEASES.fetch_add(1, Ordering::Release);
    }
}
