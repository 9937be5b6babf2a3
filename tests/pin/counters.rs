//! No store is lost while threads, and the handler of a signal, store to the pages that a pin
//! replaces.

use std::path::Path;

use crate::common::process::Outcome;
use crate::subject::Subject;
use crate::{Case, Run, pins};

/// The exit status of a host that has lost a store.
const LOST: Outcome = Outcome::Exit(8);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("counters::threads", |run, directory| pin_often(run, directory, &["threads", "4"])),
        // Where an older kernel shows no restartable sequences, a process is refused in whose handler the
        // only thread is that is in system calls otherwise.
        Case::new("counters::signal", |run, directory| pin_often(run, directory, &["alarm", "threads", "1"]))
            .with_needs(&["kernel>=5.13"]),
        Case::new("counters::signal_alone", |run, directory| pin_often(run, directory, &["alarm"]))
            .with_needs(&["kernel>=5.13"]),
        Case::new("counters::control", control),
    ]
}

/// Pins once for each of many libraries, to which the threads begin to store when it is loaded.
fn pin_often(run: &Run, directory: &Path, words: &[&str]) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, words)?;
    for round in 0..pins(25) {
        if round != 0 {
            subject.load()?;
        }
        let pin = subject.pin()?;
        pin.is_whole()?;
        let newest = subject.newest().to_string_lossy().into_owned();
        if !pin.objects()?.iter().any(|object| object["path"] == newest) {
            return Err(pin.describe(&format!("did not find {newest}")));
        }
    }
    subject.is_out_of_reach()?;
    subject.truncate_and_stop()
}

/// The counters notice pages that are replaced while the threads store to them.
fn control(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "4"])?;
    for _ in 0..10 {
        subject.say("replace", "replaced")?;
    }
    let finished = subject.finish()?;
    if finished.outcome == LOST { Ok(()) } else { Err(format!("no store was lost; the process {finished}")) }
}
