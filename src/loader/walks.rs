//! The walks of this process, see [`sopin_core::iterations`].

use sopin_core::iterations::{Iteration, Iterations};
use sopin_core::sys;

static WALKS: Iterations<16> = Iterations::new();

/// A nap while the other one is busy, and how many of them: 100 ms, which is
/// reached only if a fork handler of the host waits for the loader.
const NAP_NS: i64 = 20_000;
const MAX_NAPS: u32 = 5_000;

/// Waits, for a short time, until no thread is walking; none starts to.
pub fn stop() {
    WALKS.stop(sys::thread_identity(), naps());
}

/// Lets threads walk again.
pub fn resume(is_child: bool) {
    WALKS.resume(is_child);
}

/// Counts this thread among the walkers, when no thread forks. `None` if one
/// does for too long, or if this thread is one already or forks itself.
pub fn begin() -> Option<Iteration<'static, 16>> {
    WALKS.begin(sys::thread_identity(), naps())
}

/// Returns whether a thread is forking, and what wants a walk has to wait.
pub fn is_forking() -> bool {
    WALKS.is_forking()
}

/// Returns whether this thread is in a walk: then it may wait for nobody.
pub fn is_within() -> bool {
    WALKS.is_within(sys::thread_identity())
}

fn naps() -> impl FnMut() -> bool {
    let mut left = MAX_NAPS;
    move || {
        sys::nap(NAP_NS);
        left -= 1;
        left != 0
    }
}
