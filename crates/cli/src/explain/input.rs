//! Opens a core dump: a file or stdin, uncompressed, or compressed as coredumpctl(1) stores it. This module
//! copies a dump that is compressed, or is no regular file, to a file without a name in `TMPDIR` or
//! `/var/tmp`, in which zeroes take no room. It recognises the compression by the first bytes, not by the name.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;
use sopin_inspect::core_dump::{self, DumpFlaw};
use sopin_inspect::memory::FileBytes;

use crate::exit::{Exit, Failure};

/// Bytes that are decoded at a time.
const BLOCK: usize = 1 << 18;
/// Bytes that stay a hole if they are zeroes.
const HOLE: usize = 4096;
/// The largest buffer that a zstd file may ask for, in bytes: that of `zstd --ultra -22`, which
/// zstd(1) itself permits without `--memory`.
const MOST_WINDOW: u64 = 128 << 20;

/// The compression of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all, as far as is known.
    None,
    /// gzip(1)
    Gzip,
    /// zstd(1): the present default of systemd-coredump.
    Zstd,
    /// lz4(1): that of older versions.
    Lz4,
    /// xz(1), which this program cannot decompress.
    Xz,
}

impl Compression {
    fn of(beginning: &[u8]) -> Self {
        match beginning {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// An open dump.
pub struct Input {
    /// The dump, decompressed.
    pub file: FileBytes,
    /// Its length in bytes.
    pub size: u64,
    /// The compression of the dump as it was given.
    pub compression: Compression,
    /// The error because of which the dump ends early: the compressed data is cut off or damaged.
    pub flaw: Option<String>,
}

/// Opens a dump; `-` is stdin.
///
/// # Errors
/// When it cannot be opened, read, or copied.
pub fn open(path: &Path) -> Result<Input, Failure> {
    let name = if path == Path::new("-") { Path::new("stdin") } else { path };
    let failed = |error: io::Error| Failure::new(Exit::Uninspected, name.display(), error);
    let file = if path == Path::new("-") {
        File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
    } else {
        File::open(path).map_err(failed)?
    };
    let kind = file.metadata().map_err(failed)?;
    if kind.is_dir() {
        return Err(failed(io::Error::from(ErrorKind::IsADirectory)));
    }
    // A shell may have read from it before.
    let is_whole = kind.is_file() && (&file).stream_position().is_ok_and(|position| position == 0);
    let mut source = BufReader::with_capacity(BLOCK, file);
    let compression = Compression::of(source.fill_buf().map_err(failed)?);
    if compression == Compression::Xz {
        let failure =
            Failure::new(Exit::Uninspected, name.display(), "compressed by xz, which sopin cannot decompress");
        return Err(failure.with_way_out(format!("xz -dc {} | sopin explain -", name.display())));
    }
    if compression == Compression::None && is_whole {
        let file = FileBytes::from(OwnedFd::from(source.into_inner()));
        return Ok(Input { file, size: kind.len(), compression, flaw: None });
    }
    let directory = directory();
    let unwritten = |error: io::Error, size: u64| {
        let failure = Failure::new(
            Exit::Uninspected,
            directory.display(),
            format_args!("no room for a copy of {}, of which there are {} MiB: {error}", name.display(), size >> 20),
        );
        failure.with_way_out("set TMPDIR to a directory with more")
    };
    let copy = tempfile::tempfile_in(&directory).map_err(|error| unwritten(error, 0))?;
    let mut copy = SparseFile { file: FileBytes::from(OwnedFd::from(copy)), size: 0, end: None };
    let flaw = match decode(source, compression, &mut copy) {
        Ok(()) => None,
        Err(Trouble::Write(error)) => return Err(unwritten(error, copy.size)),
        Err(Trouble::NoDump(flaw)) => return Err(Failure::new(Exit::Uninspected, name.display(), flaw)),
        Err(Trouble::Read(error)) if copy.size == 0 => return Err(failed(error)),
        // The part that could be read is explained like a dump that was cut off.
        Err(Trouble::Read(error)) => Some(format!("its compressed data ends early: {error}")),
    };
    let size = copy.size;
    let file = copy.finish().map_err(|error| unwritten(error, size))?;
    Ok(Input { file, size, compression, flaw })
}

/// Returns the directory for the copy. Where `/tmp` is in memory, a dump may not fit.
fn directory() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ => [Path::new("/var/tmp")].into_iter().find(|path| path.is_dir()).unwrap_or(Path::new("/tmp")).into(),
    }
}

/// A reason for which a dump could not be copied.
enum Trouble {
    Read(io::Error),
    Write(io::Error),
    /// The bytes that were read are not those of a dump.
    NoDump(DumpFlaw),
}

fn decode(mut source: BufReader<File>, compression: Compression, copy: &mut SparseFile) -> Result<(), Trouble> {
    match compression {
        Compression::None | Compression::Xz => transfer(&mut source, copy),
        Compression::Gzip => transfer(&mut MultiGzDecoder::new(source), copy),
        Compression::Lz4 => {
            let mut decoder = FrameDecoder::new(source);
            // At the end of a frame the decoder reports the end; there may be another.
            loop {
                let before = copy.size;
                transfer(&mut decoder, copy)?;
                if copy.size == before || copy.is_whole() {
                    return Ok(());
                }
            }
        }
        Compression::Zstd => {
            while !copy.is_whole() && !source.fill_buf().map_err(Trouble::Read)?.is_empty() {
                let frame = StreamingDecoder::new_with_max_window_size(&mut source, MOST_WINDOW);
                let mut frame = frame.map_err(|error| Trouble::Read(io::Error::other(Words(error))))?;
                transfer(&mut frame, copy)?;
            }
            Ok(())
        }
    }
}

/// Shows an error whose type is private to its crate.
#[derive(Debug)]
struct Words<T>(T);

impl<T: fmt::Display> fmt::Display for Words<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Display + fmt::Debug> std::error::Error for Words<T> {}

fn transfer(from: &mut impl Read, copy: &mut SparseFile) -> Result<(), Trouble> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(got) => {
                copy.append(block.get(..got).unwrap_or_default()).map_err(Trouble::Write)?;
                copy.look_for_end()?;
                if copy.is_whole() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Trouble::Read(error)),
        }
    }
}

/// A copy in which zeroes are holes, and which ends where the headers of the dump say.
struct SparseFile {
    file: FileBytes,
    size: u64,
    end: Option<u64>,
}

impl SparseFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        for block in bytes.chunks(HOLE) {
            if block.iter().any(|byte| *byte != 0) {
                self.file.write_at(self.size, block)?;
            }
            self.size += block.len() as u64;
        }
        Ok(())
    }

    /// Learns from the headers where the dump ends, as soon as they have been read.
    fn look_for_end(&mut self) -> Result<(), Trouble> {
        if self.end.is_none() {
            self.end = core_dump::extent(&self.file, self.size).map_err(Trouble::NoDump)?;
        }
        Ok(())
    }

    /// Returns whether all that the headers promise has been read: more may be endless.
    fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| self.size >= end)
    }

    fn finish(self) -> io::Result<FileBytes> {
        self.file.set_len(self.size)?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_holes() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut copy = SparseFile { file: FileBytes::from(OwnedFd::from(file.reopen().unwrap())), size: 0, end: None };
        copy.append(b"begin").unwrap();
        for _ in 0..64 {
            copy.append(&vec![0; 1 << 16]).unwrap();
        }
        copy.append(b"end").unwrap();
        copy.append(&[0; 9000]).unwrap();
        assert!(copy.look_for_end().is_err(), "no dump");
        copy.finish().unwrap();
        let kind = file.as_file().metadata().unwrap();
        assert_eq!(kind.len(), 5 + (64 << 16) + 3 + 9000);
        assert!(kind.blocks() < 128);
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(bytes.starts_with(b"begin\0") && bytes[5 + (64 << 16)..].starts_with(b"end\0"));
    }

    #[test]
    fn compression_is_known_by_the_first_bytes() {
        assert_eq!(Compression::of(b"\x7fELF"), Compression::None);
        assert_eq!(Compression::of(b""), Compression::None);
        assert_eq!(Compression::of(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8]), Compression::Gzip);
    }
}
