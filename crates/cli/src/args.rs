//! The command line. Each subcommand declares its arguments in its own module; here
//! they become variants of one enum. The manual pages in `man/` are made of the text of
//! `--help` (`make man`), and each subcommand ends it with its exit statuses.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::check::CheckArgs;
use crate::completions::CompletionsArgs;
use crate::copy_library::CopyLibraryArgs;
use crate::doctor::DoctorArgs;
use crate::enable::{DisableArgs, EnableArgs};
use crate::exit::Exit;
use crate::explain::ExplainArgs;
use crate::pin::PinArgs;
use crate::run::RunArgs;
use crate::status::StatusArgs;
use crate::store::StoreArgs;
use crate::watch::WatchArgs;

const MORE: &str = "\
Environment:
  SOPIN_*     Settings of the library, see libsopin(7)
  LD_PRELOAD  sopin run adds the library, and keeps what the variable has
  NO_COLOR    If set, the output has no colours; it has none either where it is no terminal

Exit status:
  0  success: for example, the program would be protected, or every object is pinned
  1  the command has found something wrong
  2  the command line was not understood
  See the subcommands for others.
";

/// Run programs that survive their shared objects being rewritten on disk
///
/// The command finds libsopin.so next to itself: below the same prefix, in the package of the same
/// Python environment, or in target/.
/// libsopin(7) says what the library does, and what it cannot do.
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

/// The subcommand. `--help` shows the documentation of the arguments; a comment on a
/// variant would hide all of it but the first line.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    Status(StatusArgs),
    Explain(ExplainArgs),
    Pin(PinArgs),
    Watch(WatchArgs),
    Store(StoreArgs),
    Doctor(DoctorArgs),
    CopyLibrary(CopyLibraryArgs),
    Enable(EnableArgs),
    Disable(DisableArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// Returns the exit status of a usage error in these arguments. `run` keeps everything
    /// below 125 for the program that it runs, `pin` does so if there is a command behind `--`,
    /// and `check` has the statuses of `run`.
    fn usage_exit(arguments: &[OsString]) -> Exit {
        match arguments.get(1).and_then(|name| name.to_str()) {
            Some("run" | "check") => Exit::Failed,
            Some("pin") if arguments.iter().any(|argument| argument == "--") => Exit::Failed,
            _ => Exit::Usage,
        }
    }
}

/// Returns the declaration of the command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Returns the subcommand, or the exit status where clap has answered itself: help,
/// version, usage errors.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(probe) = DoctorArgs::of_child(&arguments) {
        return Ok(Command::Doctor(probe));
    }
    Cli::try_parse_from(&arguments).map(|cli| cli.command).map_err(|error| {
        // If the text cannot be printed, there is no other way to report that.
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success,
            _ => Command::usage_exit(&arguments),
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
