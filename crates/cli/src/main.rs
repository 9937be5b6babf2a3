//! `sopin`: runs programs under `libsopin.so`, and looks at what became of them.
//!
//! | module | responsible for |
//! |---|---|
//! | [`args`] | the command line |
//! | [`exit`] | the exit statuses, and the failures that end in one: [`exit::Failure`] |
//! | [`output`] | stdout and stderr: failures, warnings, colour |
//! | [`settings`] | values of `SOPIN_*` variables given as options |
//! | [`library`] | where `libsopin.so` is |
//! | [`preload`] | the value of `LD_PRELOAD` |
//! | [`program`] | which files a command executes, and the obstacles for the library |
//! | [`trial`] | starts a program's loader to learn whether it loads the library |
//! | [`run`] | `sopin run` |
//! | [`check`] | `sopin check` |
//! | [`status`](mod@status) | `sopin status` |
//! | [`store`] | `sopin store` |
//! | [`completions`] | `sopin completions` |
//! | `manual` | the pages in `man/`; only the tests have it |
//!
//! The command reads and execs, writes the system's store, and removes copies from
//! stores; it changes nothing in another process and contains no unsafe code.

#![forbid(unsafe_code)]
#![allow(clippy::doc_markdown)]

mod args;
mod check;
mod completions;
mod exit;
mod library;
#[cfg(test)]
mod manual;
mod output;
mod preload;
mod program;
mod run;
mod settings;
mod status;
mod store;
mod trial;

use std::env;
use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let command = args::parse(env::args_os());
    // `run` does so itself, as soon as it writes nothing more that could raise SIGPIPE.
    if !matches!(command, Ok(Command::Run(_))) {
        sopin_startup::restore();
    }
    let outcome = match command {
        Ok(Command::Run(arguments)) => run::run(&arguments),
        Ok(Command::Check(arguments)) => check::check(&arguments),
        Ok(Command::Status(arguments)) => status::status(&arguments),
        Ok(Command::Store(arguments)) => store::store(&arguments),
        Ok(Command::Completions(arguments)) => completions::completions(&arguments, args::command()),
        Err(exit) => Ok(exit),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::error(&failure);
            failure.exit.into()
        }
    }
}
