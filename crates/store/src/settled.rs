//! Whether a file has settled: no process is writing to it, and every later write changes its
//! times. Only then does its identity determine its contents.

use sopin_core::cause::{Cause, Operation};
use sopin_core::sys;

use crate::origin_file::OriginFile;

/// Seconds for which an origin must not have changed before it is copied. A change within the
/// granularity of the file system's timestamps would not be visible.
pub const SETTLING_SECONDS: i64 = 2;
/// The same where the process cannot determine whether another one is writing to the file: a
/// single `write(2)` sets the times when it begins, and can take long to write its bytes.
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
    // The clock could not be read.
    let has_settled = |seconds| now != 0 && origin.identity.has_settled(now, seconds);
    if !has_settled(SETTLING_SECONDS) {
        return Err(NOT_SETTLED);
    }
    match sys::has_writer(origin.file) {
        Ok(false) => Ok(()),
        Ok(true) => Err(HAS_WRITER),
        // Only the file's owner and root can request a lease.
        Err(_) if has_settled(LONG_SETTLING_SECONDS) => Ok(()),
        Err(_) => Err(MAY_HAVE_WRITER),
    }
}
