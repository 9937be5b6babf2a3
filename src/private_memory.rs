//! How much private memory the copies of read-only ranges, and those of data to which no code has
//! stored, may take where no store can be used: the bounds are those of [`PrivateMemory`]. What does
//! not fit of an object is left; unloading other objects makes room again. A forked child continues
//! with the count of its parent, since it maps the same copies.

use sopin_core::cause::{Cause, Operation};
use sopin_core::private_memory::{NoRoom, PrivateMemory};
use sopin_core::settings::Settings;

const OPERATION: Operation = Operation::CopyToPrivateMemory;
const LIMITED_WORDS: &str = "more than SOPIN_PRIVATE_LIMIT; name a directory for the store with SOPIN_STORE";
const SHORT_WORDS: &str = "too little memory is left; name a directory for the store with SOPIN_STORE";

/// The private copies would exceed the user's limit.
pub const LIMITED: Cause = Cause::words(OPERATION, LIMITED_WORDS);
/// The private copies would take too much of the memory that is left.
pub const SHORT: Cause = Cause::words(OPERATION, SHORT_WORDS);

/// Returns an error if this process, which has the private copies that `held` counts, may not make
/// more of so many `bytes`.
pub fn check(held: PrivateMemory, bytes: usize, settings: &Settings) -> Result<(), Cause> {
    held.check(bytes, settings.private_limit).map_err(|reason| match reason {
        NoRoom::Limited => LIMITED,
        NoRoom::Short => SHORT,
    })
}

/// Does the same for data to which no code has stored. The error names a remedy if a store would be
/// one.
pub fn check_untouched(
    held: PrivateMemory,
    bytes: usize,
    settings: &Settings,
    would_store_help: bool,
) -> Result<(), Cause> {
    let words = |reason| match (reason, would_store_help) {
        (NoRoom::Limited, true) => LIMITED_WORDS,
        (NoRoom::Limited, false) => "more than SOPIN_PRIVATE_LIMIT",
        (NoRoom::Short, true) => SHORT_WORDS,
        (NoRoom::Short, false) => "too little memory is left",
    };
    held.check(bytes, settings.private_limit)
        .map_err(|reason| Cause::words(Operation::CopyUntouchedData, words(reason)))
}
