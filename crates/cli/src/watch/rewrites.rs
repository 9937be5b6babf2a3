//! Combines events into rewritings: all changes that one writer makes to one file until it closes the file, or
//! makes no more for a while, are one rewriting. Pure: the time is an argument. This module keeps a bounded number of
//! rewritings and processes, whatever the writers do.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use sopin_core::vmas::FileId;

use super::events::{FileChange, WriterId};
use super::index::{Inode, Mapper};
use super::writer::Writer;

/// A rewriting has ended when the file was closed and nothing has happened to it for this time.
const QUIET_AFTER_CLOSING: Duration = Duration::from_millis(50);
/// A rewriting has ended when nothing has happened to the file for this time, if it was not closed, or if the
/// rewriting may last.
const QUIET: Duration = Duration::from_millis(500);
/// A rewriting that does not end is reported after this time.
const LONG: Duration = Duration::from_secs(2);
/// If the same writer changes the same file again within this time after a rewriting, the changes may be a rewriting that
/// lasts, whether the writer closes the file in between or not.
const SOON: Duration = Duration::from_secs(1);
/// The most rewritings that are kept at a time, and the most that are remembered after their end.
const MOST: usize = 4096;
/// The most processes that are kept with the rewritings, each of which takes some 60 bytes: while this number is
/// reached, no new rewriting is noted.
const MOST_MAPPERS: usize = 1 << 18;

/// The facts that are known when a rewriting begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The file, as `/proc/PID/maps` shows it.
    pub id: FileId,
    /// Its path.
    pub path: Vec<u8>,
    /// The process that writes to it.
    pub writer: Writer,
    /// The processes that map it.
    pub mappers: Vec<Mapper>,
}

/// The changes that one writer has made to one file.
#[derive(Clone, Debug)]
pub struct Rewriting {
    /// The file.
    pub inode: Inode,
    /// When it began; when it ended, if it was reported before that.
    pub time: SystemTime,
    /// When it began, in clock ticks since the machine was started.
    pub ticks: u64,
    /// The facts that were known at its beginning.
    pub beginning: Beginning,
    /// True if it goes on.
    pub is_ongoing: bool,
    id: WriterId,
    first: Instant,
    last: Instant,
    last_time: SystemTime,
    is_closed: bool,
    /// The time without events after which it has ended, if the file was closed.
    quiet: Duration,
    is_told: bool,
}

/// The rewritings that have not ended.
#[derive(Default)]
pub struct Rewrites {
    current: HashMap<Inode, Vec<Rewriting>>,
    /// Those that have ended, and when.
    recent: HashMap<(Inode, WriterId), Instant>,
    count: usize,
    /// The number of processes in `current`.
    mappers: usize,
    untracked: u64,
    overflows: u64,
}

impl Rewrites {
    /// Notes a change. If it is the first of a rewriting, calls `begin`, which returns `None` if that is not to be
    /// reported. Returns whether something may be due earlier than before.
    pub fn note(&mut self, change: &FileChange, now: Instant, begin: impl FnOnce() -> Option<Beginning>) -> bool {
        let mut is_news = change.is_closed;
        let of_file = self.current.entry(change.inode).or_default();
        if change.is_closed {
            // Whoever closes it last, which may be another process with the same descriptor.
            for rewriting in of_file.iter_mut() {
                rewriting.is_closed = true;
            }
        }
        if let Some(known) = of_file.iter_mut().find(|rewriting| rewriting.id == change.writer) {
            known.last = now;
            known.last_time = SystemTime::now();
            // Written to again after it was closed, it is not closed any more.
            known.is_closed = change.is_closed;
        } else if change.is_modified {
            is_news = true;
            if self.count >= MOST || self.mappers >= MOST_MAPPERS {
                self.untracked += 1;
            } else if let Some(beginning) = begin() {
                self.count += 1;
                self.mappers += beginning.mappers.len();
                let recent = self.recent.get(&(change.inode, change.writer));
                let is_soon = recent.is_some_and(|ended| now.duration_since(*ended) < SOON);
                of_file.push(Rewriting {
                    inode: change.inode,
                    time: SystemTime::now(),
                    ticks: ticks(),
                    beginning,
                    is_ongoing: false,
                    id: change.writer,
                    first: now,
                    last: now,
                    last_time: SystemTime::now(),
                    is_closed: change.is_closed,
                    quiet: if is_soon { QUIET } else { QUIET_AFTER_CLOSING },
                    is_told: false,
                });
            }
        }
        if of_file.is_empty() {
            self.current.remove(&change.inode);
        }
        is_news
    }

    /// Notes that the kernel has lost events.
    pub fn note_overflow(&mut self) {
        self.overflows += 1;
    }

    /// Returns how often the kernel has lost events, and begins to count anew.
    pub fn take_overflows(&mut self) -> u64 {
        std::mem::take(&mut self.overflows)
    }

    /// Takes the rewritings that have ended, and those that last long, once.
    pub fn take_due(&mut self, now: Instant) -> Vec<Rewriting> {
        let mut due = Vec::new();
        let recent = &mut self.recent;
        recent.retain(|_, ended| now.duration_since(*ended) < SOON);
        self.current.retain(|_, of_file| {
            of_file.retain_mut(|rewriting| {
                if now >= rewriting.end() {
                    // One that was reported before is reported again at its end.
                    let time = if rewriting.is_told { rewriting.last_time } else { rewriting.time };
                    due.push(Rewriting { time, ..rewriting.clone() });
                    if recent.len() < MOST {
                        recent.insert((rewriting.inode, rewriting.id), rewriting.last);
                    }
                    return false;
                }
                if !rewriting.is_told && now >= rewriting.first + LONG {
                    (rewriting.is_told, rewriting.quiet) = (true, QUIET);
                    due.push(Rewriting { is_ongoing: true, ..rewriting.clone() });
                }
                true
            });
            !of_file.is_empty()
        });
        self.count = self.current.values().map(Vec::len).sum();
        self.mappers = self.current.values().flatten().map(|rewriting| rewriting.beginning.mappers.len()).sum();
        due.sort_by_key(|rewriting| rewriting.time);
        due
    }

    /// Returns when the next one may be due.
    pub fn next_due(&self) -> Option<Instant> {
        self.current.values().flatten().map(Rewriting::next).min()
    }

    /// Returns the number of changes that were not noted because too many rewritings were going on, and begins
    /// to count anew.
    pub fn take_untracked(&mut self) -> u64 {
        std::mem::take(&mut self.untracked)
    }
}

impl Rewriting {
    fn end(&self) -> Instant {
        self.last + if self.is_closed { self.quiet } else { QUIET }
    }

    fn next(&self) -> Instant {
        if self.is_told { self.end() } else { self.end().min(self.first + LONG) }
    }
}

/// Returns the time since the machine was started, in clock ticks, as `/proc/PID/stat` has it.
fn ticks() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let of_second = rustix::param::clock_ticks_per_second().max(1);
    seconds * of_second + nanoseconds * of_second / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Inode = Inode { device: 1, number: 2 };

    fn change(writer: u32, is_modified: bool, is_closed: bool) -> FileChange {
        FileChange { inode: FILE, writer: WriterId::Process(writer), is_modified, is_closed }
    }

    #[allow(clippy::unnecessary_wraps, reason = "as what it stands for")]
    fn begin(pid: u32) -> Option<Beginning> {
        let writer = Writer { pid: Some(pid), ..Writer::default() };
        Some(Beginning { id: FileId::default(), path: Vec::new(), writer, mappers: Vec::new() })
    }

    fn pids(due: &[Rewriting]) -> Vec<(u32, bool)> {
        due.iter().map(|rewriting| (rewriting.beginning.writer.pid.unwrap(), rewriting.is_ongoing)).collect()
    }

    #[test]
    fn one_writer_and_one_file_are_one_rewriting() {
        let (mut rewrites, start) = (Rewrites::default(), Instant::now());
        let mut begun = 0;
        for millisecond in 0..300 {
            let now = start + Duration::from_millis(millisecond);
            rewrites.note(&change(7, true, false), now, || {
                begun += 1;
                begin(7)
            });
            assert!(rewrites.take_due(now).is_empty());
        }
        let closed = start + Duration::from_millis(300);
        rewrites.note(&change(7, false, true), closed, || panic!("it is known"));
        assert_eq!(rewrites.next_due(), Some(closed + QUIET_AFTER_CLOSING));
        assert!(rewrites.take_due(closed + QUIET_AFTER_CLOSING / 2).is_empty());
        assert_eq!(pids(&rewrites.take_due(closed + QUIET_AFTER_CLOSING)), [(7, false)]);
        assert_eq!((begun, rewrites.next_due(), rewrites.count), (1, None, 0));
    }

    #[test]
    fn a_change_without_closing_ends_by_itself() {
        let (mut rewrites, start) = (Rewrites::default(), Instant::now());
        rewrites.note(&change(7, true, false), start, || begin(7));
        rewrites.note(&change(8, true, false), start, || begin(8));
        assert!(rewrites.take_due(start + QUIET / 2).is_empty());
        // Another process closes it, with a descriptor that one of them has given to it.
        rewrites.note(&change(9, false, true), start, || panic!("nothing was written"));
        assert_eq!(rewrites.take_due(start + QUIET / 2).len(), 2);
        rewrites.note(&change(7, true, false), start, || begin(7));
        assert_eq!(pids(&rewrites.take_due(start + QUIET)), [(7, false)]);
    }

    #[test]
    fn opening_and_closing_is_no_rewriting() {
        let (mut rewrites, now) = (Rewrites::default(), Instant::now());
        rewrites.note(&change(7, false, true), now, || panic!("nothing was written"));
        rewrites.note(&change(7, true, true), now, || None);
        assert_eq!((rewrites.next_due(), rewrites.current.len()), (None, 0));
    }

    #[test]
    fn one_that_does_not_end_is_reported_once_and_at_its_end() {
        let (mut rewrites, start) = (Rewrites::default(), Instant::now());
        let mut reported = Vec::new();
        for step in 0..1000 {
            let now = start + Duration::from_millis(10 * step);
            reported.extend(pids(&rewrites.take_due(now)));
            // It opens and closes the file all the time.
            rewrites.note(&change(7, true, true), now, || begin(7));
        }
        assert_eq!(reported, [(7, true)]);
        assert_eq!(pids(&rewrites.take_due(start + Duration::from_secs(11))), [(7, false)]);
    }

    /// It opens and closes the file ten times in a second.
    #[test]
    fn repeated_rewritings_become_one() {
        let (mut rewrites, start) = (Rewrites::default(), Instant::now());
        let mut reported = Vec::new();
        for step in 0..1000 {
            let now = start + Duration::from_millis(10 * step);
            if step % 10 == 0 {
                rewrites.note(&change(7, true, true), now, || begin(7));
            }
            reported.extend(pids(&rewrites.take_due(now)));
        }
        reported.extend(pids(&rewrites.take_due(start + Duration::from_secs(11))));
        assert_eq!(reported, [(7, false), (7, true), (7, false)]);
        assert_eq!(rewrites.take_due(start + Duration::from_secs(20)).len() + rewrites.recent.len(), 0);
    }

    #[test]
    fn the_number_is_bounded() {
        let (mut rewrites, now) = (Rewrites::default(), Instant::now());
        for pid in (0..2 * MOST).map(|pid| u32::try_from(pid).unwrap()) {
            rewrites.note(&change(pid, true, true), now, || begin(pid));
        }
        assert_eq!((rewrites.count, rewrites.take_untracked()), (MOST, MOST as u64));
        assert_eq!(rewrites.take_due(now + QUIET).len(), MOST);
        assert_eq!((rewrites.count, rewrites.take_untracked()), (0, 0));
    }

    #[test]
    fn the_number_of_processes_is_bounded() {
        let (mut rewrites, now) = (Rewrites::default(), Instant::now());
        let mapper = Mapper { pid: 1, start: 2, name: String::new() };
        let of_many = || begin(1).map(|begun| Beginning { mappers: vec![mapper.clone(); MOST_MAPPERS / 2], ..begun });
        for pid in 0..5 {
            rewrites.note(&change(pid, true, true), now, of_many);
        }
        assert_eq!((rewrites.count, rewrites.take_untracked()), (2, 3));
        assert_eq!(rewrites.take_due(now + QUIET).len(), 2);
        rewrites.note(&change(9, true, true), now, of_many);
        assert_eq!((rewrites.count, rewrites.take_untracked()), (1, 0));
    }
}
