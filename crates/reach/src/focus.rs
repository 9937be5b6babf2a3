//! Selects the objects of a process that are pinned, and limits the time for that.

use std::time::Duration;

use sopin_core::vmas::FileId;
use sopin_inspect::object::InspectedObject;

use crate::moment;

/// The most attempts to stop a process of which a thread does not stop.
const MAX_STOPS: u32 = 4;

/// The objects to pin, and the limits of the attempt.
pub struct Focus<'a> {
    /// The files whose objects are pinned, as `/proc/PID/maps` shows them; `None` if all are.
    pub files: Option<&'a [FileId]>,
    /// The longest wait for moments at which a stop does little harm.
    pub patience: Duration,
    /// The most attempts to stop the process.
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
