//! The table of calls, errors and outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::calls;
use crate::judge::Effect;

/// Outcomes by scenario, call and error.
#[derive(Default)]
pub struct Summary {
    counts: BTreeMap<(&'static str, &'static str, i32), [usize; 2]>,
}

impl Summary {
    /// Counts one fault.
    pub fn add(&mut self, scenario: &'static str, call: &'static str, error: i32, effect: Effect) {
        self.counts.entry((scenario, call, error)).or_default()[effect as usize] += 1;
    }

    /// Adds the counts of another summary.
    pub fn extend(&mut self, other: Self) {
        self.counts.extend(other.counts);
    }

    /// Returns a sentence with the numbers of what was tried.
    pub fn line(&self) -> String {
        let [nothing, left] = total(self.counts.values());
        let calls: BTreeSet<_> = self.counts.keys().map(|(_, call, _)| call).collect();
        format!(
            "{} faults in {} system calls: {nothing} times the library pinned everything all the same, {left} times it left \
             something and reported it; no fault harmed a host",
            nothing + left,
            calls.len()
        )
    }

    /// Returns the whole table.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| while | call | error | everything pinned all the same | something left, and reported |\n|---|---|---|---|---|\n",
        );
        for ((scenario, call, error), [nothing, left]) in &self.counts {
            let _ = writeln!(table, "| {scenario} | {call} | {} | {nothing} | {left} |", calls::symbol(*error));
        }
        table
    }

    /// Returns the page for docs/, with one row for each call.
    pub fn page(&self) -> String {
        let mut by_call = BTreeMap::<_, (BTreeSet<_>, Vec<_>)>::new();
        for ((_, call, error), counts) in &self.counts {
            let (errors, all) = by_call.entry(call).or_default();
            errors.insert(*error);
            all.push(counts);
        }
        let head = "\
# When system calls fail

The test makes every system call of the library fail, one at a time, at every occurrence, with every error that the call's
manual page lists: at startup, in the early pin, in `dlopen`, `dlmopen` and `dlclose`, around `fork`, while the store is
filled, when the store has every copy already, and with parts of the kernel's interface missing. Each time, the host must
print what it prints without the library, every byte of every segment must be what it was, and the library must report every
object that it left exposed, with the call and the error.

Made by `make faults`, which also writes every row, by call, error and phase, to `target/faults.md`.

";
        let mut page = format!(
            "{head}{}.\n\n| call | errors | everything pinned all the same | something left, and reported |\n|---|---|---|---|\n",
            self.line()
        );
        for (call, (errors, counts)) in by_call {
            let [nothing, left] = total(counts.into_iter());
            let _ = writeln!(page, "| `{call}` | {} | {nothing} | {left} |", errors.len());
        }
        page
    }
}

fn total<'a>(counts: impl Iterator<Item = &'a [usize; 2]>) -> [usize; 2] {
    counts.fold([0, 0], |[nothing, left], [more_nothing, more_left]| [nothing + more_nothing, left + more_left])
}
