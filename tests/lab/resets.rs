//! Power loss: a machine is reset while a store is filled, boots again on the same
//! disks, and runs every program again that ran before.
//!
//! A reset loses what the guest had not yet handed to its disk. The first reset is
//! staged: the journal, and with it all names and sizes, is on the disk, but no byte of
//! the copies. A file system without ordered data may write in this order at any time.
//! An unprotected file beside the store must have lost its bytes then; otherwise the
//! reset has lost nothing. The others happen at a random moment.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use crate::common::directives::PASSED;
use crate::common::library;
use crate::console::{Report, report, reports};
use crate::machine::{Disks, Laboratory, Orders, Strike};
use crate::page;

/// The number of versions of the libraries that each boot makes before it reports; see
/// `guest/machine`.
const VERSIONS: usize = 4;

/// The moments of a reset: so many milliseconds after filling began.
const MOMENTS: Range<u64> = 500..8000;

/// The order in which a file system writes, for the page and for mount(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// As ext4 is mounted by default, but with the journal committed each second, so
    /// that resets happen in more of its states.
    Default,
    /// The journal knows sizes at once, and bytes are written at any later time.
    Unordered,
}

impl Order {
    /// Returns the options of mount(8).
    pub fn options(self) -> &'static str {
        match self {
            Self::Default => "commit=1",
            Self::Unordered => "commit=1,nodelalloc,data=writeback",
        }
    }
}

/// The moment of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The moment at which as much as possible is lost.
    Staged,
    /// A moment while programs fill the store.
    Random,
}

/// A kind of reset: one line of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub moment: Moment,
    pub strike: Strike,
    pub order: Order,
}

impl Kind {
    /// Returns the kind of the reset with this number, from 0: the staged one, then all
    /// others in turn.
    fn of(number: usize) -> Self {
        let strike = if number.is_multiple_of(2) { Strike::SysRq } else { Strike::Kill };
        let order = if number.is_multiple_of(4) || number % 4 == 1 { Order::Unordered } else { Order::Default };
        let moment = if number == 0 { Moment::Staged } else { Moment::Random };
        Self { moment, strike, order }
    }
}

/// The copies in a store, compared with their origins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies {
    /// The number of copies.
    pub all: u64,
    /// Copies of another size than the origin.
    pub short: u64,
    /// Copies of the right size whose wrong bytes are all 0.
    pub zeros: u64,
    /// Copies of the right size with other wrong bytes.
    pub other: u64,
}

impl From<&Report> for Copies {
    fn from(report: &Report) -> Self {
        let number = |word| report.number(word);
        let [short, zeros, other] = ["short", "zeros", "other"].map(number);
        Self { all: number("whole") + number("unjudged") + short + zeros + other, short, zeros, other }
    }
}

impl Copies {
    /// Returns the number of copies that differ from their origins.
    pub fn damaged(&self) -> u64 {
        self.short + self.zeros + self.other
    }
}

/// The programs that ran.
#[derive(Clone, Copy, Debug, Default)]
pub struct Programs {
    /// The number of programs.
    pub all: u64,
    /// Programs that did not run to their end.
    pub dead: u64,
    /// Programs that had a wrong result or wrong bytes mapped.
    pub wrong: u64,
    /// The number of wrong bytes.
    pub bytes: u64,
}

impl Programs {
    fn add(&mut self, ran: &[Report]) {
        for program in ran {
            let has_ended = program.has("wrong");
            let is_right = has_ended && program.number("status") == u64::from(PASSED.cast_unsigned());
            self.all += 1;
            self.dead += u64::from(!has_ended);
            self.wrong += u64::from(has_ended && !is_right);
            self.bytes += program.number("wrong");
        }
    }
}

/// The result of one reset.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    pub kind: Kind,
    /// The copies on the disk after it.
    pub found: Copies,
    /// The copies when everything had run again.
    pub left: Copies,
    /// The programs that ran while the store was filled before it, and those that ran
    /// again after it.
    pub programs: Programs,
}

/// Does so many resets, writes `target/lab/resets.md`, and judges.
///
/// # Errors
/// A program that died or had wrong bytes, or a reset that lost nothing.
pub fn run(laboratory: &Laboratory, resets: usize) -> Result<(), String> {
    let disks = laboratory.disks("resets", &[])?;
    let mut done: Vec<Reset> = Vec::new();
    let mut awaiting: Option<(Kind, Programs)> = None;
    let mut kernel = String::new();
    // There is one boot more than resets: the last one only checks.
    for number in 0..=resets {
        let kind = Kind::of(number);
        let is_last = number == resets;
        let said =
            boot(laboratory, &disks, number, kind, is_last).map_err(|error| format!("boot {number}: {error}"))?;
        if let Some((kind, mut programs)) = awaiting.take() {
            let (found, left) = (report(&said, "found")?, report(&said, "left")?);
            let again = reports(&said, "ran-after");
            if again.len() < VERSIONS {
                return Err(format!("boot {number}: not everything was run again\n{said}"));
            }
            programs.add(&again);
            done.push(Reset { kind, found: Copies::from(&found), left: Copies::from(&left), programs });
            if kind.moment == Moment::Staged && Copies::from(&report(&said, "unprotected")?).damaged() == 0 {
                return Err(format!("the reset lost nothing of a file that was never flushed\n{said}"));
            }
        }
        let mut programs = Programs::default();
        programs.add(&reports(&said, "ran-before"));
        awaiting = Some((kind, programs));
        said.lines().find_map(|line| line.strip_prefix("lab: linux ")).unwrap_or_default().clone_into(&mut kernel);
    }
    let written = library::checkout().join("target/lab/resets.md");
    fs::write(&written, page::render(&done, &kernel)).map_err(|error| format!("{}: {error}", written.display()))?;
    judge(&done)
}

/// Boots the machine, and resets it while it fills the store.
fn boot(laboratory: &Laboratory, disks: &Disks, number: usize, kind: Kind, is_last: bool) -> Result<String, String> {
    let task = match kind.moment {
        Moment::Staged => "staged",
        Moment::Random => "resets",
    };
    let orders = Orders { task, round: number + 1, options: kind.order.options() };
    let mut machine = laboratory.boot(disks, orders)?;
    machine.wait_for("filling")?;
    if is_last {
        return machine.end();
    }
    if kind.moment == Moment::Random {
        thread::sleep(random_moment());
    }
    machine.strike(kind.strike)
}

/// Returns a uniformly distributed moment. The standard library's only source of random
/// numbers is the keys of a hash map.
fn random_moment() -> Duration {
    let random = RandomState::new().hash_one(0);
    Duration::from_millis(MOMENTS.start + random % (MOMENTS.end - MOMENTS.start))
}

fn judge(resets: &[Reset]) -> Result<(), String> {
    let wrong: Vec<_> = resets
        .iter()
        .enumerate()
        .filter(|(_, reset)| {
            reset.programs.dead > 0 || reset.programs.wrong > 0 || reset.programs.bytes > 0 || reset.left.damaged() > 0
        })
        .map(|(number, reset)| format!("reset {number}: {reset:?}"))
        .collect();
    if !wrong.is_empty() {
        return Err(format!("programs died, got wrong bytes, or left damaged copies\n{}", wrong.join("\n")));
    }
    if resets.iter().all(|reset| reset.found.all == 0) {
        return Err("no store had a copy after a reset: nothing was tried".to_owned());
    }
    Ok(())
}
