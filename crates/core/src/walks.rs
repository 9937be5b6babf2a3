//! Forks and our walks over the loader's list exclude each other.
//!
//! glibc frees `dl_load_lock` in a forked child but not `dl_load_write_lock`,
//! which `dl_iterate_phdr` holds: a child forked while another thread is in
//! there could never load anything. So a thread that forks waits for those that
//! walk, and threads that want to walk wait for a fork.
//!
//! A signal handler of the host may come to want a walk inside a walk of its
//! own thread, and whatever it waits for may be waiting for that walk. It does
//! without: hence the walkers are known by thread. So is the one that forks, whose
//! fork handlers may want a walk.

use core::sync::atomic::Ordering;
#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicUsize, fence};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};

/// Who walks and who forks. Up to `SLOTS` walkers are told apart.
///
/// What waits calls its `nap` in between, until that says that it was enough.
pub struct Walks<const SLOTS: usize> {
    /// Threads that want to walk or do, each as its identity; 0 is free.
    walkers: [AtomicUsize; SLOTS],
    /// Walkers beyond those.
    others: AtomicU32,
    /// The thread that forks, or 0.
    forker: AtomicUsize,
}

/// A walk; it ends when this is dropped.
pub struct Walk<'a, const SLOTS: usize> {
    walks: &'a Walks<SLOTS>,
    /// `None`: among the others.
    walker: Option<&'a AtomicUsize>,
}

impl<const SLOTS: usize> Walks<SLOTS> {
    /// Nobody does anything.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { walkers: [const { AtomicUsize::new(0) }; SLOTS], others: AtomicU32::new(0), forker: AtomicUsize::new(0) }
    }

    /// Waits until no thread is walking, so that `thread` can fork, and tells whether
    /// it came to that. None starts to before [`Walks::resume`], in either case.
    pub fn stop(&self, thread: usize, mut nap: impl FnMut() -> bool) -> bool {
        self.forker.store(thread, Ordering::Relaxed);
        // Of this and the fence in `begin` one comes first: either the walker
        // sees the fork, or it is seen.
        fence(Ordering::SeqCst);
        loop {
            let is_free = |walker: &AtomicUsize| walker.load(Ordering::Acquire) == 0;
            if self.others.load(Ordering::Acquire) == 0 && self.walkers.iter().all(is_free) {
                return true;
            }
            if !nap() {
                return false;
            }
        }
    }

    /// Lets threads walk again. In a forked child the other threads do not exist.
    pub fn resume(&self, is_child: bool) {
        if is_child {
            self.others.store(0, Ordering::Relaxed);
            for walker in &self.walkers {
                walker.store(0, Ordering::Relaxed);
            }
        }
        self.forker.store(0, Ordering::Release);
    }

    /// Counts `thread` among the walkers when no thread forks. `None` if one does
    /// for too long, or if it is one already or forks itself.
    pub fn begin(&self, thread: usize, mut nap: impl FnMut() -> bool) -> Option<Walk<'_, SLOTS>> {
        if self.is_within(thread) || self.forker.load(Ordering::Relaxed) == thread {
            return None;
        }
        loop {
            let walk = self.announce(thread);
            fence(Ordering::SeqCst);
            if self.forker.load(Ordering::Acquire) == 0 {
                return Some(walk);
            }
            drop(walk);
            if !nap() {
                return None;
            }
        }
    }

    fn announce(&self, thread: usize) -> Walk<'_, SLOTS> {
        let is_taken =
            |walker: &&AtomicUsize| walker.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let walker = self.walkers.iter().find(is_taken);
        if walker.is_none() {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        Walk { walks: self, walker }
    }

    /// Whether a thread is forking, and what wants a walk has to wait.
    pub fn is_forking(&self) -> bool {
        self.forker.load(Ordering::Relaxed) != 0
    }

    /// Whether `thread` is in a walk: then it may wait for nobody.
    pub fn is_within(&self, thread: usize) -> bool {
        self.walkers.iter().any(|walker| walker.load(Ordering::Relaxed) == thread)
    }
}

impl<const SLOTS: usize> Drop for Walk<'_, SLOTS> {
    fn drop(&mut self) {
        match self.walker {
            Some(walker) => walker.store(0, Ordering::Release),
            None => {
                self.walks.others.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// All interleavings of two threads, and those of three with few interruptions,
/// as the memory model allows them (loom). The registry's state needs no model: it
/// is behind a mutex. How others read its records without that
/// lock is tried in [`crate::records`].
#[cfg(test)]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::model;
    use loom::model::Builder;
    use loom::sync::Arc;
    use loom::thread::{self, yield_now};
    use std::vec::Vec;

    use super::*;

    impl<const SLOTS: usize> Walks<SLOTS> {
        /// loom's atomics are made at run time.
        fn new() -> Self {
            Self {
                walkers: core::array::from_fn(|_| AtomicUsize::new(0)),
                others: AtomicU32::new(0),
                forker: AtomicUsize::new(0),
            }
        }
    }

    /// Naps `left` times. Two threads that nap without end can get in each other's
    /// way without end, too.
    fn naps(mut left: u32) -> impl FnMut() -> bool {
        move || {
            yield_now();
            left = left.saturating_sub(1);
            left != 0
        }
    }

    const FORKER: usize = 100;

    fn impatient() -> bool {
        false
    }

    /// The loader's list: loom objects when one thread reads it while another
    /// writes, or without having synchronised with it. A fork counts as writing.
    struct Scene<const SLOTS: usize> {
        walks: Walks<SLOTS>,
        list: UnsafeCell<u32>,
    }

    // SAFETY: loom checks the accesses.
    unsafe impl<const SLOTS: usize> Sync for Scene<SLOTS> {}

    impl<const SLOTS: usize> Scene<SLOTS> {
        fn new() -> Arc<Self> {
            Arc::new(Self { walks: Walks::new(), list: UnsafeCell::new(0) })
        }

        fn walk(&self) {
            // SAFETY: the pointer is live within the closure.
            self.list.with(|list| unsafe { *list });
        }

        fn fork(&self) {
            // SAFETY: the pointer is live within the closure.
            self.list.with_mut(|list| unsafe { *list += 1 });
        }
    }

    /// Runs `walker` in threads 1 to `walkers` while this one forks.
    fn forks_among<const SLOTS: usize>(walkers: usize, walker: fn(&Scene<SLOTS>, usize)) {
        let mut explored = Builder::new();
        // With two walkers: how often a thread may be interrupted where it could go on.
        explored.preemption_bound = (walkers > 1).then_some(2);
        explored.check(move || {
            let scene = Scene::<SLOTS>::new();
            let spawn = |number| {
                let scene = scene.clone();
                thread::spawn(move || walker(&scene, number))
            };
            let threads: Vec<_> = (1..=walkers).map(spawn).collect();
            if scene.walks.stop(FORKER, naps(2)) {
                scene.fork();
            }
            scene.walks.resume(false);
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(scene.walks.begin(1, impatient).is_some(), "a fork that has ended counts");
            assert!(scene.walks.stop(FORKER, impatient), "a walk that has ended counts");
        });
    }

    fn walks_if_it_may<const SLOTS: usize>(scene: &Scene<SLOTS>, number: usize) {
        if let Some(walk) = scene.walks.begin(number, naps(2)) {
            scene.walk();
            drop(walk);
        }
    }

    #[test]
    fn forks_and_walks_exclude_each_other() {
        forks_among::<1>(1, walks_if_it_may);
        forks_among::<2>(2, walks_if_it_may);
        // The second one finds no slot.
        forks_among::<1>(2, walks_if_it_may);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn looking_before_announcing_would_not_do() {
        let hasty = |scene: &Scene<1>, number: usize| {
            if !scene.walks.is_forking() {
                let walk = scene.walks.announce(number);
                scene.walk();
                drop(walk);
            }
        };
        forks_among::<1>(1, hasty);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn announcing_without_the_fence_would_not_do() {
        let unfenced = |scene: &Scene<1>, number: usize| {
            let walk = scene.walks.announce(number);
            if scene.walks.forker.load(Ordering::Acquire) == 0 {
                scene.walk();
            }
            drop(walk);
        };
        forks_among::<1>(1, unfenced);
    }

    #[test]
    fn a_handler_inside_a_walk_waits_for_nobody() {
        let interrupted = |scene: &Scene<1>, number: usize| {
            let Some(walk) = scene.walks.begin(number, naps(2)) else { return };
            assert!(scene.walks.is_within(number) && !scene.walks.is_within(number + 1));
            assert!(scene.walks.begin(number, || panic!("waited for the fork that waits for it")).is_none());
            scene.walk();
            drop(walk);
            assert!(!scene.walks.is_within(number));
        };
        forks_among::<1>(1, interrupted);
    }

    #[test]
    fn a_fork_handler_waits_for_nobody() {
        model(|| {
            let walks = Walks::<1>::new();
            assert!(walks.stop(FORKER, impatient));
            assert!(walks.begin(FORKER, || panic!("waited for itself")).is_none());
            walks.resume(false);
            assert!(walks.begin(FORKER, impatient).is_some());
        });
    }

    #[test]
    fn a_child_knows_nothing_of_the_walks_of_its_parent() {
        model(|| {
            let walks = Walks::<1>::new();
            let left_behind = [walks.announce(1), walks.announce(2)];
            assert!(!walks.stop(FORKER, impatient));
            assert!(walks.begin(3, impatient).is_none());
            left_behind.into_iter().for_each(core::mem::forget);
            walks.resume(true);
            assert!(walks.begin(3, impatient).is_some());
            assert!(walks.stop(FORKER, impatient));
        });
    }
}
