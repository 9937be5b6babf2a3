//! What must hold for any input, tried with random inputs (proptest). Failures are shrunk; what
//! they shrink to becomes a test beside the code.
//!
//! | module | about |
//! |---|---|
//! | [`mappings`] | the parser of `/proc/PID/maps`, and looking things up in it |
//! | [`planning`] | objects from any headers, and the plan for them |
//! | [`tables`] | the containers, against those of the standard library |
//! | [`text`] | settings, globs, lists and lines |

mod mappings;
mod planning;
mod tables;
mod text;

use proptest::test_runner::Config;

/// Returns how often each property is tried; `PROPTEST_CASES` changes it. Files of
/// earlier failures are not kept: what they found has a test of its own.
fn trials() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}
