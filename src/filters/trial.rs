//! Finding out which calls pass the filters in force, by children that try them.
//!
//! A child tries one kind of call after the other, with arguments that have no effect. In a
//! page that it shares with its parent it notes which kind it is trying. If a filter kills
//! it, the parent knows for which kind, and another child continues with the next one. A
//! kind that a filter refuses with an error does not count as passing either: the library
//! has other ways that need no such call.
//!
//! The child does not share its parent's memory, because before Linux 5.16 the kernel kills
//! all processes that share the memory of one that a filter kills (`coredump_wait`,
//! fs/coredump.c). It has no exit signal, so the program neither sees it nor waits for it.
//! It leaves no core file, unless a filter kills it for setting that limit. The first child
//! finds out whether signals can be blocked, and all others begin with all signals blocked.
//! So no signal handler of the program runs in a child, and a filter that answers a call
//! with SIGSYS kills the child as well.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use sopin_core::sys::gate::{self, Kinds};
use sopin_core::sys::{self, Errno, Result};

/// The page in which a child notes its progress.
struct Progress {
    address: usize,
}

impl Progress {
    fn new() -> Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
        let address = unsafe { sys::mmap(0, sys::page_size(), protection, flags, None) }?;
        Ok(Self { address })
    }

    fn words(&self) -> &[AtomicUsize; 2] {
        // SAFETY: `new` has mapped the page, which is aligned, larger than two words, and zero at
        // first. It stays mapped until `drop`, which no borrow of `self` outlives. Parent and child
        // access it only by atomics.
        unsafe { &*(self.address as *const [AtomicUsize; 2]) }
    }

    /// Returns the index of the kind that the child is trying.
    fn index(&self) -> &AtomicUsize {
        let [index, _] = self.words();
        index
    }

    /// Returns the kinds that a filter has refused with an error, one bit for each.
    fn refused(&self) -> &AtomicUsize {
        let [_, refused] = self.words();
        refused
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped the page for this value alone. References into it borrow this
        // value, which is being dropped, so there are none.
        let _ = unsafe { sys::munmap(self.address, sys::page_size()) };
    }
}

/// Returns the kinds of calls that pass; those in `known` are known to pass already. `None` if
/// the calls that the trial itself needs do not pass. Fails if no child can be created now.
pub fn run(known: Kinds) -> Result<Option<Kinds>> {
    let mut trial = Trial { progress: Progress::new()?, passing: known, children: Children::default() };
    // The first child tries whether signals can be blocked, because a signal that is delivered to
    // a child would run a handler of the program a second time.
    trial.try_from(Kinds::BLOCKING_SIGNALS, Kinds::BLOCKING_SIGNALS + 1)?;
    if !trial.passing.has(Kinds::BLOCKING_SIGNALS) {
        return Ok(None);
    }
    let _blocked = sys::SignalsBlocked::all();
    let mut next = Kinds::BLOCKING_SIGNALS + 1;
    while next < Kinds::COUNT {
        next = trial.try_from(next, Kinds::COUNT)?;
        if trial.passing.has(Kinds::WAITING) {
            trial.children.wait();
        } else if next > Kinds::WAITING {
            // Without waiting, each child that a filter kills would stay a zombie.
            return Ok(None);
        }
    }
    Ok(Some(trial.passing))
}

struct Trial {
    progress: Progress,
    /// The kinds that are known to pass.
    passing: Kinds,
    children: Children,
}

impl Trial {
    /// Makes a child try the kinds from `first` up to `end`, or up to the first for which a
    /// filter kills it. Returns the kind after those that were tried.
    fn try_from(&mut self, first: usize, end: usize) -> Result<usize> {
        self.progress.index().store(first, Ordering::Relaxed);
        // The child has no stack of its own, as after fork(2). CLONE_VFORK makes this thread wait
        // until the child has ended.
        // SAFETY: without CLONE_VM the child runs on a copy of this thread's memory, so it changes
        // nothing that the parent refers to. `be_child` makes only system calls, so it needs no
        // lock that another thread of the parent may have held, and never returns.
        match unsafe { sys::call_ungated(libc::SYS_clone, [libc::CLONE_VFORK as usize, 0, 0, 0, 0, 0]) }? {
            0 => be_child(first..end, &self.progress),
            child => self.children.add(child),
        }
        let reached = self.progress.index().load(Ordering::Relaxed).max(first).min(end);
        let refused = self.progress.refused().load(Ordering::Relaxed);
        let passed = (first..reached).filter(|index| refused & 1 << index == 0);
        self.passing = passed.fold(self.passing, Kinds::with);
        Ok(if reached == end { end } else { reached + 1 })
    }
}

/// Tries these kinds, in the child.
fn be_child(kinds: Range<usize>, progress: &Progress) -> ! {
    leave_no_core_file();
    let end = kinds.end;
    for index in kinds {
        progress.index().store(index, Ordering::Relaxed);
        if !gate::try_kind(index) {
            progress.refused().fetch_or(1 << index, Ordering::Relaxed);
        }
    }
    progress.index().store(end, Ordering::Relaxed);
    loop {
        // SAFETY: exit_group(2) has no arguments that refer to memory, and ends the child.
        let _ = unsafe { sys::call_ungated(libc::SYS_exit_group, [0; 6]) };
    }
}

/// Limits the size of core files, by a call that passes at the start of every program.
fn leave_no_core_file() {
    // With a limit of one byte the kernel writes no file, and does not start a program that
    // core(5) names. With 0 it would start that program.
    let limit = [1_u64, 1];
    // SAFETY: the new limit is a live local with the two words of `struct rlimit64`. The kernel
    // only reads it, and writes no old limit, since that pointer is null.
    let _ = unsafe {
        sys::call_ungated(
            libc::SYS_prlimit64,
            [0, libc::RLIMIT_CORE as usize, (&raw const limit).expose_provenance(), 0, 0, 0],
        )
    };
}

/// Children for which the parent has yet to wait: those that ended before it was known whether
/// waiting passes the filters.
#[derive(Default)]
struct Children {
    ids: [usize; 8],
    count: usize,
}

impl Children {
    fn add(&mut self, id: usize) {
        if let Some(slot) = self.ids.get_mut(self.count) {
            *slot = id;
            self.count += 1;
        }
    }

    /// Waits for all of them. It does not block, because they have ended.
    fn wait(&mut self) {
        for id in self.ids.iter().take(self.count) {
            let arguments = [*id, 0, libc::__WALL as usize, 0, 0, 0];
            // SAFETY: the pointers for the status and the resource usage are null, so the kernel
            // writes to no memory.
            while unsafe { sys::call_ungated(libc::SYS_wait4, arguments) } == Err(Errno(libc::EINTR)) {}
        }
        self.count = 0;
    }
}
