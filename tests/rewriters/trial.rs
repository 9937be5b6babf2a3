//! Runs one rewriter against one process.

use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::common::dialogue::Dialogue;
use crate::common::directives::PASSED;
use crate::common::library::checkout;
use crate::common::process::Outcome;
use crate::common::protection::Protection;
use crate::table::{Installed, Rewriter};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The number of results that a process must print after the rewriting to count as
/// alive; it may have begun the first one before.
const RESULTS: usize = 4;

/// The fate of the process and of the file's inode.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    outcome: Outcome,
    /// The name still leads to the inode that was mapped.
    pub has_kept_inode: bool,
}

impl Fate {
    /// Returns whether the process continued unharmed.
    pub fn has_survived(&self) -> bool {
        self.outcome == Outcome::Exit(PASSED)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Exit(PASSED) => f.write_str("unharmed"),
            Outcome::Exit(1) => f.write_str("wrong results"),
            Outcome::Exit(status) => write!(f, "ends with status {status}"),
            Outcome::Signal(_) => write!(f, "killed by {}", self.outcome),
            Outcome::TimedOut => f.write_str("hangs"),
        }
    }
}

/// The result of a trial.
pub enum Verdict {
    /// The trial was made.
    Seen(Fate),
    /// This machine cannot do it, for this reason.
    NotHere(String),
}

/// Shared by all trials.
pub struct Bench {
    directory: PathBuf,
    victim: PathBuf,
    /// The object, and another build of it.
    object: PathBuf,
    other_build: PathBuf,
    trials: AtomicU32,
}

impl Bench {
    /// Compiles everything.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn new(directory: &Path) -> Result<Self, String> {
        let make = |name: &str, arguments: &[&str]| {
            let output = directory.join(name);
            let parent = output.parent().unwrap_or(directory);
            fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
            let mut command = Command::new("cc");
            command.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&output).args(arguments);
            run(command.current_dir(checkout().join("tests/filesystems"))).map(|_| output)
        };
        Ok(Self {
            victim: make("victim", &["victim.c", "-ldl"])?,
            object: make("object/libvictim.so", &["-shared", "-fPIC", "libvictim.c"])?,
            // The other build has its functions and constants at other addresses.
            other_build: make("other/libvictim.so", &["-shared", "-fPIC", "-DPAGE=16384", "libvictim.c"])?,
            directory: directory.to_owned(),
            trials: AtomicU32::new(0),
        })
    }

    /// Starts a process, runs the rewriter, and observes both.
    ///
    /// # Errors
    /// The reason why the trial could not be made.
    pub fn try_on(&self, rewriter: &Rewriter, protection: Protection) -> Result<Verdict, String> {
        if let Some(missing) = rewriter.needs.iter().find(|program| find_program(program).is_none()) {
            return Ok(Verdict::NotHere(format!("no {missing}")));
        }
        let directory = self.directory.join(self.trials.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let file = match rewriter.installed {
            Installed::Here => {
                let file = directory.join("libvictim.so");
                fs::copy(&self.object, &file).map_err(|error| format!("{}: {error}", file.display()))?;
                file
            }
            Installed::AsPackage => match self.install_package(&directory) {
                Ok(file) => file,
                Err(reason) => return Ok(Verdict::NotHere(reason)),
            },
        };
        let inode = || fs::metadata(&file).map(|status| status.ino()).ok();
        let before = inode();
        let mut process = self.start(protection, &directory, &file)?;
        process.wait_for("tick", 1)?;
        if let Err(reason) = self.rewrite(rewriter, &directory, &file) {
            return if reason.contains("not supported") { Ok(Verdict::NotHere(reason)) } else { Err(reason) };
        }
        let results = process.count("tick") + RESULTS;
        // The process may end before that, which is a result and not an error.
        let alive = process.wait_for("tick", results);
        process.say("stop");
        let finished = process.finish()?;
        if finished.outcome == Outcome::TimedOut {
            return Err(format!("{finished}\n{alive:?}"));
        }
        Ok(Verdict::Seen(Fate { outcome: finished.outcome, has_kept_inode: inode() == before }))
    }

    /// Makes a virtual environment that contains the object. Returns the object's path,
    /// or as an error the reason why this machine cannot make one.
    fn install_package(&self, directory: &Path) -> Result<PathBuf, String> {
        let script = r#"
            python3 -m venv --without-pip "$DIRECTORY/venv"
            site=$("$DIRECTORY/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
            mkdir "$DIRECTORY/old"
            python3 "$TOOLS/wheel.py" --unpack "$(python3 "$TOOLS/wheel.py" victim "$OBJECT" "$DIRECTORY/old")" "$site"
            echo "$site/victim/libvictim.so""#;
        self.shell(script, directory, Path::new("")).map(|said| PathBuf::from(said.trim()))
    }

    fn start(&self, protection: Protection, directory: &Path, file: &Path) -> Result<Dialogue, String> {
        let mut command = Command::new(&self.victim);
        command.arg("busy").arg(file);
        protection.apply(&mut command, "LD_PRELOAD", &directory.join("store"))?;
        Dialogue::start(&mut command, &directory.join("victim.log"), TIMEOUT)
            .map_err(|error| format!("victim: {error}"))
    }

    fn rewrite(&self, rewriter: &Rewriter, directory: &Path, file: &Path) -> Result<(), String> {
        self.shell(rewriter.script, directory, file).map(drop)
    }

    fn shell(&self, script: &str, directory: &Path, file: &Path) -> Result<String, String> {
        let preamble = r#"set -eu
            package() {
                mkdir -p "$DIRECTORY/wheels"
                python3 "$TOOLS/wheel.py" "$1" "$NEW" "$DIRECTORY/wheels"
            }
            "#;
        let tools = checkout().join("tests/rewriters");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{preamble}{script}")).stdin(Stdio::null());
        command.env("NEW", &self.other_build).env("OBJECT", &self.object).env("FILE", file);
        command.env("SOURCE", checkout().join("tests/filesystems/libvictim.c"));
        command.env("DIRECTORY", directory).env("TOOLS", tools).env("PATH", search_path());
        command.env_remove("LD_PRELOAD").env("PYTHONDONTWRITEBYTECODE", "1");
        run(&mut command)
    }

    /// Returns the versions, for the table, of the tools that change from year to year.
    pub fn versions(&self) -> String {
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system =
            system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
        let script = r#"
            echo "Linux $(uname -r | cut -d. -f1,2)"
            for tool in pip uv mold; do
                ! command -v $tool >/dev/null || $tool --version | cut -d' ' -f1,2
            done"#;
        let said = self.shell(script, &self.directory, Path::new("")).unwrap_or_default();
        system.into_iter().chain(said.lines()).collect::<Vec<_>>().join(", ")
    }
}

/// Returns the directories of scripts/test-environments, followed by the caller's path.
fn search_path() -> String {
    let own = checkout().join("target/test-python/bin");
    format!("{}:{}", own.display(), env::var("PATH").unwrap_or_default())
}

/// Returns the path of a program by its name, or of a file.
fn find_program(name: &str) -> Option<PathBuf> {
    let directories =
        if name.starts_with('/') { vec![PathBuf::new()] } else { env::split_paths(&search_path()).collect() };
    directories.into_iter().map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Runs a command to its end. Returns what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
}
