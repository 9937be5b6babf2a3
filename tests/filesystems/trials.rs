//! Changes a library while a process uses it, and judges the result.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::common::protection::{Protection, SETTLING_TIME};
use crate::common::rewrite::Rewrite;
use crate::common::{directives::PASSED, library};
use crate::places::{self, Place};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A change after which the mapped file has other contents, or its name leads to
/// another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The file is rewritten under the name that the process used.
    Rewritten,
    /// It is rewritten through a hard link.
    RewrittenThroughLink,
    /// It is rewritten through a bind mount of its directory.
    RewrittenThroughBind,
    /// Another file is renamed over it, as careful installers do.
    RenamedOver,
    /// It is removed, and a new file is made.
    Replaced,
}

/// The activity of the process meanwhile, which decides by which bytes the file is
/// rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Busy,
    Idle,
}

/// One trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    change: Change,
    work: Work,
    protection: Protection,
    survives: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Change::Rewritten => "rewritten",
            Change::RewrittenThroughLink => "rewritten_through_hard_link",
            Change::RewrittenThroughBind => "rewritten_through_bind_mount",
            Change::RenamedOver => "renamed_over",
            Change::Replaced => "unlinked_and_made_anew",
        };
        let work = match self.work {
            Work::Busy => "busy",
            Work::Idle => "idle",
        };
        write!(f, "{change}::{work}::{}", self.protection)
    }
}

/// Returns every trial for a place.
pub fn all_for(place: &Place) -> Vec<Case> {
    use Protection::{Full, Relocated, Stored, Unprotected};
    let mut all = Vec::new();
    let mut add = |change, unprotected_survives| {
        for (work, protections) in [(Work::Busy, &[Full][..]), (Work::Idle, &[Relocated, Full])] {
            all.push(Case { change, work, protection: Unprotected, survives: unprotected_survives });
            all.extend(protections.iter().map(|&protection| Case { change, work, protection, survives: true }));
        }
    };
    add(Change::Rewritten, !place.keeps_inodes);
    if place.keeps_inodes {
        add(Change::RewrittenThroughLink, false);
        add(Change::RewrittenThroughBind, false);
    }
    add(Change::RenamedOver, true);
    add(Change::Replaced, true);
    // If the file system supports it, the copies share blocks with the file.
    all.push(Case { change: Change::Rewritten, work: Work::Busy, protection: Stored, survives: true });
    all
}

/// The result of a trial.
pub enum Verdict {
    Passed,
    /// This machine cannot do it, for this reason.
    NotHere(String),
}

impl Case {
    /// Runs the trial with the compiled victim.
    ///
    /// # Errors
    /// A description of what was wrong.
    pub fn run(self, place: &Place, scratch: &Path, victim: &Path) -> Result<Verdict, String> {
        let mounted = match place.mounted(scratch) {
            Ok(mounted) => mounted,
            Err(reason) => return Ok(Verdict::NotHere(reason)),
        };
        // The name has no dot, because the names of files beside it differ by an
        // extension.
        let name = self.to_string().replace("::", "-");
        let (made_in, seen_in) = (mounted.made_in.join(&name), mounted.seen_in.join(&name));
        fs::create_dir(&made_in).map_err(|error| format!("{}: {error}", made_in.display()))?;
        compile("libvictim.c", &made_in.join("libvictim.so"))?;
        let log = scratch.join(place.name).join(&name);

        let other_names = made_in.with_extension("bound");
        if self.change == Change::RewrittenThroughBind {
            fs::create_dir(&other_names).map_err(|error| format!("{}: {error}", other_names.display()))?;
            if let Err(reason) = places::bind(&made_in, &other_names) {
                return Ok(Verdict::NotHere(reason));
            }
        }
        if self.protection == Protection::Stored {
            // The store does not accept files that have just changed.
            thread::sleep(SETTLING_TIME);
        }
        let result = self.try_with(victim, &seen_in.join("libvictim.so"), &other_names, &log);
        if self.change == Change::RewrittenThroughBind {
            places::unmount(&other_names)?;
        }
        result.map(|()| Verdict::Passed).map_err(|error| format!("{error}\nin {}", seen_in.display()))
    }

    fn try_with(self, victim: &Path, object: &Path, other_names: &Path, log: &Path) -> Result<(), String> {
        let written = match self.change {
            Change::RewrittenThroughBind => other_names.join("libvictim.so"),
            Change::RewrittenThroughLink => {
                let link = object.with_extension("link");
                fs::hard_link(object, &link).map_err(|error| format!("{}: {error}", link.display()))?;
                link
            }
            _ => object.to_owned(),
        };
        let mut process = self.start(victim, object, log)?;
        process.wait_for("ready", 1)?;
        if self.protection == Protection::Stored {
            maps_from(&object.with_extension("store"), process.id())?;
        }
        match self.work {
            Work::Idle => {
                process.wait_until_idle()?;
                self.change(&written, Rewrite::SameBytes)?;
                process.say("go");
            }
            Work::Busy if self.survives => {
                for rewrite in [Rewrite::SameBytes, Rewrite::Traps, Rewrite::Empty] {
                    self.change(&written, rewrite)?;
                    // One tick may have begun before the change ended; the next two
                    // have not.
                    let ticks = process.count("tick") + 3;
                    process.wait_for("tick", ticks).map_err(|error| format!("after {rewrite:?}: {error}"))?;
                }
                process.say("stop");
            }
            Work::Busy => {
                while !process.is_over()? && !process.is_late() {
                    self.change(&written, Rewrite::SameBytes)?;
                }
            }
        }
        let finished = process.finish()?;
        self.judge(&finished)?;
        self.protection.mode().map_or(Ok(()), |mode| reached(mode, object, &finished))
    }

    fn start(self, victim: &Path, object: &Path, log: &Path) -> Result<Dialogue, String> {
        let mut command = Command::new(victim);
        command.arg(if self.work == Work::Busy { "busy" } else { "idle" }).arg(object);
        // The store is beside the library, on the file system under test.
        self.protection.apply(&mut command, "LD_PRELOAD", &object.with_extension("store"))?;
        command.env("SOPIN_LOG", "info");
        Dialogue::start(&mut command, &log.with_extension("log"), TIMEOUT).map_err(|error| format!("victim: {error}"))
    }

    fn change(self, file: &Path, rewrite: Rewrite) -> Result<(), String> {
        let change = || -> io::Result<()> {
            match self.change {
                Change::Rewritten | Change::RewrittenThroughLink | Change::RewrittenThroughBind => rewrite.apply(file),
                Change::RenamedOver => {
                    let new = file.with_extension("new");
                    fs::copy(file, &new)?;
                    rewrite.apply(&new)?;
                    fs::rename(&new, file)
                }
                Change::Replaced => {
                    let bytes = fs::read(file)?;
                    fs::remove_file(file)?;
                    fs::write(file, bytes)?;
                    rewrite.apply(file)
                }
            }
        };
        change().map_err(|error| format!("{}: {error}", file.display()))
    }

    fn judge(self, finished: &Finished) -> Result<(), String> {
        let as_expected = match finished.outcome {
            Outcome::Exit(status) => self.survives && status == PASSED,
            Outcome::Signal(signal) => {
                !self.survives && [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP].contains(&signal)
            }
            Outcome::TimedOut => false,
        };
        let must = if self.survives { "survive" } else { "die" };
        if as_expected { Ok(()) } else { Err(format!("the process has to {must}, but {finished}")) }
    }
}

/// Checks that the log says that the object reached this mode.
fn reached(mode: &str, object: &Path, finished: &Finished) -> Result<(), String> {
    let line = format!("libsopin: {}: {mode}, ", object.display());
    if finished.stderr.lines().any(|printed| printed.starts_with(&line)) {
        return Ok(());
    }
    Err(format!("no line {line:?}; the process {finished}"))
}

/// Checks that the process has a copy of the library mapped from this store.
fn maps_from(store: &Path, process: u32) -> Result<(), String> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).map_err(|error| error.to_string())?;
    let store = store.to_string_lossy();
    if maps.lines().any(|line| line.contains(&*store) && line.ends_with("/libvictim.so")) {
        return Ok(());
    }
    Err(format!("no copy from {store} in\n{maps}"))
}

/// Compiles a source of this directory: to a library if the output is named like one.
///
/// # Errors
/// The compiler's messages.
pub fn compile(source: &str, output: &Path) -> Result<(), String> {
    let source: PathBuf = library::checkout().join("tests/filesystems").join(source);
    let mut command = Command::new("cc");
    command.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"]).args([output, &source]);
    if output.extension().is_some_and(|extension| extension == "so") {
        command.args(["-shared", "-fPIC"]);
    } else {
        command.arg("-ldl");
    }
    let compiled = command.output().map_err(|error| format!("cc: {error}"))?;
    if compiled.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&compiled.stderr).into_owned()) }
}
