//! The directives at the top of a fixture's `main.c`: lines starting with `//# `.
//! `tests/fixtures/README.md` is their reference.

use std::path::Path;
use std::time::Duration;

use regex::Regex;

use super::needs::Need;
use super::process::{Finished, Outcome};

/// The exit status of a fixture that passes. It is not a default, so that a program
/// that did not run does not pass.
pub const PASSED: i32 = 42;

/// The value of `LD_PRELOAD` with which a trial's process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    /// `LD_PRELOAD` names the library under test.
    Library,
    /// No `LD_PRELOAD`, because the program loads the library itself.
    ByItself,
    /// No library: a negative control, or the run with which semantics are compared.
    Nothing,
}

/// One `run`, `run-without-preload` or `control` line.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its name, which is unique in its fixture.
    pub label: String,
    pub preload: Preload,
    /// The environment. Of two values for one variable, the later one counts.
    pub environment: Vec<(String, String)>,
    /// Arguments of `./main`.
    pub arguments: Vec<String>,
    /// The outcomes with which it passes.
    pub expected: Vec<Outcome>,
    /// Patterns that standard error must match.
    pub stderr: Vec<Regex>,
    /// Patterns that standard error must not match.
    pub stderr_not: Vec<Regex>,
    /// Properties that the machine must have for this trial, beside those for the whole fixture.
    pub needs: Vec<Need>,
    /// Whether the process inherits a ring of `io_uring(7)`. While it has one, the library does not
    /// stop other threads, because the kernel might store to memory meanwhile.
    pub has_ring: bool,
}

/// One `build` line: the arguments of the compiler, in order.
#[derive(Clone, Debug)]
pub struct Build {
    /// The name of the file to build.
    pub output: String,
    /// Sources and flags.
    pub arguments: Vec<String>,
}

/// One `copy` line.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The name of the file in the trial's directory.
    pub name: String,
    /// A library that the compiler finds, an absolute path, or `{lib}`.
    pub source: String,
}

/// All directives of a `main.c`.
#[derive(Debug)]
pub struct Directives {
    /// Files to build, in order.
    pub builds: Vec<Build>,
    /// Files to copy into the directory of each trial.
    pub copies: Vec<Copy>,
    pub trials: Vec<Trial>,
    /// Properties that the machine must have.
    pub needs: Vec<Need>,
    /// The longest time that one trial may take.
    pub timeout: Duration,
    /// True if all trials keep a processor busy for seconds.
    pub is_busy: bool,
}

impl Trial {
    /// Compares how the trial ended with what the directives say.
    ///
    /// # Errors
    /// What differs.
    pub fn judge(&self, finished: &Finished) -> Result<(), String> {
        if !self.expected.contains(&finished.outcome) {
            let expected: Vec<String> = self.expected.iter().map(ToString::to_string).collect();
            return Err(format!("expected {}, got {}", expected.join(" or "), finished.outcome));
        }
        for pattern in &self.stderr {
            if !pattern.is_match(&finished.stderr) {
                return Err(format!("stderr does not match {pattern}"));
            }
        }
        for pattern in &self.stderr_not {
            if pattern.is_match(&finished.stderr) {
                return Err(format!("stderr matches {pattern}"));
            }
        }
        if self.stderr.is_empty() && finished.stderr.contains("libsopin:") {
            return Err("the library printed something that no directive expects".to_owned());
        }
        Ok(())
    }
}

impl Directives {
    /// Reads the directives of a `main.c`.
    ///
    /// # Errors
    /// The file, the line's number and what is wrong with it.
    pub fn parse(file: &Path, source: &str) -> Result<Self, String> {
        let mut found = Self {
            builds: Vec::new(),
            copies: Vec::new(),
            trials: Vec::new(),
            needs: Vec::new(),
            timeout: Duration::from_secs(60),
            is_busy: false,
        };
        for (index, line) in source.lines().enumerate() {
            if let Some(directive) = line.strip_prefix("//#") {
                found.add(directive.trim()).map_err(|error| format!("{}:{}: {error}", file.display(), index + 1))?;
            }
        }
        if !found.builds.iter().any(|build| build.output == "main") {
            found.builds.push(Build { output: "main".to_owned(), arguments: words("main.c -ldl -pthread") });
        }
        if found.trials.is_empty() {
            return Err(format!("{}: neither `run` nor `control`", file.display()));
        }
        Ok(found)
    }

    fn add(&mut self, directive: &str) -> Result<(), String> {
        let (keyword, rest) = directive.split_once(':').ok_or_else(|| format!("no colon in {directive:?}"))?;
        let rest = rest.trim();
        match keyword {
            "build" => {
                let (output, arguments) = first_word(rest)?;
                self.builds.push(Build { output, arguments: words(arguments) });
            }
            "copy" => {
                let (name, source) = first_word(rest)?;
                let source = if source.is_empty() { name.clone() } else { source.to_owned() };
                self.copies.push(Copy { name, source });
            }
            "run" => self.add_trial(Preload::Library, rest)?,
            "run-without-preload" => self.add_trial(Preload::ByItself, rest)?,
            "control" => self.add_trial(Preload::Nothing, rest)?,
            "needs-for" => {
                let (label, needs) = first_word(rest)?;
                let (needs, _reason) = needs.split_once('(').unwrap_or((needs, ""));
                let needs = needs.split_whitespace().map(str::parse).collect::<Result<Vec<Need>, _>>()?;
                self.trial(&label)?.needs.extend(needs);
            }
            "stderr" => {
                let (trial, pattern) = self.stderr_pattern(rest)?;
                trial.stderr.push(pattern);
            }
            "stderr-not" => {
                let (trial, pattern) = self.stderr_pattern(rest)?;
                trial.stderr_not.push(pattern);
            }
            "unstoppable" => {
                for label in rest.split_whitespace() {
                    let trial = self.trial(label)?;
                    trial.has_ring = true;
                    trial.needs.push(Need::IoUring);
                }
            }
            "needs" => {
                let (needed, _reason) = rest.split_once('(').unwrap_or((rest, ""));
                for word in needed.split_whitespace() {
                    self.needs.push(word.parse()?);
                }
            }
            "timeout" => {
                let seconds = rest.parse().map_err(|error| format!("timeout {rest:?}: {error}"))?;
                self.timeout = Duration::from_secs(seconds);
            }
            "busy" => {
                if rest.is_empty() {
                    return Err("busy: no reason".to_owned());
                }
                self.is_busy = true;
            }
            _ => return Err(format!("{keyword:?} is no directive")),
        }
        Ok(())
    }

    fn add_trial(&mut self, preload: Preload, rest: &str) -> Result<(), String> {
        let (label, rest) = first_word(rest)?;
        if self.trials.iter().any(|trial| trial.label == label) {
            return Err(format!("a second trial labelled {label:?}"));
        }
        if label.contains(['.', '/']) {
            return Err(format!("{label:?} names a directory: no dot, no slash"));
        }
        let (command, expected) = match (preload, rest.split_once("=>")) {
            (Preload::Nothing, Some((command, outcomes))) => {
                let outcomes = outcomes.split('|').map(|outcome| outcome.trim().parse());
                (command, outcomes.collect::<Result<Vec<Outcome>, _>>()?)
            }
            (Preload::Nothing, None) => return Err("a control needs `=> OUTCOME`".to_owned()),
            (_, Some(_)) => return Err("only a control may have `=> OUTCOME`".to_owned()),
            (_, None) => (rest, vec![Outcome::Exit(PASSED)]),
        };
        let mut environment = Vec::new();
        let mut arguments = Vec::new();
        let mut command = command.split_whitespace();
        for word in command.by_ref() {
            if word == "--" {
                break;
            }
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("{word:?} is not NAME=VALUE; arguments come after `--`"))?;
            environment.push((name.to_owned(), value.to_owned()));
        }
        arguments.extend(command.map(str::to_owned));
        self.trials.push(Trial {
            label,
            preload,
            environment,
            arguments,
            expected,
            stderr: Vec::new(),
            stderr_not: Vec::new(),
            needs: Vec::new(),
            has_ring: false,
        });
        Ok(())
    }

    fn stderr_pattern(&mut self, rest: &str) -> Result<(&mut Trial, Regex), String> {
        let (label, pattern) = first_word(rest)?;
        if pattern.is_empty() {
            return Err("no regular expression after the label".to_owned());
        }
        // `^` and `$` match at lines, because a run may report several.
        let pattern = Regex::new(&format!("(?m){pattern}")).map_err(|error| error.to_string())?;
        Ok((self.trial(&label)?, pattern))
    }

    fn trial(&mut self, label: &str) -> Result<&mut Trial, String> {
        let trial = self.trials.iter_mut().find(|trial| trial.label == label);
        trial.ok_or_else(|| format!("no trial labelled {label:?} above this line"))
    }
}

fn first_word(text: &str) -> Result<(String, &str), String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if word.is_empty() {
        return Err("a name is missing".to_owned());
    }
    Ok((word.to_owned(), rest.trim()))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
