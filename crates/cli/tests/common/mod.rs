//! Support shared by the tests of the command.
//!
//! Human-readable output is compared with snapshots (`snapbox`): in them, `[..]`
//! matches anything on a line, `...` any lines, and `[ROOT]` the directory of an
//! [`Installation`]. `SNAPSHOTS=overwrite cargo test` writes them again; read the
//! difference before committing it.

#![allow(dead_code, reason = "every test binary uses its own part of this module")]

#[path = "../../../../tests/common/at_once.rs"]
mod at_once;
pub mod cases;
#[path = "../../../../tests/common/stops.rs"]
mod stops;
pub mod victim;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use snapbox::cmd::Command;
use snapbox::{Assert, Redactions};
use stops::stops_threads;
use tempfile::TempDir;

/// Returns the command as cargo has built it, with an environment that does not
/// influence it: no `SOPIN_*`, no `LD_PRELOAD`, no store.
pub fn sopin() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_sopin")))
}

/// Removes from a command the variables of the tester's environment that concern sopin,
/// and turns the store off.
pub fn clean(command: Command) -> Command {
    unset().fold(command, Command::env_remove).env("SOPIN_STORE", "off").env("LC_ALL", "C")
}

/// Does the same for a command that is not only run to its end.
pub fn clean_process(command: &mut process::Command) -> &mut process::Command {
    unset().fold(command, process::Command::env_remove).env("SOPIN_STORE", "off").env("LC_ALL", "C")
}

/// Returns the variables that change what the library or the loader does, or whether
/// output has colour (also `CI`: if it is set, every terminal is assumed to have
/// colour).
fn unset() -> impl Iterator<Item = String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = names.filter(|name| name.starts_with("SOPIN_") && name != "SOPIN_TEST_LIBRARY");
    let colour = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"];
    ours.chain(["LD_PRELOAD", "LD_LIBRARY_PATH"].into_iter().chain(colour).map(str::to_owned))
}

/// Returns `libsopin.so` as `make` has built it, or the one that `SOPIN_TEST_LIBRARY`
/// names.
///
/// # Panics
/// If it does not exist.
pub fn library() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/libsopin.so");
    let path = env::var_os("SOPIN_TEST_LIBRARY").map_or_else(|| built.into(), PathBuf::from);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}; run `make build`", path.display()))
}

/// An installation of the command and the library in a directory of its own, with room
/// for files of the test, which every user may enter.
pub struct Installation {
    root: TempDir,
}

impl Installation {
    /// Installs `bin/sopin` and `lib/libsopin.so`.
    pub fn new() -> Self {
        Self::with_library_in("lib")
    }

    /// Installs the library in another directory below the root.
    pub fn with_library_in(directory: &str) -> Self {
        let installation = Self::without_library();
        installation.copy(&library(), &format!("{directory}/libsopin.so"));
        installation
    }

    /// Installs the command alone.
    pub fn without_library() -> Self {
        let installation = Self { root: tempfile::tempdir().unwrap() };
        fs::set_permissions(installation.root.path(), Permissions::from_mode(0o755)).unwrap();
        installation.copy(Path::new(env!("CARGO_BIN_EXE_sopin")), "bin/sopin");
        installation
    }

    /// Returns the path of a file or directory below the root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Returns the library's path as text.
    pub fn library(&self) -> String {
        self.path("lib/libsopin.so").into_os_string().into_string().unwrap()
    }

    /// Copies an executable file.
    pub fn copy(&self, from: &Path, to: &str) -> PathBuf {
        self.install(from.as_os_str(), &[], to, 0o755)
    }

    /// Writes an executable file.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, text.as_bytes(), 0o755)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        self.install("/dev/stdin".as_ref(), bytes, name, mode)
    }

    /// Writes a file in another process. If this process had the file open for writing,
    /// a child that a test in another thread forks at that moment would have it open
    /// too, and a file that is open for writing cannot be executed (`ETXTBSY`).
    fn install(&self, from: &OsStr, input: &[u8], to: &str, mode: u32) -> PathBuf {
        let to = self.path(to);
        let mut command = process::Command::new("install");
        command.args(["-D", "-m", &format!("{mode:o}")]).arg(from).arg(&to).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        to
    }

    /// Compiles a program that prints `ran` and exits with 42.
    pub fn program(&self, name: &str, compiler: &str, flags: &[&str]) -> PathBuf {
        self.compile(name, "#include <stdio.h>\nint main(void) { puts(\"ran\"); return 42; }\n", compiler, flags)
    }

    /// Compiles C.
    pub fn compile(&self, name: &str, source: &str, compiler: &str, flags: &[&str]) -> PathBuf {
        let (from, to) = (self.file(&format!("{name}.c"), source.as_bytes(), 0o644), self.path(name));
        let mut command = process::Command::new(compiler);
        let status = command.arg("-o").arg(&to).arg(from).args(flags).status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
        to
    }

    /// Returns the command, in the root directory, with the root's path shown as
    /// `[ROOT]` in snapshots.
    pub fn sopin(&self) -> Command {
        self.command(self.path("bin/sopin"))
    }

    /// Returns another command in the same way.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut redactions = Redactions::new();
        redactions.insert("[ROOT]", self.root.path().to_path_buf()).unwrap();
        let assert = Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV).redact_with(redactions);
        // A backslash is an escape here, not part of a Windows path.
        let assert = assert.normalize_paths(false);
        clean(Command::new(program)).current_dir(self.root.path()).with_assert(assert)
    }
}

/// Opens a pseudo terminal: the side of the program, and the side of the user.
pub fn terminal() -> (File, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
    let noctty = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let program = OpenOptions::new().read(true).write(true).custom_flags(noctty).open(name).unwrap();
    (program, user.into())
}

/// Returns why this machine cannot run a test that needs these: `root`; `stops`, a process that can
/// stop its own threads; a program; or a flag with which the compiler can link a program.
pub fn missing(needs: &[&str]) -> Option<String> {
    needs.iter().find_map(|need| match *need {
        "root" => (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned()),
        "stops" => {
            (!stops_threads()).then(|| "its own threads cannot be stopped (Yama, or a seccomp filter)".to_owned())
        }
        flag if flag.starts_with('-') => (!links_with(flag)).then(|| format!("no linking with {flag}")),
        program => {
            let path = env::var_os("PATH").unwrap_or_default();
            let is_there = env::split_paths(&path).any(|directory| directory.join(program).is_file());
            (!is_there).then(|| format!("no program {program}"))
        }
    })
}

fn links_with(flag: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    // The machine may have no C library for a program of the other word size, so that
    // program uses none.
    let (source, flags) = if flag == "-m32" {
        ("void _start(void) {}\n", &["-nostdlib", "-ffreestanding"][..])
    } else {
        ("int main(void) { return 0; }\n", &[][..])
    };
    let file = directory.path().join("main.c");
    fs::write(&file, source).unwrap();
    let mut command = process::Command::new("cc");
    command.arg(flag).args(flags).arg("-o").arg(directory.path().join("main")).arg(file);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Starts a process that has ended when this returns, and that waits for its parent.
pub fn zombie() -> process::Child {
    let child = process::Command::new("true").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
    child
}
