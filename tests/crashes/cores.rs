//! Core dumps that the kernel writes: where they appear, and a program that is started so that
//! there is one. It changes no setting of the machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome, patience};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// A core that is larger is a mistake of the trial.
const LARGEST: u64 = 1 << 30;
/// The time in which a program starts and dies, also beside other work.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The kinds of memory that the kernel writes: bits of `/proc/PID/coredump_filter`, core(5).
pub const DEFAULT_FILTER: u32 = 0x33;

/// Returns why no core appears in a program's working directory, if that is so.
pub fn unmet_need() -> Option<String> {
    let pattern = fs::read_to_string(PATTERN).unwrap_or_default();
    let pattern = pattern.trim_end();
    let is_plain = !pattern.is_empty() && !pattern.contains(['|', '/', '%', '@']);
    (!is_plain).then(|| format!("{PATTERN} is {pattern:?}, so cores do not appear where a program runs"))
}

/// A program that has died, and its core.
pub struct Crash {
    pub finished: Finished,
    pub core: PathBuf,
}

/// Returns a command that runs `program` in `directory` so that its death leaves a core there. The
/// caller adds the program's arguments.
pub fn command(program: &Path, directory: &Path, filter: u32) -> Command {
    let mut command = Command::new("sh");
    // The shell's own settings are those of the program that it executes.
    command.args(["-euc", "ulimit -c unlimited; echo \"$1\" >/proc/self/coredump_filter; shift; exec \"$@\"", "sh"]);
    command.arg(format!("{filter:#x}")).arg(program).current_dir(directory);
    command
}

/// Starts a program of `command`. What it prints is in `directory`.
///
/// # Errors
/// It cannot be started.
pub fn start(mut command: Command, directory: &Path) -> Result<Dialogue, String> {
    Dialogue::start(&mut command, &directory.join("program.log"), TIMEOUT * patience()?)
        .map_err(|error| format!("{command:?}: {error}"))
}

/// Waits for the death of a program, and returns its core, which is in `directory`.
///
/// # Errors
/// It does not die of a signal; there is no core.
pub fn of(process: Dialogue, directory: &Path) -> Result<Crash, String> {
    let finished = process.finish()?;
    if !matches!(finished.outcome, Outcome::Signal(_)) {
        return Err(format!("the program has to die of a signal: it {finished}"));
    }
    let core = find(directory).map_err(|error| format!("{error}; the program {finished}"))?;
    Ok(Crash { finished, core })
}

/// Returns the core in a directory: `core` or `core.PID`, as `kernel.core_uses_pid` says, or
/// another name where the pattern is another one.
///
/// # Errors
/// There is none, more than one, or one that is too large.
pub fn find(directory: &Path) -> Result<PathBuf, String> {
    let pattern = fs::read_to_string(PATTERN).unwrap_or_default();
    let is_core = |name: &str| name.strip_prefix(pattern.trim_end()).is_some_and(is_suffix);
    let listed = || -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        let cores = entries.iter().filter(|entry| entry.file_name().to_str().is_some_and(is_core));
        Ok(cores.map(fs::DirEntry::path).collect())
    };
    let cores = listed().map_err(|error| format!("{}: {error}", directory.display()))?;
    let [core] = &cores[..] else { return Err(format!("{} cores in {}", cores.len(), directory.display())) };
    let metadata = core.metadata().map_err(|error| error.to_string())?;
    if metadata.len() == 0 || metadata.blocks() * 512 > LARGEST {
        return Err(format!("{} has {} bytes", core.display(), metadata.len()));
    }
    Ok(core.clone())
}

fn is_suffix(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|pid| pid.bytes().all(|digit| digit.is_ascii_digit()))
}
