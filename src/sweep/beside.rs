//! The names of the objects that are left because another one may have run. The line about
//! that other object lists them, because changing that object is the remedy.

use sopin_core::cause::Cause;

use super::{Sweep, is_alone, is_vdso};
use crate::object_path::ObjectPath;
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

/// Longest list of names, in bytes.
const LIST: usize = 1024;

impl Sweep<'_> {
    /// Collects the names of the candidates whose writable ranges `assessment` leaves because
    /// of another candidate.
    pub(super) fn name_those_beside(&mut self, assessment: Assessment) -> Result<(), Cause> {
        let Workspace { candidates, beside: list, .. } = &mut *self.work;
        for candidate in candidates.iter() {
            let is_left =
                assessment.is_left_for_another(self.signals, candidate) && !is_alone(&self.alone, &self.marked);
            if is_vdso(&candidate.loaded) || !is_left {
                continue;
            }
            let path = ObjectPath::named_by_loader(self.memory, &candidate.loaded, self.path_room);
            if !self.reporter.settings().selects(path.as_bytes()) {
                continue;
            }
            let separator = if list.is_empty() { &b""[..] } else { b", " };
            let is_full = list.len() + path.file_name().len() > LIST;
            let name = if is_full { b"..." } else { path.file_name() };
            list.extend(separator).and_then(|()| list.extend(name)).map_err(Cause::no_memory)?;
            if is_full {
                break;
            }
        }
        Ok(())
    }
}
