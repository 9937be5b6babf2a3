//! A process cannot make the command read or copy without end.

use std::path::Path;
use std::process::Command;

use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::memory::{self, Scene};
use crate::subject::{Subject, passed};
use crate::{Case, Run, patience, states, tasks};

/// The pages of an object of 16 GiB, if they have 4 KiB.
const LARGE: &str = "4194304";
/// How the report says that a copy does not fit.
const LIMITED: &str = "SOPIN_PRIVATE_LIMIT";

pub fn cases() -> Vec<Case> {
    vec![
        // It has the command's instructions in its own code, and above it a terabyte that can be executed.
        Case::new("bounds::sparse_code", |run, own| {
            states::statically_linked(run, own, &["threads", "1", "sparse_code"])
        }),
        Case::new("bounds::copies_of_one_pin", copies_of_one_pin).with_needs(&["arch:x86_64"]),
        Case::new("bounds::copies_of_several_pins", copies_of_several_pins).with_needs(&["arch:x86_64"]),
        Case::new("bounds::large_object", |run, own| left_whole(run, own, &[LARGE], "it is larger than 8 GiB")),
        Case::new("bounds::many_mappings", |run, own| {
            left_whole(run, own, &["3000", "split"], "its text has too many mappings")
        }),
        Case::new("bounds::no_descriptors", no_descriptors).with_needs(&["root", "cmd:setpriv"]),
    ]
}

/// An object of a sparse file is left, whose text has so many pages and is as these words say.
fn left_whole(run: &Run, directory: &Path, words: &[&str], reason: &str) -> Result<(), String> {
    let file = directory.join("sparse.so");
    let mut zero = Command::new(run.built("zero"));
    zero.arg(&file).args(words);
    let log = directory.join("zero.log");
    let mut process = Dialogue::start(&mut zero, &log, patience()).map_err(|error| error.to_string())?;
    process.wait_for("ready", 1)?;
    let scene = Scene::of(process.id())?;
    let pin = command::pin(process.id(), directory)?;
    tasks::none_is_traced(process.id())?;
    scene.is_still(process.id()).map_err(|wrong| pin.describe(&wrong))?;
    let is_it = |object: &serde_json::Value| object["path"].as_str().is_some_and(|path| Path::new(path) == file);
    let left = pin.objects()?.iter().find(|object| is_it(object));
    if !left.is_some_and(|left| left["reason"].as_str().is_some_and(|found| found.starts_with(reason))) {
        return Err(pin.describe(&format!("has to leave {}: {reason}", file.display())));
    }
    passed(&process.finish()?)
}

/// Starts a host with libraries with text relocations, of which this many are loaded.
fn with_text_relocations(run: &Run, directory: &Path, libraries: usize) -> Result<Subject, String> {
    let host = Command::new(run.built("host"));
    let mut subject = Subject::start_with(host, &run.built("libtext_relocations.so"), directory, &["threads", "1"])?;
    for _ in 1..libraries {
        subject.load()?;
    }
    Ok(subject)
}

/// Pins the libraries with this limit, and returns how many were left because of it.
fn left_by_limit(subject: &Subject, directory: &Path, limit: u64) -> Result<usize, String> {
    let mut command = command::pin_command(subject.id(), directory)?;
    // Only the libraries, because there are copies in memory of what the store does not take, too.
    command.env("SOPIN_ONLY", "*/lib?.so").env("SOPIN_PRIVATE_LIMIT", limit.to_string());
    let pin = command::run(&mut command, directory)?;
    tasks::none_is_traced(subject.id())?;
    let left: Vec<_> = pin.objects()?.iter().filter(|object| object["after"] != "full").collect();
    let is_limited = |reason: Option<&str>| reason.is_some_and(|reason| reason.contains(LIMITED));
    if !left.iter().all(|object| is_limited(object["reason"].as_str())) {
        return Err(pin.describe("left an object for another reason"));
    }
    Ok(left.len())
}

/// Returns the bytes of the copies in memory that a process maps.
fn copied(pid: u32) -> Result<u64, String> {
    let is_copy = |vma: &&memory::Vma| vma.path.starts_with("/memfd:sopin:");
    Ok(memory::mappings(pid)?.iter().filter(is_copy).map(|vma| vma.end - vma.start).sum())
}

/// Returns the bytes of the copy of one library.
fn of_one(run: &Run, directory: &Path) -> Result<u64, String> {
    let subject = with_text_relocations(run, directory, 1)?;
    left_by_limit(&subject, directory, 1 << 30)?;
    let bytes = copied(subject.id())?;
    subject.truncate_and_stop()?;
    if bytes == 0 { Err("relocated text was not copied to memory".to_owned()) } else { Ok(bytes) }
}

fn copies_of_one_pin(run: &Run, directory: &Path) -> Result<(), String> {
    let one = of_one(run, &directory.join("one"))?;
    for (limit, left) in [(0, 3), (one - 1, 3), (2 * one, 1), (3 * one, 0)] {
        let own = directory.join(limit.to_string());
        let subject = with_text_relocations(run, &own, 3)?;
        let found = left_by_limit(&subject, &own, limit)?;
        let bytes = copied(subject.id())?;
        if found != left || bytes != (3 - left as u64) * one {
            return Err(format!("limit {limit}: left {found} libraries, not {left}, and made copies of {bytes} bytes"));
        }
        if left == 0 { subject.truncate_and_stop()? } else { subject.stop()? }
    }
    Ok(())
}

/// Copies that earlier pins have made count, too.
fn copies_of_several_pins(run: &Run, directory: &Path) -> Result<(), String> {
    let one = of_one(run, &directory.join("one"))?;
    let own = directory.join("two");
    let mut subject = with_text_relocations(run, &own, 1)?;
    let first = left_by_limit(&subject, &own, one)?;
    subject.load()?;
    let second = left_by_limit(&subject, &own, 2 * one - 1)?;
    let third = left_by_limit(&subject, &own, 2 * one)?;
    if (first, second, third) != (0, 1, 0) {
        return Err(format!("left {first}, {second} and {third} libraries, not 0, 1 and 0"));
    }
    subject.truncate_and_stop()
}

/// Ranges that need no file are pinned although no descriptor can be passed.
fn no_descriptors(run: &Run, directory: &Path) -> Result<(), String> {
    let mut host = Command::new("setpriv");
    host.args(states::AS_NOBODY).arg("--").arg(run.built("host"));
    let subject = Subject::start_by(host, run, directory, &["threads", "1", "nofile_hard"])?;
    let scene = Scene::of(subject.id())?;
    let pin = command::run(&mut states::with_privileges(subject.id(), directory, &states::AS_NOBODY)?, directory)?;
    tasks::none_is_traced(subject.id())?;
    scene.is_still(subject.id()).map_err(|wrong| pin.describe(&wrong))?;
    has_relocated_ranges_pinned(&pin)?;
    subject.stop()
}

fn has_relocated_ranges_pinned(pin: &Pin) -> Result<(), String> {
    let is_right = |object: &serde_json::Value| {
        object["after"] == "relocated"
            && object["reason"].as_str().is_some_and(|reason| reason.starts_with("pass a descriptor: "))
    };
    if !pin.objects()?.iter().all(is_right) || pin.objects()?.is_empty() {
        return Err(pin.describe("has to pin what needs no descriptor"));
    }
    Ok(())
}
