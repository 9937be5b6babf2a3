//! A process is stopped at a moment at which that does no harm, if there is one soon: just after a call
//! has begun whose timeout would begin anew, and not within a transfer. What a stop has done all the
//! same is in the report.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::command::Pin;
use crate::subject::{Subject, passed};
use crate::{Case, Random, Run, pins};

/// How often a trial pins. Load of the machine can make a stop late, but seldom each third one. By
/// chance a stop seldom comes at a good moment.
const PINS: usize = 6;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("moments::timeout", timeout),
        Case::new("moments::timeout_longer_than_the_patience", timeout_control),
        Case::new("moments::transfer", transfer),
    ]
}

/// Pins a library that is loaded meanwhile, several times.
fn pin_often(subject: &mut Subject, often: usize) -> Result<Vec<Pin>, String> {
    let (mut made, mut random) = (Vec::new(), Random::new());
    for round in 0..often {
        if round != 0 {
            subject.load()?;
        }
        // Nothing of the program is in step with the pins.
        thread::sleep(Duration::from_millis(random.below(150)));
        made.push(subject.pin_whole()?);
    }
    Ok(made)
}

/// Returns how many pins have this number in their reports.
fn count(pins: &[Pin], name: &str, wanted: impl Fn(&Pin, u64) -> Result<bool, String>) -> Result<usize, String> {
    let mut count = 0;
    for pin in pins {
        count += usize::from(wanted(pin, pin.number(name)?)?);
    }
    Ok(count)
}

/// Checks that this number is zero in the reports of two thirds of the pins.
fn most_are_zero(pins: &[Pin], name: &str) -> Result<(), String> {
    let good = count(pins, name, |_, number| Ok(number == 0))?;
    if 3 * good < 2 * pins.len() {
        return Err(format!("only {good} of {} pins came at a good moment: {pins:?}", pins.len()));
    }
    Ok(())
}

/// A thread waits for 50 ms again and again. Its call is interrupted, and none of its timeouts has to
/// begin anew.
fn timeout(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["ticks"])?;
    let made = pin_often(&mut subject, pins(PINS))?;
    if count(&made, "calls_repaired", |_, number| Ok(number != 0))? == 0 {
        return Err(format!("no call was interrupted: {made:?}"));
    }
    most_are_zero(&made, "timeouts_restarted")?;
    subject.truncate_and_stop()
}

/// A thread waits for a minute. There is no good moment, and each stop is counted.
fn timeout_control(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["sleeps"])?;
    let made = pin_often(&mut subject, 2)?;
    if count(&made, "timeouts_restarted", |pin, number| Ok(number == pin.number("stops")?))? != made.len() {
        return Err(format!("each stop has to make the timeout begin anew: {made:?}"));
    }
    subject.truncate_and_stop()
}

/// A thread is in a transfer five sixths of the time. Those that are cut short are those that are
/// reported.
fn transfer(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["writes"])?;
    let made = pin_often(&mut subject, pins(PINS))?;
    most_are_zero(&made, "transfers_cut_short")?;
    let mut reported = 0;
    for pin in &made {
        reported += pin.number("transfers_cut_short")?;
    }
    subject.truncate()?;
    let finished = subject.finish()?;
    passed(&finished)?;
    if !finished.stdout.lines().any(|line| line == format!("parts {reported}")) {
        return Err(format!("{reported} transfers were reported to be cut short: {finished}"));
    }
    Ok(())
}
