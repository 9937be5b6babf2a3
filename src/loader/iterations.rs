//! The library's iterations over the loader's list in this process, which must not overlap with
//! a fork: see [`sopin_core::iterations`].

use sopin_core::iterations::{Iteration, Iterations};
use sopin_core::sys;

#[unsafe(link_section = ".data.sopin")]
static ITERATIONS: Iterations<16> = Iterations::new();

/// The length of a nap. With [`MAX_NAPS`] of them a thread waits for 100 ms, which it does only
/// if a fork handler of the host waits for the loader.
const NAP_NS: i64 = 20_000;
const MAX_NAPS: u32 = 5_000;

/// Waits until no thread is iterating, for at most [`MAX_NAPS`] naps. No thread begins an
/// iteration before [`resume`] was called as often.
pub fn stop() {
    ITERATIONS.stop(sys::thread_identity(), naps());
}

/// Ends a fork of this thread. If no other thread forks, iterations are permitted again.
pub fn resume() {
    ITERATIONS.resume(sys::thread_identity());
}

/// Forgets the parent's other threads in a forked child.
pub fn discard_others() {
    ITERATIONS.discard_others(sys::thread_identity());
}

/// Begins an iteration of this thread, after waiting until no thread forks. `None` if a fork
/// takes too long, or if this thread is already iterating or is one that forks.
pub fn begin() -> Option<Iteration<'static, 16>> {
    ITERATIONS.begin(sys::thread_identity(), naps())
}

/// Returns whether a thread is forking, so that an iteration has to wait.
pub fn is_forking() -> bool {
    ITERATIONS.is_forking()
}

/// Returns whether this thread is iterating. Then it must not wait for any other thread.
pub fn is_within() -> bool {
    ITERATIONS.is_within(sys::thread_identity())
}

fn naps() -> impl FnMut() -> bool {
    let mut left = MAX_NAPS;
    move || {
        sys::nap(NAP_NS);
        left -= 1;
        left != 0
    }
}
