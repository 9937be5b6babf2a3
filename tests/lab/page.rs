//! Renders the page about the effects of resets, docs/power-loss.md.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::machine::Strike;
use crate::resets::{Copies, Kind, Moment, Order, Programs, Reset};

const HEAD: &str = "\
# Power loss

`make resets` makes this page. It resets a machine in QEMU while programs fill stores on an ext4, boots the machine again
from the same disk, and runs every program again that ran before. Each program loads 40 libraries, compares what is mapped
of every object with the object's file, byte by byte, and computes with each library.

";

const LEGEND: &str = "
- *sysrq*: the guest's kernel resets the machine at once. *killed*: the emulator is killed.
- *staged*: the test arranges the worst case. The journal was committed before the reset, and no data was written back:
  names and sizes of the copies are on the disk, their bytes are not. The reset and the file system are real; the run
  fails unless a file beside the store that was never flushed has lost its bytes.
- The other resets strike at a random moment, 0.5 to 8 seconds after programs began to fill the store.
- *ordered*: ext4 as it is mounted by default, except that the journal is committed each second (`commit=1`).
  *unordered*: with `nodelalloc,data=writeback`. The kernel writes data back after a second instead of 30.
- *copies*: entries found on the disk after the reset. *short*: not of the origin's size. *zeros*: of the right size, and
  every wrong byte is 0. *other*: of the right size, with bytes of another file.
- *damaged after*: copies that were still wrong when every program had run again.
- *programs*: runs of programs while the store was filled, and again after the reset. *dead*: programs without a result.
  *wrong bytes*: the number of wrong bytes among all mapped bytes.

A reset loses what the guest had not handed to its disk. The test does not cover a disk that loses what it has confirmed,
or writes half a sector.
";

/// Measured once, with the library of the day before; `SOPIN_TEST_LIBRARY` repeats it.
const BEFORE: &str = "
## Before copies were compared

An earlier library believed every copy of the right size. The same machines gave these results with it. The test emptied
a damaged store before the next reset; `SOPIN_TEST_LIBRARY` names the library to try:

| reset | file system | resets | copies | short | zeros | other | damaged after | programs | dead | wrong bytes |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| staged, sysrq | unordered | 1 | 164 | 0 | 164 | 0 | 164 | 8 | 4 | 0 |
| sysrq | unordered | 1 | 483 | 0 | 0 | 0 | 0 | 20 | 0 | 0 |
| sysrq | ordered | 2 | 488 | 0 | 0 | 0 | 0 | 37 | 0 | 0 |
| killed | unordered | 2 | 593 | 0 | 58 | 0 | 58 | 30 | 2 | 0 |
| killed | ordered | 1 | 463 | 59 | 0 | 0 | 0 | 20 | 0 | 0 |
";

pub fn render(resets: &[Reset], kernel: &str) -> String {
    let mut kinds: BTreeMap<Kind, Vec<&Reset>> = BTreeMap::new();
    for reset in resets {
        kinds.entry(reset.kind).or_default().push(reset);
    }
    let mut page = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{} resets, Linux {kernel} in the machine.\n", resets.len());
    page.push_str("| reset | file system | resets | copies | short | zeros | other | damaged after |");
    page.push_str(" programs | dead | wrong bytes |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (kind, resets) in &kinds {
        line(&mut page, how(*kind), on(kind.order), resets);
    }
    line(&mut page, "all", "", &resets.iter().collect::<Vec<_>>());
    page.push_str(LEGEND);
    page.push_str(BEFORE);
    page
}

fn how(kind: Kind) -> &'static str {
    match (kind.moment, kind.strike) {
        (Moment::Staged, Strike::SysRq) => "staged, sysrq",
        (Moment::Staged, Strike::Kill) => "staged, killed",
        (Moment::Random, Strike::SysRq) => "sysrq",
        (Moment::Random, Strike::Kill) => "killed",
    }
}

fn on(order: Order) -> &'static str {
    match order {
        Order::Default => "ordered",
        Order::Unordered => "unordered",
    }
}

fn line(page: &mut String, how: &str, on: &str, resets: &[&Reset]) {
    let copies = |number: fn(&Copies) -> u64| resets.iter().map(|reset| number(&reset.found)).sum::<u64>();
    let programs = |number: fn(&Programs) -> u64| resets.iter().map(|reset| number(&reset.programs)).sum::<u64>();
    let _ = writeln!(
        page,
        "| {how} | {on} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        resets.len(),
        copies(|copies| copies.all),
        copies(|copies| copies.short),
        copies(|copies| copies.zeros),
        copies(|copies| copies.other),
        resets.iter().map(|reset| reset.left.damaged()).sum::<u64>(),
        programs(|programs| programs.all),
        programs(|programs| programs.dead),
        programs(|programs| programs.bytes),
    );
}
