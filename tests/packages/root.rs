//! An installation of Debian that belongs to one trial, and programs that run in it. It is a
//! copy, because the trials install packages in it and rewrite its libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::dialogue::Dialogue;
use crate::common::library;
use crate::common::needs::{Need, found_program};
use crate::common::process::{self, Finished, Outcome};
use crate::common::protection::forget_settings;
use crate::common::rewrite::{self, Rewrite};
use crate::package::{Package, said};

const TIMEOUT: Duration = Duration::from_secs(240);
/// Where `busy.py` is in a root.
pub const BUSY: &str = "/srv/busy.py";

pub struct Root {
    path: PathBuf,
    /// For what programs print.
    logs: PathBuf,
}

/// Returns why a trial cannot use a root with these packages, or `None`.
pub fn unmet(release: &str, packages: &[Package], programs: &[&str]) -> Option<String> {
    let marker = roots().join(format!("{release}.made-from"));
    if !marker.exists() {
        return Some(format!("no {} (scripts/package-roots {release})", roots().join(release).display()));
    }
    let missing = ["unshare", "mount"].iter().chain(programs).find(|program| found_program(program).is_none());
    Need::Root
        .unmet()
        .or_else(|| packages.iter().find_map(|package| package.unmet()))
        .or_else(|| missing.map(|program| format!("no program {program}")))
}

fn roots() -> PathBuf {
    library::checkout().join("target/package-roots")
}

impl Root {
    /// Copies the root of a release into the trial's directory.
    pub fn copy(release: &str, directory: &Path) -> Result<Self, String> {
        let path = directory.join("root");
        said(Command::new("cp").args(["-a", "--reflink=auto"]).arg(roots().join(release)).arg(&path))?;
        let root = Self { path, logs: directory.to_owned() };
        root.add(&library::checkout().join("tests/packages/busy.py"), BUSY)?;
        Ok(root)
    }

    /// Returns the path of one of its files, as this process sees it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.path.join(below.trim_start_matches('/'))
    }

    /// Copies a file into it.
    pub fn add(&self, file: &Path, to: &str) -> Result<(), String> {
        let to = self.path(to);
        let copied = fs::create_dir_all(to.parent().unwrap_or(&to)).and_then(|()| fs::copy(file, &to));
        copied.map(drop).map_err(|error| format!("{} to {}: {error}", file.display(), to.display()))
    }

    /// Returns a command that runs in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(library::checkout().join("scripts/lab-roots"));
        forget_settings(&mut command);
        command.env_remove("LD_PRELOAD").env("DEBIAN_FRONTEND", "noninteractive");
        command.arg("enter").arg(&self.path).args(words);
        command
    }

    /// Runs a command in it.
    pub fn run(&self, words: &[&str]) -> Result<Finished, String> {
        process::run(&mut self.command(words), &self.logs.join("command"), TIMEOUT).map_err(|error| error.to_string())
    }

    /// Runs a command in it, which must succeed.
    pub fn succeed(&self, words: &[&str]) -> Result<Finished, String> {
        let finished = self.run(words)?;
        if finished.outcome == Outcome::Exit(0) { Ok(finished) } else { Err(format!("{words:?}: {finished}")) }
    }

    /// Runs the machine's rpm on it, which must succeed. The packages of Debian that are in it
    /// are none of rpm's. Scripts of packages run in a chroot, which has `/proc` as on a real
    /// machine.
    pub fn rpm(&self, words: &[&str], packages: &[&Path]) -> Result<Finished, String> {
        let script = "mount --bind /proc \"$1/proc\"; exec rpm --root \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]).arg(&self.path);
        command.args(["--dbpath", "/var/lib/rpm"]).args(words).args(packages);
        let log = self.logs.join("rpm");
        let finished = process::run(&mut command, &log, TIMEOUT).map_err(|error| error.to_string())?;
        if finished.outcome == Outcome::Exit(0) { Ok(finished) } else { Err(format!("{command:?}: {finished}")) }
    }

    /// Starts the busy service, with these words in front.
    pub fn start(&self, words: &[&str]) -> Result<Service, String> {
        let mut command = self.command(&[words, &["python3", BUSY]].concat());
        let dialogue =
            Dialogue::start(&mut command, &self.logs.join("service"), TIMEOUT).map_err(|error| error.to_string())?;
        let mut service = Service { dialogue, answers: 0 };
        service.answers += 1;
        service.dialogue.wait_for("alive", service.answers)?;
        Ok(service)
    }

    /// Removes it. Roots are large, and only a trial that has failed leaves its own.
    pub fn discard(self) -> Result<(), String> {
        fs::remove_dir_all(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Rewrites every shared object in place, as a tool does that installs the same version again,
    /// except those in the stores: they are sopin's own.
    pub fn rewrite(&self) -> Result<(), String> {
        let mut objects = rewrite::shared_objects(&self.path).map_err(|error| error.to_string())?;
        let stores = ["/root/.cache/sopin", "/var/lib/sopin"].map(|store| self.path(store));
        objects.retain(|path| !stores.iter().any(|store| path.starts_with(store)));
        if objects.len() < 100 {
            return Err(format!("only {} shared objects in {}", objects.len(), self.path.display()));
        }
        Rewrite::SameBytes.apply_to_all(&objects)
    }
}

/// The busy service (`busy.py`).
pub struct Service {
    dialogue: Dialogue,
    answers: usize,
}

impl Service {
    /// Returns the numbers of its processes.
    pub fn processes(&self) -> Vec<u32> {
        let printed = self.dialogue.stdout();
        let workers = printed.lines().find_map(|line| line.strip_prefix("workers ")).unwrap_or_default();
        let workers = workers.split(' ').filter_map(|number| number.parse().ok());
        std::iter::once(self.dialogue.id()).chain(workers).collect()
    }

    /// Lets every process compute.
    ///
    /// # Errors
    /// One has ended.
    pub fn work(&mut self, line: &str) -> Result<(), String> {
        self.dialogue.say(line);
        self.answers += 1;
        self.dialogue.wait_for("alive", self.answers).map_err(|error| format!("{line}: {error}"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// It ends in another way than it should.
    pub fn finish(self) -> Result<(), String> {
        let finished = self.dialogue.finish()?;
        if finished.outcome == Outcome::Exit(0) { Ok(()) } else { Err(finished.to_string()) }
    }
}

/// The negative control: without sopin the service dies when the root's libraries are rewritten.
pub fn dies_without_sopin(root: &Root) -> Result<(), String> {
    let mut service = root.start(&["env"])?;
    root.rewrite()?;
    match service.work("work") {
        Err(_) => Ok(()),
        Ok(()) => Err("the service lives without sopin: this trial proves nothing".to_owned()),
    }
}
