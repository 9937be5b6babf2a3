//! Tools that look at a process find the names of its functions and files after a pin, and the store
//! knows which processes use it. The controls are processes that are not pinned: with their library
//! the tools show the same, and when its file is gone they do not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use libtest_mimic::Completion;
use serde_json::Value;

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::process::{self, Outcome};
use crate::common::protection::{self, SETTLING_TIME};
use crate::subject::{Subject, passed};
use crate::{Case, Run, memory, patience, tasks};

/// A tool that prints the names of functions.
struct Tool {
    name: &'static str,
    /// The program that it looks at; without it, the script for Python.
    program: Option<&'static str>,
    /// What a shell does with it; `$1` is the process.
    script: &'static str,
    /// The names that it has to print.
    names: &'static [&'static str],
}

const TOOLS: [Tool; 4] = [
    Tool {
        name: "gdb",
        program: Some("deep"),
        script: "gdb -nx -batch -p \"$1\" -ex backtrace",
        names: &["deep_turn", "deep_spin", "spin_below", "deep_inner", "deep_outer", "main"],
    },
    Tool {
        name: "breakpoint",
        program: Some("deep"),
        // An error ends the script, so that the process does not go on without a breakpoint.
        script: "printf '%s\\n' 'set breakpoint pending off' 'break deep_turn' continue 'info symbol $pc' >script; \
                 gdb -nx -batch -p \"$1\" -x script",
        names: &["Breakpoint 1, ", "deep_turn in section .text of"],
    },
    Tool {
        name: "perf",
        program: Some("deep"),
        script: "perf record -q -e cpu-clock:u -p \"$1\" -o perf.data -- sleep 0.5 && \
                 perf report -i perf.data --stdio --sort dso,symbol",
        names: &["deep_turn", "libdeep.so"],
    },
    Tool {
        name: "py_spy",
        program: None,
        script: "py-spy dump --native --pid \"$1\"",
        names: &["deep_inner", "deep_outer", "wait_in_python", "python_outer"],
    },
];

pub fn cases() -> Vec<Case> {
    let shows = |tool: Tool| {
        let needs: &'static [&'static str] = match tool.name {
            // Its program makes no system calls, and an older kernel does not show that it is in no
            // restartable sequence.
            "perf" => &["cmd:perf", "kernel>=5.13"],
            "py_spy" => &["cmd:py-spy", "cmd:python3", "glibc"],
            _ => &["cmd:gdb", "kernel>=5.13"],
        };
        Case::ignorable(format!("tools::{}", tool.name), move |run, own| shows_names(run, own, &tool)).with_needs(needs)
    };
    let mut cases: Vec<_> = TOOLS.into_iter().map(shows).collect();
    cases.extend([
        Case::new("tools::replaced_file_is_visible", replaced_file_is_visible),
        Case::new("tools::store_list_names_the_process", store_list),
    ]);
    cases
}

/// What happens to the process before the tool looks at it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    None,
    Pin,
    Removal,
}

fn shows_names(run: &Run, directory: &Path, tool: &Tool) -> Result<Completion, String> {
    let missing = |(output, outcome): &(String, Outcome)| {
        let name = tool.names.iter().find(|name| !output.contains(**name));
        name.map(|name| format!("{}: no {name:?}; it ended with {outcome}:\n{output}", tool.name))
    };
    if let Some(reason) = missing(&look(run, directory, tool, Event::None)?) {
        let reason = reason.lines().next_back().unwrap_or_default().to_owned();
        return Ok(Completion::ignored_with(format!("{} shows no names here: {reason}", tool.name)));
    }
    if let Some(reason) = missing(&look(run, directory, tool, Event::Pin)?) {
        return Err(reason);
    }
    if missing(&look(run, directory, tool, Event::Removal)?).is_none() {
        return Err("the names of a library whose file is gone must not be found".to_owned());
    }
    Ok(Completion::Completed)
}

/// Returns what the tool prints about a process, which then has to end well.
fn look(run: &Run, directory: &Path, tool: &Tool, event: Event) -> Result<(String, Outcome), String> {
    let own = directory.join(match event {
        Event::None => "control",
        Event::Pin => "pinned",
        Event::Removal => "removed",
    });
    fs::create_dir(&own).map_err(|error| error.to_string())?;
    let library = own.join("libdeep.so");
    fs::copy(run.built("libdeep.so"), &library).map_err(|error| error.to_string())?;
    let mut command = match tool.program {
        Some(program) => Command::new(run.built(program)),
        None => Command::new("python3"),
    };
    if tool.program.is_none() {
        command.arg(crate::common::library::checkout().join("tests/pin/programs/deep.py"));
    }
    protection::forget_settings(&mut command);
    let mut process = Dialogue::start(command.arg(&library), &own.join("deep.log"), patience())
        .map_err(|error| format!("{command:?}: {error}"))?;
    process.wait_for("ready", 1)?;
    match event {
        Event::None => {}
        Event::Pin => {
            // The copy of the library is then in the store, where its file has a name.
            thread::sleep(SETTLING_TIME);
            command::pin(process.id(), &own)?.is_whole()?;
        }
        Event::Removal => fs::remove_file(&library).map_err(|error| error.to_string())?,
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", tool.script, "sh"]).arg(process.id().to_string()).current_dir(&own).env("DEBUGINFOD_URLS", "");
    let finished = process::run(&mut shell, &own.join("tool.log"), patience()).map_err(|error| error.to_string())?;
    tasks::none_is_traced(process.id())?;
    if event == Event::Pin {
        fs::File::create(&library).map_err(|error| error.to_string())?;
    }
    process.say("stop");
    passed(&process.finish()?)?;
    Ok((finished.stdout + &finished.stderr, finished.outcome))
}

/// needrestart 3.6 and lsof see which file is mapped, and that it is not the one that has its name.
fn replaced_file_is_visible(run: &Run, directory: &Path) -> Result<(), String> {
    for is_pinned in [true, false] {
        let own = directory.join(if is_pinned { "pinned" } else { "control" });
        let subject = Subject::start(run, &own, &["threads", "1"])?;
        if is_pinned {
            subject.pin_whole()?;
        }
        if outdated(subject.id(), subject.newest())? != Some(false) {
            return Err("the library has to be mapped executable, as the file that has its name".to_owned());
        }
        let other = subject.newest().with_extension("other");
        fs::copy(subject.newest(), &other)
            .and_then(|_| fs::rename(&other, subject.newest()))
            .map_err(|e| e.to_string())?;
        if outdated(subject.id(), subject.newest())? != Some(true) {
            return Err("a library that was replaced has to be mapped executable as another file".to_owned());
        }
        subject.stop()?;
    }
    Ok(())
}

/// Applies the criterion of needrestart to one library: it is mapped executable from a file that is
/// deleted or not the one to which the path leads. Returns none if no executable mapping shows it.
fn outdated(pid: u32, library: &Path) -> Result<Option<bool>, String> {
    let path = library.to_string_lossy();
    let is_shown = |vma: &&memory::Vma| vma.mode.contains('x') && vma.path.trim_end_matches(" (deleted)") == path;
    let mappings = memory::mappings(pid)?;
    let inode = fs::metadata(library).map_err(|error| error.to_string())?.ino().to_string();
    let shown = mappings.iter().find(is_shown);
    Ok(shown.map(|vma| vma.path.ends_with(" (deleted)") || vma.file.1 != inode))
}

/// `sopin store list` names the process as a user of the copies that it maps, until it ends.
fn store_list(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1"])?;
    thread::sleep(SETTLING_TIME);
    if !entries_of(subject.id(), directory)?.is_empty() {
        return Err("a process that is not pinned uses no store".to_owned());
    }
    subject.pin_whole()?;
    let library = subject.newest().canonicalize().map_err(|error| error.to_string())?;
    let entries = entries_of(subject.id(), directory)?;
    let entry = entries.iter().find(|entry| entry["origin"] == *library.to_string_lossy());
    match entry {
        Some(entry) if entry["state"] == "current" => {}
        _ => return Err(format!("no current copy of {}: {entries:#?}", library.display())),
    }
    let id = subject.id();
    subject.truncate_and_stop()?;
    if entries_of(id, directory)?.is_empty() {
        Ok(())
    } else {
        Err("a process that has ended uses no store".to_owned())
    }
}

/// Returns the entries of the trial's store that a process uses.
fn entries_of(pid: u32, directory: &Path) -> Result<Vec<Value>, String> {
    let store = directory.join("store");
    if !store.exists() {
        return Ok(Vec::new());
    }
    let mut command = Command::new(command::path()?);
    protection::forget_settings(&mut command);
    command.args(["store", "list", "--json", "--store"]).arg(store);
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let stores = answer["stores"].as_array().into_iter().flatten();
    let entries = stores.filter_map(|store| store["entries"].as_array()).flatten();
    let uses = |entry: &&Value| entry["users"].as_array().is_some_and(|users| users.contains(&pid.into()));
    Ok(entries.filter(uses).cloned().collect())
}
