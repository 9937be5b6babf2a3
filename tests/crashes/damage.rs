//! Changes the file of the plug-in while the program is running.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use object::read::elf::{ElfFile64, ProgramHeader};

use crate::common::rewrite::Rewrite;

/// A change of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// None.
    None,
    /// It is truncated and gets the same bytes again: what reinstalling the same package does.
    SameBytes,
    /// It is truncated and gets the bytes of another build.
    OtherBuild,
    /// Another build is written over it without truncating it, as `rsync --inplace` does.
    OtherInPlace,
    /// It is truncated to nothing.
    Emptied,
    /// It is truncated to nothing and gets the same bytes again after the program's death.
    EmptiedForAWhile,
    /// It loses everything from its writable data on.
    Shortened,
    /// A new file with another build takes its place, which harms no process.
    Replaced,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "untouched",
            Self::SameBytes => "same_bytes",
            Self::OtherBuild => "other_build",
            Self::OtherInPlace => "other_build_in_place",
            Self::Emptied => "emptied",
            Self::EmptiedForAWhile => "emptied_for_a_while",
            Self::Shortened => "shortened",
            Self::Replaced => "replaced",
        })
    }
}

impl Damage {
    /// Changes a file. `other` is another build of it.
    ///
    /// # Errors
    /// Those of the file system; the file is no object.
    pub fn apply(self, file: &Path, other: &Path) -> Result<(), String> {
        let result = match self {
            Self::None => Ok(()),
            Self::SameBytes => Rewrite::SameBytes.apply(file),
            Self::OtherBuild => fs::read(other).and_then(|bytes| fs::write(file, bytes)),
            Self::OtherInPlace => overwrite(file, other),
            Self::Emptied | Self::EmptiedForAWhile => Rewrite::Empty.apply(file),
            Self::Shortened => {
                let start = start_of_data(file)?;
                OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(start))
            }
            Self::Replaced => {
                let new = file.with_extension("new");
                fs::copy(other, &new).and_then(|_| fs::rename(&new, file))
            }
        };
        result.map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Does what happens to the file after the program's death. `original` has its first bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn apply_afterwards(self, file: &Path, original: &Path) -> Result<(), String> {
        if self != Self::EmptiedForAWhile {
            return Ok(());
        }
        let restored = fs::read(original).and_then(|bytes| File::create(file)?.write_all(&bytes));
        restored.map_err(|error| format!("{}: {error}", file.display()))
    }
}

fn overwrite(file: &Path, other: &Path) -> io::Result<()> {
    let bytes = fs::read(other)?;
    let mut file = OpenOptions::new().write(true).open(file)?;
    file.write_all(&bytes)?;
    // rsync cuts off what the new file does not have, after it was written.
    file.set_len(bytes.len() as u64)
}

/// Returns where the pages of the writable segment begin in the file.
fn start_of_data(file: &Path) -> Result<u64, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let object = ElfFile64::<object::Endianness>::parse(&*bytes).map_err(|error| error.to_string())?;
    let endian = object.endian();
    let is_data = |header: &&object::elf::ProgramHeader64<object::Endianness>| {
        header.p_type(endian) == object::elf::PT_LOAD && header.p_flags(endian) & object::elf::PF_W != 0
    };
    let data = object.elf_program_headers().iter().find(is_data).ok_or("no writable segment")?;
    Ok(data.p_offset(endian) & !(rustix::param::page_size() as u64 - 1))
}
