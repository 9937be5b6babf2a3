//! A high priority for this process while others wait for it, as far as that is permitted: they
//! stand still until it goes on, and if the kernel killed it for lack of memory in the middle, a
//! system call of theirs could end with an error. The memory that this process takes for others is
//! limited (`copies`), and what it has copied for a process is freed when that is killed instead.

use std::fs;

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The kernel never chooses a process with this value.
const NEVER: &str = "-1000";
const HIGHEST: i32 = -20;

/// The high priority. Dropping it restores what was before.
pub struct Urgency {
    oom_score: Option<String>,
    nice: Option<i32>,
}

impl Urgency {
    /// Raises the priority.
    pub fn raise() -> Self {
        let oom_score = fs::read_to_string(OOM_SCORE).ok().filter(|_| fs::write(OOM_SCORE, NEVER).is_ok());
        let before = rustix::process::getpriority_process(None).ok();
        let nice = before.filter(|_| rustix::process::setpriority_process(None, HIGHEST).is_ok());
        Self { oom_score, nice }
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        if let Some(nice) = self.nice {
            let _ = rustix::process::setpriority_process(None, nice);
        }
        if let Some(score) = &self.oom_score {
            let _ = fs::write(OOM_SCORE, score);
        }
    }
}
