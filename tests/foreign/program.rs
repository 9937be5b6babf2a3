//! A foreign program: its needs, and how it is run.
//!
//! The first lines of its script:
//!
//! | line | meaning |
//! |---|---|
//! | `# packages: NAME…` | Debian packages that contain it, for `make foreign` |
//! | `# needs: NAME…` | programs on the PATH, or files, without which it is skipped |
//! | `# needs-success: COMMAND` | a shell command in the checkout without whose success it is skipped |
//! | `# pinned: REGEX` | an object that must be pinned, by its name in the log; may be repeated |
//! | `# exposed: REGEX` | an object that the log may report as exposed; may be repeated |
//! | `# results: N` | the least number of lines that it prints (default 1) |
//! | `# quick` | it is part of `make test` |
//!
//! `sh -eu` runs it in a directory of its own, `$WORK`; `$SOURCES` is this directory.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use regex::Regex;

use crate::common::library::checkout;
use crate::common::process::{self, Outcome};

/// The values of `SOPIN_MODE` in the runs with the library.
pub const MODES: [&str; 2] = ["full", "relocated"];
const TIMEOUT: Duration = Duration::from_secs(3600);

pub struct Program {
    /// The name of its file, without the extension.
    pub name: String,
    /// Whether it is part of `make test`.
    pub is_quick: bool,
    /// The least number of results.
    pub least: usize,
    script: PathBuf,
    needs: Vec<String>,
    trials: Vec<String>,
    pinned: Vec<Regex>,
    exposed: Vec<Regex>,
}

/// The results of a run.
pub struct Seen {
    /// Its results, followed by a line with its outcome.
    pub lines: Vec<String>,
    pub errors: String,
    log: String,
}

/// Returns every script.
///
/// # Errors
/// A script that cannot be read or understood.
pub fn all() -> Result<Vec<Program>, String> {
    let directory = checkout().join("tests/foreign");
    let entries = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut scripts: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    scripts.sort();
    scripts.into_iter().map(Program::read).collect()
}

impl Program {
    fn read(script: PathBuf) -> Result<Self, String> {
        let text = fs::read_to_string(&script).map_err(|error| format!("{}: {error}", script.display()))?;
        let directives = |name: &str| {
            let prefix = format!("# {name}: ");
            let found = text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned);
            found.collect::<Vec<_>>()
        };
        let patterns = |name| directives(name).iter().map(|pattern| Regex::new(pattern)).collect::<Result<_, _>>();
        Ok(Self {
            name: script.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            is_quick: text.lines().any(|line| line == "# quick"),
            least: directives("results")
                .first()
                .map_or(Ok(1), |count| count.parse())
                .map_err(|error| format!("{error}"))?,
            needs: directives("needs").iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect(),
            trials: directives("needs-success"),
            pinned: patterns("pinned").map_err(|error| format!("{}: {error}", script.display()))?,
            exposed: patterns("exposed").map_err(|error| format!("{}: {error}", script.display()))?,
            script,
        })
    }

    /// Returns a need that this machine does not meet.
    pub fn missing(&self) -> Option<String> {
        let path = search_path();
        let is_there = |name: &&String| env::split_paths(&path).any(|directory| directory.join(name).is_file());
        let succeeds = |trial: &&String| {
            let mut command = Command::new("sh");
            command.args(["-c", trial]).current_dir(checkout()).env("PATH", &path);
            command.output().is_ok_and(|output| output.status.success())
        };
        let program = self.needs.iter().find(|name| !is_there(name)).map(|name| format!("no {name}"));
        program.or_else(|| self.trials.iter().find(|trial| !succeeds(trial)).map(|trial| format!("fails: {trial}")))
    }

    /// Runs it in a directory below `directory`, with the library in a mode or without
    /// it.
    ///
    /// # Errors
    /// The reason why it could not be run.
    pub fn run(&self, directory: &Path, preload: Option<(&Path, &str)>) -> Result<Seen, String> {
        let mode = preload.map_or("without", |(_, mode)| mode);
        let work = directory.join(mode);
        let make = || -> std::io::Result<()> {
            fs::create_dir_all(&work)?;
            // Some programs change their user.
            fs::set_permissions(&work, Permissions::from_mode(0o1777))
        };
        make().map_err(|error| format!("{}: {error}", work.display()))?;
        let (log, beside) = (work.join("sopin.log"), directory.join(mode));
        let mut command = Command::new("sh");
        command.arg("-eu").arg(&self.script).current_dir(&work);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SOPIN_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD").env("WORK", &work).env("SOURCES", checkout().join("tests/foreign"));
        command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8").env("HOME", &work);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some((library, mode)) = preload {
            let copy = work.join("libsopin.so");
            fs::copy(library, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
            fs::write(&log, "")
                .and_then(|()| fs::set_permissions(&log, Permissions::from_mode(0o666)))
                .map_err(|error| format!("{}: {error}", log.display()))?;
            command.env("LD_PRELOAD", copy).env("SOPIN_MODE", mode).env("SOPIN_STORE", work.join("store"));
            command.env("SOPIN_LOG", "info").env("SOPIN_LOG_FILE", &log);
        }
        let finished =
            process::run(&mut command, &beside.with_extension("log"), TIMEOUT).map_err(|error| error.to_string())?;
        let mut lines: Vec<_> = finished.stdout.lines().map(str::to_owned).collect();
        lines.push(format!("ended with {}", finished.outcome));
        if preload.is_none() && finished.outcome != Outcome::Exit(0) {
            return Err(format!("without the library it {finished}"));
        }
        Ok(Seen { lines, errors: finished.stderr, log: fs::read_to_string(&log).unwrap_or_default() })
    }
}

impl Seen {
    /// Returns the library's messages that are not allowed, and the objects that it has
    /// not pinned although it must.
    pub fn complaints(&self, program: &Program, mode: &str) -> Vec<String> {
        let mut complaints: Vec<_> = program
            .pinned
            .iter()
            .filter(|pattern| {
                !self.log.lines().any(|line| pattern.is_match(line) && line.contains(&format!(": {mode}, ")))
            })
            .map(|pattern| format!("{mode}: nothing like {pattern} was pinned"))
            .collect();
        let exposed = self.log.lines().filter(|line| line.contains(": exposed, ") || line.contains("left unmodified"));
        let exposed = exposed.filter(|line| !program.exposed.iter().any(|pattern| pattern.is_match(line)));
        complaints.extend(exposed.map(|line| format!("{mode}: {line}")));
        complaints.truncate(10);
        complaints
    }
}

/// Returns the caller's path, extended by the directories that
/// scripts/test-environments and `make foreign` have made, and by those of servers.
fn search_path() -> String {
    let own = checkout().join("target/foreign-python/bin");
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/lib/postgresql/15/bin:/usr/lib/postgresql/17/bin:{}", own.display())
}
