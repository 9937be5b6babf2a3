//! Runs `sopin explain`, and reads its verdict.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::process::{self, Outcome, patience};
use crate::common::{library, protection};

/// The time in which a core has to be explained.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A verdict, which is also the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A file was rewritten, and the process died of that.
    Rewritten,
    /// Nothing points to it.
    Unrelated,
    /// The dump and the files do not show the cause.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rewritten => "rewritten",
            Self::Unrelated => "nothing points to it",
            Self::Unknown => "cannot be told",
        })
    }
}

/// The result of a run of the command.
#[derive(Debug)]
pub struct Explanation {
    pub verdict: Verdict,
    /// Its standard output.
    pub text: String,
    /// Its standard error.
    pub stderr: String,
}

impl Explanation {
    /// Checks that the verdict is one of these.
    ///
    /// # Errors
    /// It is not.
    pub fn is_one_of(&self, verdicts: &[Verdict]) -> Result<(), String> {
        if verdicts.contains(&self.verdict) {
            return Ok(());
        }
        let wanted: Vec<_> = verdicts.iter().map(ToString::to_string).collect();
        Err(format!("the verdict is {:?}, and has to be {:?}:\n{self}", self.verdict.to_string(), wanted.join(" or ")))
    }

    /// Checks that the sentence, which is the first paragraph, has these words.
    ///
    /// # Errors
    /// One is missing.
    pub fn says(&self, words: &[&str]) -> Result<(), String> {
        let sentence =
            self.text.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        match words.iter().find(|word| !sentence.contains(**word)) {
            Some(word) => Err(format!("the sentence does not say {word:?}:\n{self}")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.text.trim_end(), self.stderr.trim_end())
    }
}

/// Returns the command under test: `SOPIN_TEST_COMMAND`, or the release build of this checkout.
///
/// # Errors
/// There is no such file.
pub fn command() -> Result<PathBuf, String> {
    let wanted = std::env::var_os("SOPIN_TEST_COMMAND")
        .map_or_else(|| library::checkout().join("target/release/sopin"), PathBuf::from);
    wanted.canonicalize().map_err(|error| format!("{}: {error}; run `make build`", wanted.display()))
}

/// Explains a core. What the command prints is also in `directory`.
///
/// # Errors
/// Those of [`run`].
pub fn explain(core: &Path, directory: &Path) -> Result<Explanation, String> {
    let mut explaining = Command::new(command()?);
    explaining.arg("explain").arg(core);
    run(explaining, directory)
}

/// Runs a command that ends as `sopin explain` does.
///
/// # Errors
/// It cannot be run, hangs, dies, panics, or has not understood its command line.
pub fn run(mut explaining: Command, directory: &Path) -> Result<Explanation, String> {
    protection::forget_settings(&mut explaining);
    let log = directory.join("explain.log");
    let finished = process::run(&mut explaining, &log, TIMEOUT * patience()?).map_err(|error| error.to_string())?;
    let verdict = match finished.outcome {
        Outcome::Exit(0) => Verdict::Unrelated,
        Outcome::Exit(3) => Verdict::Unknown,
        Outcome::Exit(4) => Verdict::Rewritten,
        _ => return Err(format!("{explaining:?} {finished}")),
    };
    if finished.stderr.contains("panicked") {
        return Err(format!("{explaining:?} {finished}"));
    }
    Ok(Explanation { verdict, text: finished.stdout, stderr: finished.stderr })
}
