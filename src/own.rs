//! Where this library is, and which function of it other objects call.

use sopin_core::object::Span;

unsafe extern "C" {
    /// Where this library begins, by the linker's name for it.
    static __ehdr_start: u8;
    /// Where it ends.
    static _end: u8;
    /// Another, hidden name of the `__gmon_start__` in the entry stubs (`hooks/entry_*.rs`).
    fn sopin_own_gmon_start();
}

/// Returns whether `address` lies in this library.
pub fn contains(address: usize) -> bool {
    ((&raw const __ehdr_start).addr()..(&raw const _end).addr()).contains(&address)
}

/// Returns the address of this library's `__gmon_start__`, which the slots of other
/// objects hold. It is not the address of the symbol: an executable that is built for
/// gprof exports a function of that name, and then the references of this library lead
/// there as well, while no object announces itself to this library.
pub fn gmon_start() -> usize {
    sopin_own_gmon_start as *const () as usize
}

/// Returns whether `span`, the pages of an object, are those of this library.
pub fn is_in(span: Span) -> bool {
    span.contains(gmon_start())
}
