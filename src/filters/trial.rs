//! Finding out what passes the filters in force, by children that try it.
//!
//! A child tries one kind of call after the other, with arguments that do nothing, and
//! notes in a page that it shares with its parent which one it is at. If a filter
//! kills it, the parent knows for which, and another child goes on behind it. What is
//! refused with an error does not pass either: there are other ways.
//!
//! The child does not share its parent's memory: before Linux 5.16 a process that is
//! killed by a filter takes those with it that do (`coredump_wait`, fs/coredump.c). It
//! has no exit signal, so that the program neither sees nor waits for it. It leaves no
//! core file, unless it is killed for limiting that. The first child finds out whether
//! signals can be blocked, and all others begin with all of them blocked: no handler of
//! the program runs in such a copy of it, and a call that a filter answers by SIGSYS kills
//! it as well.

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
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { sys::mmap(0, sys::page_size(), protection, flags, None) }?;
        Ok(Self { address })
    }

    fn words(&self) -> &[AtomicUsize; 2] {
        // SAFETY: the page is mapped until this is dropped, and zero at first.
        unsafe { &*(self.address as *const [AtomicUsize; 2]) }
    }

    /// Returns the kind that is being tried.
    fn index(&self) -> &AtomicUsize {
        let [index, _] = self.words();
        index
    }

    /// Returns the kinds that were refused, a bit for each.
    fn refused(&self) -> &AtomicUsize {
        let [_, refused] = self.words();
        refused
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing refers to it.
        let _ = unsafe { sys::munmap(self.address, sys::page_size()) };
    }
}

/// Returns the kinds of calls that pass, of which some are `known`; `None` if what that takes
/// does not pass, an error if no child can be made now.
pub fn run(known: Kinds) -> Result<Option<Kinds>> {
    let mut trial = Trial { progress: Progress::new()?, passing: known, children: Children::default() };
    // Before anything else whether signals can be blocked: then none is delivered to a
    // child, which would run a handler of the program a second time.
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
            // Each child that is killed would stay a zombie.
            return Ok(None);
        }
    }
    Ok(Some(trial.passing))
}

struct Trial {
    progress: Progress,
    /// What is known to pass.
    passing: Kinds,
    children: Children,
}

impl Trial {
    /// Has a child try the kinds from `first` up to `end`, or to the first that it is
    /// killed for; the one behind those that were tried.
    fn try_from(&mut self, first: usize, end: usize) -> Result<usize> {
        self.progress.index().store(first, Ordering::Relaxed);
        // Without a stack of its own, as by fork(2), and until it is gone.
        // SAFETY: the child has a copy of all memory and makes only system calls.
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
        // SAFETY: ends this process.
        let _ = unsafe { sys::call_ungated(libc::SYS_exit_group, [0; 6]) };
    }
}

/// By a call that passes at the start of every program.
fn leave_no_core_file() {
    // One byte: neither a file nor, unlike with none, a program that core(5) names.
    let limit = [1_u64, 1];
    // SAFETY: a live struct of two words; it is this process's limit.
    let _ = unsafe {
        sys::call_ungated(
            libc::SYS_prlimit64,
            [0, libc::RLIMIT_CORE as usize, (&raw const limit).expose_provenance(), 0, 0, 0],
        )
    };
}

/// Children that are to be waited for: those that are killed before it is known whether
/// they can be.
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

    /// Waits for all of them: they are gone but for their names.
    fn wait(&mut self) {
        for id in self.ids.iter().take(self.count) {
            let arguments = [*id, 0, libc::__WALL as usize, 0, 0, 0];
            // SAFETY: nothing is written.
            while unsafe { sys::call_ungated(libc::SYS_wait4, arguments) } == Err(Errno(libc::EINTR)) {}
        }
        self.count = 0;
    }
}
