//! Support shared by the tests of the command.
//!
//! Human-readable output is compared with snapshots (`snapbox`): `[..]` in one
//! stands for anything on a line, `...` for any lines. `SNAPSHOTS=overwrite cargo
//! test` writes them anew; read the difference before committing it.

#![allow(dead_code, reason = "every test binary uses its own part of this module")]

use std::fs;
use std::path::{Path, PathBuf};

use snapbox::cmd::Command;

/// The command as cargo has built it, with an environment that decides nothing
/// for it: no `SOPIN_*`, no `LD_PRELOAD`, no store.
pub fn sopin() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_sopin")))
}

/// A command without what the tester's environment says to sopin, and with the
/// store off.
pub fn clean(command: Command) -> Command {
    let variables = std::env::vars_os().map(|(name, _)| name);
    let ours = variables.filter(|name| name.as_encoded_bytes().starts_with(b"SOPIN_"));
    ours.fold(command, Command::env_remove)
        .env_remove("LD_PRELOAD")
        .env_remove("NO_COLOR")
        .env("SOPIN_STORE", "off")
        .env("LC_ALL", "C")
}

/// `libsopin.so` as `make` has built it, or the one that `SOPIN_TEST_LIBRARY` names.
///
/// # Panics
/// When there is none.
pub fn library() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/libsopin.so");
    let path = std::env::var_os("SOPIN_TEST_LIBRARY").map_or_else(|| built.into(), PathBuf::from);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}; run `make build`", path.display()))
}

/// An installation of the command and the library of its own: `bin/sopin` and
/// `lib/libsopin.so` below a directory.
///
/// # Panics
/// When the files cannot be copied.
pub fn install(prefix: &Path) -> PathBuf {
    let command = prefix.join("bin/sopin");
    for (from, to) in
        [(Path::new(env!("CARGO_BIN_EXE_sopin")), &command), (&library(), &prefix.join("lib/libsopin.so"))]
    {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    command
}
