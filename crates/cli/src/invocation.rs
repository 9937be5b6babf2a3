//! Executes a command with its arguments, in place of this process or in a child.

use std::convert::Infallible;
use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::execve;

use crate::exit::{Exit, Failure};
use crate::program::chain::{Chain, SHELL};
use crate::program::{elf, search};

/// A command, its arguments and its environment.
pub struct Invocation {
    command: OsString,
    words: Vec<CString>,
    environment: Vec<CString>,
}

impl Invocation {
    /// Prepares a command, which has this process's environment with changes.
    ///
    /// # Errors
    /// 125 when there is no command, or a word has a NUL in it.
    pub fn new(command: &[OsString], changes: &[(&str, &OsString)]) -> Result<Self, Failure> {
        let name = command.first().ok_or_else(|| Failure::new(Exit::Failed, "command", "there is none"))?;
        let words = command.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?;
        Ok(Self { command: name.clone(), words, environment: environment(changes)? })
    }

    /// Executes the command in place of this process. Returns why it could not.
    pub fn execute(&self) -> Failure {
        let Err(failure) =
            self.start(|file, words, environment| -> nix::Result<Infallible> { execve(file, words, environment) });
        failure
    }

    /// Starts the command by `start`, which gets a file, the arguments and the environment.
    /// Files are tried as `execvp(3)` of glibc does (posix/execvpe.c), except that no ELF file
    /// that the kernel refuses is passed to the shell.
    ///
    /// # Errors
    /// 125, 126 or 127, as env(1).
    pub fn start<T>(
        &self,
        mut start: impl FnMut(&CStr, &[CString], &[CString]) -> nix::Result<T>,
    ) -> Result<T, Failure> {
        let mut outcome = Errno::ENOENT;
        for path in search::candidates(&self.command) {
            let file = c_string(path.as_os_str())?;
            match start(&file, &self.words, &self.environment) {
                Ok(started) => return Ok(started),
                // Another directory may have the command; if none has, this error is reported.
                Err(Errno::EACCES) => outcome = Errno::EACCES,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT) => {}
                Err(Errno::ENOEXEC) if !is_elf(&path) => {
                    let shell = c_string(OsStr::new(SHELL))?;
                    let mut script = vec![shell.clone(), file];
                    script.extend_from_slice(self.words.get(1..).unwrap_or_default());
                    let started = start(&shell, &script, &self.environment);
                    return started.map_err(|errno| why_not_executed(&self.command, errno));
                }
                Err(errno) => {
                    outcome = errno;
                    break;
                }
            }
        }
        Err(why_not_executed(&self.command, outcome))
    }
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && elf::is_elf(&magic)
}

/// Returns the failure for the kernel's error, with the reason that the files show.
fn why_not_executed(command: &OsStr, errno: Errno) -> Failure {
    let exit = if errno == Errno::ENOENT { Exit::NotFound } else { Exit::CannotExecute };
    let plain = || Failure::new(exit, Path::new(command).display(), errno.desc());
    match Chain::follow(command) {
        Err(failure) if failure.exit == exit => failure,
        // glibc and env(1) report this too: the command might be in a directory that may not be
        // searched.
        Err(_) if errno == Errno::EACCES && search::find(command).is_none() => Failure::new(
            exit,
            Path::new(command).display(),
            "no such program in PATH, of which not every directory may be searched",
        ),
        Err(_) => plain(),
        Ok(chain) => match (errno, chain.missing_loader(), chain.program()) {
            (Errno::ENOENT, Some(failure), _) => failure,
            (Errno::ENOEXEC, _, Some((path, elf))) => Failure::new(
                exit,
                path.display(),
                format!("made for {}, which this machine does not execute", elf.machine),
            ),
            _ => plain(),
        },
    }
}

/// Returns this process's environment with changes, in the same order. Entries without `=`,
/// which the standard library does not show, are lost.
fn environment(changes: &[(&str, &OsString)]) -> Result<Vec<CString>, Failure> {
    let kept = env::vars_os().filter(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
    let new = changes.iter().map(|(name, value)| (OsString::from(name), (*value).clone()));
    kept.chain(new)
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            c_string(&entry)
        })
        .collect()
}

fn c_string(word: &OsStr) -> Result<CString, Failure> {
    CString::new(word.as_bytes()).map_err(|error| Failure::new(Exit::Failed, word.display(), error))
}
