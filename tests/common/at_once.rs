//! How many trials of a test program run at a time.

use std::thread::available_parallelism;

use libtest_mimic::Arguments;

/// Returns the number of processors of this machine.
pub fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Returns the arguments of the command line. Unless they name a number of threads, so many trials run at a
/// time on each processor; with `None`, one.
pub fn arguments(trials_per_processor: Option<usize>) -> Arguments {
    let mut arguments = Arguments::from_args();
    let threads = trials_per_processor.map(|number| number * processors());
    arguments.test_threads = arguments.test_threads.or(threads);
    arguments
}
