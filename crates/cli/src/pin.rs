//! `sopin pin`: pins the objects of processes that run already, and then executes a command that
//! rewrites their files, if there is one.
//!
//! sopin-reach pins a process; this module has the command line, the selection of processes, the
//! exit status, and the answer:
//!
//! | module | responsible for |
//! |---|---|
//! | [`options`] | the settings, from options and from the environment |
//! | [`pins`] | what pins a process |
//! | [`selection`] | which processes are pinned, and in which order |
//! | [`file_tree`] | whether a process maps a file at or below a path |
//! | [`session`] | pinning them, and those that appear meanwhile |
//! | [`watch`](mod@watch) | pinning until a command has ended |
//! | [`answer`] | the answer, as in JSON |
//! | [`human`] | the answer, for people |

pub mod answer;
pub mod file_tree;
mod human;
pub mod options;
pub mod pins;
pub mod selection;
pub mod session;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::User;

use crate::exit::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output;
use crate::permission;
use answer::PinAnswer;
use file_tree::FileTree;
use options::SettingOptions;
use pins::{PinnerOnDemand, Pins};
use selection::{Criteria, Selection};
use session::Session;

/// How long the command waits for threads that cannot be released, before it executes another one,
/// and how often it tries.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const MORE: &str = "\
Which processes: those whose PID is given, and those that meet the criteria. --mapping and
--user narrow each other; --all alone selects every process. Parents are pinned before their
children, because what they fork later has the pins. Processes that appear meanwhile are
pinned, too. The command never pins itself.

Columns:
  OBJECTS    all objects of the process; those that were out of their files' reach already are
             not in the next three columns
  PINNED     objects that are full now; sopin-status(1) explains the states
  RELOCATED  objects that are relocated now
  LEFT       objects that are exposed or damaged now; a line below gives the reason
  THREADS    threads that were stopped, also those of processes that share the memory
  STOP-MS    milliseconds of the longest stop
  REPAIRED   interrupted system calls that were made to go on
  RESTARTED  those of them whose timeout began anew, although 10 ms of it or more had passed
  CUT-SHORT  system calls that returned a part of a transfer because of the stop

JSON:
  dry_run       whether the command only predicts what it would do
  processes[]   pid, uid, name, command[], has_library, objects[], objects_in_all, tasks, stops,
                longest_stop_us, calls_repaired, timeouts_restarted, transfers_cut_short, errors[];
                in the order in which they were pinned
  objects[]     path, start, end, before, after (full, relocated, exposed, damaged), bytes, reason;
                only objects that were not out of their files' reach before
  not_pinned[]  pid, name, error, reason, way_out
  error         vanished, denied, kernel-thread, zombie, own, traced, tracer, other-machine,
                filtered, unsuitable, frozen, does-not-stop, does-not-run, interrupted, failed
  passed_over   kernel_threads, zombies, vanished, denied, failed: numbers of processes
  remedy        what to do where permission was denied, or null

Exit status:
  0  everything that was asked for is pinned
  1  an object is left exposed, or is damaged
  2  the command line was not understood
  3  a process that was asked for could not be pinned, or not be inspected
  Where several apply, 1 comes before 3. With --dry-run it is what the status would be.
  With COMMAND it is that of COMMAND (with --watch 128 and the signal's number, if a signal has
  ended it), or:
  125  sopin itself failed, or with --strict not everything is pinned
  126  COMMAND was found and could not be executed
  127  COMMAND was not found

Examples:
  sopin pin $(systemctl show -P MainPID shop)
  sopin pin --mapping /srv/shop -- rsync -a --inplace build/ /srv/shop/
  sopin pin --watch --mapping venv -- venv/bin/pip install --upgrade numpy
  sopin pin --all --json | jq '.not_pinned[]'
";

/// Pin the shared objects of processes that run already
///
/// Use this before you rewrite files of programs that were started without libsopin.so. The
/// command gives each process the same mappings that the library would have given it. It loads
/// nothing into the process and runs no code there: it stops all threads of the process by
/// ptrace(2), has one of them make the system calls, and resumes them. A process is stopped for
/// some milliseconds at a time, and for 100 ms in vain, a few times, if a thread of it does not stop,
/// because it waits for a disk or a server. It notices nothing, except that a blocking call may take
/// longer, or transfer less than it was asked to. For up to half a second, the command waits for a
/// moment at which neither happens.
///
/// A pin is a snapshot: what a process loads later is not pinned. Start programs under sopin run
/// for permanent protection.
///
/// With COMMAND the command pins, and then executes COMMAND in its own place. It prints nothing
/// but warnings about what is not pinned, on stderr, and executes COMMAND all the same, unless
/// --strict is given. COMMAND itself is not pinned; start it with sopin run if it rewrites its
/// own objects.
///
/// Pinning takes the permission to trace a process (ptrace(2)): that of root or CAP_SYS_PTRACE,
/// or the same user where kernel.yama.ptrace_scope is 0. Processes under a seccomp filter need
/// CAP_SYS_ADMIN, too.
///
/// After SIGINT, SIGTERM or SIGHUP the command completes the object at hand and ends. If a file's
/// server does not answer, it ends after 5 seconds.
///
/// While "schema" in the JSON is 1, names keep their meaning, and new ones may be added.
#[allow(clippy::struct_excessive_bools, reason = "they are flags of the command line")]
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "sopin pin [OPTIONS] [PID]... [-- COMMAND [ARGUMENT]...]",
    after_long_help = MORE,
    group = clap::ArgGroup::new("selection").args(["pids", "all", "mapping", "user"]).required(true).multiple(true)
)]
pub struct PinArgs {
    /// Processes to pin
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,

    /// Pin every process that may be pinned
    #[arg(long, conflicts_with = "pids")]
    all: bool,

    /// Pin every process that maps this file, or a file below this directory; may be given several
    /// times
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    mapping: Vec<PathBuf>,

    /// Pin every process of this user: a name or a number
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    user: Option<String>,

    /// Stop nothing, and only say what the command would do; it may make copies in the store
    #[arg(long, conflicts_with = "command")]
    dry_run: bool,

    /// Print JSON
    #[arg(long, conflicts_with = "command")]
    json: bool,

    /// Show a line for each object, and commands in full; with COMMAND print the table on stderr
    #[arg(short, long)]
    verbose: bool,

    /// Stay until COMMAND has ended, and pin what is loaded and started meanwhile; signals are
    /// passed on to COMMAND
    #[arg(long, requires = "command")]
    watch: bool,

    /// Do not execute COMMAND unless everything that was asked for is pinned
    #[arg(long, requires = "command")]
    strict: bool,

    #[command(flatten)]
    settings: SettingOptions,

    /// The command to execute when the processes are pinned, and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Pins the processes, and prints the answer or executes the command.
///
/// # Errors
/// 2 when there is no such user; 3 when there is no `/proc` or the answer cannot be printed;
/// with a command 125, 126 or 127.
pub fn pin(arguments: &PinArgs) -> Result<ExitCode, Failure> {
    if arguments.command.is_empty() {
        sopin_startup::restore();
        return print(arguments).map(ExitCode::from);
    }
    // SIGPIPE is restored only when the command is started: if no process reads the warnings,
    // they must not keep it from running.
    execute(arguments).map_err(|failure| match failure.exit {
        Exit::Usage | Exit::Uninspected => Failure { exit: Exit::Failed, ..failure },
        _ => failure,
    })
}

fn print(arguments: &PinArgs) -> Result<Exit, Failure> {
    let mut session = session(arguments)?;
    let answer = pin_all(&mut session, &arguments.selection()?, arguments.dry_run)?;
    let unwritten = |error: &dyn std::error::Error| Failure::new(Exit::Uninspected, "stdout", error);
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else {
        output::print(human::PinPage { answer: &answer, is_verbose: arguments.verbose, columns: output::columns() })
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(answer.exit())
}

fn execute(arguments: &PinArgs) -> Result<ExitCode, Failure> {
    let invocation = Invocation::new(&arguments.command, &[])?;
    let selection = arguments.selection()?;
    let mut session = session(arguments)?;
    let answer = pin_all(&mut session, &selection, false)?;
    if arguments.verbose {
        output::print_error(human::PinPage { answer: &answer, is_verbose: true, columns: None });
    } else {
        human::warn(&answer);
    }
    if arguments.strict && answer.exit() != Exit::Success {
        let command = Path::new(&arguments.command[0]).display();
        return Err(Failure::new(Exit::Failed, command, "not executed, because not everything is pinned")
            .with_way_out("without --strict it is executed all the same"));
    }
    // The command inherits nothing that pinning has changed in this process.
    let begun = Instant::now();
    let has_rested = loop {
        if session.pins.is_interrupted() {
            let command = Path::new(&arguments.command[0]).display();
            return Err(Failure::new(Exit::Failed, command, "not executed, because sopin was interrupted"));
        }
        if session.pins.rest() {
            break true;
        }
        if begun.elapsed() > PATIENCE {
            break false;
        }
        thread::sleep(LOOK_AGAIN);
    };
    if arguments.watch {
        return watch::watch(&mut session, Some(&selection), &invocation);
    }
    if !has_rested {
        // This process still traces threads, and would do so as the command, without releasing
        // them. So it waits for the command.
        return watch::watch(&mut session, None, &invocation);
    }
    sopin_startup::restore();
    Err(invocation.execute())
}

fn session(arguments: &PinArgs) -> Result<Session<PinnerOnDemand>, Failure> {
    Ok(Session::new(PinnerOnDemand::new(&arguments.settings, arguments.dry_run)?))
}

fn pin_all<P: Pins>(session: &mut Session<P>, selection: &Selection, dry_run: bool) -> Result<PinAnswer, Failure> {
    let mut answer = session.pin_all(selection, dry_run)?;
    if answer.is_denied() {
        answer.remedy = Some(permission::remedy_for_tracing());
    }
    Ok(answer)
}

impl PinArgs {
    fn selection(&self) -> Result<Selection, Failure> {
        let has_criteria = self.all || !self.mapping.is_empty() || self.user.is_some();
        let criteria = if has_criteria {
            Some(Criteria {
                user: self.user.as_deref().map(user_id).transpose()?,
                trees: self.mapping.iter().map(|path| tree(path)).collect(),
            })
        } else {
            None
        };
        Ok(Selection { named: self.pids.clone(), criteria, notes_loads: self.watch })
    }
}

fn tree(path: &Path) -> FileTree {
    let (tree, error) = FileTree::new(path);
    if let Some(error) = error {
        output::warn(path.display(), error);
    }
    tree
}

/// Returns the id of a user.
fn user_id(user: &str) -> Result<u32, Failure> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let failure = |reason: &str| Failure::new(Exit::Usage, user, reason);
    match User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        Ok(None) => Err(failure("no such user").with_way_out("a number is accepted, too")),
        Err(errno) => Err(failure(errno.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::answer::NotPinned;
    use crate::pin::answer::tests::{object, report};
    use sopin_inspect::object::ObjectState;
    use sopin_inspect::process::Trouble;
    use sopin_reach::report::PinRefusal;

    fn is_in_help(name: &str) -> bool {
        MORE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).any(|word| word == name)
    }

    #[test]
    fn the_help_lists_every_name_in_json() {
        let mut answer = PinAnswer::new(false);
        answer.processes.push(report(7, vec![object("/a", ObjectState::Exposed, ObjectState::Full, None)]));
        answer.not_pinned.push(NotPinned::own_tracer(9, "strace"));
        let json = serde_json::to_value(&answer).unwrap();
        let process = &json["processes"][0];
        for part in [&json, process, &process["objects"][0], &json["not_pinned"][0], &json["passed_over"]] {
            for name in part.as_object().unwrap().keys().filter(|name| *name != "schema") {
                assert!(is_in_help(name), "{name} is not in the help");
            }
        }
        for state in [ObjectState::Full, ObjectState::Relocated, ObjectState::Exposed, ObjectState::Damaged] {
            assert!(is_in_help(serde_json::to_value(state).unwrap().as_str().unwrap()));
        }
    }

    #[test]
    fn the_help_lists_every_code_of_a_refusal() {
        let troubles = [Trouble::Vanished, Trouble::Denied, Trouble::KernelThread, Trouble::Zombie];
        let others = [
            Trouble::Failed(String::new()).into(),
            PinRefusal::Own,
            PinRefusal::Traced(1),
            PinRefusal::NotPermitted,
            PinRefusal::OtherMachine,
            PinRefusal::Filtered,
            PinRefusal::Unsuitable(""),
            PinRefusal::Frozen,
            PinRefusal::DoesNotStop,
            PinRefusal::DoesNotRun,
            PinRefusal::Failed(String::new()),
        ];
        for refusal in troubles.map(PinRefusal::from).into_iter().chain(others) {
            assert!(is_in_help(refusal.code()), "{refusal:?}");
        }
        for other in [NotPinned::own_tracer(9, "strace"), NotPinned::interrupted(9, "sh")] {
            assert!(is_in_help(other.error));
        }
    }

    #[test]
    fn a_user_is_a_name_or_a_number() {
        assert_eq!(user_id("root").unwrap(), 0);
        assert_eq!(user_id("65534").unwrap(), 65534);
        let failure = user_id("no such user").unwrap_err();
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::Usage, "no such user"));
    }
}
