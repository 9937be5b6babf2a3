//! `sopin check`: decides whether the library would get into a program, and if not, why. It
//! examines the files first; if they show no obstacle, it starts the program's own loader for
//! proof ([`crate::trial`]).

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sopin_core::mode::Mode;
use sopin_core::settings::Settings;

use crate::exit::{Exit, Failure};
use crate::library::Library;
use crate::program::chain::{Chain, LinkKind};
use crate::trial::Trial;
use crate::{output, preload};
use answer::{Blame, CheckAnswer, FileInChain, TrialResult};

mod answer;
mod human;

const MORE: &str = "\
Exit status:
  0    sopin run would protect the program
  1    it would not
  125  the command could not find out
  126  the program was found and could not be executed
  127  the program was not found

JSON output:
  schema      1; changes when a field changes its meaning
  command     as it was given
  engages     whether sopin run would protect the program
  library     path of libsopin.so
  files       from the command to the program, each with its kind (script,
              shell-script, program), path, and interpreter, argument, machine or loader
  obstacles   each with a code (static, machine, setuid, setgid, capabilities,
              drops-preload, mode-off, refused, not-started, not-loaded), thing, reason
  trial       loader, whether it starts the program, objects it has mapped, messages;
              null if the loader was not asked
  complaints  about values of SOPIN_* variables

Examples:
  sopin check gunicorn
  sopin check --json -- ./server --port 80
";

/// Predict whether libsopin.so can get into a program
///
/// The command follows a script to the program that runs it. If no obstacle is found (a
/// static program, another machine, setuid, setgid, file capabilities), it starts the
/// program's own loader with --list and the LD_PRELOAD that sopin run would set. The
/// loader then loads what it would load, prints that, and executes none of it. As with
/// ldd(1), do not check a program whose loader you do not trust. The command does not ask
/// whether a security module such as SELinux would permit the program's execution.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sopin check [OPTIONS] [--] COMMAND [ARGUMENT]...", after_long_help = MORE)]
pub struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// The program, as it would be given to sopin run; none of its code runs
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Prints the answer.
///
/// # Errors
/// 125 when there is no answer; 126 or 127 when the command could not be
/// executed.
pub fn check(arguments: &CheckArgs) -> Result<Exit, Failure> {
    let Some((command, rest)) = arguments.command.split_first() else {
        return Err(Failure::new(Exit::Failed, "check", "no command"));
    };
    let answer = answer(command, rest)?;
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else {
        output::print(human::CheckPage(&answer))
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(if answer.engages { Exit::Success } else { Exit::Negative })
}

fn unwritten(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Failed, "stdout", error)
}

fn answer(command: &OsStr, arguments: &[OsString]) -> Result<CheckAnswer, Failure> {
    let library = Library::find()?;
    let machine = library.elf()?.machine;
    let chain = Chain::follow(command)?;
    let Some((program, elf)) = chain.program() else {
        let path = chain.links().last().map_or(Path::new(command), |link| &link.path);
        return Err(Failure::new(Exit::Failed, path.display(), "no permission to read it")
            .with_way_out("check it as a user who can"));
    };
    let mut obstacles: Vec<Blame> = chain
        .obstacles(machine)
        .into_iter()
        .map(|(path, obstacle)| Blame { code: obstacle.code(), thing: text(path), reason: obstacle.to_string() })
        .collect();
    // With such an obstacle a trial would start no loader, or would ignore what the kernel or
    // env(1) does before the loader runs.
    let trial = if obstacles.is_empty() {
        if let Some(failure) = chain.missing_loader() {
            return Err(failure);
        }
        let (result, obstacle) = try_loader(program, elf.loader.as_deref(), arguments, &library)?;
        obstacles.extend(obstacle.map(|verdict| blame(program, verdict)));
        Some(result)
    } else {
        None
    };
    let (mode, complaints) = settings()?;
    if mode == Mode::Off {
        let reason = "off, so the library would be loaded and pin nothing".to_owned();
        obstacles.push(Blame { code: "mode-off", thing: "SOPIN_MODE".to_owned(), reason });
    }
    Ok(CheckAnswer {
        schema: 1,
        command: text(Path::new(command)),
        engages: obstacles.is_empty(),
        library: text(library.path()),
        files: chain.links().iter().filter_map(|link| file(&link.path, &link.kind)).collect(),
        obstacles,
        trial,
        complaints,
    })
}

/// Lets the program's loader load it with the library, and returns what happened and the
/// obstacle, if there is one.
fn try_loader(
    program: &Path,
    loader: Option<&Path>,
    arguments: &[OsString],
    library: &Library,
) -> Result<(TrialResult, Option<LoaderSays>), Failure> {
    let inherited = env::var_os("LD_PRELOAD");
    let list = preload::with_library(inherited.as_deref(), library);
    let start = |preload| Trial::start(program, loader, arguments, preload);
    let trial = start(Some(&list))?;
    let obstacle = if trial.is_success {
        (!trial.has_mapped(library)).then_some(LoaderSays::NotLoaded)
    } else {
        let is_fine_without = start(inherited.as_deref())?.is_success;
        Some(if is_fine_without { LoaderSays::NotWithIt } else { LoaderSays::Never })
    };
    let result = TrialResult {
        loader: text(loader.unwrap_or(program)),
        starts: trial.is_success,
        objects: trial.objects.iter().map(|path| text(path)).collect(),
        messages: trial.messages,
    };
    Ok((result, obstacle))
}

/// How the trial shows that the library does not engage.
#[derive(Clone, Copy)]
enum LoaderSays {
    /// It fails with the library only.
    NotWithIt,
    /// It fails without the library too.
    Never,
    /// It goes on without the library.
    NotLoaded,
}

fn blame(program: &Path, verdict: LoaderSays) -> Blame {
    let (code, reason) = match verdict {
        LoaderSays::NotWithIt => ("refused", "its loader would start it, but not with libsopin.so"),
        LoaderSays::Never => ("not-started", "its loader would not start it"),
        LoaderSays::NotLoaded => ("not-loaded", "its loader goes on without libsopin.so"),
    };
    Blame { code, thing: text(program), reason: reason.to_owned() }
}

fn file(path: &Path, kind: &LinkKind) -> Option<FileInChain> {
    let path = text(path);
    Some(match kind {
        LinkKind::Script(header) => FileInChain::Script {
            path,
            interpreter: text(&header.interpreter),
            argument: header.argument.as_deref().map(|argument| text(Path::new(argument))),
        },
        LinkKind::ShellScript => FileInChain::ShellScript { path },
        LinkKind::Program(elf) => {
            FileInChain::Program { path, machine: elf.machine.to_string(), loader: elf.loader.as_deref().map(text) }
        }
        LinkKind::Unreadable => return None,
    })
}

/// Returns the mode that the environment sets, and the library's complaints about the values
/// there.
fn settings() -> Result<(Mode, Vec<String>), Failure> {
    let variables: Vec<_> = env::vars_os().collect();
    let get = |name: &std::ffi::CStr| {
        let found = variables.iter().find(|(known, _)| known.as_bytes() == name.to_bytes());
        found.map(|(_, value)| value.as_bytes())
    };
    let mut complaints = Vec::new();
    let settings = Settings::read(get, |complaint| complaints.push(complaint.to_string()))
        .map_err(|_| Failure::new(Exit::Failed, "SOPIN_*", "no memory for the settings"))?;
    Ok((settings.mode, complaints))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
