//! `sopin explain --log`: whether lines of the kernel's log look like a file that was rewritten in
//! place, and which objects have something at the tiny address. It reads the log and files; it runs
//! dpkg-query and rpm where a package is named, and nothing else.
//!
//! | module | responsible for |
//! |---|---|
//! | [`input`] | the lines, of any length, as text or JSON |
//! | [`groups`] | crashes that repeat, in bounded memory |
//! | [`search`] | what objects have at the addresses |
//! | [`package`] | the files of a package |
//! | [`answer`] | the answer, as in JSON |
//! | [`human`] | the answer, for people |

mod answer;
mod groups;
mod human;
mod input;
mod package;
mod search;

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use sopin_inspect::kernel_log::{KernelLog, LogVerdict};
use sopin_inspect::post_mortem::system::System;

use super::ExplainArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use answer::LogAnswer;
use groups::CrashGroups;
use search::{AddressSearch, SmallAddress};

/// Prints what lines of the kernel's log show.
///
/// # Errors
/// 3 when the lines cannot be read or none is about a crash, a directory, package or process that was
/// named cannot be searched, or the answer cannot be printed.
pub fn explain(arguments: &ExplainArgs, line: &OsStr) -> Result<Exit, Failure> {
    let (groups, lines, suppressed) = read(line)?;
    let search = search(arguments, &groups)?;
    let answer = LogAnswer::new(groups, lines, suppressed, search);
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else {
        output::print(human::LogPage { answer: &answer, is_verbose: arguments.verbose })
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(match answer.verdict {
        LogVerdict::Signature => Exit::Damaged,
        LogVerdict::Possible => Exit::Uninspected,
        LogVerdict::Nothing => Exit::Success,
    })
}

fn unwritten(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Uninspected, "stdout", error)
}

/// Returns the crashes, the number of lines, and how many lines the kernel has left out.
fn read(line: &OsStr) -> Result<(CrashGroups, u64, u64), Failure> {
    let (mut log, mut groups, mut lines) = (KernelLog::default(), CrashGroups::default(), 0);
    let mut take = |line: &str| {
        lines += 1;
        if let Some(crash) = log.line(line) {
            groups.add(crash);
        }
    };
    let is_stdin = line == "-";
    if is_stdin {
        input::each(io::stdin().lock(), &mut take).map_err(|error| Failure::new(Exit::Uninspected, "stdin", error))?;
    } else {
        let text = line.to_string_lossy();
        input::each(text.as_bytes(), &mut take).map_err(|error| Failure::new(Exit::Uninspected, "--log", error))?;
    }
    groups.extend(log.finish());
    if is_stdin && lines == 0 {
        return Err(Failure::new(Exit::Uninspected, "stdin", "there was no line")
            .with_way_out("reading the kernel's log takes root, or membership in the groups adm or systemd-journal"));
    }
    if !is_stdin && groups.is_empty() {
        let way_out =
            "it should be like 'python3[4574]: segfault at ad0 ip 0000000000000ad0 sp 00007ffeb240c128 error 14'";
        return Err(Failure::new(Exit::Uninspected, "--log", "this is not a line of the kernel about a crash")
            .with_way_out(way_out));
    }
    Ok((groups, lines, log.suppressed()))
}

fn search(arguments: &ExplainArgs, groups: &CrashGroups) -> Result<AddressSearch, Failure> {
    let addresses: Vec<SmallAddress> = groups.iter().filter_map(|group| SmallAddress::of(&group.crash)).collect();
    let debug: Vec<&Path> = arguments.debug_dir.iter().map(AsRef::as_ref).collect();
    let sysroot = arguments.sysroot.as_deref();
    let system = System::new(sysroot, &debug)
        .map_err(|(path, errno)| Failure::new(Exit::Uninspected, path.display(), io::Error::from(errno)))?;
    let mut search = AddressSearch::new(addresses, system);
    for directory in &arguments.directories {
        search.directory(directory)?;
    }
    if let Some(name) = &arguments.package {
        search.files(&package::files(name, sysroot)?, sysroot.unwrap_or(Path::new("/")));
    }
    if let Some(pid) = arguments.pid {
        search.process(pid)?;
    }
    Ok(search)
}
