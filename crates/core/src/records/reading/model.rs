//! How a reader sees the stores of a writer, in every order that the memory model allows
//! (loom). The stores and loads of records, which are plain data, are relaxed ones here, and
//! a reader reads the words of a header in any order.

use loom::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use super::*;
use crate::records::{SequenceNumber, begin_change, end_change};

impl SequenceNumber for AtomicU64 {
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    fn store(&self, number: u64, ordering: Ordering) {
        self.store(number, ordering);
    }

    fn fence(ordering: Ordering) {
        fence(ordering);
    }
}

/// The words that the library publishes, and one record of two words, in an array whose
/// address changes with the record.
struct Published {
    sequence: AtomicU64,
    address: AtomicU64,
    record: [AtomicU64; 2],
}

impl Published {
    /// Changes everything from 0 to 1.
    fn change(&self, begin: fn(&AtomicU64) -> u64) {
        let next = begin(&self.sequence);
        for word in &self.record {
            word.store(1, Ordering::Relaxed);
        }
        self.address.store(1, Ordering::Relaxed);
        end_change(&self.sequence, next);
    }

    fn header(&self) -> Seen {
        Seen {
            mode: None,
            records: self.address.load(Ordering::Relaxed),
            sequence: self.sequence.load(Ordering::Relaxed),
            count: 1,
            record_size: RECORD_SIZE,
            library_version: [0; 16],
        }
    }
}

/// Reads while another thread changes everything. `is_left_out` returns for each of the
/// reader's fences whether it is missing.
fn reads_during_a_change(attempts: usize, begin: fn(&AtomicU64) -> u64, is_left_out: fn(usize) -> bool) {
    model(move || {
        let published = Arc::new(Published {
            sequence: AtomicU64::new(0),
            address: AtomicU64::new(0),
            record: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let writer = {
            let published = published.clone();
            thread::spawn(move || published.change(begin))
        };
        let mut fences = 0;
        let acquire = || {
            if !is_left_out(fences) {
                fence(Ordering::Acquire);
            }
            fences += 1;
        };
        let record = |_: &Seen| Ok::<_, ()>([0, 1].map(|index| published.record[index].load(Ordering::Relaxed)));
        let (seen, record, consistency) = read_between(attempts, || Ok(published.header()), record, acquire).unwrap();
        if consistency == Consistency::Consistent {
            assert_eq!((record, seen.records), ([seen.sequence / 2; 2], seen.sequence / 2), "torn");
        }
        writer.join().unwrap();
    });
}

const ALL_FENCES: fn(usize) -> bool = |_| false;

#[test]
fn what_counts_as_consistent_is_old_or_new() {
    reads_during_a_change(1, begin_change, ALL_FENCES);
    reads_during_a_change(2, begin_change, ALL_FENCES);
}

#[test]
#[should_panic(expected = "torn")]
fn records_may_be_older_than_the_header_without_the_first_fence() {
    reads_during_a_change(1, begin_change, |fence| fence == 0);
}

#[test]
#[should_panic(expected = "torn")]
fn records_may_be_newer_than_the_header_without_the_second_fence() {
    reads_during_a_change(1, begin_change, |fence| fence == 1);
}

#[test]
#[should_panic(expected = "torn")]
fn records_may_be_newer_than_the_header_without_the_writers_fence() {
    let unfenced = |sequence: &AtomicU64| {
        let odd = sequence.load(Ordering::Relaxed) | 1;
        sequence.store(odd, Ordering::Relaxed);
        odd + 1
    };
    reads_during_a_change(1, unfenced, ALL_FENCES);
}
