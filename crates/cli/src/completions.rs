//! `sopin completions`: prints the command line's completions for a shell.

use std::io::Write;

use clap_complete::{Shell, generate};

use crate::exit::{Exit, Failure};

/// Print completions for a shell
///
/// `make install` puts them where bash, zsh and fish look. Without it, have the
/// shell read them at its start, for instance bash: source <(sopin completions bash)
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit status:
  0  the completions were printed
  2  the command line was not understood
")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completions for this command line.
///
/// # Errors
/// When stdout cannot be written to.
pub fn completions(arguments: &CompletionsArgs, mut command: clap::Command) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    generate(arguments.shell, &mut command, "sopin", &mut text);
    let written = std::io::stdout().write_all(&text);
    written.map_err(|error| Failure::new(Exit::Failed, "stdout", error))?;
    Ok(Exit::Success)
}
