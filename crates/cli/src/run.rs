//! `sopin run`: puts the library in front of `LD_PRELOAD` and becomes the
//! program. Nothing of sopin's process stays: pid, signals and exit status are
//! the program's.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::unistd::execvpe;

use crate::exit::{Exit, Failure};
use crate::settings::value_of;
use crate::{library, preload};

/// Run a program under libsopin.so
#[derive(Debug, clap::Args)]
#[command(override_usage = "sopin run [OPTIONS] [--] COMMAND [ARGUMENT]...")]
pub struct RunArgs {
    /// What to pin (SOPIN_MODE)
    #[arg(long, value_name = "MODE", value_parser = value_of(c"SOPIN_MODE"))]
    mode: Option<OsString>,

    /// Where the copies shared by processes live: an absolute path, or off (SOPIN_STORE)
    #[arg(long, value_name = "DIR", value_parser = value_of(c"SOPIN_STORE"), value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,

    /// What the library says on stderr (SOPIN_LOG)
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

/// Becomes the program.
///
/// # Errors
/// With 125, 126 or 127, as env(1): when it returns at all, the program was not
/// executed.
pub fn run(arguments: &RunArgs) -> Result<Exit, Failure> {
    let library = library::find()?;
    let list = preload::with_library(env::var_os("LD_PRELOAD").as_deref(), &library);
    let mut changes = vec![("LD_PRELOAD", &list)];
    changes.extend(arguments.variables());

    let Some(program) = arguments.command.first() else {
        return Err(Failure::new(Exit::Failed, "run", "no command"));
    };
    let words: Vec<CString> = arguments.command.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?;
    let environment = environment(&changes)?;
    let Err(errno) = execvpe(&words[0], &words, &environment);
    Err(not_executed(program, errno))
}

fn not_executed(program: &OsStr, errno: Errno) -> Failure {
    let exit = if errno == Errno::ENOENT { Exit::NotFound } else { Exit::CannotExecute };
    Failure::new(exit, program.to_string_lossy(), errno.desc())
}

/// The own environment with changes, in its order.
fn environment(changes: &[(&str, &OsString)]) -> Result<Vec<CString>, Failure> {
    let kept = env::vars_os().filter(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
    let new = changes.iter().map(|(name, value)| (OsString::from(name), (*value).clone()));
    kept.chain(new)
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            c_string(&entry)
        })
        .collect()
}

fn c_string(word: &OsStr) -> Result<CString, Failure> {
    CString::new(word.as_bytes()).map_err(|error| Failure::new(Exit::Failed, word.to_string_lossy(), error))
}
