//! Whether a file has settled: no write to it is under way, and every later one
//! shows in its times. Only then does its identity tell what it holds.

use sopin_core::cause::{Cause, Operation};
use sopin_core::sys;

use crate::origin_file::OriginFile;

/// Seconds that a source must not have changed for before it is copied: a
/// change within the file system's timestamp granularity would not show.
pub(super) const SETTLING_SECONDS: i64 = 2;
/// The same where it cannot be found out whether somebody is writing to it: a single
/// `write(2)` sets the times when it begins, and can wait for its bytes.
const LONG_SETTLING_SECONDS: i64 = 60;

const OPERATION: Operation = Operation::AddToStore;
/// Why a file that has not settled is not copied.
pub const NOT_SETTLED: Cause = Cause::words(OPERATION, "the file has changed within the last 2 seconds");
const HAS_WRITER: Cause = Cause::words(OPERATION, "somebody has the file open for writing");
const MAY_HAVE_WRITER: Cause = Cause::words(OPERATION, "the file has changed within the last minute");

/// Returns whether that is why a file was not copied.
pub fn is_unsettled(cause: Cause) -> bool {
    matches!(cause, NOT_SETTLED | HAS_WRITER | MAY_HAVE_WRITER)
}

/// Checks that the file has settled.
pub(super) fn check(origin: &OriginFile<'_>) -> Result<(), Cause> {
    let now = sys::realtime_seconds();
    // What time it is could not be found out.
    let has_settled = |seconds| now != 0 && origin.identity.has_settled(now, seconds);
    if !has_settled(SETTLING_SECONDS) {
        return Err(NOT_SETTLED);
    }
    match sys::has_writer(origin.file) {
        Ok(false) => Ok(()),
        Ok(true) => Err(HAS_WRITER),
        // Only its owner and root may ask.
        Err(_) if has_settled(LONG_SETTLING_SECONDS) => Ok(()),
        Err(_) => Err(MAY_HAVE_WRITER),
    }
}
