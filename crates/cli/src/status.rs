//! `sopin status`: what became of the objects of live processes, seen from outside
//! through `/proc` only. It works on processes without the library, too.
//!
//! sopin-inspect does the inspection; this module has the command line, the exit status, and
//! the answer:
//!
//! | module | responsible for |
//! |---|---|
//! | [`answer`](mod@answer) | the answer, as in JSON |
//! | [`human`] | the answer, for people |
//! | [`files`] | mapped files that are no objects, for people |

pub mod answer;
mod files;
mod human;

pub use human::WordLine;

use sopin_inspect::Inspector;
use sopin_inspect::object::ObjectState;
use sopin_inspect::process::{self, Trouble};
use sopin_inspect::report::ProcessReport;

use crate::exit::{Exit, Failure};
use crate::metrics::{Census, Metrics};
use crate::{output, permission};
use answer::{NotInspected, PassedOver, SCHEMA, StatusAnswer};

const MORE: &str = "\
States of an object:
  full       nothing that the process can read or execute maps the object's file,
             or the file is in a layer of the container's image: writing to it makes another file
  relocated  text and constants map the file; writable and relocated memory does not
  exposed    writable or relocated memory maps the file; truncating the file loses relocations
  damaged    relocations have been lost, or pages lie behind the end of the file

JSON:
  processes[]  pid, uid, name, command[], shim, full, relocated, exposed, damaged, pinned_kib, source, objects[], errors[]
  shim         path, version, mode; null if libsopin.so is not loaded
  source       \"loader\", or \"maps\" if the loader's list could not be had
  objects[]    path, state, image_layer, base, start, end, namespace, pinned_kib, reason, file, damage, unjudged
  file         state (unchanged, rewritten, replaced, deleted, unknown), certain, changed (seconds since 1970)
  damage       reverted_words, bytes_beyond_end, other_version, words[]; null if there is none
  files[]      with --files: path, mapped_kib, mappings, shared, writable, deleted, owner, group,
               mode, others (others than the process's user own it or may write to it),
               consequence
  words[]      address, section, symbol, offset, value, expected; 16 from all sections, or all with --verbose
  unjudged     why relocated words were not compared with the file, or null
  not_inspected[]  pid, error (vanished, denied, kernel-thread, zombie, failed), reason
  passed_over  kernel_threads, zombies, vanished, denied, failed: numbers of processes
  remedy       what to do where permission was denied, or null

Exit status:
  0  everything that was asked for is pinned
  1  an object is exposed
  2  the command line was not understood
  3  a process that was asked for, by its PID or with --all, could not be inspected
  4  damage was found
  Where several apply, 4 comes before 1, and 1 before 3.

Examples:
  sopin status
  sopin status --verbose $(pgrep -f gunicorn)
  sopin status --files $(pidof java)
  sopin status --all --metrics > sopin.prom.new && mv sopin.prom.new sopin.prom
  sopin status --all --json | jq '.processes[] | select(.damaged > 0) | .pid'
";

/// Show what became of the shared objects of running processes
///
/// Without PID and --all the command shows the processes that have libsopin.so loaded and
/// that you may inspect. With them it inspects processes without the library, too. An object
/// is damaged if words that the loader has relocated are again what its file has: the process
/// jumps to such an address sooner or later.
///
/// The command reads everything through /proc. It reads the loader's list of objects and the
/// relocated words in the memory of the process, which takes the permission to trace the
/// process (ptrace(2)). Without that permission it uses the mappings alone, and finds only
/// damage that shows in lost pages.
///
/// "Rewritten on disk since it was loaded" is certain: the library's store knows the
/// version that was loaded, or pages are lost. Without such a proof the command says
/// "changed on disk after its process was started", which is true after a chmod, too.
///
/// The library does not protect files that a program maps itself: a JVM's lib/modules, fonts,
/// caches, databases. With --files the command lists them, if some user or tool could truncate
/// or rewrite them. They do not change the exit status.
///
/// While "schema" in the JSON is 1, names keep their meaning, and new ones may be added.
#[allow(clippy::struct_excessive_bools, reason = "they are flags of the command line")]
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct StatusArgs {
    /// Processes to inspect
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,

    /// Inspect every process
    #[arg(long, conflicts_with = "pids")]
    all: bool,

    /// List mapped files that are no shared objects, which the library does not protect
    #[arg(long)]
    files: bool,

    /// Print JSON, with the objects of every process
    #[arg(long)]
    json: bool,

    /// Print metrics for Prometheus
    #[arg(long, conflicts_with_all = ["json", "verbose", "files"])]
    metrics: bool,

    /// Show a line for each object, every damaged word, and commands in full
    #[arg(short, long)]
    verbose: bool,
}

impl StatusArgs {
    /// Removes from the report on one process the objects that will not be shown: of all processes of a
    /// machine, they would take much memory.
    fn shown_part(&self, mut report: ProcessReport) -> ProcessReport {
        if !self.json && !self.metrics && !self.verbose {
            report.objects.retain(|object| object.state == ObjectState::Damaged);
            report.objects.shrink_to_fit();
        }
        report
    }
}

/// Prints the answer.
///
/// # Errors
/// 3 when there is no `/proc`, or the answer cannot be printed.
pub fn status(arguments: &StatusArgs) -> Result<Exit, Failure> {
    let answer = answer(arguments)?;
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else if arguments.metrics {
        output::print(metrics(&answer))
    } else {
        let is_selective = arguments.pids.is_empty() && !arguments.all;
        let columns = output::columns();
        output::print(human::StatusPage { answer: &answer, is_verbose: arguments.verbose, is_selective, columns })
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(exit(&answer, arguments.all))
}

/// Returns the numbers of the answer. Those of the census have the names that `sopin watch --metrics` uses, too.
fn metrics(answer: &StatusAnswer) -> Metrics {
    let (mut metrics, mut census) = (Metrics::new(), Census::default());
    answer.processes.iter().for_each(|process| census.add(process));
    census.write(&mut metrics);
    let PassedOver { vanished, denied, failed, .. } = answer.passed_over;
    let named = |code| answer.not_inspected.iter().filter(|process| process.error == code).count();
    let name = "sopin_processes_not_inspected";
    metrics.family(name, "gauge", "Processes that could not be inspected, by reason.");
    for (reason, count) in [
        ("denied", denied + named("denied")),
        ("vanished", vanished + named("vanished")),
        // Those that were passed over are among those that are listed.
        ("failed", failed.max(named("failed"))),
    ] {
        metrics.sample(name, &[("reason", reason)], count);
    }
    metrics
}

fn unwritten(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Uninspected, "stdout", error)
}

fn answer(arguments: &StatusArgs) -> Result<StatusAnswer, Failure> {
    let inspector = Inspector::new(arguments.verbose).with_files(arguments.files);
    let mut answer = StatusAnswer {
        schema: SCHEMA,
        processes: Vec::new(),
        not_inspected: Vec::new(),
        passed_over: PassedOver::default(),
        remedy: None,
    };
    if arguments.pids.is_empty() {
        let pids = process::all().map_err(|error| Failure::new(Exit::Uninspected, "/proc", error))?;
        // Inspecting this process would show nothing about the user's services.
        for pid in pids.into_iter().filter(|pid| *pid != std::process::id()) {
            match inspector.inspect(pid, !arguments.all) {
                Ok(report) => answer.processes.extend(report.map(|report| arguments.shown_part(report))),
                Err(trouble) => count(&mut answer, pid, &trouble),
            }
        }
    } else {
        let mut pids = arguments.pids.clone();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            match inspector.inspect(pid, false) {
                Ok(report) => answer.processes.extend(report),
                Err(trouble) => answer.not_inspected.push(not_inspected(pid, &trouble)),
            }
        }
    }
    let denied = Trouble::Denied.code();
    if answer.passed_over.denied != 0 || answer.not_inspected.iter().any(|process| process.error == denied) {
        answer.remedy = Some(permission::remedy());
    }
    Ok(answer)
}

fn not_inspected(pid: u32, trouble: &Trouble) -> NotInspected {
    NotInspected { pid, error: trouble.code(), reason: trouble.reason().to_owned() }
}

fn count(answer: &mut StatusAnswer, pid: u32, trouble: &Trouble) {
    let PassedOver { kernel_threads, zombies, vanished, denied, failed } = &mut answer.passed_over;
    match trouble {
        Trouble::KernelThread => *kernel_threads += 1,
        Trouble::Zombie => *zombies += 1,
        Trouble::Vanished => *vanished += 1,
        Trouble::Denied => *denied += 1,
        Trouble::Failed(_) => {
            *failed += 1;
            answer.not_inspected.push(not_inspected(pid, trouble));
        }
    }
}

/// Returns the exit status. Damage that is certain takes precedence over processes that could
/// not be inspected.
fn exit(answer: &StatusAnswer, is_all: bool) -> Exit {
    let any = |count: fn(&ProcessReport) -> usize| answer.processes.iter().any(|process| count(process) != 0);
    if any(|process| process.damaged) {
        Exit::Damaged
    } else if any(|process| process.exposed) {
        Exit::Negative
    } else if !answer.not_inspected.is_empty() || (is_all && answer.passed_over.denied != 0) {
        Exit::Uninspected
    } else {
        Exit::Success
    }
}
