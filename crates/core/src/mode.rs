//! How much of an object is pinned.

/// What is pinned (`SOPIN_MODE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything the process can read or execute.
    Full,
    /// Writable and relocated ranges only.
    Relocated,
    /// Nothing.
    Off,
}
