//! How much private memory the copies of read-only ranges may take where no store
//! can be used: the bounds are those of [`PrivateMemory`]. The read-only ranges of an object that
//! does not fit are left; unloading other objects makes room again. A forked child continues with
//! the count of its parent, since it maps the same copies.

use sopin_core::cause::{Cause, Operation};
use sopin_core::private_memory::{NoRoom, PrivateMemory};
use sopin_core::settings::Settings;

const OPERATION: Operation = Operation::CopyToPrivateMemory;
/// The private copies would exceed the user's limit.
pub const LIMITED: Cause =
    Cause::words(OPERATION, "more than SOPIN_PRIVATE_LIMIT; name a directory for the store with SOPIN_STORE");
/// The private copies would take too much of the memory that is left.
pub const SHORT: Cause =
    Cause::words(OPERATION, "too little memory is left; name a directory for the store with SOPIN_STORE");

/// Returns an error if this process, which has the private copies that `held` counts, may not make
/// more of so many `bytes`.
pub fn check(held: PrivateMemory, bytes: usize, settings: &Settings) -> Result<(), Cause> {
    held.check(bytes, settings.private_limit).map_err(|reason| match reason {
        NoRoom::Limited => LIMITED,
        NoRoom::Short => SHORT,
    })
}
