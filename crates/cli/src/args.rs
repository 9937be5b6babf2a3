//! The command line. Each subcommand's arguments are declared in its own
//! module; here they become variants of one enum.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use crate::check::CheckArgs;
use crate::exit::Exit;
use crate::run::RunArgs;

/// Run programs that survive their shared objects being rewritten on disk.
#[derive(Debug, Parser)]
#[command(name = "sopin", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a program under libsopin.so
    Run(RunArgs),
    /// Tell whether libsopin.so would get into a program
    Check(CheckArgs),
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
