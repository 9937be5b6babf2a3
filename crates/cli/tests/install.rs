//! Runs `make install` into a staging directory, and the command from there. This needs
//! the files that `make build` builds, as every test of the library does.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::clean;

fn make(target: &str, stage: &Path, libdir: &str) {
    let mut command = Command::new("make");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).args(["-s", target, "PREFIX=/usr"]);
    // Settings of a make that runs this test do not apply to this one.
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    command.arg(format!("DESTDIR={}", stage.display())).arg(format!("LIBDIR=/usr/{libdir}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns all files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

#[test]
fn the_command_works_from_where_it_is_staged() {
    let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    for libdir in ["lib", "lib64", &multiarch] {
        works_from_where_it_is_staged(libdir);
    }
}

fn works_from_where_it_is_staged(libdir: &str) {
    let stage = tempfile::tempdir().unwrap();
    make("install", stage.path(), libdir);
    let usr = stage.path().join("usr");

    let sopin = || clean(snapbox::cmd::Command::new(usr.join("bin/sopin")));
    let preloaded = format!("{}\n", usr.join(libdir).join("libsopin.so.0").display());
    sopin().args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success().stderr_eq("").stdout_eq(preloaded);
    sopin().args(["check", "sh"]).assert().success().stderr_eq("");

    let mode = |path: &str| fs::metadata(usr.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("bin/sopin"), 0o755);
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man")).unwrap();
    for page in pages.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        let section = page.chars().last().unwrap();
        assert_eq!(mode(&format!("share/man/man{section}/{page}")), 0o644);
    }
    for (shell, path) in [
        ("bash", "share/bash-completion/completions/sopin"),
        ("zsh", "share/zsh/site-functions/_sopin"),
        ("fish", "share/fish/vendor_completions.d/sopin.fish"),
    ] {
        assert_eq!(mode(path), 0o644);
        let printed = sopin().args(["completions", shell]).assert().success();
        assert_eq!(fs::read(usr.join(path)).unwrap(), printed.get_output().stdout);
    }

    make("uninstall", stage.path(), libdir);
    let left = files(stage.path());
    assert!(left.is_empty(), "{left:?}");
}
