//! How little time the scheduler gives to a task. All other tasks of a process stand still while one
//! of them makes system calls, so that should not be one that waits for every other program of a busy
//! machine.
//!
//! A slow task is not made faster meanwhile. Its policy and its nice value could be changed from
//! outside, but if this process were killed before it restored them, they would stay: neither the
//! kernel nor the frame to which the task returns by itself restores them. So if all tasks of a process
//! are slow, which the process has then wanted for its work as a whole, its stop takes longer.

use rustix::process::{Pid, getpriority_process};

/// The flag that the kernel adds to a policy.
const RESET_ON_FORK: libc::c_long = libc::SCHED_RESET_ON_FORK as libc::c_long;
/// Of a processor that a task with this nice value and an ordinary one both use, it gets a tenth
/// (`sched_prio_to_weight` in kernel/sched/core.c).
const NICE: i32 = 10;

/// How little time the scheduler gives to a task, less in the order of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slowness {
    policy: Policy,
    nice: i32,
}

/// The policies of `sched(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Policy {
    /// Before all others: SCHED_FIFO, SCHED_RR, SCHED_DEADLINE.
    RealTime,
    /// SCHED_OTHER and SCHED_BATCH, and policies that are not known.
    #[default]
    Ordinary,
    /// SCHED_IDLE
    Idle,
}

impl Slowness {
    /// Returns that of a task; that of an ordinary one if it cannot be determined.
    pub fn of(task: i32) -> Self {
        let nice = Pid::from_raw(task).and_then(|task| getpriority_process(Some(task)).ok()).unwrap_or_default();
        // The function of musl's is not implemented.
        // SAFETY: the call uses the number only.
        let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, task) };
        Self { policy: Policy::of(policy), nice }
    }

    /// Returns whether the task gets hardly any time on a busy machine.
    pub fn is_extreme(self) -> bool {
        self.policy == Policy::Idle || self.policy == Policy::Ordinary && self.nice >= NICE
    }
}

impl Policy {
    fn of(number: libc::c_long) -> Self {
        let is = |policy: libc::c_int| number & !RESET_ON_FORK == policy.into();
        if is(libc::SCHED_IDLE) {
            Self::Idle
        } else if is(libc::SCHED_FIFO) || is(libc::SCHED_RR) || is(libc::SCHED_DEADLINE) {
            Self::RealTime
        } else {
            Self::Ordinary
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_get_more_time_come_first() {
        let of = |policy: libc::c_int, nice| Slowness { policy: Policy::of(policy.into()), nice };
        let all = [
            of(libc::SCHED_FIFO, 19),
            of(libc::SCHED_OTHER, -20),
            of(libc::SCHED_BATCH, 0),
            of(libc::SCHED_OTHER, 9),
            of(libc::SCHED_OTHER, 10),
            of(libc::SCHED_IDLE, -20),
        ];
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!(all.map(Slowness::is_extreme), [false, false, false, false, true, true]);
        assert_eq!(Policy::of(RESET_ON_FORK | libc::c_long::from(libc::SCHED_IDLE)), Policy::Idle);
        assert_eq!(Policy::of(-1), Policy::Ordinary);
    }

    #[test]
    fn the_policy_of_a_thread_is_its_own() {
        // SAFETY: the call has no precondition.
        let own = || Slowness::of(unsafe { libc::gettid() });
        let thread = move || {
            // SAFETY: all bytes zero are a complete `sched_param`, and the thread is this one.
            let policy = unsafe {
                let parameters: libc::sched_param = std::mem::zeroed();
                libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters)
            };
            (policy, own())
        };
        let (changed, other) = std::thread::spawn(thread).join().unwrap();
        assert_eq!((changed, other.policy, own().policy), (0, Policy::Idle, Policy::Ordinary));
    }
}
