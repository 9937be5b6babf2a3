//! All interleavings of two threads, and those of three with few interruptions,
//! as the memory model allows them (loom). The registry's state needs no model: it
//! is behind a mutex. How others read its records without that
//! lock is tried in [`crate::records`].

use loom::cell::UnsafeCell;
use loom::model;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread::{self, yield_now};
use std::vec::Vec;

use super::*;

impl<const SLOTS: usize> Iterations<SLOTS> {
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
    walks: Iterations<SLOTS>,
    list: UnsafeCell<u32>,
}

// SAFETY: loom checks the accesses.
unsafe impl<const SLOTS: usize> Sync for Scene<SLOTS> {}

impl<const SLOTS: usize> Scene<SLOTS> {
    fn new() -> Arc<Self> {
        Arc::new(Self { walks: Iterations::new(), list: UnsafeCell::new(0) })
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
        let walks = Iterations::<1>::new();
        assert!(walks.stop(FORKER, impatient));
        assert!(walks.begin(FORKER, || panic!("waited for itself")).is_none());
        walks.resume(false);
        assert!(walks.begin(FORKER, impatient).is_some());
    });
}

#[test]
fn a_child_knows_nothing_of_the_walks_of_its_parent() {
    model(|| {
        let walks = Iterations::<1>::new();
        let left_behind = [walks.announce(1), walks.announce(2)];
        assert!(!walks.stop(FORKER, impatient));
        assert!(walks.begin(3, impatient).is_none());
        left_behind.into_iter().for_each(core::mem::forget);
        walks.resume(true);
        assert!(walks.begin(3, impatient).is_some());
        assert!(walks.stop(FORKER, impatient));
    });
}
