//! The table of cases: each program, each way of dying, and the verdict.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::dialogue::Dialogue;
use crate::common::library;
use crate::cores::{self, Crash, DEFAULT_FILTER};
use crate::damage::Damage;
use crate::explained::{self, Explanation, Verdict};
use crate::hosts::{Builds, Host, Linking};

use Verdict::{Rewritten, Unknown, Unrelated};

/// A way of dying.
pub struct Way {
    /// Its description on the page.
    pub description: &'static str,
    /// The change of the plug-in's file while the program waits.
    pub damage: Damage,
    /// The function of the plug-in that the program calls afterwards; or a signal that it gets.
    pub call: &'static str,
    pub linking: Linking,
    /// True if the program runs under the library.
    pub is_protected: bool,
    /// Each of these verdicts is right.
    pub verdicts: &'static [Verdict],
    /// The end of the path of the file that was rewritten, if the verdict says so.
    pub file: &'static str,
    /// Words of the sentence, if the verdict is that the file was rewritten.
    pub words: &'static [&'static str],
}

/// Returns a way that most ways are like.
pub const fn way(description: &'static str, damage: Damage, call: &'static str, verdicts: &'static [Verdict]) -> Way {
    Way {
        description,
        damage,
        call,
        linking: Linking::Lazy,
        is_protected: false,
        verdicts,
        file: "/plug.so",
        words: &[],
    }
}

/// The ways in which every program dies because its file was rewritten.
const REWRITTEN: &[Way] = &[
    Way {
        words: &["collect_rows"],
        ..way("calls through a pointer that has reverted", Damage::SameBytes, "call", &[Rewritten])
    },
    Way {
        words: &["collect_rows"],
        linking: Linking::Now,
        ..way("the same, with all functions bound at once", Damage::SameBytes, "call", &[Rewritten])
    },
    Way { words: &["getpgrp"], ..way("calls a function of another object", Damage::SameBytes, "lazy", &[Rewritten]) },
    Way {
        words: &["row_count"],
        ..way("reads through a pointer that has reverted", Damage::SameBytes, "data", &[Rewritten])
    },
    Way {
        linking: Linking::Lld,
        ..way("calls through a pointer that has reverted to 0", Damage::SameBytes, "call", &[Rewritten])
    },
    Way {
        linking: Linking::Lld,
        ..way("reads through a pointer that has reverted to 0", Damage::SameBytes, "data", &[Rewritten])
    },
    way("executes code beyond the end of the file", Damage::Emptied, "data", &[Rewritten]),
    way("reads data beyond the end of the file", Damage::Shortened, "data", &[Rewritten]),
    way("the same, and the file is whole again", Damage::EmptiedForAWhile, "data", &[Rewritten]),
    way("executes the code of another build", Damage::OtherBuild, "call", &[Rewritten]),
    way("the same, written without truncating the file", Damage::OtherInPlace, "call", &[Rewritten]),
    Way {
        file: "/records",
        ..way("reads beyond the end of a file that it has mapped itself", Damage::None, "mapped", &[Rewritten])
    },
];

/// The ways in which every program dies of something else.
const UNRELATED: &[Way] = &[
    way("calls address 0", Damage::None, "nowhere", &[Unrelated]),
    way("reads from address 8", Damage::None, "nothing", &[Unrelated]),
    way("calls a small address, which is one of a function in the file", Damage::None, "wild", &[Unrelated]),
    way("reads from a small address, which is one of data in the file", Damage::None, "stray", &[Unrelated]),
    way("calls `abort`", Damage::None, "aborted", &[Unrelated]),
    way("executes an instruction that traps", Damage::None, "trap", &[Unrelated]),
    way("overflows the stack", Damage::None, "overflow", &[Unrelated]),
    way("calls through freed memory", Damage::None, "freed", &[Unrelated]),
    way("frees memory twice", Damage::None, "twice", &[Unrelated]),
    way("writes to the result of a `malloc` that has failed", Damage::None, "exhausted", &[Unrelated]),
    way("raises SIGSEGV", Damage::None, "raised", &[Unrelated]),
    way("gets SIGSEGV from another process", Damage::None, "SIGSEGV", &[Unrelated]),
    way("gets SIGBUS from another process", Damage::None, "SIGBUS", &[Unrelated]),
    way(
        "reads from address 8; another file has replaced that of the plug-in",
        Damage::Replaced,
        "nothing",
        NOT_REWRITTEN,
    ),
    way(
        "calls a small address; another file has replaced that of the plug-in",
        Damage::Replaced,
        "wild",
        NOT_REWRITTEN,
    ),
    way("executes an instruction that traps; the file was rewritten before", Damage::SameBytes, "trap", NOT_REWRITTEN),
    way(
        "gets SIGSEGV from another process; the file was rewritten before",
        Damage::SameBytes,
        "SIGSEGV",
        NOT_REWRITTEN,
    ),
    Way {
        is_protected: true,
        ..way(
            "reads from address 8; sopin has protected it, and the file was rewritten",
            Damage::SameBytes,
            "nothing",
            &[Unrelated],
        )
    },
];

/// The right verdicts if the files do not show what has happened: the command may say so.
const NOT_REWRITTEN: &[Verdict] = &[Unrelated, Unknown];

impl Way {
    /// Returns its name among the trials.
    pub fn name(&self) -> String {
        let linking = match self.linking {
            Linking::Lazy => "",
            Linking::Lld => "::lld",
            Linking::Now => "::bound",
        };
        let protection = if self.is_protected { "::protected" } else { "" };
        format!("{}::{}{linking}{protection}", self.damage, self.call)
    }

    /// Lets the program die, and returns its core.
    ///
    /// # Errors
    /// It does not die, or without a core.
    pub fn crash(&self, host: Host, builds: &Builds, directory: &Path, filter: u32) -> Result<Crash, String> {
        let mut process = self.start(host, builds, directory, filter)?;
        match self.signal() {
            Some(signal) => {
                let pid = Pid::from_raw(process.id().cast_signed()).ok_or("no process")?;
                kill_process(pid, signal).map_err(|error| error.to_string())?;
            }
            None => host.call(&mut process, self.call),
        }
        let crash = cores::of(process, &host.working_directory(directory))?;
        self.damage.apply_afterwards(&directory.join("plug.so"), &host.plug(builds, self.linking, false)?)?;
        Ok(crash)
    }

    /// Starts the program with its plug-in in `directory`, and does to its file what kills it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, host: Host, builds: &Builds, directory: &Path, filter: u32) -> Result<Dialogue, String> {
        let plug = directory.join("plug.so");
        fs::copy(host.plug(builds, self.linking, false)?, &plug).map_err(|error| error.to_string())?;
        let function = if self.signal().is_some() { "nothing" } else { self.call };
        let mut command = host.command(builds, directory, function, filter)?;
        if self.is_protected {
            command.env("LD_PRELOAD", library::path()?).env("SOPIN_STORE", "off");
        }
        let mut process = cores::start(command, directory)?;
        host.prepare(&mut process, directory, function)?;
        self.damage.apply(&plug, &host.plug(builds, self.linking, true)?)?;
        Ok(process)
    }

    /// Returns the signal that another process sends, if that is how it dies.
    fn signal(&self) -> Option<Signal> {
        match self.call {
            "SIGSEGV" => Some(Signal::SEGV),
            "SIGBUS" => Some(Signal::BUS),
            _ => None,
        }
    }

    /// Checks an explanation of such a core.
    ///
    /// # Errors
    /// It is wrong.
    pub fn judge(&self, explanation: &Explanation, plug: &Path) -> Result<(), String> {
        explanation.is_one_of(self.verdicts)?;
        if explanation.verdict == Rewritten {
            let directory = plug.parent().unwrap_or(plug).to_string_lossy();
            explanation.says(&[&directory, self.file])?;
            explanation.says(self.words)?;
        }
        Ok(())
    }

    /// Runs the trial, and returns the verdict.
    ///
    /// # Errors
    /// The verdict is wrong.
    pub fn try_on(&self, host: Host, builds: &Builds, directory: &Path) -> Result<Verdict, String> {
        let crash = self.crash(host, builds, directory, DEFAULT_FILTER)?;
        let explanation = explained::explain(&crash.core, directory)?;
        self.judge(&explanation, &directory.join("plug.so"))
            .map_err(|error| format!("{error}\nthe program {}", crash.finished))?;
        Ok(explanation.verdict)
    }
}

/// Returns every way.
pub fn all() -> impl Iterator<Item = &'static Way> {
    REWRITTEN.iter().chain(UNRELATED)
}

/// Returns the way with this name.
///
/// # Panics
/// There is none.
pub fn find(name: &str) -> &'static Way {
    all().find(|way| way.name() == name).unwrap_or_else(|| panic!("no way {name}"))
}
