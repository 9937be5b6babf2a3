//! The addresses of this library, and of its functions that other objects call.

use sopin_core::object::Span;

unsafe extern "C" {
    /// A second, hidden name of the `__gmon_start__` in the entry stubs (`hooks/entry_*.rs`).
    fn sopin_own_gmon_start();
    /// A second, hidden name of `__register_frame_info` (`hooks/frame_registrations.rs`).
    fn sopin_own_register_frame_info();
}

/// Returns the address of this library's `__gmon_start__`, which the loader stores into the
/// GOT slots of other objects. Taking the address of `__gmon_start__` itself would be wrong:
/// an executable that is built for gprof exports a function of that name. Then the reference
/// in this library is bound to that function as well, and no object announces itself to this
/// library.
pub fn gmon_start() -> usize {
    sopin_own_gmon_start as *const () as usize
}

/// Returns the address of this library's `__register_frame_info`.
pub fn register_frame_info() -> usize {
    sopin_own_register_frame_info as *const () as usize
}

/// Returns whether `span`, the pages of an object, are those of this library.
pub fn is_in(span: Span) -> bool {
    span.contains(gmon_start())
}
