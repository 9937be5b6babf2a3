//! The answer of `sopin check`, for people.

use std::fmt;

use super::answer::{CheckAnswer, FileInChain};
use crate::output::{BAD, DOUBTFUL, GOOD, shown};
use crate::program::chain::SHELL;

/// A line for the verdict and lines of facts, each with its kind in front.
pub struct CheckPage<'a>(pub &'a CheckAnswer);

impl fmt::Display for CheckPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckAnswer { command, engages, files, obstacles, trial, complaints, library, .. } = self.0;
        let (style, verdict) = if *engages { (GOOD, "would be protected") } else { (BAD, "would not be protected") };
        writeln!(f, "{}: {style}{verdict}{style:#}", shown(command))?;
        for file in files {
            writeln!(f, "  file     {file}")?;
        }
        for obstacle in obstacles {
            writeln!(f, "  {BAD}because{BAD:#}  {}: {}", shown(&obstacle.thing), obstacle.reason)?;
        }
        if let Some(trial) = trial {
            if *engages {
                writeln!(
                    f,
                    "  loader   maps {} and {} other {}",
                    shown(library),
                    trial.objects.len() - 1,
                    if trial.objects.len() == 2 { "object" } else { "objects" }
                )?;
            }
            for message in &trial.messages {
                writeln!(f, "  loader   says: {}", shown(message))?;
            }
        }
        for complaint in complaints {
            writeln!(f, "  {DOUBTFUL}setting{DOUBTFUL:#}  {complaint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FileInChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script { path, interpreter, argument } => {
                write!(f, "{}: script for {}", shown(path), shown(interpreter))?;
                argument.as_ref().map_or(Ok(()), |argument| write!(f, " {}", shown(argument)))
            }
            Self::ShellScript { path } => write!(f, "{}: script without #!, for {SHELL}", shown(path)),
            Self::Program { path, machine, loader } => {
                write!(f, "{}: program for {machine}, ", shown(path))?;
                match loader {
                    Some(loader) => write!(f, "loaded by {}", shown(loader)),
                    None => write!(f, "without loader"),
                }
            }
        }
    }
}
