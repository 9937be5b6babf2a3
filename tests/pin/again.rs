//! Further pins find only what is still exposed; children have the pins; a process that has the
//! library is asked for what it has pinned.

use std::path::Path;
use std::process::Command;

use crate::command;
use crate::common::library;
use crate::common::process::Outcome;
use crate::common::protection;
use crate::common::ring;
use crate::memory::Scene;
use crate::subject::Subject;
use crate::{Case, Run};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("again::second_pin_does_nothing", second_pin_does_nothing),
        Case::new("again::later_load_is_covered_by_the_next_pin", later_load),
        Case::new("again::children_have_the_pins", children),
        Case::new("again::pinned_object_is_unloaded", unloaded),
        Case::new("again::process_has_the_library", has_library),
        Case::new("again::process_has_loaded_the_library_late", has_loaded_late).with_needs(&["io_uring"]),
    ]
}

fn second_pin_does_nothing(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "2"])?;
    let all = subject.pin_whole()?.number("objects_in_all")?;
    let scene = Scene::of(subject.id())?;
    let second = subject.pin()?;
    if second.outcome != Outcome::Exit(0) || !second.objects()?.is_empty() || second.number("stops")? != 0 {
        return Err(second.describe("has something to do"));
    }
    if second.number("objects_in_all")? != all {
        return Err(second.describe(&format!("saw {all} objects before")));
    }
    scene.is_still(subject.id())?;
    subject.truncate_and_stop()
}

fn later_load(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "2"])?;
    subject.pin_whole()?;
    is_all_full(&subject)?;
    subject.load()?;
    let (status, outcome) = command::status(subject.id(), directory)?;
    if outcome != Outcome::Exit(1) || status["exposed"] != 1 {
        return Err(format!("sopin status has to show one exposed object: {outcome}\n{status:#}"));
    }
    let pin = subject.pin_whole()?;
    let [only] = pin.objects()? else { return Err(pin.describe("has to pin one object")) };
    if only["path"] != *subject.newest().to_string_lossy() || only["before"] != "exposed" {
        return Err(pin.describe("pinned another object"));
    }
    is_all_full(&subject)?;
    subject.truncate_and_stop()
}

/// Checks that `sopin status` accounts for what was pinned from outside.
fn is_all_full(subject: &Subject) -> Result<(), String> {
    let (status, outcome) = command::status(subject.id(), &subject.directory)?;
    let is_full = status["exposed"] == 0 && status["relocated"] == 0 && status["damaged"] == 0;
    if is_full && outcome == Outcome::Exit(0) {
        return Ok(());
    }
    Err(format!("sopin status does not say full: {outcome}\n{status:#}"))
}

fn children(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "1"])?;
    subject.pin_whole()?;
    subject.truncate()?;
    subject.say("fork", "forked")?;
    subject.stop()?;
    // The child of a process that is not pinned dies.
    let mut control = Subject::start(run, &directory.join("control"), &[])?;
    control.say("fork", "forked")?;
    control.truncate()?;
    match control.say("fork", "forked") {
        Err(_) => Ok(()),
        Ok(()) => Err("the child of a process that is not pinned has to die".to_owned()),
    }
}

/// A pinned object is unloaded and another one loaded, perhaps at the same addresses.
fn unloaded(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &[])?;
    subject.load()?;
    subject.pin_whole()?;
    for _ in 0..3 {
        subject.say("unload", "unloaded")?;
        subject.say("call", "called")?;
        subject.load()?;
        subject.say("call", "called")?;
        subject.pin_whole()?;
    }
    is_all_full(&subject)?;
    subject.truncate_and_stop()
}

/// The library was told to leave an object. Only that is pinned, and its record says so.
fn has_library(run: &Run, directory: &Path) -> Result<(), String> {
    let mut host = Command::new(run.built("host"));
    protection::forget_settings(&mut host);
    host.env("LD_PRELOAD", library::path()?).env("SOPIN_STORE", directory.join("store")).env("SOPIN_MODE", "full");
    host.env("SOPIN_EXCLUDE", "*/lib0.so");
    let mut subject = Subject::start_by(host, run, directory, &["threads", "2"])?;
    let (status, outcome) = command::status(subject.id(), directory)?;
    if outcome != Outcome::Exit(1) || status["exposed"] != 1 {
        return Err(format!("one object has to be exposed: {outcome}\n{status:#}"));
    }
    let pin = subject.pin_whole()?;
    let [only] = pin.objects()? else { return Err(pin.describe("has to pin one object")) };
    if only["path"] != *subject.newest().to_string_lossy() || pin.process()?["has_library"] != true {
        return Err(pin.describe("pinned another object"));
    }
    is_all_full(&subject)?;
    is_recorded(&mut subject)?;
    subject.load()?;
    is_recorded(&mut subject)?;
    subject.truncate_and_stop()
}

/// Checks that the library has recorded every object as pinned.
fn is_recorded(subject: &mut Subject) -> Result<(), String> {
    let line = format!("recorded {}", subject.newest().display());
    subject.say(&line, "checked")
}

/// Because of the ring the library has left the data of all objects, also its own, in which it has its
/// records.
fn has_loaded_late(run: &Run, directory: &Path) -> Result<(), String> {
    let mut host = Command::new(run.built("host"));
    let _ring = ring::inherited_by(&mut host).map_err(|error| error.to_string())?;
    protection::forget_settings(&mut host);
    host.env("LD_PRELOAD", "").env("SOPIN_STORE", directory.join("store"));
    let mut subject = Subject::start_by(host, run, directory, &["threads", "2"])?;
    subject.say(&format!("late {}", library::path()?.display()), "loaded")?;
    let (status, _) = command::status(subject.id(), directory)?;
    if status["exposed"].as_u64().is_none_or(|exposed| exposed < 4) {
        return Err(format!("the library has to leave every object: {status:#}"));
    }
    subject.pin_whole()?;
    is_all_full(&subject)?;
    is_recorded(&mut subject)?;
    subject.truncate_and_stop()
}
