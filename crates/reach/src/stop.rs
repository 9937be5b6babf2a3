//! Stopping all tasks of a process and resuming them: its threads, and those of other processes
//! that share its memory (`vfork(2)`, `clone(2)` with CLONE_VM).

use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sopin_core::interrupted::Repair;
use sopin_inspect::process;

use crate::moment::Moment;
use crate::ptrace::{self, NoReport};
use crate::report::PinRefusal;
use crate::restartable;
use crate::sharers::Sharers;
use crate::task::{self, Task, status_of};
use crate::transfers;

/// The longest time for all tasks to stop. Those that have stopped stand still meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same, with each attempt more, if those that have not stopped only wait for a processor. On a busy
/// machine they wait as long for their next instruction anyway, and so do those that have stopped.
const PATIENCE_FOR_PROCESSOR: Duration = Duration::from_millis(300);

/// A process all of whose tasks have stopped. It must be resumed by [`StoppedProcess::resume`].
pub struct StoppedProcess {
    /// Its process id.
    pub pid: u32,
    /// All tasks that execute in its memory.
    pub tasks: Vec<Task>,
    /// Number of system calls that were made to go on.
    pub repaired: usize,
    /// Those of them whose timeout began anew, although it had not just begun.
    pub restarted: usize,
    /// Number of transfers that the stop has cut short.
    pub cut_short: usize,
}

impl StoppedProcess {
    /// Stops a process, of which `held` are traced already, and those that share its memory. `attempt` is
    /// 1 for the first one.
    ///
    /// # Errors
    /// Why it cannot be stopped, and those of its tasks that cannot be released yet. All others run
    /// on.
    pub fn stop(pid: u32, held: Vec<Task>, sharers: Sharers, attempt: u32) -> Result<Self, (PinRefusal, Vec<Task>)> {
        let mut process = Self { pid, tasks: held, repaired: 0, restarted: 0, cut_short: 0 };
        match process.stop_all(sharers, attempt * PATIENCE_FOR_PROCESSOR) {
            Ok(()) => Ok(process),
            Err(refusal) => Err((refusal, process.resume())),
        }
    }

    fn stop_all(&mut self, mut sharers: Sharers, patience_for_processor: Duration) -> Result<(), PinRefusal> {
        let pid = self.pid;
        // Those of a round before may still be on their way back.
        if cfg!(target_arch = "aarch64") || !restartable::are_shown() {
            task::wait_for_calls(&tasks_of(pid), pid);
        }
        let begin = Instant::now();
        let is_late = |tasks: &[Task]| {
            let waited = begin.elapsed();
            waited > patience_for_processor || waited > PATIENCE && !tasks.iter().all(Task::needs_only_processor)
        };
        // A task that has not stopped yet may make others. So the process has stopped when a look
        // finds no new task. Its first thread is seized when all others have stopped: while it is
        // traced, the kernel interrupts other threads even for signals that the process ignores
        // (`sig_ignored` in kernel/signal.c), and the calls of those are repaired only if they have stopped.
        let mut with_first = false;
        loop {
            if let Some(task) = self.tasks.first() {
                sharers.update(task.id);
            }
            let mut is_complete = true;
            for pid in std::iter::once(pid).chain(sharers.found().iter().copied()) {
                is_complete &= !self.seize_new(pid, with_first)?;
            }
            self.wait(&is_late)?;
            if with_first && self.tasks.is_empty() {
                return Err(process::Trouble::Vanished.into());
            }
            if is_complete && with_first {
                return Ok(());
            }
            with_first |= is_complete;
            if is_late(&self.tasks) {
                return Err(PinRefusal::DoesNotStop);
            }
        }
    }

    /// Seizes the tasks of a process that are not traced yet, but the first thread only if that is
    /// wanted. Returns whether there were some.
    fn seize_new(&mut self, pid: u32, with_first: bool) -> Result<bool, PinRefusal> {
        let mut is_any = false;
        for id in tasks_of(pid).into_iter().filter(|id| with_first || id.cast_unsigned() != pid) {
            if self.tasks.iter().any(|task| task.id == id) {
                continue;
            }
            let traced: Vec<i32> = self.tasks.iter().map(|task| task.id).collect();
            match ptrace::noticing_ends(&traced, || Task::seize(pid, id)) {
                Ok(task) => self.tasks.push(task),
                Err(Errno::SRCH) => continue,
                Err(_) if has_ended(pid, id) => continue,
                Err(Errno::PERM) => return Err(why_not_permitted(pid, id)),
                Err(errno) => return Err(PinRefusal::Failed(format!("ptrace: {errno}"))),
            }
            is_any = true;
        }
        Ok(is_any)
    }

    fn wait(&mut self, is_late: &impl Fn(&[Task]) -> bool) -> Result<(), PinRefusal> {
        loop {
            // A task that calls execve(2) does not stop before the ends of all other threads are
            // noticed, so that there is no waiting for one task alone. Nor is there for each of many
            // that do not stop.
            let mut has_each_stopped = true;
            self.tasks.retain(|task| match task.wait(has_each_stopped) {
                Ok(has_stopped) => {
                    has_each_stopped &= has_stopped;
                    true
                }
                Err(NoReport::Gone | NoReport::Late) => false,
            });
            if has_each_stopped {
                return Ok(());
            }
            if is_late(&self.tasks) {
                return Err(PinRefusal::DoesNotStop);
            }
        }
    }

    /// Makes the system calls go on that the stop has interrupted, and that the kernel would not
    /// make again; counts those that it has cut short. `moment` is when the stop began.
    pub fn repair_calls(&mut self, moment: &Moment) {
        for task in self.tasks.iter().filter(|task| task.has_stopped()) {
            let Ok(registers) = task.registers() else { continue };
            if transfers::is_cut_short(task, &registers) {
                self.cut_short += 1;
                transfers::clean_up(task, &registers);
            }
            match task.repair(registers) {
                Repair::None => {}
                Repair::Again => self.repaired += 1,
                Repair::AgainWithTimeout => {
                    self.repaired += 1;
                    self.restarted += usize::from(!moment.has_just_begun(task.id));
                }
            }
        }
    }

    /// Resumes all tasks, the first thread before all others. Returns those that cannot be released yet.
    pub fn resume(mut self) -> Vec<Task> {
        self.tasks.sort_by_key(|task| task.id.cast_unsigned() != task.process);
        self.tasks.retain(|task| !task.release());
        self.tasks
    }
}

/// Returns the ids of a process's threads.
pub fn tasks_of(pid: u32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whether a task has ended, as the first thread of a process may while others go on.
fn has_ended(pid: u32, id: i32) -> bool {
    status_of(pid, id).is_none_or(|status| status.has_ended())
}

fn why_not_permitted(pid: u32, id: i32) -> PinRefusal {
    match status_of(pid, id) {
        Some(status) if status.tracer != 0 => PinRefusal::Traced(status.tracer.cast_unsigned()),
        _ => PinRefusal::NotPermitted,
    }
}
