//! Files that lie: what a core names, and what is given as a core, are devices, pipes, bombs, and file
//! systems that do not answer.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Lying;
use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;
use crate::common::process::patience;
use crate::explained::Verdict::{Rewritten, Unknown};
use crate::hosts::succeed;

/// Paths that lead to devices, pipes, sockets and directories, also through links.
///
/// # Errors
/// The command was deceived, or hangs.
pub fn files_without_an_end(lying: &Lying) -> Result<(), String> {
    let here = |name: &str| lying.directory.join(name);
    let made = Command::new("mkfifo").arg(here("pipe")).status().map_err(|error| error.to_string())?;
    if !made.success() {
        return Err("mkfifo has failed".to_owned());
    }
    let _listener = UnixListener::bind(here("socket")).map_err(|error| error.to_string())?;
    for (link, target) in
        [("zero", "/dev/zero"), ("random", "/dev/urandom"), ("memory", "/proc/self/mem"), ("loop", "loop")]
    {
        symlink(target, here(link)).map_err(|error| error.to_string())?;
    }
    let sparse = File::create(here("sparse.so")).and_then(|mut file| {
        let plug = fs::read(here("plug.so"))?;
        file.write_all(&plug)?;
        file.set_len(1 << 43)
    });
    sparse.map_err(|error| error.to_string())?;
    for name in ["pipe", "socket", "zero", "random", "memory", "loop", ".", "sparse.so"] {
        let mut dump = lying.dump.clone();
        dump.rename("/plug.so", here(name).as_os_str().as_bytes());
        let explanation = lying.explain(&dump).map_err(|error| format!("{name}: {error}"))?;
        // The sparse one has the words that were lost.
        let verdicts = if name == "sparse.so" { &[Rewritten, Unknown][..] } else { &[Unknown, Rewritten] };
        explanation.is_one_of(verdicts).map_err(|error| format!("{name}: {error}"))?;
    }
    for device in ["/dev/zero", "/dev/tty", "/dev/full", "/dev/fuse", "/dev/kmsg", "/proc/kcore", "/proc/1/mem"] {
        let mut dump = lying.dump.clone();
        dump.rename("/plug.so", device.as_bytes());
        lying.explain(&dump).map_err(|error| format!("{device}: {error}"))?;
    }
    Ok(())
}

/// Files that were cut off.
///
/// # Errors
/// The command was deceived, or hangs.
pub fn files_that_are_no_objects(lying: &Lying) -> Result<(), String> {
    let plug = fs::read(lying.directory.join("plug.so")).map_err(|error| error.to_string())?;
    for length in [0, 1, 4, 63, 64, 200, 4096, plug.len() / 2, plug.len() - 1] {
        fs::write(lying.directory.join("short.so"), &plug[..length]).map_err(|error| error.to_string())?;
        let mut dump = lying.dump.clone();
        dump.rename("/plug.so", lying.directory.join("short.so").as_os_str().as_bytes());
        lying.any(&dump)?;
    }
    Ok(())
}

/// An object whose file system waits for ever.
///
/// # Errors
/// The command was deceived, or hangs.
pub fn a_server_that_answers_nothing(lying: &Lying) -> Result<(), String> {
    let server = checkout().join("crates/cli/tests/status_programs/served.py");
    let mount = lying.directory.join("mount");
    fs::create_dir(&mount).map_err(|error| error.to_string())?;
    let mut command = Command::new("python3");
    command.arg(server).arg(&mount).stdin(Stdio::piped());
    let log = lying.directory.join("served.log");
    let timeout = Duration::from_secs(60) * patience()?;
    let mut process = Dialogue::start(&mut command, &log, timeout).map_err(|error| error.to_string())?;
    process.wait_for("ready", 1)?;
    let mut dump = lying.dump.clone();
    // The server mounts it in a namespace of its own.
    let seen = format!("/proc/{}/root{}/file", process.id(), mount.display());
    dump.rename("/plug.so", seen.as_bytes());
    let explained = lying.explain(&dump);
    process.finish()?;
    explained?.is_one_of(&[Unknown, Rewritten])
}

/// Small files that are large when they are unpacked.
///
/// # Errors
/// The command was deceived, or hangs.
pub fn bombs(lying: &Lying) -> Result<(), String> {
    let core = lying.directory.join("liar");
    lying.dump.write(&core)?;
    for (program, gigabytes) in [("gzip -1", 1), ("zstd -q", 3)] {
        let bomb = lying.directory.join("bomb");
        let mut command = Command::new("sh");
        let line = format!("(cat \"$1\"; head -c {gigabytes}G /dev/zero) | {program} >\"$2\"");
        command.args(["-euc", &line, "sh"]).arg(&core).arg(&bomb);
        succeed(command)?;
        // The core is at the beginning.
        lying.explain_file(&bomb).map_err(|error| format!("{program}: {error}"))?.is_one_of(&[Rewritten, Unknown])?;
        // No core is at the beginning.
        let mut command = Command::new("sh");
        command.args(["-euc", &format!("head -c {gigabytes}G /dev/zero | {program} >\"$1\""), "sh"]).arg(&bomb);
        succeed(command)?;
        lying.explain_file(&bomb).map_err(|error| format!("{program}: {error}"))?.is_one_of(&[Unknown])?;
    }
    Ok(())
}

/// Files that were cut off.
///
/// # Errors
/// The command was deceived, or hangs.
pub fn a_core_that_is_a_device(lying: &Lying) -> Result<(), String> {
    for device in ["/dev/zero", "/dev/null", "/dev/urandom"] {
        lying.explain_file(Path::new(device)).map_err(|error| format!("{device}: {error}"))?.is_one_of(&[Unknown])?;
    }
    // A core that is longer than its headers say, and sparse.
    let sparse = lying.directory.join("long");
    lying.dump.write(&sparse)?;
    let file = File::options().write(true).open(&sparse).and_then(|mut file| {
        file.seek(SeekFrom::Start(1 << 42))?;
        file.write_all(b"end")
    });
    file.map_err(|error| error.to_string())?;
    lying.explain_file(&sparse)?.is_one_of(&[Rewritten])?;
    Ok(())
}
