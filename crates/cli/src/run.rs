//! `sopin run`: puts the library in front of `LD_PRELOAD` and executes the program in its own
//! process. The program has the process id, gets the signals and determines the exit status.

use std::env;
use std::ffi::{OsStr, OsString};

use crate::exit::{Exit, Failure};
use crate::invocation::Invocation;
use crate::library::{self, Library};
use crate::program::chain::Chain;
use crate::settings::value_of;
use crate::{output, preload, trial};

const MORE: &str = "\
Exit status:
  125  sopin itself failed
  126  the program was found and could not be executed
  127  the program was not found
  Otherwise it is that of the program.

Examples:
  sopin run -- gunicorn app:app
  sopin run --mode relocated --log info -- python3 server.py
";

/// Run a program under libsopin.so
///
/// The command finds the library by its own path, puts it in front of LD_PRELOAD
/// unless it is there already, and executes the program in its own place: the program
/// has the command's process id and gets its signals.
///
/// The command prints a warning when the library cannot get into the program: when the
/// program is statically linked, is made for another machine, would get more rights than
/// the caller has (setuid, setgid, file capabilities), or is a script whose interpreter
/// is one of these. The program runs all the same. If the loader of another C library
/// would refuse to start the program with the library, LD_PRELOAD stays as it is.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sopin run [OPTIONS] [--] COMMAND [ARGUMENT]...", after_long_help = MORE)]
pub struct RunArgs {
    /// What to pin (SOPIN_MODE)
    #[arg(long, value_name = "MODE", value_parser = value_of(c"SOPIN_MODE"))]
    mode: Option<OsString>,

    /// Where the copies shared by processes live: an absolute path, or off (SOPIN_STORE)
    #[arg(long, value_name = "DIR", value_parser = value_of(c"SOPIN_STORE"), value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,

    /// What the library prints on stderr (SOPIN_LOG)
    #[arg(long, value_name = "LEVEL", value_parser = value_of(c"SOPIN_LOG"))]
    log: Option<OsString>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

impl RunArgs {
    fn variables(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        [("SOPIN_MODE", &self.mode), ("SOPIN_STORE", &self.store), ("SOPIN_LOG", &self.log)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }
}

/// Executes the program in place of this command.
///
/// # Errors
/// 125, 126 or 127, as env(1): if this function returns, the program was not executed.
pub fn run(arguments: &RunArgs) -> Result<Exit, Failure> {
    let Some(command) = arguments.command.first() else {
        return Err(Failure::new(Exit::Failed, "run", "no command"));
    };
    let library = Library::find()?;
    let inherited = env::var_os("LD_PRELOAD");
    let list = preload::with_library(inherited.as_deref(), &library);
    // If the chain cannot be followed, the kernel reports the error below.
    let is_welcome = Chain::follow(command).map_or(Ok(true), |chain| {
        warn_of_obstacles(&chain, &library)?;
        is_welcome(&chain, &list, inherited.as_deref())
    })?;
    if let Some(other) = preload::other_build(&list, &library) {
        output::warn(
            other.display(),
            "another build of the library is in LD_PRELOAD, so everything will be pinned twice; remove it from there",
        );
    }
    let mut changes: Vec<_> = arguments.variables().collect();
    if is_welcome {
        changes.push(("LD_PRELOAD", &list));
    }

    let invocation = Invocation::new(&arguments.command, &changes)?;
    // SIGPIPE is restored only now: if no process reads the warnings, they must not keep the
    // program from running.
    sopin_startup::restore();
    Err(invocation.execute())
}

fn warn_of_obstacles(chain: &Chain, library: &Library) -> Result<(), Failure> {
    for (path, obstacle) in chain.obstacles(library.elf()?.machine) {
        output::warn(path.display(), format_args!("{obstacle}; it will not be protected"));
    }
    Ok(())
}

/// Returns whether the program's loader accepts the library. The loader of another C library
/// may end the program because of the library, so a trial comes first. The loader that has
/// loaded this command needs no trial.
fn is_welcome(chain: &Chain, list: &OsStr, inherited: Option<&OsStr>) -> Result<bool, Failure> {
    let Some((path, elf)) = chain.program() else { return Ok(true) };
    let Some(loader) = &elf.loader else { return Ok(true) };
    if library::own_loader()?.is_some_and(|own| library::is_same_file(&own, loader)) {
        return Ok(true);
    }
    let refusal = trial::refusal(path, loader, list, inherited);
    if let Some(reason) = &refusal {
        let loader = loader.display();
        output::warn(
            path.display(),
            format_args!("its loader, {loader}, refuses libsopin.so: {reason}; it will not be protected"),
        );
    }
    Ok(refusal.is_none())
}
