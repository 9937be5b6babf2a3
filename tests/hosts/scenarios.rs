//! The scenarios that each program goes through, and their judgement.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::census::{self, Mapped};
use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::common::protection::{Protection, SETTLING_TIME};
use crate::common::rewrite::Rewrite;
use crate::common::{directives::PASSED, library};
use crate::programs::{self, Loading, Program};

/// The time for everything that one process does, on a machine that has other work.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One trial of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The program is not disturbed, and its output is that of the unprotected program.
    SameOutput(Protection),
    /// Every object with a file is pinned, and the log and the kernel agree.
    Census(Protection),
    /// Its objects are rewritten while it computes.
    Busy(Protection),
    /// Its objects are rewritten with the same bytes while it waits; it computes
    /// afterwards.
    Idle(Protection),
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameOutput(protection) => write!(f, "same_output::{protection}"),
            Self::Census(protection) => write!(f, "census::{protection}"),
            Self::Busy(protection) => write!(f, "rewritten_while_busy::{protection}"),
            Self::Idle(protection) => write!(f, "rewritten_while_idle::{protection}"),
        }
    }
}

impl Scenario {
    /// Returns every scenario that applies to a program.
    pub fn all_for(program: &Program) -> Vec<Self> {
        use Protection::{Full, Relocated, Stored, Unprotected};
        let mut all = vec![
            Self::SameOutput(Relocated),
            Self::SameOutput(Full),
            Self::SameOutput(Stored),
            Self::Busy(Full),
            Self::Busy(Stored),
            Self::Idle(Relocated),
            Self::Idle(Full),
        ];
        // Objects that were loaded before the library are not pinned whole. Without the
        // library, the way to load it makes no difference.
        if program.loading == Loading::Preloaded {
            all.extend([Self::Census(Full), Self::Census(Stored), Self::Busy(Unprotected), Self::Idle(Unprotected)]);
        }
        all
    }

    /// Runs the scenario in a directory that exists and is empty.
    ///
    /// # Errors
    /// A description of what was wrong.
    pub fn run(self, program: &Program, directory: &Path) -> Result<(), String> {
        let installation = directory.join("installation");
        program.install(&installation)?;
        let trial = Trial { program, directory, installation: &installation };
        if let Self::SameOutput(Protection::Stored)
        | Self::Census(Protection::Stored)
        | Self::Busy(Protection::Stored) = self
        {
            // The store does not accept files that have just changed.
            thread::sleep(SETTLING_TIME);
        }
        match self {
            Self::SameOutput(protection) => trial.same_output(protection),
            Self::Census(protection) => trial.census(protection),
            Self::Busy(Protection::Unprotected) => trial.dies_when_rewritten_while_busy(),
            Self::Busy(protection) => trial.survives_rewriting_while_busy(protection),
            Self::Idle(Protection::Unprotected) => trial.dies_after_rewriting_while_idle(),
            Self::Idle(protection) => trial.survives_rewriting_while_idle(protection),
        }
    }
}

struct Trial<'a> {
    program: &'a Program,
    directory: &'a Path,
    installation: &'a Path,
}

impl Trial<'_> {
    fn same_output(&self, protection: Protection) -> Result<(), String> {
        let native = self.undisturbed(Protection::Unprotected)?;
        let protected = self.undisturbed(protection)?;
        same("standard output", &native.stdout, &protected.stdout)?;
        same("standard error", &native.stderr, &protected.stderr)
    }

    /// Runs the program without disturbing it.
    fn undisturbed(&self, protection: Protection) -> Result<Finished, String> {
        let finished = self.start("once", protection)?.finish()?;
        passed(&finished)?;
        Ok(finished)
    }

    fn census(&self, protection: Protection) -> Result<(), String> {
        let mut native = self.start("idle", Protection::Unprotected)?;
        native.wait_for("ready", 1)?;
        let mut expected = census::objects(&census::files(&census::mappings(native.id())?));
        expected.insert(library::path()?);
        native.say("go");
        passed(&native.finish()?)?;

        let log = self.directory.join("sopin.log");
        let mut command = self.command("idle", protection)?;
        command.env("SOPIN_LOG", "info").env("SOPIN_LOG_FILE", &log);
        let mut protected = self.start_command(&mut command, "census")?;
        protected.wait_for("ready", 1)?;
        let mappings = census::mappings(protected.id())?;
        let program = fs::read_link(format!("/proc/{}/exe", protected.id())).map_err(|error| error.to_string())?;
        let log = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        protected.say("go");
        passed(&protected.finish()?)?;

        let reported = census::reported(&log, "full")?;
        let missing: Vec<_> = expected.difference(&reported).collect();
        if !missing.is_empty() {
            return Err(format!("loaded, but not reported as full: {missing:#?}\n{log}"));
        }
        // One page stays, the witness, to which nothing points. The page that stays of
        // the program itself, which /proc/PID/exe shows, is not executable.
        let page = rustix::param::page_size() as u64;
        let files = census::files(&mappings);
        for object in &expected {
            let mapped = files.get(object).copied().unwrap_or_default();
            let witness = if *object == program {
                Mapped { readable: page, ..Mapped::default() }
            } else {
                Mapped { executable: page, ..Mapped::default() }
            };
            if mapped != witness {
                return Err(format!("{}: {mapped:?} instead of the witness", object.display()));
            }
        }
        let [memfds, stored] =
            ["/memfd:sopin:".into(), self.store().to_string_lossy()].map(|path| census::copies(&mappings, &path));
        let copies = if protection == Protection::Stored { [0, expected.len()] } else { [expected.len(), 0] };
        if [memfds, stored] == copies {
            return Ok(());
        }
        Err(format!("{memfds} memfds and {stored} files of the store are mapped, for {} objects", expected.len()))
    }

    fn survives_rewriting_while_busy(&self, protection: Protection) -> Result<(), String> {
        let native = self.undisturbed(Protection::Unprotected)?;
        let objects = programs::rewritten(self.installation)?;
        let mut process = self.start("busy", protection)?;
        process.wait_for("ready", 1)?;
        for rewrite in [Rewrite::SameBytes, Rewrite::SameBytes, Rewrite::Traps, Rewrite::Empty] {
            rewrite.apply_to_all(&objects)?;
            // One tick may have begun before the rewriting ended; the next two have
            // not.
            let ticks = process.count("tick") + 3;
            process.wait_for("tick", ticks).map_err(|error| format!("after {rewrite:?}: {error}"))?;
        }
        process.say("stop");
        let finished = process.finish()?;
        passed(&finished)?;
        same("result", result_of(&native)?, result_of(&finished)?)
    }

    fn dies_when_rewritten_while_busy(&self) -> Result<(), String> {
        let objects = programs::rewritten(self.installation)?;
        let mut process = self.start("busy", Protection::Unprotected)?;
        process.wait_for("ready", 1)?;
        while !process.is_over()? && !process.is_late() {
            Rewrite::SameBytes.apply_to_all(&objects)?;
        }
        self.died(&process.finish()?)
    }

    fn survives_rewriting_while_idle(&self, protection: Protection) -> Result<(), String> {
        let native = self.undisturbed(Protection::Unprotected)?;
        let finished = self.rewrite_while_idle(protection)?;
        passed(&finished)?;
        same("result", result_of(&native)?, result_of(&finished)?)
    }

    fn dies_after_rewriting_while_idle(&self) -> Result<(), String> {
        self.died(&self.rewrite_while_idle(Protection::Unprotected)?)
    }

    fn rewrite_while_idle(&self, protection: Protection) -> Result<Finished, String> {
        let objects = programs::rewritten(self.installation)?;
        let mut process = self.start("idle", protection)?;
        process.wait_for("ready", 1)?;
        process.wait_until_idle()?;
        Rewrite::SameBytes.apply_to_all(&objects)?;
        process.say("go");
        process.finish()
    }

    fn died(&self, finished: &Finished) -> Result<(), String> {
        if self.program.died(finished.outcome) {
            return Ok(());
        }
        Err(format!("an unprotected process has to die of this, but {finished}"))
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn start(&self, work: &str, protection: Protection) -> Result<Dialogue, String> {
        self.start_command(&mut self.command(work, protection)?, &format!("{work}.{protection}"))
    }

    fn start_command(&self, command: &mut Command, log: &str) -> Result<Dialogue, String> {
        // with_extension would replace the last part of the name.
        let log = self.directory.join(format!("{log}.log"));
        Dialogue::start(command, &log, TIMEOUT).map_err(|error| format!("{command:?}: {error}"))
    }

    fn command(&self, work: &str, protection: Protection) -> Result<Command, String> {
        let mut command = self.program.command(self.installation, work);
        let variable = match self.program.loading {
            Loading::Preloaded => "LD_PRELOAD",
            Loading::AtRunTime => "SOPIN_TEST_LOAD_ITSELF",
        };
        protection.apply(&mut command, variable, &self.store())?;
        if self.program.loading == Loading::AtRunTime {
            // The library would report the objects that were loaded before it, and the
            // output is compared.
            command.env("SOPIN_LOG", "off");
        }
        Ok(command)
    }
}

fn passed(finished: &Finished) -> Result<(), String> {
    if finished.outcome == Outcome::Exit(PASSED) { Ok(()) } else { Err(finished.to_string()) }
}

/// Returns what follows `result` in its last line.
fn result_of(finished: &Finished) -> Result<&str, String> {
    let last = finished.stdout.lines().last().unwrap_or_default();
    last.strip_prefix("result ").ok_or_else(|| format!("no result in the last line; it {finished}"))
}

fn same(what: &str, native: &str, protected: &str) -> Result<(), String> {
    if native == protected {
        return Ok(());
    }
    Err(format!("{what} differs\n--- unprotected\n{native}\n--- protected\n{protected}"))
}
