//! What is prepared while the process runs: the files that its objects map, and their copies.

use std::collections::HashMap;
use std::rc::Rc;

use sopin_inspect::files::Writability;
use sopin_inspect::maps::Mapping;
use sopin_store::InMemory;

use crate::copies::{Copies, Copy, OriginalFile};
use crate::object::{self, ObjectPlan, Surroundings};
use crate::target::UsableStores;

/// The files that a process maps, and the copies that were made of them.
#[derive(Default)]
pub struct PreparedFiles(HashMap<FileKey, Prepared>);

/// A file, as the mappings show it: major and minor device number, inode number, path. On btrfs the
/// mappings show one device number for all subvolumes, each of which numbers its files anew, so
/// that the numbers do not identify a file.
type FileKey = (u32, u32, u64, Vec<u8>);

/// A file, and the copy that was made of it while the process ran.
pub struct Prepared {
    /// The file, if it could be opened.
    pub original: Option<OriginalFile>,
    /// The copy, or why there is none.
    pub copy: Result<Rc<Copy>, String>,
    /// Whether no process can write to the file, so that it needs no copy.
    pub is_unwritable: bool,
}

impl PreparedFiles {
    /// Prepares the file of an object, unless that is done.
    pub fn add(&mut self, around: &Surroundings<'_>, plan: &ObjectPlan, copies: &mut Copies, stores: UsableStores) {
        self.0.entry(key(&plan.mapping)).or_insert_with(|| prepare(around, plan, copies, stores));
    }

    /// Returns what was prepared for the file that a mapping maps.
    pub fn get(&self, mapping: &Mapping) -> Option<&Prepared> {
        self.0.get(&key(mapping))
    }
}

/// Opens the file that an object maps, and finds or makes the copy of it.
fn prepare(around: &Surroundings<'_>, plan: &ObjectPlan, copies: &mut Copies, stores: UsableStores) -> Prepared {
    let original = object::open_original(around.found, &plan.mapping);
    let is_unwritable = around.found.view.mapped(&plan.mapping).writability == Writability::Unwritable;
    let copy = match &original {
        Some(original) if !is_unwritable && plan.needs_copy() => {
            let mapped = InMemory { memory: around.memory, object: &plan.object, replacements: &plan.ranges };
            copies.find(original, &mapped, stores)
        }
        _ => Err("no copy is needed".to_owned()),
    };
    Prepared { original, copy, is_unwritable }
}

fn key(mapping: &Mapping) -> FileKey {
    let (major, minor) = mapping.file.device;
    (major, minor, mapping.file.inode, mapping.names().0.to_owned())
}
