//! Pins the selected processes, and remembers which are done: what was forked or loaded meanwhile
//! is found by selecting again.

use std::collections::HashMap;

use sopin_reach::report::PinRefusal;

use super::answer::{NotPinned, PinAnswer};
use super::pins::Pins;
use super::selection::{Found, SelectedProcess, Selection};
use crate::exit::Failure;
use crate::output::{self, shown};

/// Number of processes from which on progress is shown.
const MANY: usize = 8;
/// How often processes are selected anew because others have appeared. A program that forks all
/// the time, from a parent that cannot be pinned, would keep the command busy for ever.
const MAX_ROUNDS: usize = 10;

/// The state of pinning.
pub struct Session<P> {
    /// Pins a process.
    pub pins: P,
    /// For each process that is done, what it had loaded before it was pinned. Pinning changes
    /// that, so a process under `--watch` is looked at a second time, which finds nothing to do.
    /// Noting it afterwards would lose what is loaded in between.
    done: HashMap<(u32, u64), u64>,
    /// The process that traces this command; 0 if there is none.
    tracer: u32,
}

impl<P: Pins> Session<P> {
    /// Makes a session in which nothing is done yet.
    pub fn new(pins: P) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
        Self { pins, done: HashMap::new(), tracer: tracer.unwrap_or(0) }
    }

    /// Pins the selected processes, and those that appear meanwhile.
    ///
    /// # Errors
    /// 3 when there is no `/proc`.
    pub fn pin_all(&mut self, selection: &Selection, dry_run: bool) -> Result<PinAnswer, Failure> {
        let mut answer = PinAnswer::new(dry_run);
        for round in 0..MAX_ROUNDS {
            let Found { mut processes, troubled, passed_over } = selection.find()?;
            if round == 0 {
                answer.passed_over = passed_over;
                let refused = troubled.into_iter();
                answer.not_pinned.extend(refused.map(|(pid, trouble)| NotPinned::new(pid, None, &trouble.into())));
            }
            processes.retain(|process| !self.done.contains_key(&process.key()));
            let progress = output::progress(if processes.len() > MANY { processes.len() } else { 0 });
            for process in &processes {
                progress.set_message(format!("{} {}", process.pid, shown(&process.name)));
                self.pin(process, selection, &mut answer);
                progress.inc(1);
            }
            progress.finish_and_clear();
            // Nothing appears in place of processes that were named.
            if processes.is_empty() || dry_run || selection.criteria.is_none() || self.pins.is_interrupted() {
                break;
            }
        }
        Ok(answer)
    }

    /// Pins the processes that are new or have loaded something, but for one.
    ///
    /// # Errors
    /// 3 when there is no `/proc`.
    pub fn pin_changed(&mut self, selection: &Selection, except: u32) -> Result<PinAnswer, Failure> {
        let mut processes = selection.find()?.processes;
        processes.retain(|process| process.pid != except);
        self.done.retain(|key, _| processes.iter().any(|process| *key == process.key()));
        Ok(self.pin_these(processes, selection))
    }

    /// Pins the processes of a selection that are new or have loaded something. Unlike
    /// [`Session::pin_changed`], it forgets no process that is not selected.
    ///
    /// # Errors
    /// 3 when there is no `/proc`.
    pub fn pin_new(&mut self, selection: &Selection) -> Result<PinAnswer, Failure> {
        let processes = selection.find()?.processes;
        Ok(self.pin_these(processes, selection))
    }

    /// Does the same where it pins a part of their objects only, so that they are not done.
    ///
    /// # Errors
    /// 3 when there is no `/proc`.
    pub fn pin_in_part(&mut self, selection: &Selection) -> Result<PinAnswer, Failure> {
        let mut answer = PinAnswer::new(false);
        for process in self.not_done(selection.find()?.processes) {
            self.try_to_pin(&process, selection, &mut answer);
        }
        Ok(answer)
    }

    /// Forgets that a process is done, so that it is pinned again the next time.
    pub fn forget(&mut self, pid: u32) {
        self.done.retain(|(known, _), _| *known != pid);
    }

    /// Forgets all processes but these.
    pub fn keep(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.done.retain(|(pid, _), _| is_kept(*pid));
    }

    fn not_done(&self, mut processes: Vec<SelectedProcess>) -> Vec<SelectedProcess> {
        processes.retain(|process| self.done.get(&process.key()) != Some(&process.loads));
        processes
    }

    fn pin_these(&mut self, processes: Vec<SelectedProcess>, selection: &Selection) -> PinAnswer {
        let mut answer = PinAnswer::new(false);
        for process in self.not_done(processes) {
            self.pin(&process, selection, &mut answer);
        }
        answer
    }

    fn pin(&mut self, process: &SelectedProcess, selection: &Selection, answer: &mut PinAnswer) {
        if !self.pins.is_interrupted() {
            self.done.insert(process.key(), process.loads);
        }
        self.try_to_pin(process, selection, answer);
    }

    fn try_to_pin(&mut self, process: &SelectedProcess, selection: &Selection, answer: &mut PinAnswer) {
        let SelectedProcess { pid, name, is_named, .. } = process;
        if self.pins.is_interrupted() {
            return answer.not_pinned.push(NotPinned::interrupted(*pid, name));
        }
        if *pid == self.tracer {
            return answer.not_pinned.push(NotPinned::own_tracer(*pid, name));
        }
        let result = if *pid == std::process::id() { Err(PinRefusal::Own) } else { self.pins.pin(*pid) };
        match result {
            Ok(report) => answer.processes.push(report),
            Err(refusal) => answer.refuse(*pid, name, *is_named, selection.is_all(), &refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::answer::tests::report;
    use crate::pin::file_tree::FileTree;
    use crate::pin::selection::Criteria;
    use sopin_reach::report::PinReport;
    use std::cell::RefCell;
    use std::process::{Child, Command};

    /// Pins by a function, and is interrupted after so many pins.
    struct FakePins<F>(F, usize);

    impl<F: FnMut(u32) -> Result<PinReport, PinRefusal>> Pins for FakePins<F> {
        fn pin(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
            self.1 = self.1.saturating_sub(1);
            self.0(pid)
        }

        fn is_interrupted(&self) -> bool {
            self.1 == 0
        }

        fn rest(&mut self) -> bool {
            true
        }
    }

    fn session<F: FnMut(u32) -> Result<PinReport, PinRefusal>>(pin: F) -> Session<FakePins<F>> {
        Session::new(FakePins(pin, usize::MAX))
    }

    /// Starts a process, and waits until it has loaded everything and sleeps.
    fn sleeper() -> Child {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains("(sleep) S ") {
            std::thread::yield_now();
        }
        child
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Returns a selection of the children of this process that were started from here.
    fn named(pids: &[u32]) -> Selection {
        Selection { named: pids.to_vec(), criteria: None, notes_loads: true }
    }

    #[test]
    fn processes_are_pinned_once_unless_they_load_something() {
        let child = sleeper();
        let id = child.id();
        let pinned = RefCell::new(Vec::new());
        let mut session = session(|pid| {
            pinned.borrow_mut().push(pid);
            Ok(report(pid, Vec::new()))
        });
        let answer = session.pin_all(&named(&[id]), false).unwrap();
        assert_eq!((answer.processes.len(), answer.not_pinned.len()), (1, 0));
        assert!(session.pin_changed(&named(&[id]), 0).unwrap().processes.is_empty());
        // As if it had loaded an object.
        for loads in session.done.values_mut() {
            *loads += 1;
        }
        assert!(session.pin_changed(&named(&[id]), id).unwrap().processes.is_empty(), "it is excepted");
        assert_eq!(session.pin_changed(&named(&[id]), 0).unwrap().processes.len(), 1);
        assert_eq!(*pinned.borrow(), [id, id]);
        end(child);
        session.pin_changed(&named(&[id]), 0).unwrap();
        assert!(session.done.is_empty(), "what has ended is forgotten");
    }

    /// Pins a process, and starts another one of the same program in the middle of that. Returns
    /// how often each was pinned.
    fn pin_while_another_is_started(dry_run: bool) -> (usize, usize) {
        let first = sleeper();
        let program = std::fs::read_link(format!("/proc/{}/exe", first.id())).unwrap();
        let (mut later, mut pinned) = (None, Vec::new());
        let trees = vec![FileTree::new(&program).0];
        let criteria = Some(Criteria { user: Some(rustix::process::geteuid().as_raw()), trees });
        let mut session = session(|pid| {
            later.get_or_insert_with(sleeper);
            pinned.push(pid);
            Ok(report(pid, Vec::new()))
        });
        session.pin_all(&Selection { named: Vec::new(), criteria, notes_loads: false }, dry_run).unwrap();
        drop(session);
        let later = later.unwrap();
        let times = |child: &Child| pinned.iter().filter(|pid| **pid == child.id()).count();
        let counts = (times(&first), times(&later));
        end(first);
        end(later);
        counts
    }

    #[test]
    fn processes_that_appear_meanwhile_are_pinned() {
        assert_eq!(pin_while_another_is_started(false), (1, 1));
        assert_eq!(pin_while_another_is_started(true), (1, 0), "a dry run changes nothing, so one round is enough");
    }

    #[test]
    fn the_command_and_its_tracer_are_refused() {
        let child = sleeper();
        let (own, tracer) = (std::process::id(), child.id());
        let mut session = session(|pid| panic!("{pid} must not be stopped"));
        session.tracer = tracer;
        let answer = session.pin_all(&named(&[own, tracer]), false).unwrap();
        let refused: Vec<_> = answer.not_pinned.iter().map(|process| (process.pid, process.error)).collect();
        assert_eq!(refused, [(own, "own"), (tracer, "tracer")]);
        end(child);
    }

    #[test]
    fn after_an_interruption_nothing_more_is_pinned() {
        let children = [sleeper(), sleeper()];
        let pids = children.each_ref().map(Child::id);
        let mut session = Session::new(FakePins(|pid| Ok(report(pid, Vec::new())), 1));
        let answer = session.pin_all(&named(&pids), false).unwrap();
        assert_eq!((answer.processes.len(), answer.not_pinned.len()), (1, 1));
        assert_eq!(answer.not_pinned[0].error, "interrupted");
        children.into_iter().for_each(end);
    }
}
