//! Starts a program's loader with `--list`. The loader then maps the program and its libraries
//! as usual and prints them instead of running any of their code. glibc's and musl's loaders
//! both know the option and honour `LD_PRELOAD` with it.
//!
//! This module never executes the program with `LD_TRACE_LOADED_OBJECTS` instead: a loader that
//! does not know that variable would run the program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::exit::{Exit, Failure};
use crate::library::Library;
use crate::program::elf;

/// Other variables that make a loader do more than load (`ld.so(8)`).
pub const NOT_FOR_A_TRIAL: [&str; 9] = [
    "LD_AUDIT",
    "LD_DEBUG",
    "LD_DEBUG_OUTPUT",
    "LD_PROFILE",
    "LD_PROFILE_OUTPUT",
    "LD_SHOW_AUXV",
    "LD_TRACE_LOADED_OBJECTS",
    "LD_VERBOSE",
    "LD_WARN",
];

/// The result of a trial.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// The files that it mapped.
    pub objects: Vec<PathBuf>,
    /// Its messages: missing libraries, and its output on stderr.
    pub messages: Vec<String>,
    /// Whether the program would have been run.
    pub is_success: bool,
}

impl Trial {
    /// Has `loader` load `program` with this value of `LD_PRELOAD`. A program that
    /// is a loader itself gets its arguments.
    ///
    /// # Errors
    /// When the loader cannot be started, or is none.
    pub fn start(
        program: &Path,
        loader: Option<&Path>,
        arguments: &[OsString],
        preload: Option<&OsStr>,
    ) -> Result<Self, Failure> {
        let mut command = Self::command(program, loader, arguments, preload)?;
        // A minimal root directory has no /dev/null; the pipe is closed at once.
        let output = command.stdin(Stdio::piped()).output().map_err(|error| {
            let file = loader.unwrap_or(program);
            Failure::new(Exit::Failed, program.display(), format!("its loader, {}: {error}", file.display()))
        })?;
        Ok(Self::read(output.status, &output.stdout, &output.stderr))
    }

    /// Returns the command that [`Trial::start`] starts.
    ///
    /// # Errors
    /// When the loader is none.
    pub fn command(
        program: &Path,
        loader: Option<&Path>,
        arguments: &[OsString],
        preload: Option<&OsStr>,
    ) -> Result<Command, Failure> {
        let file = loader.unwrap_or(program);
        if !elf::is_called_loader(file) {
            let reason = format!("its loader, {}, is not called like one, so it was not started", file.display());
            return Err(Failure::new(Exit::Failed, program.display(), reason));
        }
        let mut command = Command::new(not_searched_for(file));
        command.arg("--list");
        match loader {
            Some(_) => command.arg(not_searched_for(program)),
            None => command.args(arguments),
        };
        for name in NOT_FOR_A_TRIAL {
            command.env_remove(name);
        }
        match preload {
            Some(list) => command.env("LD_PRELOAD", list),
            None => command.env_remove("LD_PRELOAD"),
        };
        Ok(command)
    }

    /// Returns whether the library is among the objects.
    pub fn has_mapped(&self, library: &Library) -> bool {
        self.objects.iter().any(|object| library.is_at(object))
    }

    /// Reads what the command has printed.
    pub fn read(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Self {
        let mut trial = Self { is_success: status.success(), ..Self::default() };
        for line in stdout.split(|byte| *byte == b'\n') {
            match object(line) {
                // musl names itself twice: as the loader and as the C library.
                Some(LoadedObject::File(path)) if trial.objects.contains(&path) => {}
                Some(LoadedObject::File(path)) => trial.objects.push(path),
                Some(LoadedObject::Missing(name)) => {
                    trial.is_success = false;
                    trial.messages.push(format!("{name}: not found"));
                }
                None => {}
            }
        }
        let said = String::from_utf8_lossy(stderr);
        trial.messages.extend(said.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        // With --list glibc goes on after this one (`_dl_check_map_versions`).
        if said.lines().any(|line| line.contains(": version `") && line.contains("' not found")) {
            trial.is_success = false;
        }
        if let Some(signal) = status.signal() {
            trial.messages.push(format!("the loader was killed by signal {signal}"));
        }
        trial
    }
}

/// Returns the path with a slash in it. Without one the loader would search for the file among
/// libraries, and `Command` in `PATH`.
fn not_searched_for(path: &Path) -> PathBuf {
    if path.as_os_str().as_bytes().contains(&b'/') { path.to_owned() } else { Path::new(".").join(path) }
}

#[derive(Debug, PartialEq, Eq)]
enum LoadedObject {
    File(PathBuf),
    Missing(String),
}

/// Parses a line: `\tNAME => PATH (0xBASE)`, `\tPATH (0xBASE)` or `\tNAME => not found`. The
/// vDSO has a name and no file.
fn object(line: &[u8]) -> Option<LoadedObject> {
    let line = line.strip_prefix(b"\t")?;
    let arrow = line.windows(4).position(|window| window == b" => ");
    let (name, target) = arrow.map_or((line, line), |at| (&line[..at], &line[at + 4..]));
    if target == b"not found" {
        return Some(LoadedObject::Missing(String::from_utf8_lossy(name).into_owned()));
    }
    let base = target.windows(4).rposition(|window| window == b" (0x")?;
    let path = &target[..base];
    path.contains(&b'/').then(|| LoadedObject::File(OsString::from_vec(path.to_vec()).into()))
}

/// Returns the first thing that the loader says when it refuses to start a program with
/// the library, and would start it without. That happens where the library was
/// linked for another C library, such as a newer glibc. Loaders treat a library with
/// missing symbols as fatal, unlike one that cannot be opened.
pub fn refusal(program: &Path, loader: &Path, with_library: &OsStr, without: Option<&OsStr>) -> Option<String> {
    let start = |preload| Trial::start(program, Some(loader), &[], preload).ok();
    let refused = start(Some(with_library)).filter(|trial| !trial.is_success)?;
    start(without)?.is_success.then(|| refused.messages.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(line: &str) -> Option<String> {
        match object(line.as_bytes())? {
            LoadedObject::File(path) => path.to_str().map(str::to_owned),
            LoadedObject::Missing(name) => Some(format!("no {name}")),
        }
    }

    #[test]
    fn lines_of_both_loaders_are_read() {
        assert_eq!(file("\tlinux-vdso.so.1 (0x00007fde66017000)"), None);
        assert_eq!(file("\t/opt/a (0) => b/lib.so (0x00007fde65f9d000)").unwrap(), "b/lib.so");
        assert_eq!(file("\tlibc.so.6 => /lib/libc.so.6 (0x00007fde65db2000)").unwrap(), "/lib/libc.so.6");
        assert_eq!(file("\t/lib64/ld-linux-x86-64.so.2 (0x7fde66019000)").unwrap(), "/lib64/ld-linux-x86-64.so.2");
        assert_eq!(file("\t/x/a (0x1)/lib.so (0x7fde66019000)").unwrap(), "/x/a (0x1)/lib.so");
        assert_eq!(file("\tlibgone.so.1 => not found").unwrap(), "no libgone.so.1");
        assert_eq!(file("\tstatically linked"), None);
        assert_eq!(file("anything else (0x1)"), None);
    }

    #[test]
    fn a_file_without_the_name_of_a_loader_is_not_started() {
        let failure = Trial::start(Path::new("/x"), Some(Path::new("/bin/cat")), &[], None).unwrap_err();
        assert!(failure.reason.contains("not called like one"), "{failure}");
    }

    #[test]
    fn what_is_on_stderr_is_a_message() {
        let said = b"x: /lib/libc.so.6: version `GLIBC_2.34' not found (required by /x/libsopin.so)\n".to_vec();
        let trial = Trial::read(ExitStatus::from_raw(0), b"", &said);
        assert!(!trial.is_success);
        assert!(trial.messages[0].starts_with("x: /lib/libc.so.6: version"));
    }
}
