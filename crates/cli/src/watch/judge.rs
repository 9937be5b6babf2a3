//! Finds out what became of the processes that had mapped a rewritten file: inspects them as `sopin status`
//! does, but only the objects in question. It changes nothing and prints nothing.

use std::collections::BTreeMap;
use std::thread;

use sopin_core::vmas::FileId;
use sopin_inspect::Inspector;
use sopin_inspect::object::ObjectState;
use sopin_inspect::process::{Process, Trouble};
use sopin_inspect::report::{ObjectReport, ProcessReport};

use super::answer::{ConcernedProcess, LISTED, News, ProcessState, RewriteAnswer, WatchLine};
use super::index::Mapper;
use super::rewrites::Rewriting;

/// The number of processes that are inspected at a time: most of the time an inspection of a damaged one
/// waits, to see whether an object is just being loaded.
const AT_A_TIME: usize = 4;
/// Characters of the reason why a process could not be inspected.
const MAX_REASON: usize = 200;

/// The result of inspecting a process.
enum Outcome {
    Inspected(Vec<ObjectReport>),
    Ended,
    Failed(String),
}

/// Inspects the processes concerned, and returns a line for each rewriting that concerns one.
pub fn judge(rewritings: &[Rewriting]) -> Vec<WatchLine> {
    let mut concerned = BTreeMap::<(u32, u64), Vec<FileId>>::new();
    for Rewriting { beginning, .. } in rewritings {
        for mapper in &beginning.mappers {
            concerned.entry((mapper.pid, mapper.start)).or_default().push(beginning.id);
        }
    }
    let all: Vec<_> = concerned.into_iter().collect();
    let outcomes: BTreeMap<_, _> = thread::scope(|scope| {
        let share = all.len().div_ceil(AT_A_TIME).max(1);
        let threads: Vec<_> = all.chunks(share).map(|share| scope.spawn(|| inspect_all(share))).collect();
        // A thread that panics has ended the command: its message says why.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    rewritings.iter().filter_map(|rewriting| line(rewriting, &outcomes)).collect()
}

type ProcessKey = (u32, u64);

fn inspect_all(processes: &[(ProcessKey, Vec<FileId>)]) -> Vec<(ProcessKey, Outcome)> {
    // A new one each time: it remembers what files were like.
    let inspector = Inspector::new(false);
    processes.iter().map(|(key, files)| (*key, inspect(&inspector, *key, files))).collect()
}

fn inspect(inspector: &Inspector, (pid, start): ProcessKey, files: &[FileId]) -> Outcome {
    let is_the_same = || Process::open(pid).is_ok_and(|process| process.facts.start == start);
    match inspector.inspect_files(pid, files) {
        Ok(Some(ProcessReport { objects, .. })) if is_the_same() => Outcome::Inspected(objects),
        Ok(_) | Err(Trouble::Vanished | Trouble::Zombie) => Outcome::Ended,
        Err(trouble) => Outcome::Failed(trouble.reason().chars().take(MAX_REASON).collect()),
    }
}

fn line(rewriting: &Rewriting, outcomes: &BTreeMap<ProcessKey, Outcome>) -> Option<WatchLine> {
    let Rewriting { inode, time, beginning, is_ongoing, .. } = rewriting;
    let file = String::from_utf8_lossy(&beginning.path).into_owned();
    let mut answer = RewriteAnswer::new(file, *inode, *is_ongoing, beginning.writer.clone());
    for mapper in &beginning.mappers {
        if let Some(process) =
            outcomes.get(&(mapper.pid, mapper.start)).and_then(|outcome| concerned(mapper, beginning.id, outcome))
        {
            answer.add(process);
        }
    }
    if answer.processes.is_empty() {
        return None;
    }
    answer.processes.sort_by_key(|process| (process.state, process.pid));
    answer.unlisted = answer.processes.len().saturating_sub(LISTED);
    answer.processes.truncate(LISTED);
    Some(WatchLine::new(*time, News::Rewrite(answer)))
}

/// Returns what became of one process; `None` if it has not loaded the file as an object: it has unloaded it, or
/// has mapped the file for another purpose, as a debugger does.
fn concerned(mapper: &Mapper, file: FileId, outcome: &Outcome) -> Option<ConcernedProcess> {
    let mut process = ConcernedProcess {
        pid: mapper.pid,
        name: mapper.name.clone(),
        state: ProcessState::Ended,
        reverted_words: 0,
        bytes_beyond_end: 0,
        reason: None,
    };
    match outcome {
        Outcome::Ended => {}
        Outcome::Failed(reason) => {
            process.state = ProcessState::NotInspected;
            process.reason = Some(reason.clone());
        }
        Outcome::Inspected(objects) => {
            // dlmopen(3) loads an object once more.
            let objects = || objects.iter().filter(|object| object.loaded_from == Some(file));
            process.state = state_of(objects().map(|object| object.state).min()?);
            for damage in objects().filter_map(|object| object.damage.as_ref()) {
                process.reverted_words += damage.reverted_words;
                process.bytes_beyond_end += damage.bytes_beyond_end;
            }
            process.reason = objects().find_map(|object| object.unjudged.clone());
        }
    }
    Some(process)
}

fn state_of(state: ObjectState) -> ProcessState {
    match state {
        ObjectState::Damaged => ProcessState::Damaged,
        ObjectState::Exposed => ProcessState::Exposed,
        ObjectState::Relocated => ProcessState::Relocated,
        ObjectState::Full => ProcessState::Full,
    }
}
