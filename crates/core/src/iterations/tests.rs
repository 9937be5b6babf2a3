//! All interleavings of two threads, and those of three with few interruptions,
//! as the memory model allows them (loom). The registry's state needs no model: it
//! is behind a mutex.

use loom::cell::UnsafeCell;
use loom::model;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread::{self, yield_now};
use std::vec::Vec;

use super::*;

impl<const SLOTS: usize> Iterations<SLOTS> {
    /// Makes a table at run time, as loom's atomics need it.
    fn new() -> Self {
        Self {
            threads: core::array::from_fn(|_| AtomicUsize::new(0)),
            others: AtomicU32::new(0),
            forkers: core::array::from_fn(|_| AtomicUsize::new(0)),
            forks: AtomicU32::new(0),
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

/// The loader's list: loom reports a violation when one thread reads it while another
/// writes, or without having synchronised with it. A fork counts as writing.
struct Scene<const SLOTS: usize> {
    iterations: Iterations<SLOTS>,
    list: UnsafeCell<u32>,
}

// SAFETY: loom's UnsafeCell checks every access, and reports one that is not synchronised.
unsafe impl<const SLOTS: usize> Sync for Scene<SLOTS> {}

impl<const SLOTS: usize> Scene<SLOTS> {
    fn new() -> Arc<Self> {
        Arc::new(Self { iterations: Iterations::new(), list: UnsafeCell::new(0) })
    }

    fn iterate(&self) {
        // SAFETY: the pointer is live within the closure, and loom checks that no access conflicts.
        self.list.with(|list| unsafe { *list });
    }

    fn fork(&self) {
        // SAFETY: the pointer is live within the closure, and loom checks that no access conflicts.
        self.list.with_mut(|list| unsafe { *list += 1 });
    }
}

/// Runs `work` in `count` threads, numbered from 1, while this thread forks.
fn forks_among<const SLOTS: usize>(count: usize, work: fn(&Scene<SLOTS>, usize)) {
    let mut explored = Builder::new();
    // With two threads, loom tries only the interleavings in which each is interrupted up to twice.
    explored.preemption_bound = (count > 1).then_some(2);
    explored.check(move || {
        let scene = Scene::<SLOTS>::new();
        let spawn = |number| {
            let scene = scene.clone();
            thread::spawn(move || work(&scene, number))
        };
        let threads: Vec<_> = (1..=count).map(spawn).collect();
        if scene.iterations.stop(FORKER, naps(2)) {
            scene.fork();
        }
        scene.iterations.resume(FORKER);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(scene.iterations.begin(1, impatient).is_some(), "a fork that has ended still counts");
        assert!(scene.iterations.stop(FORKER, impatient), "an iteration that has ended still counts");
    });
}

fn iterates_if_permitted<const SLOTS: usize>(scene: &Scene<SLOTS>, number: usize) {
    if let Some(iteration) = scene.iterations.begin(number, naps(2)) {
        scene.iterate();
        drop(iteration);
    }
}

#[test]
fn forks_and_iterations_exclude_each_other() {
    forks_among::<1>(1, iterates_if_permitted);
    forks_among::<2>(2, iterates_if_permitted);
    // The second one finds no slot.
    forks_among::<1>(2, iterates_if_permitted);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn checking_before_announcing_is_a_race() {
    let hasty = |scene: &Scene<1>, number: usize| {
        if !scene.iterations.is_forking() {
            let iteration = scene.iterations.announce(number);
            scene.iterate();
            drop(iteration);
        }
    };
    forks_among::<1>(1, hasty);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn announcing_without_the_fence_is_a_race() {
    let unfenced = |scene: &Scene<1>, number: usize| {
        let iteration = scene.iterations.announce(number);
        if scene.iterations.forks.load(Ordering::Acquire) == 0 {
            scene.iterate();
        }
        drop(iteration);
    };
    forks_among::<1>(1, unfenced);
}

#[test]
fn a_handler_inside_an_iteration_waits_for_no_thread() {
    let interrupted = |scene: &Scene<1>, number: usize| {
        let Some(iteration) = scene.iterations.begin(number, naps(2)) else { return };
        assert!(scene.iterations.is_within(number) && !scene.iterations.is_within(number + 1));
        assert!(scene.iterations.begin(number, || panic!("waited for the fork that waits for it")).is_none());
        scene.iterate();
        drop(iteration);
        assert!(!scene.iterations.is_within(number));
    };
    forks_among::<1>(1, interrupted);
}

#[test]
fn a_fork_handler_waits_for_no_thread() {
    model(|| {
        let iterations = Iterations::<1>::new();
        assert!(iterations.stop(FORKER, impatient));
        assert!(iterations.begin(FORKER, || panic!("waited for itself")).is_none());
        iterations.resume(FORKER);
        assert!(iterations.begin(FORKER, impatient).is_some());
    });
}

#[test]
fn a_child_discards_the_threads_of_its_parent() {
    model(|| {
        let iterations = Iterations::<1>::new();
        let left_behind = [iterations.announce(1), iterations.announce(2)];
        assert!(!iterations.stop(FORKER + 1, impatient));
        assert!(!iterations.stop(FORKER, impatient));
        assert!(iterations.begin(3, impatient).is_none());
        iterations.discard_others(FORKER);
        assert!(iterations.is_forking(), "its own fork ends after that");
        iterations.resume(FORKER);
        assert!(iterations.begin(3, impatient).is_some());
        // Iterations of the thread that has forked end in the child as well.
        drop(left_behind);
        assert!(iterations.stop(FORKER, impatient));
    });
}

#[test]
fn a_child_keeps_the_iteration_in_which_it_was_forked() {
    model(|| {
        let iterations = Iterations::<1>::new();
        let own = iterations.begin(1, impatient).unwrap();
        iterations.discard_others(1);
        assert!(iterations.is_within(1));
        drop(own);
        assert!(iterations.stop(1, impatient));
    });
}

/// Two threads fork at once, while a third one iterates.
fn two_forks_at_once(end: fn(&Iterations<1>, usize)) {
    let mut explored = Builder::new();
    explored.preemption_bound = Some(2);
    explored.check(move || {
        let scene = Scene::<1>::new();
        let other = {
            let scene = scene.clone();
            thread::spawn(move || {
                // This fork waits for no iteration, and so is no access to the list.
                scene.iterations.stop(FORKER + 1, impatient);
                end(&scene.iterations, FORKER + 1);
            })
        };
        let iterating = {
            let scene = scene.clone();
            thread::spawn(move || iterates_if_permitted(&scene, 1))
        };
        if scene.iterations.stop(FORKER, naps(2)) {
            scene.fork();
        }
        end(&scene.iterations, FORKER);
        other.join().unwrap();
        iterating.join().unwrap();
        assert!(scene.iterations.begin(1, impatient).is_some(), "a fork that has ended still counts");
    });
}

#[test]
fn the_end_of_one_fork_is_not_the_end_of_another() {
    two_forks_at_once(Iterations::resume);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn ending_all_forks_at_once_is_a_race() {
    two_forks_at_once(|iterations, _| iterations.forks.store(0, Ordering::Release));
}
