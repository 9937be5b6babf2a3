//! The memory of a process, through `/proc/PID/mem`: writing to it when the process has stopped, and
//! reading words of it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use sopin_inspect::process::Process;

/// The memory of a process. Only mappings that sopin has made are written to, the unused part of a
/// stack, and the library's records.
pub struct WritableMemory(File);

impl WritableMemory {
    /// Opens the memory of a process.
    pub fn of(process: &Process) -> Result<Self, Errno> {
        fs::openat(process.directory(), "mem", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(|fd| Self(fd.into()))
    }

    /// Writes all of `bytes` at an address.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let written = self.0.write_all_at(bytes, address);
        // The kernel writes nothing, without an error, where there is no memory.
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::FAULT))
    }
}

/// Reads a word in the memory of a process or of one of its threads.
pub fn word_at(process: u32, address: u64) -> Option<u64> {
    words_at(process, address, 1)?.first().copied()
}

/// Reads words in the memory of a process or of one of its threads.
pub fn words_at(process: u32, address: u64, count: usize) -> Option<Vec<u64>> {
    let memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let mut bytes = vec![0; count.checked_mul(size_of::<u64>())?];
    memory.read_exact_at(&mut bytes, address).ok()?;
    let words = bytes.as_chunks().0;
    Some(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
}
