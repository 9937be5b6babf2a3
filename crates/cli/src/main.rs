//! `sopin`: runs programs under `libsopin.so`, and looks at what became of them.
//!
//! | module | responsible for |
//! |---|---|
//! | [`args`] | the command line |
//! | [`exit`] | the exit statuses, and the failures that end in one: [`exit::Failure`] |
//! | [`output`] | stdout and stderr: failures, warnings, colour |
//! | [`settings`] | values of `SOPIN_*` variables given as options |
//! | [`library`] | where `libsopin.so` is |
//! | [`metrics`] | metrics for Prometheus |
//! | [`preload`] | the value of `LD_PRELOAD` |
//! | [`invocation`] | executing a command |
//! | [`permission`] | what to do where the kernel denies access to a process |
//! | [`process_table`] | the table with a line for each process |
//! | [`program`] | which files a command executes, and the obstacles for the library |
//! | [`trial`] | starts a program's loader to learn whether it loads the library |
//! | [`run`] | `sopin run` |
//! | [`check`] | `sopin check` |
//! | [`status`](mod@status) | `sopin status` |
//! | [`explain`](mod@explain) | `sopin explain` |
//! | [`pin`](mod@pin) | `sopin pin` |
//! | [`watch`](mod@watch) | `sopin watch` |
//! | [`store`] | `sopin store` |
//! | [`doctor`](mod@doctor) | `sopin doctor` |
//! | [`copy_library`](mod@copy_library) | `sopin copy-library` |
//! | [`enable`] | `sopin enable`, `sopin disable` |
//! | [`python`] | which Python environment has the package |
//! | [`completions`] | `sopin completions` |
//! | `manual` | the pages in `man/`; only the tests have it |
//!
//! The command reads and execs, writes the system's store, removes copies from stores, copies the
//! library where it is told to, and writes one file in a Python environment. It contains no unsafe
//! code. Only `sopin pin` changes anything in another process: it stops the process and replaces
//! mappings, and leaves both to sopin-reach.

#![forbid(unsafe_code)]
#![allow(clippy::doc_markdown)]

mod args;
mod check;
mod completions;
mod copy_library;
mod doctor;
mod enable;
mod exit;
mod explain;
mod invocation;
mod known_library;
mod library;
#[cfg(test)]
mod manual;
mod metrics;
mod output;
mod permission;
mod pin;
mod preload;
mod process_table;
mod program;
mod python;
mod run;
mod settings;
mod status;
mod store;
mod trial;
mod watch;

use std::env;
use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let command = args::parse(env::args_os());
    // These two do so themselves, as soon as they write nothing more that could raise SIGPIPE.
    if !matches!(command, Ok(Command::Run(_) | Command::Pin(_))) {
        sopin_startup::restore();
    }
    // `sopin run` and `sopin pin` exec the user's program, with the action that was inherited.
    if matches!(command, Ok(Command::Check(_) | Command::Doctor(_) | Command::Watch(_))) {
        sopin_startup::keep_children();
    }
    let outcome = match command {
        Ok(Command::Run(arguments)) => run::run(&arguments).map(ExitCode::from),
        Ok(Command::Check(arguments)) => check::check(&arguments).map(ExitCode::from),
        Ok(Command::Status(arguments)) => status::status(&arguments).map(ExitCode::from),
        Ok(Command::Explain(arguments)) => explain::explain(&arguments).map(ExitCode::from),
        Ok(Command::Pin(arguments)) => pin::pin(&arguments),
        Ok(Command::Watch(arguments)) => watch::watch(&arguments).map(ExitCode::from),
        Ok(Command::Store(arguments)) => store::store(&arguments).map(ExitCode::from),
        Ok(Command::Doctor(arguments)) => doctor::doctor(&arguments).map(ExitCode::from),
        Ok(Command::CopyLibrary(arguments)) => copy_library::copy_library(&arguments).map(ExitCode::from),
        Ok(Command::Enable(arguments)) => enable::enable(&arguments).map(ExitCode::from),
        Ok(Command::Disable(arguments)) => enable::disable(&arguments).map(ExitCode::from),
        Ok(Command::Completions(arguments)) => {
            completions::completions(&arguments, args::command()).map(ExitCode::from)
        }
        Err(exit) => Ok(exit.into()),
    };
    match outcome {
        Ok(status) => status,
        Err(failure) => {
            output::error(&failure);
            failure.exit.into()
        }
    }
}
