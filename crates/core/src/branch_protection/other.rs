//! Processors without a protection bit for branch targets: x86-64 turns indirect
//! branch tracking on for a whole process.

use crate::vmas::Protection;

/// Returns the protection of an executable range whose indirect branch targets the
/// processor checks; `None` if there is none.
pub const fn branch_target_bits() -> Option<Protection> {
    None
}
