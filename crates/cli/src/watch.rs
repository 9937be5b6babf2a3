//! `sopin watch`: says when a file is rewritten that processes have mapped as an object, by whom, and
//! what became of the processes.
//!
//! One thread reads the kernel's events and finds the writers' names; the main thread looks for new
//! processes and objects, inspects the processes concerned, and answers signals. These change nothing in
//! a process; with `--pin` another process does.
//!
//! | module | responsible for |
//! |---|---|
//! | [`index`] | which objects are mapped by which processes |
//! | [`scan`] | keeping the index up to date |
//! | [`events`] | the kernel's events, from one source or the other |
//! | [`fanotify`], [`inotify`] | the sources |
//! | [`reader`] | the thread that reads events |
//! | [`writer`] | the name of a writer |
//! | [`rewrites`] | from events to rewritings |
//! | [`main_loop`] | the main thread |
//! | [`judge`] | what became of the processes concerned |
//! | [`answer`](mod@answer) | a line, as in JSON |
//! | [`human`] | a line, for people |
//! | [`printer`] | printing without waiting |
//! | [`alerts`] | `--exec` |
//! | [`metrics_file`] | `--metrics` |
//! | [`guard`] | `--pin`: pinning before a file is opened for writing |

mod alerts;
mod answer;
pub mod events;
mod fanotify;
mod guard;
mod human;
pub mod index;
mod inotify;
mod judge;
mod main_loop;
mod metrics_file;
mod printer;
mod reader;
mod rewrites;
pub mod scan;
mod writer;

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sopin_inspect::process::Trouble;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::permission;
use crate::pin::file_tree::FileTree;
use alerts::Alerts;
use answer::WatchLine;
use events::EventSource;
use guard::{GuardOptions, GuardProcess};
use human::ShownLine;
use index::Index;
use main_loop::{MainLoop, Totals};
use metrics_file::MetricsFile;
use printer::Printer;
use reader::Shared;
use scan::{Scanned, Scanner, Scope};

const MORE: &str = "\
Lines:
  12:03:11 pip (4242, `pip install -U shop`) rewrote /srv/shop/cutils.so in place: 3 processes
  pinned, 1 damaged (4711 gunicorn)

  pinned         no memory of the object maps the file; it is full in sopin-status(1)
  relocated      only text and constants map the file; these follow it
  exposed        writable or relocated memory maps the file, and nothing of it was seen to be lost
                 (\"perhaps damaged\": it could not be compared with the file)
  damaged        relocations have been lost, or pages lie behind the end of the file
  ended since    the process had mapped the file, and has ended
  not inspected  the reason is in the JSON

JSON, one object in a line:
  schema, time   the version of these names; when it happened, in UTC
  event          \"rewrite\" or \"lost\"; with --pin also \"open\", \"went-on\" or \"guard\"
  With \"rewrite\":
  file, device, inode  the path, and the numbers that stat(2) shows
  ongoing        true in the first line about a writer that has not ended after two seconds
  writer         pid, name, command[], unknown (null, ended, no-privilege, other-namespace)
  full, relocated, exposed, damaged, ended, not_inspected  numbers of processes
  processes[]    pid, name, state (one of these, with - for _), reverted_words, bytes_beyond_end,
                 reason; the worst first, 100 at most
  unlisted       how many processes are not in processes[]
  With \"lost\":
  what, count    kernel-queue (events), rewritings, output (lines), alerts; count may be null
  With \"open\" (processes were to be pinned before a file was opened for writing):
  file, writer   as above
  delay_us       how long that took, in microseconds
  late           whether the writer went on before it was done
  pinned[]       pid, name: the object of this file is pinned in these processes
  left[]         pid, name, reason: in these it is not
  With \"went-on\" (a writer went on before the processes were pinned):
  file, writer   as above
  reason         late (two seconds have passed), target (it was being pinned itself, and cannot be
                 stopped where it waits), crowded (512 others wait), stuck (the guard has waited for
                 10 seconds for a process or a file)
  With \"guard\":
  what, error    continued (something had stopped the guard), refused (the kernel has refused an
                 open, because it could not open the file for the guard)

Programs of --exec:
  The standard input is the line, as JSON. SOPIN_EVENT is its event, SOPIN_EVENT_FILE, _DAMAGED and
  _ENDED are from a rewrite. Four programs run at a time, and 64 lines wait for them; what is beyond
  that is counted and reported. What they print goes to stderr. They are not ended with the command.

Exit status:
  0  a signal has ended the command (SIGINT, SIGTERM, SIGHUP), or the named processes have ended
  2  the command line was not understood
  3  nothing can be watched, the output cannot be written to, or with --pin the guard has ended
  4  the named processes have ended, and at least one was found damaged

Examples:
  sopin watch
  sopin watch --mapping /srv/shop --json | jq 'select(.damaged > 0)'
  sopin watch --pin --mapping /srv/shop
  sopin watch --exec /usr/local/bin/page-me --metrics /var/lib/node_exporter/sopin.prom
";

/// Say when loaded objects are rewritten in place, by whom, and with what effect
///
/// The command waits until a file is rewritten in place that a process has loaded as a shared object
/// or as its program. Then it inspects the processes that map the file as sopin status does, and
/// prints a line. Without --pin it changes nothing and stops no process. A file that is replaced by rename(2)
/// harms no process and is not reported. Neither are copies in a store, and files in a layer of a
/// container's image, which are not written to.
///
/// With CAP_SYS_ADMIN the kernel tells which process has written (fanotify(7)). Without, the
/// command uses inotify(7), watches the processes that you may inspect, and does not know the
/// writer. What one writer does to one file until it closes it is one line. If it does not end within
/// two seconds, there is a line then, and another one at its end.
///
/// No event tells of stores through a shared mapping of the file (mmap(2) with MAP_SHARED), nor of what
/// another machine does to a file of a network file system. What a process has loaded since the
/// last look (--period) is not watched yet.
///
/// With --pin the kernel asks before a watched object is opened for writing (FAN_OPEN_PERM). The open
/// waits until the object is pinned in the processes that map it, as sopin pin does it, for two seconds
/// at most; then it goes on, and a line says so. The other objects of these processes are pinned
/// afterwards. Opens for reading go on at once. The command refuses none. A process that pins is a child
/// of the command; if one of the two ends, every open goes on. It does not see truncate(2), nor
/// a process that has opened the file before; libsopin(7) lists these limits. The variables SOPIN_*
/// apply as for sopin pin.
///
/// While "schema" in the JSON is 1, names keep their meaning, and new ones may be added.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct WatchArgs {
    /// Processes to watch, without their children; without PID and --mapping every process is watched
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,

    /// Watch every process, which is the default
    #[arg(long, conflicts_with_all = ["pids", "mapping"])]
    all: bool,

    /// Watch this file, or the files below this directory, in every process; may be given several
    /// times
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath, conflicts_with = "pids")]
    mapping: Vec<PathBuf>,

    /// Look for new processes and new objects so often, or less often if that takes more than a
    /// fiftieth of a processor's time
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = period)]
    period: Duration,

    /// Print lines of JSON
    #[arg(long)]
    json: bool,

    /// Name all processes in each line
    #[arg(short, long)]
    verbose: bool,

    /// Execute this program for each line, without a shell and without arguments
    #[arg(long, value_name = "PROGRAM", value_hint = clap::ValueHint::CommandName)]
    exec: Option<OsString>,

    /// Keep metrics for Prometheus in this file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    metrics: Option<PathBuf>,

    #[command(flatten)]
    guard: GuardOptions,
}

fn period(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    let is_accepted = (0.05..=86_400.0).contains(&seconds);
    if is_accepted { Ok(Duration::from_secs_f64(seconds)) } else { Err("not from 0.05 to 86400".to_owned()) }
}

/// Watches until a signal ends it, or the processes that were named have ended.
///
/// # Errors
/// 3 when nothing can be watched, or the output cannot be written to.
pub fn watch(arguments: &WatchArgs) -> Result<Exit, Failure> {
    if arguments.guard.is_guard {
        guard::pin_itself();
        return Ok(guard::child::guard(arguments.scope()));
    }
    if arguments.guard.pin {
        guard::pin_itself();
    }
    let unwatched = |what: &str, error: &dyn std::error::Error| Failure::new(Exit::Uninspected, what, error);
    // Before the first thread, so that all have the mask.
    let signals = block_signals().map_err(|errno| unwatched("signals", &errno))?;
    let source = EventSource::open().map_err(|error| unwatched("inotify", &error))?;
    let index = Arc::new(Mutex::new(Index::default()));
    let scope = arguments.scope();
    let named = named(&scope);
    let mut scanner = Scanner::new(scope, Arc::clone(&index), vec![source.marks()]);
    let begun = Instant::now();
    let first = scanner.scan().map_err(|error| unwatched("/proc", &error))?;
    let scan = begun.elapsed();
    refuse(&first, named.as_deref())?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let news = EventFd::from_flags(flags).map_err(|errno| unwatched("eventfd", &errno))?;
    let shared = Arc::new(Shared::new(Arc::clone(&index), news));
    reader::start(source.clone(), Arc::clone(&shared));
    // Until the end of this function, whatever ends it.
    let guard = arguments.guard.pin.then(|| arguments.start_guard(&shared)).transpose()?;
    let mut main_loop = MainLoop {
        scanner,
        signals,
        period: arguments.period,
        printer: arguments.printer(&shared),
        alerts: arguments.exec.as_deref().map(Alerts::start),
        metrics: arguments.metrics.as_deref().map(|path| MetricsFile::new(path, source.names_writers(), index)),
        named,
        is_json: arguments.json,
        is_verbose: arguments.verbose,
        totals: Totals { scan, ..Totals::default() },
        warned: HashSet::new(),
        shared,
    };
    main_loop.warn(&first);
    introduce(&main_loop.shared, &source, guard.as_ref());
    main_loop.run()
}

/// Prints that the watch has begun, on stderr.
fn introduce(shared: &Shared, source: &EventSource, guard: Option<&GuardProcess>) {
    let (processes, objects) = scan::lock(&shared.index).counts();
    let writers = if source.names_writers() { "" } else { "; who writes to them is not known without CAP_SYS_ADMIN" };
    let guarded = if guard.is_some() { "; processes are pinned before a file is opened for writing" } else { "" };
    let counted = |count: usize, what: &str, end: &str| format!("{count} {what}{}", if count == 1 { "" } else { end });
    let (files, processes) = (counted(objects, "file", "s"), counted(processes, "process", "es"));
    output::print_error(format_args!("sopin: watching {files} of {processes}{writers}{guarded}\n"));
}

/// Fails if nothing can be watched of what was asked for. Warns about named processes that cannot be
/// inspected, and about others to which access was denied.
fn refuse(scanned: &Scanned, named: Option<&[OwnedFd]>) -> Result<(), Failure> {
    for (pid, trouble) in &scanned.troubled {
        let failure = Failure::new(Exit::Uninspected, pid, trouble.reason());
        let failure = if *trouble == Trouble::Denied { failure.with_way_out(permission::remedy()) } else { failure };
        if named.is_some_and(|named| named.len() <= scanned.troubled.len()) {
            return Err(failure);
        }
        output::warn(&failure.thing, &failure.reason);
    }
    if scanned.troubled.is_empty() && scanned.passed_over.denied != 0 {
        let count = scanned.passed_over.denied;
        let processes = if count == 1 { "1 process is" } else { &format!("{count} processes are") };
        output::warn("permission denied", format_args!("{processes} not watched; {}", permission::remedy()));
    }
    Ok(())
}

/// Returns descriptors of the named processes, by which their end is noticed.
fn named(scope: &Scope) -> Option<Vec<OwnedFd>> {
    let Scope::Processes(pids) = scope else { return None };
    let open = |pid: &u32| pidfd_open(Pid::from_raw(i32::try_from(*pid).ok()?)?, PidfdFlags::empty()).ok();
    Some(pids.iter().filter_map(open).collect())
}

/// Blocks the signals that end the command, and returns a descriptor that tells when one has arrived.
fn block_signals() -> nix::Result<SignalFd> {
    let awaited: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    awaited.thread_block()?;
    SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

impl WatchArgs {
    fn start_guard(&self, shared: &Arc<Shared>) -> Result<GuardProcess, Failure> {
        let pids = self.pids.iter().map(|pid| pid.to_string().into());
        let mapping = self.mapping.iter().flat_map(|path| ["--mapping".into(), path.clone().into_os_string()]);
        let shared = Arc::clone(shared);
        GuardProcess::start(pids.chain(mapping), move |report| {
            shared.note_report(report);
            shared.wake();
        })
    }

    fn printer(&self, shared: &Arc<Shared>) -> Printer {
        let (is_json, is_verbose) = (self.json, self.verbose);
        let lost = move |count| {
            let line = WatchLine::lost("output", Some(count));
            if is_json { line.json() } else { ShownLine { line: &line, is_verbose }.to_string() }
        };
        let shared = Arc::clone(shared);
        Printer::start(|line| output::print(line), lost, move || shared.wake())
    }

    fn scope(&self) -> Scope {
        if !self.pids.is_empty() {
            let mut pids = self.pids.clone();
            pids.sort_unstable();
            pids.dedup();
            return Scope::Processes(pids);
        }
        if self.mapping.is_empty() {
            return Scope::All;
        }
        for path in &self.mapping {
            if let (_, Some(error)) = FileTree::new(path) {
                output::warn(path.display(), error);
            }
        }
        Scope::Files(self.mapping.clone())
    }
}
