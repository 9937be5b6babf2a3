//! Machine and loader of an ELF file.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endian, Endianness, FileKind, ReadRef};

/// The machine that a file is made for: two files for the same machine can share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`
    number: u16,
    /// 32 or 64, from `EI_CLASS`.
    bits: u8,
    is_big_endian: bool,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.number, self.bits) {
            (elf::EM_X86_64, 64) => "x86-64",
            (elf::EM_X86_64, _) => "x32",
            (elf::EM_386, _) => "i386",
            (elf::EM_AARCH64, 64) => "aarch64",
            (elf::EM_ARM, _) => "arm",
            (elf::EM_RISCV, 64) => "riscv64",
            (elf::EM_PPC64, _) => "ppc64",
            (elf::EM_S390, 64) => "s390x",
            (elf::EM_LOONGARCH, 64) => "loongarch64",
            (number, bits) => return write!(f, "machine {number} of elf.h, {bits} bits"),
        };
        f.write_str(name)?;
        // The names of the others include the byte order.
        if self.is_big_endian && self.number != elf::EM_S390 { f.write_str(", big-endian") } else { Ok(()) }
    }
}

/// The properties of an ELF file that decide whether a library can be preloaded into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The machine that it is made for.
    pub machine: Machine,
    /// `PT_INTERP`: the loader that starts it; `None` for a static program.
    pub loader: Option<PathBuf>,
}

/// Returns whether the kernel's ELF loader handles a file with this beginning.
pub fn is_elf(beginning: &[u8]) -> bool {
    beginning.starts_with(&elf::ELFMAG)
}

/// Reads an ELF file.
///
/// # Errors
/// What is wrong with the file, for people.
pub fn read(file: File) -> Result<Elf, String> {
    let data = ReadCache::new(file);
    let found = match FileKind::parse(&data) {
        Ok(FileKind::Elf32) => facts::<FileHeader32<Endianness>, _>(&data),
        Ok(FileKind::Elf64) => facts::<FileHeader64<Endianness>, _>(&data),
        Ok(_) | Err(_) => return Err("not a valid ELF file".to_owned()),
    };
    found.map_err(|error| format!("not a valid ELF file: {error}"))
}

fn facts<'data, Header, Data>(data: Data) -> Result<Elf, object::read::Error>
where
    Header: FileHeader<Endian = Endianness>,
    Data: ReadRef<'data>,
{
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let machine = Machine {
        number: header.e_machine(endian),
        bits: if header.is_class_64() { 64 } else { 32 },
        is_big_endian: endian.is_big_endian(),
    };
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            return Ok(Elf { machine, loader: Some(OsStr::from_bytes(path).into()) });
        }
    }
    Ok(Elf { machine, loader: None })
}

/// Returns whether a file has the name of a dynamic loader (`ld-linux-x86-64.so.2`,
/// `ld-2.31.so`, `ld64.so.1`, `ld.so.1`, `ld-musl-aarch64.so.1`): a trial starts no other file,
/// and no other program without a loader reads `LD_PRELOAD`.
pub fn is_called_loader(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let is_so = || name.ends_with(b".so") || name.windows(4).any(|window| window == b".so.");
    name.starts_with(b"ld") && name.get(2).is_some_and(|byte| b"-.6".contains(byte)) && is_so()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_known_by_their_names() {
        for name in
            ["/lib64/ld-linux-x86-64.so.2", "/x/ld-2.31.so", "/lib64/ld64.so.1", "/lib/ld.so.1", "ld-musl-x86_64.so.1"]
        {
            assert!(is_called_loader(Path::new(name)), "{name}");
        }
        for name in ["/usr/bin/ld", "/usr/bin/ld.gold", "/lib/ldap.so.2", "/lib/libc.so.6", "/", ""] {
            assert!(!is_called_loader(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn this_test_is_dynamic() {
        let own = read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(own.machine.to_string(), std::env::consts::ARCH.replace("x86_64", "x86-64"));
        assert!(is_called_loader(&own.loader.unwrap()));
    }

    #[test]
    fn a_file_that_is_not_elf_is_an_error() {
        assert!(read(File::open("/dev/null").unwrap()).is_err());
        assert!(read(File::open(file!().trim_start_matches("crates/cli/")).unwrap()).is_err());
    }
}
