//! From a command to the ELF program that is finally executed: a script leads to its
//! interpreter, `#!/usr/bin/env X` to env and X, and a file that the kernel does not know to
//! `/bin/sh`.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::elf::{self, Elf, Machine};
use super::privileges::{self, Raised};
use super::script::{self, Shebang};
use super::search;
use crate::exit::{Exit, Failure};

/// The number of interpreters of interpreters that the kernel follows (`fs/exec.c`,
/// `exec_binprm`).
const MAX_SCRIPTS: usize = 5;
/// More files than any command leads to: an env(1) or a shell that leads back to the same
/// script would never end.
const MAX_LINKS: usize = 4 * MAX_SCRIPTS;
/// What runs files that the kernel does not know (`_PATH_BSHELL`, `execvp(3)`).
pub const SHELL: &str = "/bin/sh";

/// A file in the chain.
#[derive(Debug)]
pub struct Link {
    /// Its path, as it was found.
    pub path: PathBuf,
    /// What kind of file it is.
    pub kind: LinkKind,
}

/// What executes a file.
#[derive(Debug)]
pub enum LinkKind {
    /// The interpreter of its `#!` line.
    Script(Shebang),
    /// [`SHELL`], because the kernel does not know it.
    ShellScript,
    /// The kernel and its loader.
    Program(Elf),
    /// It is unknown, because the file can be executed but not read.
    Unreadable,
}

/// Why the library does not get into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no loader.
    Static,
    /// The program is made for this machine, and the library is not.
    Machine(Machine),
    /// The kernel sets `AT_SECURE`.
    Raised(Raised),
    /// env(1) takes `LD_PRELOAD` away.
    DropsPreload,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("statically linked, so there is no loader that reads LD_PRELOAD"),
            Self::Machine(machine) => write!(f, "made for {machine}, which libsopin.so is not"),
            Self::Raised(raised) => write!(
                f,
                "{raised}, so its loader takes from LD_PRELOAD only names without a slash that it finds in \
                 its own directories as setuid files"
            ),
            Self::DropsPreload => f.write_str("env is told to take LD_PRELOAD away"),
        }
    }
}

impl Obstacle {
    /// Returns its code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Machine(_) => "machine",
            Self::Raised(Raised::User(_)) => "setuid",
            Self::Raised(Raised::Group(_)) => "setgid",
            Self::Raised(Raised::Capabilities) => "capabilities",
            Self::DropsPreload => "drops-preload",
        }
    }
}

/// The files from a command to the program that is finally executed, in this order.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Link>,
    /// Index of an env(1) that takes `LD_PRELOAD` away.
    drops_preload: Option<usize>,
}

impl Chain {
    /// Follows a command.
    ///
    /// # Errors
    /// 126 or 127: the exit status with which an attempt to execute the command would end, by
    /// the kernel or by env(1).
    pub fn follow(command: &OsStr) -> Result<Self, Failure> {
        let path = search::find(command).ok_or_else(|| not_found(command))?;
        let mut chain = Self { links: Vec::new(), drops_preload: None };
        let mut next = Some(Step { path, asked_by: None, env: None });
        while let Some(step) = next {
            next = chain.take(step)?;
        }
        Ok(chain)
    }

    /// Returns the files.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Returns the program that is finally executed; `None` if its file cannot be read.
    pub fn program(&self) -> Option<(&Path, &Elf)> {
        match self.links.last() {
            Some(Link { path, kind: LinkKind::Program(elf) }) => Some((path, elf)),
            _ => None,
        }
    }

    /// Returns the failure if the program's loader does not exist.
    pub fn missing_loader(&self) -> Option<Failure> {
        let (path, elf) = self.program()?;
        let loader = elf.loader.as_deref().filter(|loader| !loader.exists())?;
        let reason = format!("its loader {}: no such file", loader.display());
        Some(Failure::new(Exit::NotFound, path.display(), reason))
    }

    /// Returns the obstacles for a library for this machine, each with the file that causes it.
    pub fn obstacles(&self, library: Machine) -> Vec<(&Path, Obstacle)> {
        let mut obstacles = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            let LinkKind::Program(elf) = &link.kind else { continue };
            let mut add = |obstacle| obstacles.push((link.path.as_path(), obstacle));
            // The environment passes through programs into which a library cannot be loaded.
            if index + 1 == self.links.len() {
                if elf.machine != library {
                    add(Obstacle::Machine(elf.machine));
                }
                if elf.loader.is_none() && !elf::is_called_loader(&link.path) {
                    add(Obstacle::Static);
                }
            }
            // It does not pass through a loader under AT_SECURE, which unsets LD_PRELOAD.
            if let Some(raised) = privileges::raised_by(&link.path).filter(|_| elf.loader.is_some()) {
                add(Obstacle::Raised(raised));
            }
            if self.drops_preload == Some(index) {
                add(Obstacle::DropsPreload);
            }
        }
        obstacles
    }

    /// Adds one file to the chain, and returns the step to what executes it.
    fn take(&mut self, step: Step) -> Result<Option<Step>, Failure> {
        let Step { path, asked_by, env } = step;
        let failure = |error: &io::Error| cannot_execute(&path, asked_by.as_ref(), error);
        if self.links.len() == MAX_LINKS {
            return Err(Failure::new(Exit::CannotExecute, path.display(), "it leads to itself"));
        }
        if !search::is_executable(&path) {
            return Err(failure(&why_not_executable(&path)));
        }
        let (kind, next) = match beginning(&path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => (LinkKind::Unreadable, None),
            Err(error) => return Err(failure(&error)),
            Ok((file, bytes)) if elf::is_elf(&bytes) => {
                let elf =
                    elf::read(file).map_err(|reason| Failure::new(Exit::CannotExecute, path.display(), reason))?;
                (LinkKind::Program(elf), self.after_env(&path, env)?)
            }
            Ok((_, bytes)) => match script::header(&bytes) {
                Some(header) => {
                    let next = self.after_script(&path, &header)?;
                    (LinkKind::Script(header), Some(next))
                }
                None => (LinkKind::ShellScript, Some(Step::interpreter(SHELL.into(), &path))),
            },
        };
        self.links.push(Link { path, kind });
        Ok(next)
    }

    fn after_script(&self, path: &Path, header: &Shebang) -> Result<Step, Failure> {
        // The kernel counts anew for what env(1) and the shell execute.
        let scripts = self.links.iter().rev().take_while(|link| matches!(link.kind, LinkKind::Script(_))).count();
        if scripts >= MAX_SCRIPTS {
            let reason = format!("more than {MAX_SCRIPTS} scripts that are each other's interpreters");
            return Err(Failure::new(Exit::CannotExecute, path.display(), reason));
        }
        Ok(Step { env: header.env(), ..Step::interpreter(header.interpreter.clone(), path) })
    }

    /// Returns the program that env(1), which becomes the next link, executes.
    fn after_env(&mut self, path: &Path, env: Option<script::Env>) -> Result<Option<Step>, Failure> {
        let Some(script::Env { program: Some(program), drops_preload }) = env else { return Ok(None) };
        if drops_preload {
            self.drops_preload = Some(self.links.len());
        }
        let found = search::find(&program).ok_or_else(|| not_found(&program))?;
        Ok(Some(Step::interpreter(found, path)))
    }
}

/// A file to be added to the chain.
struct Step {
    path: PathBuf,
    /// The file that it is the interpreter of.
    asked_by: Option<PathBuf>,
    /// The effect of the file if it is env(1).
    env: Option<script::Env>,
}

impl Step {
    fn interpreter(path: PathBuf, of: &Path) -> Self {
        Self { path, asked_by: Some(of.to_owned()), env: None }
    }
}

fn beginning(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::with_capacity(script::HEADER_SIZE);
    (&mut file).take(script::HEADER_SIZE as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

fn not_found(command: &OsStr) -> Failure {
    let reason = if command.as_encoded_bytes().contains(&b'/') { "no such file" } else { "no such program in PATH" };
    Failure::new(Exit::NotFound, Path::new(command).display(), reason)
}

fn why_not_executable(path: &Path) -> io::Error {
    match path.metadata() {
        Err(error) => error,
        Ok(file) if file.is_dir() => io::Error::new(ErrorKind::IsADirectory, "it is a directory"),
        Ok(file) if file.is_file() => io::Error::new(ErrorKind::PermissionDenied, "no permission to execute it"),
        Ok(_) => io::Error::new(ErrorKind::PermissionDenied, "it is no regular file"),
    }
}

fn cannot_execute(path: &Path, asked_by: Option<&PathBuf>, error: &io::Error) -> Failure {
    let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::CannotExecute };
    let reason = if error.kind() == ErrorKind::NotFound { "no such file".to_owned() } else { error.to_string() };
    match asked_by {
        Some(script) => Failure::new(exit, script.display(), format!("its interpreter {}: {reason}", path.display())),
        None => Failure::new(exit, path.display(), reason),
    }
}
