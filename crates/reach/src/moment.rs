//! Chooses the moment of a stop, such that it does little harm to calls that do not notice that
//! time has passed, or what they have transferred:
//!
//! - A call whose timeout begins anew when a stop interrupts it (`interrupted`) loses the time that
//!   it has waited before. So the stop comes just after the call has begun.
//! - A transfer that a stop cuts short (`transfers`) is waited for.
//!
//! While the process runs, this looks every millisecond at the system call in which each thread
//! sleeps, and at how often the thread has begun to sleep (`voluntary_ctxt_switches`). When that
//! number changes, or the thread was seen outside of such a call, the call that it is in now has
//! begun since the look before. (A thread that is woken within a call and sleeps again in the same
//! one is taken for one that has begun another call.)
//!
//! How long this waits:
//!
//! - Not at all if no thread is in such a call, or if one look takes as long as a call counts as just
//!   begun: with very many threads no moment could be recognised.
//! - Not for a thread whose timeout is longer than [`PATIENCE`]: it is stopped anyway.
//! - Until no thread would lose anything, which for one thread takes at most its timeout.
//! - With several threads such a moment may never come. For the longest of their timeouts this
//!   finds out at how few threads the best moment would do harm; then the next moment that is as
//!   good is taken, and twice that timeout ends the wait. A transfer has no timeout, and counts as
//!   one of half the patience.
//! - In all at most [`PATIENCE`] for a process, however often it is stopped.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use sopin_core::current_call::CurrentCall;
use sopin_core::interrupted::{Timeout, timeout_of};

use crate::descriptor::TaskDescriptor;
use crate::memory::words_at;
use crate::ptrace;
use crate::stop::tasks_of;
use crate::task::status_of;
use crate::transfers;

/// The longest time that this waits for moments, for one process.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(1);
/// A call has just begun if that was within this time. The moment is chosen by the half of it, because
/// the stop takes a while.
const JUST_BEGUN: Duration = Duration::from_millis(10);
/// A thread may wake up so much later than it should.
const DELAY: Duration = Duration::from_millis(20);

/// The state of the threads of a process at the moment, as the last look has found it.
#[derive(Default)]
pub struct Moment {
    threads: HashMap<i32, Seen>,
}

/// The result of the last look at a thread.
struct Seen {
    /// When the look began.
    at: Instant,
    /// The call in which the thread slept.
    call: Option<CurrentCall>,
    /// The harm that a stop would do to the call, if any, and how often the thread had begun to sleep.
    harm: Option<(Harm, u64)>,
    /// The call that the thread is in has begun after this.
    since: Option<Instant>,
}

/// The harm that a stop does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// It begins this timeout anew.
    Timeout(Duration),
    /// It may cut a transfer short.
    Transfer,
}

/// To how many threads a stop would do harm. One to a transfer is worse, because it changes a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Harms {
    transfers: usize,
    timeouts: usize,
}

impl Moment {
    /// Waits for a good moment to stop processes, for which `patience` is left, and takes from it what
    /// was needed. `meanwhile` is called while it waits, and returns whether it is to wait any longer.
    pub fn wait(processes: &[u32], patience: &mut Duration, mut meanwhile: impl FnMut() -> bool) -> Self {
        let mut moment = Self::default();
        let begin = Instant::now();
        moment.look(processes);
        let mut choice = moment.choice(*patience);
        let can_be_recognised = begin.elapsed() < JUST_BEGUN / 2;
        while can_be_recognised && !ptrace::is_interrupted() {
            if choice.is_now(begin.elapsed(), moment.harms(*patience)) {
                break;
            }
            thread::sleep(INTERVAL);
            if !meanwhile() {
                break;
            }
            moment.look(processes);
        }
        *patience = patience.saturating_sub(begin.elapsed());
        moment
    }

    /// Returns whether the call in which a thread has stopped has just begun.
    pub fn has_just_begun(&self, thread: i32) -> bool {
        let since = self.threads.get(&thread).and_then(|seen| seen.since);
        since.is_some_and(|since| since.elapsed() <= JUST_BEGUN)
    }

    fn look(&mut self, processes: &[u32]) {
        let tasks = processes.iter().flat_map(|process| tasks_of(*process).into_iter().map(move |id| (*process, id)));
        let now: HashMap<i32, Seen> =
            tasks.map(|(process, id)| (id, Seen::look(process, id, self.threads.get(&id)))).collect();
        self.threads = now;
    }

    fn choice(&self, patience: Duration) -> Choice {
        let times = self.threads.values().filter_map(|seen| match seen.harm?.0 {
            Harm::Timeout(timeout) if timeout <= patience => Some(timeout + DELAY),
            Harm::Timeout(_) => None,
            Harm::Transfer => Some(patience / 2),
        });
        Choice::within(times.max().unwrap_or_default(), patience)
    }

    /// Returns to how many of the threads that are worth waiting for a stop would do harm now.
    fn harms(&self, patience: Duration) -> Harms {
        let mut harms = Harms::default();
        for seen in self.threads.values() {
            let is_fresh = seen.since.is_some_and(|since| since.elapsed() <= JUST_BEGUN / 2);
            match seen.harm {
                Some((Harm::Transfer, _)) => harms.transfers += 1,
                Some((Harm::Timeout(timeout), _)) if timeout <= patience && !is_fresh => harms.timeouts += 1,
                _ => {}
            }
        }
        harms
    }
}

impl Seen {
    fn look(process: u32, thread: i32, before: Option<&Self>) -> Self {
        let at = Instant::now();
        let call = CurrentCall::read(process.cast_signed(), thread);
        let harm = match before.filter(|before| before.call == call) {
            // What a call is does not change while the thread is in it.
            Some(before) => before.harm.map(|(harm, _)| harm),
            None => call.and_then(|call| Harm::of(process, thread, &call)),
        };
        let sleeps = || status_of(process, thread).and_then(|status| status.sleeps).unwrap_or(0);
        let harm = harm.map(|harm| (harm, sleeps()));
        Self { at, call, harm, since: since(call, harm, at, before) }
    }
}

/// Returns after which time the call in which a thread sleeps has begun. `at` is the time of this
/// look.
fn since(call: Option<CurrentCall>, harm: Option<(Harm, u64)>, at: Instant, before: Option<&Seen>) -> Option<Instant> {
    if harm.is_none() {
        return Some(at);
    }
    let before = before?;
    if (before.call, before.harm) == (call, harm) { before.since } else { Some(before.at) }
}

impl Harm {
    /// Returns what a stop would do to a call in which a thread sleeps.
    fn of(process: u32, thread: i32, call: &CurrentCall) -> Option<Self> {
        if transfers::may_be_partial(process, thread, call.number, call.arguments) {
            return Some(Self::Transfer);
        }
        timeout(process, thread, call).map(Self::Timeout)
    }
}

/// Returns the timeout of a call, if it begins anew when the call is interrupted. `None` if there is
/// no end to it.
fn timeout(process: u32, thread: i32, call: &CurrentCall) -> Option<Duration> {
    let argument = |index: usize| call.arguments.get(index).copied().unwrap_or_default();
    let memory = thread.cast_unsigned();
    let time_at = |pointer: u64| {
        let words = words_at(memory, pointer, 2)?;
        let [seconds, nanoseconds] = words[..] else { return None };
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds)))
    };
    match timeout_of(call.number)? {
        Timeout::Milliseconds(index) => {
            let milliseconds = (argument(*index) as u32).cast_signed();
            u64::try_from(milliseconds).ok().map(Duration::from_millis)
        }
        Timeout::Pointer(index) => time_at(argument(*index)),
        // The next argument points to a structure whose third word points to the time.
        Timeout::Flag(index, bit) if argument(*index) & bit != 0 => {
            time_at(*words_at(memory, argument(index + 1), 3)?.get(2)?)
        }
        Timeout::None | Timeout::Flag(..) => None,
        Timeout::OfSocket => {
            let direction = match call.number {
                libc::SYS_accept
                | libc::SYS_accept4
                | libc::SYS_read
                | libc::SYS_readv
                | libc::SYS_recvfrom
                | libc::SYS_recvmsg
                | libc::SYS_recvmmsg => sockopt::Timeout::Recv,
                _ => sockopt::Timeout::Send,
            };
            TaskDescriptor::of(process, thread, argument(0)).timeout(direction)
        }
    }
}

/// Decides which moment is the one.
#[derive(Debug)]
struct Choice {
    /// Until then it finds out how good moments are.
    learning: Duration,
    /// Then the wait ends.
    end: Duration,
    /// The least harm that a stop would have done while it was learning.
    least: Option<Harms>,
}

impl Choice {
    /// Makes a choice for threads that sleep for this time at most.
    fn within(longest: Duration, patience: Duration) -> Self {
        Self { learning: longest, end: (2 * longest).min(patience), least: None }
    }

    /// Returns whether the process is to be stopped now, when this time has passed and a stop
    /// would do this harm.
    fn is_now(&mut self, passed: Duration, harms: Harms) -> bool {
        if harms == Harms::default() || passed >= self.end {
            return true;
        }
        if passed < self.learning {
            self.least = Some(self.least.map_or(harms, |least| least.min(harms)));
            return false;
        }
        self.least.is_none_or(|least| harms <= least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Harms = Harms { transfers: 0, timeouts: 0 };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn timeouts(timeouts: usize) -> Harms {
        Harms { transfers: 0, timeouts }
    }

    /// Looks every millisecond; returns when the process is stopped, and what harm that does.
    fn choose(longest: u64, patience: u64, harms_at: impl Fn(u64) -> Harms) -> (u64, Harms) {
        let mut choice = Choice::within(ms(longest), ms(patience));
        let now = (0..10_000).find(|now| choice.is_now(ms(*now), harms_at(*now))).unwrap();
        (now, harms_at(now))
    }

    /// Returns the harm to threads with these timeouts, which call again and again, the first time at
    /// these points in time.
    fn periodic(threads: &[(u64, u64)], now: u64) -> Harms {
        let is_old = |(period, first): &&(u64, u64)| (now + period - first) % period > 5;
        timeouts(threads.iter().filter(is_old).count())
    }

    #[test]
    fn one_thread_is_stopped_when_its_call_has_just_begun() {
        for first in 0..50 {
            let (now, harms) = choose(50 + 20, 500, |now| periodic(&[(50, first)], now));
            assert!(harms == NOTHING && now <= 50, "{first}: {now} {harms:?}");
            // Without patience it is stopped wherever it is.
            let harm = periodic(&[(50, first)], 0);
            assert_eq!(choose(50 + 20, 0, |now| periodic(&[(50, first)], now)), (0, harm));
        }
        assert_ne!(periodic(&[(50, 20)], 0), NOTHING);
    }

    #[test]
    fn the_wait_for_several_threads_ends_at_a_moment_as_good_as_it_has_seen() {
        let (mut with_patience, mut without) = (0, 0);
        for first in 0..70 {
            let threads = [(50, first % 50), (70, first)];
            let (now, harms) = choose(70 + 20, 500, |now| periodic(&threads, now));
            let least = (0..90).map(|now| periodic(&threads, now)).min().unwrap();
            assert!(harms <= least || now == 180, "{first}: {now} {harms:?}");
            with_patience += harms.timeouts;
            without += choose(70 + 20, 0, |now| periodic(&threads, now)).1.timeouts;
        }
        assert!(2 * with_patience < without, "{with_patience} {without}");
    }

    #[test]
    fn the_wait_ends_if_no_better_moment_comes() {
        let stuck = Harms { transfers: 1, timeouts: 0 };
        assert_eq!(choose(250, 500, |_| stuck), (250, stuck));
        let worse = |now| Harms { transfers: 1 + usize::from(now > 100), timeouts: 0 };
        assert_eq!(choose(250, 500, worse).0, 500);
        assert_eq!(choose(490, 500, worse).0, 500);
        assert_eq!(choose(250, 500, |now| if now < 7 { stuck } else { NOTHING }).0, 7);
        assert!(Harms { transfers: 0, timeouts: 9 } < stuck, "a transfer is worse than any timeout");
    }

    #[test]
    fn only_threads_that_are_worth_waiting_for_count() {
        let seen = |harm: Option<Harm>, since| Seen { at: Instant::now(), call: None, harm: harm.zip(Some(0)), since };
        let (short, long) = (Some(Harm::Timeout(ms(50))), Some(Harm::Timeout(ms(501))));
        let now = Some(Instant::now() + ms(60_000));
        let mut moment = Moment::default();
        let all =
            [seen(short, None), seen(short, now), seen(long, None), seen(Some(Harm::Transfer), None), seen(None, now)];
        moment.threads.extend((0..).zip(all));
        assert_eq!(moment.harms(PATIENCE), Harms { transfers: 1, timeouts: 1 });
        assert_eq!(moment.harms(ms(49)), Harms { transfers: 1, timeouts: 0 });
        assert_eq!(moment.choice(PATIENCE).learning, PATIENCE / 2);
        assert_eq!((0..6).filter(|thread| moment.has_just_begun(*thread)).collect::<Vec<_>>(), [1, 4]);
        moment.threads.retain(|thread, _| *thread != 3);
        assert_eq!(moment.choice(PATIENCE).learning, ms(50) + DELAY);
        moment.threads.retain(|thread, _| *thread > 1);
        assert!(moment.choice(PATIENCE).is_now(Duration::ZERO, moment.harms(PATIENCE)), "nothing to wait for");
    }

    fn call(number: i64, arguments: [u64; 6]) -> CurrentCall {
        CurrentCall { number, arguments, stack: 1, instruction: 2 }
    }

    #[test]
    fn a_call_has_begun_after_the_last_look_at_which_it_had_not() {
        let begin = Instant::now();
        let (first, second) = (Some(call(1, [0; 6])), Some(call(1, [5; 6])));
        let harm = |sleeps| Some((Harm::Timeout(ms(50)), sleeps));
        let seen = |call, harm, since| Seen { at: begin + ms(20), call, harm, since };
        let now = begin + ms(30);
        assert_eq!(since(first, harm(1), now, None), None);
        assert_eq!(since(first, None, now, None), Some(now));
        let old = seen(first, harm(1), None);
        assert_eq!(since(first, harm(1), now, Some(&old)), None);
        assert_eq!(since(first, harm(2), now, Some(&old)), Some(old.at));
        assert_eq!(since(second, harm(1), now, Some(&old)), Some(old.at));
        let known = seen(first, harm(1), Some(begin));
        assert_eq!(since(first, harm(1), now, Some(&known)), Some(begin));
        let outside = seen(None, None, Some(begin + ms(20)));
        assert_eq!(since(first, harm(1), now, Some(&outside)), Some(begin + ms(20)));
    }

    #[test]
    fn the_timeout_is_found_wherever_a_call_has_it() {
        let own = std::process::id();
        let of = |number, arguments| timeout(own, own.cast_signed(), &call(number, arguments));
        let time = [1_u64, 500_000_000];
        let pointer = time.as_ptr().addr() as u64;
        let extended = [0, 0, pointer];
        let extended = extended.as_ptr().addr() as u64;
        let half = Some(ms(1500));
        assert_eq!(of(libc::SYS_epoll_pwait, [3, 0, 1, 1500, 0, 0]), half);
        assert_eq!(of(libc::SYS_epoll_pwait, [3, 0, 1, u64::from(u32::MAX), 0, 0]), None, "-1 is infinite");
        assert_eq!(of(libc::SYS_epoll_pwait2, [3, 0, 1, pointer, 0, 0]), half);
        assert_eq!(of(libc::SYS_epoll_pwait2, [3, 0, 1, 0, 0, 0]), None);
        assert_eq!(of(libc::SYS_rt_sigtimedwait, [0, 0, pointer, 8, 0, 0]), half);
        assert_eq!(of(libc::SYS_semtimedop, [0, 0, 1, pointer, 0, 0]), half);
        assert_eq!(of(libc::SYS_semop, [0, 0, 1, pointer, 0, 0]), None);
        assert_eq!(of(libc::SYS_io_uring_enter, [3, 0, 1, 9, extended, 24]), half);
        assert_eq!(of(libc::SYS_io_uring_enter, [3, 0, 1, 1, extended, 24]), None);
        // The kernel makes these again with what is left of the timeout.
        assert_eq!(of(libc::SYS_ppoll, [0, 0, pointer, 0, 0, 0]), None);
    }
}
