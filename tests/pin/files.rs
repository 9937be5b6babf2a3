//! Objects whose files are gone, are other ones, or have no end; objects that are unusual in
//! memory; and one that is being loaded.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::common::process::Outcome;
use crate::common::protection;
use crate::memory::{self, Scene};
use crate::subject::{Subject, passed};
use crate::{Case, Run, patience, tasks};

/// The largest file that a command may write that is run by [`pin_to_memory`].
const LARGEST: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("files::deleted", |run, own| changed(run, own, |file| fs::remove_file(file))),
        Case::new("files::replaced", |run, own| {
            changed(run, own, |file| {
                let other = file.with_extension("other");
                fs::write(&other, vec![0xCC; 1 << 16])?;
                fs::rename(&other, file)
            })
        }),
        Case::new("files::breakpoint", breakpoint),
        Case::new("files::text_relocations", text_relocations).with_needs(&["arch:x86_64"]),
        Case::new("files::being_loaded", being_loaded),
        Case::new("files::endless", endless).with_needs(&["root", "cmd:prlimit"]),
        Case::new("files::growing", growing).with_needs(&["cmd:prlimit"]),
    ]
}

/// Pins a host whose library no longer has its name, and then truncates the file that is mapped.
fn changed(run: &Run, directory: &Path, change: fn(&Path) -> std::io::Result<()>) -> Result<(), String> {
    for is_pinned in [true, false] {
        let own = directory.join(if is_pinned { "pinned" } else { "control" });
        let subject = Subject::start(run, &own, &["threads", "1"])?;
        let mapped = File::options().write(true).open(subject.newest()).map_err(|error| error.to_string())?;
        change(subject.newest()).map_err(|error| error.to_string())?;
        if is_pinned {
            subject.pin()?.is_whole()?;
            tasks::none_is_traced(subject.id())?;
        }
        mapped.set_len(0).map_err(|error| error.to_string())?;
        if is_pinned {
            subject.stop()?;
        } else {
            subject.truncate_and_die()?;
        }
    }
    Ok(())
}

/// A breakpoint stays one. The page with it may be left to the file.
fn breakpoint(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1", "breakpoint"])?;
    let pin = subject.pin()?;
    tasks::none_is_traced(subject.id())?;
    let newest = subject.newest().to_string_lossy().into_owned();
    let object = pin.objects()?.iter().find(|object| object["path"] == newest);
    let object = object.ok_or_else(|| pin.describe("does not list the library"))?;
    if object["after"] == "full" {
        subject.truncate_and_stop()
    } else if object["after"] == "relocated" && object["reason"].is_string() {
        subject.stop()
    } else {
        Err(pin.describe("left the library"))
    }
}

fn text_relocations(run: &Run, directory: &Path) -> Result<(), String> {
    for is_pinned in [true, false] {
        let own = directory.join(if is_pinned { "pinned" } else { "control" });
        let host = Command::new(run.built("host"));
        let subject = Subject::start_with(host, &run.built("libtext_relocations.so"), &own, &["threads", "1"])?;
        if is_pinned {
            subject.pin_whole()?;
            subject.truncate_and_stop()?;
        } else {
            subject.truncate_and_die()?;
        }
    }
    Ok(())
}

/// An object whose constructor is running, under the loader's lock.
fn being_loaded(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "1"])?;
    let path = subject.another()?;
    subject.say(&format!("begin {}", path.display()), "begun")?;
    tasks::none_is_traced(subject.id())?;
    let first = subject.pin()?;
    tasks::none_is_traced(subject.id())?;
    subject.say("open", "opened").map_err(|error| first.describe(&error))?;
    // The first pin may have left it, but not the next one.
    let second = subject.pin()?;
    subject.is_out_of_reach().map_err(|wrong| second.describe(&wrong))?;
    subject.truncate_and_stop()
}

/// Pins a process with copies in memory only, of which all together may have [`LARGEST`] bytes. The
/// kernel ends the command if it writes more to one file.
fn pin_to_memory(pid: u32, directory: &Path) -> Result<Pin, String> {
    let pin = command::pin_command(pid, directory)?;
    let mut command = Command::new("prlimit");
    protection::forget_settings(&mut command);
    command.arg(format!("--fsize={LARGEST}")).arg(pin.get_program()).args(pin.get_args());
    command.env("SOPIN_STORE", "off").env("SOPIN_PRIVATE_LIMIT", LARGEST.to_string());
    command::run(&mut command, directory)
}

/// An object in a private mapping of /dev/zero is not copied without end.
fn endless(run: &Run, directory: &Path) -> Result<(), String> {
    let log = directory.join("zero.log");
    let mut process = Dialogue::start(&mut Command::new(run.built("zero")), &log, patience())
        .map_err(|error| format!("zero: {error}"))?;
    process.wait_for("ready", 1)?;
    let scene = Scene::of(process.id())?;
    let pin = pin_to_memory(process.id(), directory)?;
    tasks::none_is_traced(process.id())?;
    scene.is_still(process.id()).map_err(|wrong| pin.describe(&wrong))?;
    if !matches!(pin.outcome, Outcome::Exit(0 | 1))
        || !pin.objects()?.iter().any(|object| object["path"] == "/dev/zero")
    {
        return Err(pin.describe("has to list /dev/zero"));
    }
    let copied = bytes_in_memory(process.id())?;
    if copied > LARGEST {
        return Err(pin.describe(&format!("made copies of {copied} bytes")));
    }
    passed(&process.finish()?)
}

/// Returns the size of all copies in memory that a process maps.
fn bytes_in_memory(pid: u32) -> Result<u64, String> {
    let mut all: Vec<_> = memory::mappings(pid)?.into_iter().filter(|vma| vma.path.starts_with("/memfd:")).collect();
    all.sort_by(|a, b| a.file.cmp(&b.file));
    all.dedup_by(|a, b| a.file == b.file);
    all.iter()
        .map(|vma| {
            let path = format!("/proc/{pid}/map_files/{:x}-{:x}", vma.start, vma.end);
            fs::metadata(&path).map(|status| status.size()).map_err(|error| format!("{path}: {error}"))
        })
        .sum()
}

/// A library whose file is growing is left, and pinned when it no longer does.
fn growing(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "1"])?;
    // On a busy machine the file may not have grown while it was copied.
    for _ in 0..20 {
        let pin = pin_growing(&subject)?;
        tasks::none_is_traced(subject.id())?;
        let newest = subject.newest().to_string_lossy().into_owned();
        let object = pin.objects()?.iter().find(|object| object["path"] == newest);
        let object = object.ok_or_else(|| pin.describe("does not list the library"))?;
        if object["after"] != "full" {
            if !object["reason"].is_string() {
                return Err(pin.describe("does not say why it has left the library"));
            }
            subject.pin_whole()?;
            return subject.truncate_and_stop();
        }
        subject.load()?;
    }
    Err("a file that was growing was never left".to_owned())
}

/// Pins a host while the file of its newest library is growing.
fn pin_growing(subject: &Subject) -> Result<Pin, String> {
    let file = File::options().write(true).open(subject.newest()).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let is_over = AtomicBool::new(false);
    let grow = || -> std::io::Result<()> {
        let mut now = size;
        while !is_over.load(Ordering::Relaxed) {
            now += 1;
            file.set_len(now)?;
        }
        file.set_len(size)
    };
    thread::scope(|scope| {
        let growing = scope.spawn(grow);
        let pin = pin_to_memory(subject.id(), &subject.directory);
        is_over.store(true, Ordering::Relaxed);
        growing.join().map_err(|_| "the thread has panicked")?.map_err(|error| error.to_string())?;
        pin
    })
}
