//! The file from which an entry is copied.

use core::ffi::CStr;

use sopin_core::build_id::BuildId;
use sopin_core::object::file_name;
use sopin_core::sys::{Fd, FileSystem};

use crate::name::Identity;

/// The file from which an entry is copied, open for reading.
#[derive(Clone, Copy)]
pub struct OriginFile<'a> {
    /// The file.
    pub file: &'a Fd,
    /// Its absolute path.
    pub path: &'a CStr,
    /// Its identity when it was found to be the file that is mapped.
    pub identity: Identity,
    /// Whether no other file has its device and inode number.
    pub has_own_numbers: bool,
    /// The file system that it is on.
    pub file_system: &'a FileSystem,
}

impl OriginFile<'_> {
    /// Returns the part of the path behind the last slash.
    pub fn file_name(&self) -> &CStr {
        CStr::from_bytes_with_nul(file_name(self.path.to_bytes_with_nul())).unwrap_or_default()
    }
    /// Returns whether identity and build-id together determine the file's contents. Image
    /// builders give all files one time, in whole seconds, in every version of an image; so the
    /// identity alone suffices only where the kernel has set a finer time.
    pub fn is_identified_by_times(&self, build_id: BuildId) -> bool {
        self.has_own_numbers
            && self.file_system.updates_ctime_on_every_change()
            && (self.identity.has_fine_times() || build_id == BuildId::Same)
    }
}
