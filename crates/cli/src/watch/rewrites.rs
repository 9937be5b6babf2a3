//! From events to rewritings: all that one writer does to one file until it closes the file, or does nothing
//! more for a while, is one rewriting. Pure: the time is an argument. What is kept has a bound,
//! whatever the writers do.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::events::{Change, WriterId};
use super::index::{Inode, Mapper};
use super::writer::Writer;

/// How long nothing must happen to a file that was closed, and to one that was not, until the rewriting has ended.
const QUIET_AFTER_CLOSING: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(500);
/// When a rewriting that does not end is reported.
const LONG: Duration = Duration::from_secs(2);
/// How many are kept at a time.
const MOST: usize = 4096;

/// What one writer has done to one file.
#[derive(Clone, Debug)]
pub struct Rewriting {
    /// The file.
    pub inode: Inode,
    /// Who has done it.
    pub writer: Writer,
    /// When it began.
    pub time: SystemTime,
    /// The processes that mapped the file then.
    pub mappers: Vec<Mapper>,
    /// Whether it goes on.
    pub is_ongoing: bool,
    id: WriterId,
    first: Instant,
    last: Instant,
    is_modified: bool,
    is_closed: bool,
    is_told: bool,
}

/// The rewritings that have not ended.
#[derive(Default)]
pub struct Rewrites {
    current: HashMap<Inode, Vec<Rewriting>>,
    count: usize,
    untracked: u64,
}

impl Rewrites {
    /// Notes a change. If it is the first of a rewriting, calls `begin` for the writer and the processes
    /// that map the file; without processes there is nothing to report.
    pub fn note(&mut self, change: &Change, now: Instant, begin: impl FnOnce() -> Option<(Writer, Vec<Mapper>)>) {
        let of_file = self.current.entry(change.inode).or_default();
        if change.is_closed {
            // Whoever closes it last, which may be another process with the same descriptor.
            of_file.iter_mut().for_each(|rewriting| rewriting.is_closed = true);
        }
        if let Some(known) = of_file.iter_mut().find(|rewriting| rewriting.id == change.writer) {
            known.last = now;
            known.is_modified |= change.is_modified;
            // Written to again after it was closed, it is not closed any more.
            known.is_closed = change.is_closed;
        } else if change.is_modified {
            if self.count >= MOST {
                self.untracked += 1;
            } else if let Some((writer, mappers)) = begin() {
                self.count += 1;
                of_file.push(Rewriting {
                    inode: change.inode,
                    writer,
                    time: SystemTime::now(),
                    mappers,
                    is_ongoing: false,
                    id: change.writer,
                    first: now,
                    last: now,
                    is_modified: true,
                    is_closed: change.is_closed,
                    is_told: false,
                });
            }
        }
        if of_file.is_empty() {
            self.current.remove(&change.inode);
        }
    }

    /// Takes the rewritings that have ended, and those that last long, once.
    pub fn take_due(&mut self, now: Instant) -> Vec<Rewriting> {
        let mut due = Vec::new();
        self.current.retain(|_, of_file| {
            of_file.retain_mut(|rewriting| {
                if now >= rewriting.end() {
                    due.push(rewriting.clone());
                    return false;
                }
                if !rewriting.is_told && now >= rewriting.first + LONG {
                    rewriting.is_told = true;
                    due.push(Rewriting { is_ongoing: true, ..rewriting.clone() });
                }
                true
            });
            !of_file.is_empty()
        });
        self.count = self.current.values().map(Vec::len).sum();
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
        self.last + if self.is_closed { QUIET_AFTER_CLOSING } else { QUIET }
    }

    fn next(&self) -> Instant {
        if self.is_told { self.end() } else { self.end().min(self.first + LONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Inode = Inode { device: 1, number: 2 };

    fn change(writer: u32, is_modified: bool, is_closed: bool) -> Change {
        Change { inode: FILE, writer: WriterId::Process(writer), is_modified, is_closed }
    }

    fn begin(pid: u32) -> Option<(Writer, Vec<Mapper>)> {
        Some((Writer { pid: Some(pid), ..Writer::default() }, Vec::new()))
    }

    fn pids(due: &[Rewriting]) -> Vec<(u32, bool)> {
        due.iter().map(|rewriting| (rewriting.writer.pid.unwrap(), rewriting.is_ongoing)).collect()
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
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100 * tenth);
            // It opens and closes the file all the time.
            rewrites.note(&change(7, true, true), now, || begin(7));
            reported.extend(pids(&rewrites.take_due(now)));
        }
        assert_eq!(reported, [(7, true)]);
        assert_eq!(pids(&rewrites.take_due(start + Duration::from_secs(11))), [(7, false)]);
    }

    #[test]
    fn the_number_is_bounded() {
        let (mut rewrites, now) = (Rewrites::default(), Instant::now());
        for pid in 0..2 * MOST as u32 {
            rewrites.note(&change(pid, true, true), now, || begin(pid));
        }
        assert_eq!((rewrites.count, rewrites.take_untracked()), (MOST, MOST as u64));
        assert_eq!(rewrites.take_due(now + QUIET).len(), MOST);
        assert_eq!((rewrites.count, rewrites.take_untracked()), (0, 0));
    }
}
