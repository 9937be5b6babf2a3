//! The command line. Each subcommand's arguments are declared in its own
//! module; here they become variants of one enum. The text of `--help` is the
//! text of the manual pages too (`man/`, `make man`), and each subcommand ends it
//! with its exit statuses.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::check::CheckArgs;
use crate::completions::CompletionsArgs;
use crate::exit::Exit;
use crate::run::RunArgs;
use crate::status::StatusArgs;
use crate::store::StoreArgs;

const MORE: &str = "\
Environment:
  SOPIN_*     Settings of the library, see libsopin(7)
  LD_PRELOAD  What is in it stays in it
  NO_COLOR    If set, nothing is coloured; nothing is where the output is no terminal

Exit status:
  0  the answer is the good one
  1  the answer is the bad one
  2  the command line was not understood
  See the subcommands for others.
";

/// Run programs that survive their shared objects being rewritten on disk
///
/// The command finds libsopin.so next to itself: below the same prefix, or in target/.
/// What the library does, and what it cannot do, is told by libsopin(7).
#[derive(Debug, Parser)]
#[command(
    name = "sopin",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    subcommand_value_name = "COMMAND",
    after_long_help = MORE
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do. The arguments' own documentation is what `--help` says; a comment
/// here would hide all of it but the first line.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    Status(StatusArgs),
    Store(StoreArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// The exit status of a usage error of the subcommand of this name. `run`
    /// keeps everything below 125 for the program that it runs, and `check` has
    /// the same statuses.
    fn usage_exit(name: Option<&OsString>) -> Exit {
        match name.and_then(|name| name.to_str()) {
            Some("run" | "check") => Exit::Failed,
            _ => Exit::Usage,
        }
    }
}

/// The whole command line, for what describes it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The command line's subcommand, or the exit status when clap has answered
/// itself: help, version, usage errors.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map(|cli| cli.command).map_err(|error| {
        // Nothing is left to do when it cannot be printed.
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success,
            _ => Command::usage_exit(arguments.get(1)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
