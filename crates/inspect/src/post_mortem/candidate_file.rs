//! A file from which an object may have been loaded: its headers, its dynamic section, its
//! relocated words and its build-id. The file is not trusted.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::files::Image;
use crate::image::{Flaw, Headers, build_id_in};
use crate::memory::{Bytes, FileBytes};
use crate::relocated_words::RelocatedWord;

/// Bytes of a PT_NOTE segment that are read: a build-id is near the beginning.
const NOTES: u64 = 4096;

/// A file of an object.
pub struct CandidateFile {
    /// The file.
    pub bytes: FileBytes,
    /// Its length in bytes.
    pub size: u64,
    /// Its program headers and its dynamic section.
    pub image: Image,
    /// Its build-id; empty without one.
    pub build_id: Vec<u8>,
}

impl CandidateFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The flaw of the file.
    pub fn read(file: File) -> Result<Self, Flaw> {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let bytes = FileBytes::from(OwnedFd::from(file));
        let image = Image::read(&bytes)?;
        let build_id = build_id_at(&bytes, 0, &image.headers).unwrap_or_default();
        Ok(Self { bytes, size, image, build_id })
    }

    /// Returns the words to which the loader stores.
    ///
    /// # Errors
    /// The flaw because of which they cannot be read.
    pub fn words(&self) -> Result<&[RelocatedWord], Flaw> {
        self.image.words(|| Ok(&self.bytes))
    }
}

/// Returns the build-id of an object whose file begins at `start` in `bytes`.
pub fn build_id_at(bytes: &impl Bytes, start: u64, headers: &Headers) -> Option<Vec<u8>> {
    let mut notes = headers.notes.iter();
    notes.find_map(|(offset, size)| build_id_in(bytes, start.checked_add(*offset)?, (*size).min(NOTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_a_build_id_and_relocated_words() {
        let file = CandidateFile::read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(file.words().unwrap().len() > 100 && file.size > 10_000);
        assert!(file.build_id.is_empty() || file.build_id.len() >= 8);
        assert!(matches!(CandidateFile::read(File::open("/etc/passwd").unwrap()), Err(Flaw::Foreign)));
    }
}
