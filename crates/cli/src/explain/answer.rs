//! The answer about a core dump, as in JSON. The names stay the same while `schema` does.

use serde::Serialize;
use sopin_inspect::post_mortem::report::Explanation;

use super::input::Compression;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct CoreAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The compression of the dump as it was given.
    pub compression: Compression,
    /// The facts that the dump shows.
    #[serde(flatten)]
    pub explanation: Explanation,
}
