//! Which objects of a process are pinned, and how long that may take.

use std::time::Duration;

use sopin_core::vmas::FileId;
use sopin_inspect::object::InspectedObject;

use crate::moment;

/// How often it is attempted to stop a process of which a thread does not stop.
const MAX_STOPS: u32 = 4;

/// What to pin, and with how much patience.
pub struct Focus<'a> {
    /// The files whose objects are pinned, as `/proc/PID/maps` shows them; `None` if all are.
    pub files: Option<&'a [FileId]>,
    /// How long moments at which a stop does little harm may be waited for.
    pub patience: Duration,
    /// How often it is attempted to stop the process.
    pub stops: u32,
    /// Asked between stops; if it returns false, objects that were not reached are left.
    pub goes_on: &'a dyn Fn() -> bool,
}

impl Focus<'_> {
    /// Returns the focus of `sopin pin`: all objects, with the patience that does least harm.
    pub fn all() -> Self {
        Self { files: None, patience: moment::PATIENCE, stops: MAX_STOPS, goes_on: &|| true }
    }

    /// Returns whether an object is to be pinned.
    pub(crate) fn selects(&self, object: &InspectedObject<'_>) -> bool {
        self.files.is_none_or(|files| object.original.is_some_and(|mapping| files.contains(&mapping.file)))
    }
}
