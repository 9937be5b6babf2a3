//! Reads the memory of another process through `/proc/PID/mem`, and files.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::process::Process;

/// Longest string that is read; the kernel's limit for a path.
const MAX_STRING: usize = 4096;

/// Bytes at offsets or addresses.
pub trait Bytes {
    /// Reads as many bytes as there are, at most the length of the buffer.
    ///
    /// # Errors
    /// When there is no byte at `at`.
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Fills an array.
    ///
    /// # Errors
    /// When not all of it can be read.
    fn read_array<const N: usize>(&self, at: u64) -> Result<[u8; N], Errno> {
        let mut array = [0; N];
        let got = self.read_some(at, &mut array)?;
        if got == N { Ok(array) } else { Err(Errno::IO) }
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    /// When not all of them can be read.
    fn read_exact(&self, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let got = self.read_some(at, &mut bytes)?;
        if got == len { Ok(bytes) } else { Err(Errno::IO) }
    }

    /// Reads a word.
    ///
    /// # Errors
    /// When it cannot be read.
    fn word(&self, at: u64) -> Result<u64, Errno> {
        Ok(u64::from_ne_bytes(self.read_array(at)?))
    }

    /// Reads a string that ends with a NUL.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than the limit.
    fn string(&self, at: u64) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; 256];
        loop {
            let got = self.read_some(at, &mut bytes)?;
            if let Some(end) = bytes.iter().take(got).position(|byte| *byte == 0) {
                bytes.truncate(end);
                return Ok(bytes);
            }
            if got < bytes.len() || bytes.len() >= MAX_STRING {
                return Err(Errno::NAMETOOLONG);
            }
            bytes.resize(MAX_STRING, 0);
        }
    }
}

impl<B: Bytes> Bytes for &B {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        B::read_some(self, at, buffer)
    }
}

/// An open file, or the memory of a process.
pub struct FileBytes(OwnedFd);

impl FileBytes {
    /// Opens the memory of a process. The descriptor belongs to the present program image:
    /// after an exec it reads nothing.
    ///
    /// # Errors
    /// Those of opening; `EACCES` and `EPERM` without permission.
    pub fn memory_of(process: &Process) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(fs::openat(process.directory(), "mem", flags, Mode::empty())?))
    }
}

impl FileBytes {
    /// Writes all of these bytes at an offset in a file of this program's own.
    ///
    /// # Errors
    /// Those of `pwrite(2)`.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&self.0, rest, at.saturating_add(done as u64)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Sets the length of such a file in bytes.
    ///
    /// # Errors
    /// Those of `ftruncate(2)`.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&self.0, len)?)
    }
}

impl From<OwnedFd> for FileBytes {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Bytes for FileBytes {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.0, rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(Errno::INTR) => {}
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// Returns the word at an offset into an array of bytes.
pub fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Returns the half word at an offset into an array of bytes.
pub fn half_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes that begin at an address.
    pub struct Array(pub u64, pub Vec<u8>);

    impl Bytes for Array {
        fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
            let start = at.checked_sub(self.0).and_then(|start| usize::try_from(start).ok()).ok_or(Errno::IO)?;
            let rest = self.1.get(start..).filter(|rest| !rest.is_empty()).ok_or(Errno::IO)?;
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    #[test]
    fn strings_end_with_a_nul_or_are_none() {
        let text = Array(0x1000, b"abc\0def".to_vec());
        assert_eq!(text.string(0x1000), Ok(b"abc".to_vec()));
        assert_eq!(text.string(0x1004), Err(Errno::NAMETOOLONG));
        assert_eq!(text.string(0x2000), Err(Errno::IO));
        assert_eq!(Array(0, vec![b'x'; 9000]).string(0), Err(Errno::NAMETOOLONG));
        let mut long = vec![b'x'; 1000];
        long.push(0);
        assert_eq!(Array(0, long).string(0).map(|text| text.len()), Ok(1000));
    }

    #[test]
    fn a_word_is_whole_or_not_read() {
        let bytes = Array(8, 7_u64.to_ne_bytes().to_vec());
        assert_eq!(bytes.word(8), Ok(7));
        assert_eq!(bytes.word(9), Err(Errno::IO));
    }

    #[test]
    fn own_memory_can_be_read() {
        let own = Process::open(std::process::id()).unwrap();
        let here: &'static str = "a text in this program";
        let memory = FileBytes::memory_of(&own).unwrap();
        let read = memory.read_exact(here.as_ptr().addr() as u64, here.len()).unwrap();
        assert_eq!(read, here.as_bytes());
    }
}
