//! Writable data to which nothing has stored: its pages are those of the file. A pin maps it from a
//! copy, or makes it memory of the process within a bound.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::command::{self, Pin};
use crate::memory;
use crate::subject::Subject;
use crate::tasks;
use crate::{Case, Run};

/// The bytes of such data in the library.
const DATA: u64 = 8 << 20;
/// More than a process gets of other memory while it is pinned.
const LITTLE: u64 = 2 << 20;
/// How the report says that data does not fit.
const LIMITED: &str = "SOPIN_PRIVATE_LIMIT";
/// The time after which a store takes a file that has changed: it reads whole seconds.
const SETTLED: Duration = Duration::from_millis(3100);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("untouched::mapped_from_the_store", mapped_from_the_store),
        Case::new("untouched::copied_without_a_store", copied_without_a_store),
        Case::new("untouched::left", left),
        Case::new("untouched::copied", copied),
        Case::new("untouched::several_pins", several_pins),
    ]
}

/// Starts a host with the library.
fn start(run: &Run, directory: &Path) -> Result<Subject, String> {
    let host = Command::new(run.built("host"));
    Subject::start_with(host, &run.built("libuntouched.so"), directory, &["threads", "1"])
}

/// Pins the libraries of a host.
fn pin(subject: &Subject, directory: &Path, settings: &[(&str, &str)]) -> Result<Pin, String> {
    let mut command = command::pin_command(subject.id(), directory)?;
    command.env("SOPIN_ONLY", "*/lib?.so").envs(settings.iter().copied());
    let pin = command::run(&mut command, directory)?;
    tasks::none_is_traced(subject.id())?;
    Ok(pin)
}

/// Pins the libraries of a host, after which the newest has to be in this state. Returns the pin, and
/// how many bytes of anonymous memory the process had before and after.
fn measure(
    subject: &Subject,
    directory: &Path,
    settings: &[(&str, &str)],
    state: &str,
) -> Result<(Pin, u64, u64), String> {
    let before = anonymous_bytes(subject.id())?;
    let pin = pin(subject, directory, settings)?;
    has_become(&pin, subject.newest(), state)?;
    Ok((pin, before, anonymous_bytes(subject.id())?))
}

/// Returns the bytes of a process's anonymous memory.
fn anonymous_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("{path}: no number of anonymous bytes"))
}

/// Returns how many bytes of the newest library's file the process maps with the right to write.
fn writable_of_file(subject: &Subject) -> Result<u64, String> {
    let is_it = |vma: &&memory::Vma| Path::new(&vma.path) == subject.newest() && vma.mode.contains('w');
    Ok(memory::mappings(subject.id())?.iter().filter(is_it).map(|vma| vma.end - vma.start).sum())
}

/// Checks what has become of a library: its state, and whether it says that the limit is the reason.
fn has_become(pin: &Pin, path: &Path, state: &str) -> Result<(), String> {
    let object = pin.objects()?.iter().find(|object| object["path"].as_str().map(Path::new) == Some(path));
    let is_limited = object.is_some_and(|object| object["reason"].as_str().is_some_and(|why| why.contains(LIMITED)));
    if object.is_none_or(|object| object["after"] != state) || is_limited != (state == "exposed") {
        return Err(pin.describe(&format!("has to make {} {state}", path.display())));
    }
    Ok(())
}

/// The data is mapped from a copy of the file, and takes no memory.
fn mapped_from_the_store(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = start(run, directory)?;
    thread::sleep(SETTLED);
    let (pin, before, after) = measure(&subject, directory, &[(LIMITED, "1M")], "full")?;
    if after > before + LITTLE {
        return Err(pin.describe(&format!("made {before} bytes of memory {after}")));
    }
    subject.truncate_and_stop()
}

/// A copy that the command makes for this run is compared with what is mapped only as far as it is to be
/// mapped: it proves nothing of the data, which is copied from the process.
fn copied_without_a_store(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = start(run, directory)?;
    thread::sleep(SETTLED);
    let settings = [(LIMITED, "24M"), ("SOPIN_STORE", "off")];
    let (pin, before, after) = measure(&subject, directory, &settings, "full")?;
    if after < before + DATA {
        return Err(pin.describe(&format!("made {before} bytes of memory {after}")));
    }
    subject.truncate_and_stop()
}

/// Data that does not fit is left. The rest is replaced, and the object is exposed.
fn left(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = start(run, directory)?;
    let settings = [("SOPIN_MODE", "relocated"), (LIMITED, "1M")];
    let (pin, before, after) = measure(&subject, directory, &settings, "exposed")?;
    let (status, _) = command::status(subject.id(), directory)?;
    let shown = status["objects"].as_array().into_iter().flatten();
    let mut shown = shown.filter(|object| object["path"].as_str().map(Path::new) == Some(subject.newest()));
    if shown.next().is_none_or(|object| object["state"] != "exposed") {
        return Err(format!("sopin status has to show it as exposed: {status:#}"));
    }
    let writable = writable_of_file(&subject)?;
    if after > before + LITTLE || !(DATA..DATA + LITTLE).contains(&writable) {
        return Err(pin.describe(&format!("left {writable} bytes and made {before} bytes of memory {after}")));
    }
    subject.stop()
}

/// Within the limit everything is replaced, and takes as much memory as it has bytes.
fn copied(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = start(run, directory)?;
    let settings = [("SOPIN_MODE", "relocated"), (LIMITED, "9M")];
    let (pin, before, after) = measure(&subject, directory, &settings, "relocated")?;
    let writable = writable_of_file(&subject)?;
    if after < before + DATA || writable != 0 {
        return Err(pin.describe(&format!("left {writable} bytes and made {before} bytes of memory {after}")));
    }
    subject.stop()
}

/// Copies that an earlier pin has made count, too.
fn several_pins(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = start(run, directory)?;
    let settings = |limit| [("SOPIN_MODE", "relocated"), (LIMITED, limit)];
    has_become(&pin(&subject, directory, &settings("12M"))?, subject.newest(), "relocated")?;
    subject.load()?;
    let before = anonymous_bytes(subject.id())?;
    for _ in 0..2 {
        has_become(&pin(&subject, directory, &settings("12M"))?, subject.newest(), "exposed")?;
    }
    let after = anonymous_bytes(subject.id())?;
    if after > before + LITTLE {
        return Err(format!("two pins have made {before} bytes of memory {after}"));
    }
    has_become(&pin(&subject, directory, &settings("18M"))?, subject.newest(), "relocated")?;
    subject.stop()
}
