//! `sopin doctor`: what would work on this machine or in this container, what would not, and what
//! to do about it. It measures where it can: it starts a harmless program with the library, pins
//! a process of its own, and makes the system calls that matter, each in a child process, because
//! a seccomp filter may kill for one. It changes nothing but that the program that it starts adds
//! copies to a store that exists already.
//!
//! | module | responsible for |
//! |---|---|
//! | [`answer`](mod@answer) | the answer, as in JSON |
//! | [`human`] | the answer, for people |
//! | [`surroundings`] | what several subjects depend on, found once |
//! | [`children`] | child processes that end in time |
//! | [`probes`] | system calls that are tried |
//! | [`harmless`] | a program that can be started anywhere |
//! | [`library_file`] | the subject `library` |
//! | [`system`] | the subjects `libc` and `kernel` |
//! | [`start`] | the subject `trial` |
//! | [`copies`] | the subjects `store` and `memory` |
//! | [`confinement`] | the subjects `filter` and `container` |
//! | [`pinning`] | the subject `pin` |
//! | [`preloads`] | the subject `preload` |

mod answer;
mod children;
mod confinement;
mod copies;
mod harmless;
mod human;
mod library_file;
mod pinning;
mod preloads;
mod probes;
mod start;
mod surroundings;
mod system;

use std::ffi::OsString;
use std::io;

use clap::ValueEnum;

use crate::exit::{Exit, Failure};
use crate::output;
use answer::{DoctorAnswer, SubjectVerdict};
use probes::Probe;
use surroundings::DoctorSurroundings;

/// As many files the command has open itself at a time.
const NEEDED_DESCRIPTORS: usize = 4;

const MORE: &str = "\
Subjects:
  library    libsopin.so: found, of the command's version, for this machine
  libc       the C library of the programs here
  kernel     /proc, and the system calls that the library makes
  trial      a harmless program was started with the library: what became of its objects
  store      whether this user's programs can share copies, and where
  memory     private memory for copies, where no store can be used
  filter     whether a seccomp filter is in force, and what it refuses
  container  the container engine, image layers, security modules
  pin        whether sopin pin could pin processes; it has tried it with one of its own
  preload    which programs get the library now: LD_PRELOAD, the service manager,
             /etc/ld.so.preload

Verdicts:
  ok       nothing to do
  limited  it works with a limitation, which the line names
  no       it does not work

JSON:
  verdict     the worst of all subjects: ok, limited, no
  subjects[]  subject, verdict, meaning, remedy (null if there is nothing to do), facts
  facts of library    path, version, command_version, machine
  facts of libc       name (glibc, musl; null if it is neither), version, loader, program
  facts of kernel     release, proc, memfd, process_vm_readv, procmap_query, ptrace
                      (\"ok\", what the kernel has answered, or why it was not tried)
  facts of trial      program, status, full, relocated, left, milliseconds, messages[]
  facts of store      path, exists, writable, verity, system, refused[] (path, reason)
  facts of memory     limit, available (bytes; null if that is not known)
  facts of filter     filters (null if the kernel does not count them), no_new_privileges,
                      refused[]
  facts of container  engine, overlay, image_layers, module, profile, user_namespace
  facts of pin        uid, yama, cap_sys_ptrace, error (of sopin pin --json), milliseconds
  facts of preload    manager, ld_preload, missing[], units[], ld_so_preload, first_process

Exit status:
  0  every verdict is ok
  1  a verdict is limited or no
  2  the command line was not understood
  3  nothing could be found out, because no file can be opened, or the answer could not be printed

Examples:
  sopin doctor
  sopin doctor --json | jq -r '.subjects[] | select(.verdict != \"ok\") | .remedy'
";

/// Say what would work on this machine or in this container, and what to do
///
/// The command prints a line for each of ten subjects: a verdict, what it means, and what to
/// do. Run it as the user and in the environment of the program to be protected: with sudo -u
/// USER, in the container (docker exec), in the unit (systemd-run).
///
/// It measures instead of guessing from versions. It starts true, the first in PATH, or else the C
/// library's own file, with libsopin.so, and reads what the library reports; it starts a process of its
/// own and pins it. It makes the system calls that matter in child processes, one for each,
/// because a seccomp filter may kill for one.
///
/// The command makes no directory and no file. If the user's store exists, the program that is
/// started adds its objects to it, as any program would; if not, its copies are in private
/// memory, and the answer says where the store would be made.
///
/// While "schema" in the JSON is 1, names keep their meaning, and new ones may be added.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// One system call to be made, for the command itself in a child process.
    #[arg(skip)]
    probe: Option<Probe>,
}

impl DoctorArgs {
    /// Returns the arguments if this is the command line of such a child: `sopin doctor --probe
    /// CALL`. It is not declared, because completions would offer it.
    pub fn of_child(arguments: &[OsString]) -> Option<Self> {
        let [_, command, option, call] = arguments else { return None };
        let probe = Probe::from_str(call.to_str()?, false).ok().filter(|_| command == "doctor" && option == "--probe");
        probe.map(|probe| Self { json: false, probe: Some(probe) })
    }
}

/// Prints the answer.
///
/// # Errors
/// 3 when no files can be opened, or the answer cannot be printed.
pub fn doctor(arguments: &DoctorArgs) -> Result<Exit, Failure> {
    let unwritten = |error: &dyn std::error::Error| Failure::new(Exit::Uninspected, "stdout", error);
    if let Some(probe) = arguments.probe {
        let (text, exit) = match probe.make() {
            Ok(()) => ("ok".to_owned(), Exit::Success),
            Err(errno) => (errno.to_string(), Exit::Negative),
        };
        return output::print(text).map(|()| exit).map_err(|error| unwritten(&error));
    }
    check_descriptors()?;
    let answer = answer();
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else {
        output::print(human::DoctorPage(&answer))
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(if answer.verdict == SubjectVerdict::Ok { Exit::Success } else { Exit::Negative })
}

/// Checks that files can be opened. Without that every file would seem to be missing.
fn check_descriptors() -> Result<(), Failure> {
    let all: Result<Vec<_>, _> = (0..NEEDED_DESCRIPTORS).map(|_| rustix::io::dup(io::stdin())).collect();
    all.map(drop).map_err(|error| {
        Failure::new(Exit::Uninspected, "open files", error).with_way_out("permit more of them (ulimit -n)")
    })
}

fn answer() -> DoctorAnswer {
    let here = DoctorSurroundings::find();
    DoctorAnswer::new(vec![
        library_file::library(&here),
        system::libc(&here),
        system::kernel(&here),
        start::trial(&here),
        copies::store(&here),
        copies::memory(&here),
        confinement::filter(&here),
        confinement::container(),
        pinning::pin(&here),
        preloads::preload(&here),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--help` and sopin-doctor(1) promise these names.
    #[test]
    fn every_name_in_json_is_documented() {
        let words: Vec<&str> = MORE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let answer = serde_json::to_value(answer()).unwrap();
        assert_eq!(answer["schema"], 1);
        for subject in answer["subjects"].as_array().unwrap() {
            let name = subject["subject"].as_str().unwrap();
            assert!(
                MORE.contains(&format!("\n  {name:<9}  ")) && MORE.contains(&format!("  facts of {name} ")),
                "{name}"
            );
            for key in subject.as_object().unwrap().keys().chain(subject["facts"].as_object().unwrap().keys()) {
                assert!(words.contains(&key.as_str()), "{name}: {key} is not in the help");
            }
        }
        for verdict in [SubjectVerdict::Ok, SubjectVerdict::Limited, SubjectVerdict::No] {
            assert!(words.contains(&verdict.word()));
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.word());
        }
    }
}
