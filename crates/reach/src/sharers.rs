//! Finds the processes that share the memory of another one.
//!
//! Comparing all processes of a machine takes most of a millisecond for 500 of them. So the search
//! is made while the process runs, and under the stop only what has changed since matters:
//!
//! - The memory of a task is chosen when it is made (CLONE_VM), and changed only by execve(2), which
//!   gives it a memory of its own. So a task that exists and does not share the memory never will.
//! - `/proc/stat` has the number of all tasks that were ever made. The kernel raises it when a new
//!   task becomes visible (`total_forks` in kernel/fork.c). If it is what it was before the search,
//!   there is no new task. Otherwise all processes are compared again.
//! - A process that was found may have executed another program since, so it is compared again.
//! - The process itself may have done so; then no older process shares its memory.
//!
//! A task is being made when the number is read the first time? Then it is not visible yet, and
//! raises the number later. The tasks that could make it have all stopped when the number is read
//! the last time, and a task that is making another one stops only behind that.

use std::fs;
use std::io::Read;

use sopin_core::sys::Errno;
use sopin_core::sys::tracing::{self, share_memory};
use sopin_inspect::process;

use crate::stop::tasks_of;

/// The processes that share the memory of a process.
pub struct Sharers {
    pid: u32,
    /// The task of the process with which all were compared.
    task: i32,
    /// How many tasks had been made before.
    made: Option<u64>,
    found: Vec<u32>,
}

impl Sharers {
    /// Compares all processes with a task of a process, which has not ended: one that has ended has
    /// no memory, like the tasks of the kernel.
    pub fn search(pid: u32, task: i32) -> Self {
        let made = tasks_made();
        let all = process::all().unwrap_or_default();
        let shares = |other: &u32| *other != pid && shares_memory(task, *other);
        Self { pid, task, made, found: all.into_iter().filter(shares).collect() }
    }

    /// Returns the processes that were found.
    pub fn found(&self) -> &[u32] {
        &self.found
    }

    /// Finds the processes that share the memory now; `task` is one of the process's that has not
    /// ended. If all tasks that were found before have stopped, no process is missing.
    pub fn update(&mut self, task: i32) {
        // If the first task has ended, it may have done so before it was compared.
        let is_first_alive = share_memory(self.task, task) == Ok(true);
        if is_first_alive && self.made.is_some() && self.made == tasks_made() {
            self.found.retain(|other| shares_memory(task, *other));
        } else {
            *self = Self::search(self.pid, task);
        }
    }
}

/// Returns how many tasks were made since the machine was started; `None` if `/proc` does not
/// show the kernel's number.
fn tasks_made() -> Option<u64> {
    let mut file = fs::File::open("/proc/stat").ok()?;
    // In a container another file may be mounted there.
    if rustix::fs::fstatfs(&file).ok()?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return None;
    }
    let mut text = String::with_capacity(16 << 10);
    file.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("processes ")?.parse().ok())
}

/// Returns whether a task shares the memory of another process.
fn shares_memory(task: i32, other: u32) -> bool {
    if tracing::has_memory(other.cast_signed()) {
        return compare(task, other);
    }
    // Its first thread may have ended, and has no memory any more. The others go on.
    tasks_of(other).into_iter().any(|id| id.cast_unsigned() != other && compare(task, id.cast_unsigned()))
}

/// Returns whether two tasks share their memory. Where the kernel does not compare them, they do if
/// they have the same mappings, which the kernel places at random.
fn compare(task: i32, other: u32) -> bool {
    match share_memory(task, other.cast_signed()) {
        Ok(is_same) => is_same,
        // A seccomp filter may refuse all comparisons.
        Err(errno) if errno == Errno(libc::ENOSYS) || share_memory(task, task).is_err() => {
            let task = task.cast_unsigned();
            let maps = |pid| fs::read(format!("/proc/{pid}/maps")).ok().filter(|text| !text.is_empty());
            let executable = |pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
            executable(task) == executable(other) && maps(task).is_some_and(|text| maps(other) == Some(text))
        }
        // It is gone, or the kernel does not tell, because this process may not trace it: it is another
        // user's, or has other rights. Seldom do such processes share their memory.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_int;

    /// A process that shares this one's memory.
    struct Sharer {
        id: i32,
        /// Its stack.
        _stack: Vec<u128>,
    }

    extern "C" fn wait_for_ever(_: *mut libc::c_void) -> c_int {
        loop {
            // SAFETY: pause has no precondition. It ends by SIGKILL only, so errno is not set.
            unsafe { libc::pause() };
        }
    }

    impl Sharer {
        fn start() -> Self {
            let mut stack = vec![0_u128; 4096];
            let top = stack.as_mut_ptr_range().end.cast();
            // SAFETY: the child runs on this stack, which lives longer, and changes no other memory.
            let id = unsafe { libc::clone(wait_for_ever, top, libc::CLONE_VM | libc::SIGCHLD, std::ptr::null_mut()) };
            assert!(id > 0);
            Self { id, _stack: stack }
        }
    }

    impl Drop for Sharer {
        fn drop(&mut self) {
            // SAFETY: it is a child that has not been waited for.
            unsafe {
                libc::kill(self.id, libc::SIGKILL);
                libc::waitpid(self.id, std::ptr::null_mut(), 0);
            }
        }
    }

    #[test]
    fn what_has_changed_since_the_search_is_found() {
        let own = std::process::id();
        let task = own.cast_signed();
        let mut early = Sharers::search(own, task);
        let sharer = Sharer::start();
        let id = sharer.id.cast_unsigned();
        assert!(!early.found().contains(&id));
        // Only the number of tasks leads to another search.
        let mut stale = Sharers { pid: own, task, made: None, found: Vec::new() };
        loop {
            stale.made = tasks_made();
            stale.update(task);
            if stale.made == tasks_made() && stale.found().is_empty() {
                break;
            }
            // Another test has made a task meanwhile.
            stale.found.clear();
        }
        early.update(task);
        assert!(early.found().contains(&id));

        // A search with a task that has ended finds nothing.
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (task_then, made) = (ended.id().cast_signed(), tasks_made());
        let mut in_vain = Sharers { pid: own, task: task_then, made, found: Vec::new() };
        in_vain.update(task);
        assert!(in_vain.found().contains(&id));

        drop(sharer);
        early.update(task);
        assert!(!early.found().contains(&id));
    }

    #[test]
    fn the_number_of_tasks_made_grows() {
        let before = tasks_made().unwrap();
        std::thread::spawn(|| ()).join().unwrap();
        assert!(tasks_made().unwrap() > before);
    }
}
