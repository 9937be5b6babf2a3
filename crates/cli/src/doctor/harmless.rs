//! A program that can be started anywhere: true(1), and in an image without programs the C
//! library's own file, which prints its version when it is executed (glibc, `csu/version.c`).

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::children;
use crate::program::elf::{self, Machine};
use crate::program::{privileges, search};
use crate::trial::Trial;

/// The program, and what starts it.
pub struct Harmless {
    pub path: PathBuf,
    pub loader: PathBuf,
}

impl Harmless {
    /// Finds a program with a loader, for this machine if that is known. None of its code runs.
    pub fn find(machine: Option<Machine>) -> Option<Self> {
        let in_path = search::candidates(OsStr::new("true"));
        let usual = ["/bin/true", "/usr/bin/true"].map(PathBuf::from);
        let libraries = [format!("lib/{ARCH}-linux-gnu"), "lib64".to_owned(), "lib".to_owned()];
        let libc =
            libraries.iter().flat_map(|below| ["/usr", "/"].map(|root| Path::new(root).join(below).join("libc.so.6")));
        let all = in_path.into_iter().chain(usual).chain(libc);
        all.filter(|path| path.is_absolute()).find_map(|path| Self::at(path, machine))
    }

    /// Has its loader load it with this value of `LD_PRELOAD`. None of its code runs.
    ///
    /// # Errors
    /// When the loader cannot be run.
    pub fn load(&self, preload: Option<&OsStr>) -> Result<Trial, String> {
        let mut command =
            Trial::command(&self.path, Some(&self.loader), &[], preload).map_err(|failure| failure.reason)?;
        let ended = children::run(&mut command)?;
        Ok(Trial::read(ended.status, ended.stdout.as_bytes(), ended.stderr.as_bytes()))
    }

    fn at(path: PathBuf, machine: Option<Machine>) -> Option<Self> {
        if !search::is_executable(&path) || privileges::raised_by(&path).is_some() {
            return None;
        }
        let elf = elf::read(File::open(&path).ok()?).ok()?;
        let fits = machine.is_none_or(|machine| machine == elf.machine);
        let loader = elf.loader.filter(|loader| fits && elf::is_called_loader(loader) && loader.exists())?;
        Some(Self { path, loader })
    }
}
