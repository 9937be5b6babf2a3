//! `sopin enable` and `sopin disable`, and which package's library the command takes. The environments
//! are directories without an interpreter; `tests/python` of the library installs the wheel.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use common::{Installation, library, missing};
use snapbox::str;

const PACKAGES: &str = "lib/python3.9/site-packages";

/// Installs the command, and the package as `pip` does, for these releases of Python and versions.
fn environment(packages: &[(&str, &str)]) -> Installation {
    let installation = Installation::without_library();
    for (directory, version) in packages {
        installation.copy(&library(), &format!("{directory}/sopin/libsopin.so"));
        installation.file(&format!("{directory}/_sopin_start.py"), b"", 0o644);
        installation.file(&format!("{directory}/sopin-{version}.dist-info/RECORD"), b"", 0o644);
    }
    installation
}

fn own() -> Installation {
    environment(&[(PACKAGES, env!("CARGO_PKG_VERSION"))])
}

fn preloaded(installation: &Installation) -> snapbox::cmd::OutputAssert {
    installation.sopin().args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert()
}

#[test]
fn the_library_of_the_package_is_found() {
    let version = env!("CARGO_PKG_VERSION");
    preloaded(&own()).success().stderr_eq("").stdout_eq("[ROOT]/lib/python3.9/site-packages/sopin/libsopin.so\n");
    // That of another Python and another version is another command's.
    let two = environment(&[("lib/python3.12/site-packages", "0.0.1"), ("lib64/python3.8/dist-packages", version)]);
    preloaded(&two).success().stderr_eq("").stdout_eq("[ROOT]/lib64/python3.8/dist-packages/sopin/libsopin.so\n");
    let target = environment(&[(".", version)]);
    preloaded(&target).success().stderr_eq("").stdout_eq("[ROOT]/sopin/libsopin.so\n");
    // An unpacked wheel, to which `uv` may link.
    let command = target.copy(&target.path("bin/sopin"), &format!("sopin-{version}.data/scripts/sopin"));
    let run = target.command(command).args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]);
    run.assert().success().stderr_eq("").stdout_eq("[ROOT]/sopin/libsopin.so\n");
}

#[test]
fn a_library_that_others_can_change_is_refused() {
    let installation = own();
    fs::set_permissions(installation.path("lib"), Permissions::from_mode(0o777)).unwrap();
    preloaded(&installation).code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/lib: every user can write to it; the library is taken only from where no other user could have put it

"#]]);
    installation.sopin().arg("enable").assert().code(1).stdout_eq("");
    if missing(&["root"]).is_none() {
        let installation = own();
        chown(installation.path(PACKAGES), Some(4321), None).unwrap();
        preloaded(&installation).code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/lib/python3.9/site-packages: belongs to user 4321, who does not own this command; the library is taken only from where no other user could have put it

"#]]);
        chown(installation.path("bin/sopin"), Some(4321), None).unwrap();
        preloaded(&installation).success();
    }
}

#[test]
fn the_file_is_written_and_removed() {
    let installation = own();
    let file = installation.path(PACKAGES).join("sopin.pth");
    installation.sopin().arg("disable").assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/lib/python3.9/site-packages/sopin.pth: not enabled

"#]]);
    installation.sopin().arg("enable").assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/lib/python3.9/site-packages/sopin.pth: enabled: Python loads the library from its next start

"#]]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.is_ascii() && text.lines().count() == 2 && text.lines().nth(1).unwrap().starts_with("import "));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    installation.sopin().arg("enable").assert().success().stdout_eq(str![[r#"
[ROOT]/lib/python3.9/site-packages/sopin.pth: enabled already

"#]]);
    // An older command may have written another line.
    fs::write(&file, format!("{}\nimport os\n", text.lines().next().unwrap())).unwrap();
    installation.sopin().arg("enable").assert().success();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    installation.sopin().arg("disable").assert().success().stdout_eq(str![[r#"
[ROOT]/lib/python3.9/site-packages/sopin.pth: disabled

"#]]);
    let left: Vec<_> =
        fs::read_dir(installation.path(PACKAGES)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_file_of_somebody_else_stays() {
    let installation = own();
    let file = installation.path(PACKAGES).join("sopin.pth");
    let refuse = || {
        for subcommand in ["enable", "disable"] {
            installation.sopin().arg(subcommand).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/lib/python3.9/site-packages/sopin.pth: sopin enable did not write this file; it is left as it is; move it away if you do not need it

"#]]);
        }
    };
    fs::write(&file, "/srv/shop\n").unwrap();
    refuse();
    assert_eq!(fs::read_to_string(&file).unwrap(), "/srv/shop\n");
    fs::remove_file(&file).unwrap();
    let elsewhere =
        installation.file("elsewhere", b"# Written by `sopin enable`; `sopin disable` removes it.\n", 0o644);
    symlink(&elsewhere, &file).unwrap();
    refuse();
    assert!(file.is_symlink() && elsewhere.exists());
}

#[test]
fn where_there_is_no_environment() {
    let installation = Installation::new();
    for subcommand in ["enable", "disable"] {
        installation.sopin().arg(subcommand).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/bin/sopin: this command is in no Python environment; name an interpreter of one: --python venv/bin/python

"#]]);
    }
    installation.sopin().args(["enable", "--python", "/nowhere/python"]).assert().code(1).stderr_eq(str![[r#"
sopin: /nowhere/python: No such file or directory (os error 2)

"#]]);
    let fails = installation.script("python", "#!/bin/sh\nexit 3\n");
    installation.sopin().arg("enable").arg("--python").arg(fails).assert().code(1).stderr_eq(str![[r#"
sopin: [ROOT]/python: it does not say where its packages are (exit status: 3)

"#]]);
}

#[test]
fn an_interpreter_names_its_environment() {
    let installation = environment(&[("venv/site-packages", "0.0.1")]);
    let answer =
        format!("#!/bin/sh\nprintf '/nowhere\\0%s\\0' {}\n", installation.path("venv/site-packages").display());
    installation.script("python", &answer);
    let with = |subcommand: &str| installation.sopin().args([subcommand, "--python", "./python"]).assert();
    with("disable").success().stdout_eq("./python: not enabled\n");
    with("enable").success().stdout_eq(str![[r#"
[ROOT]/venv/site-packages/sopin.pth: enabled: Python loads the library from its next start

"#]]);
    fs::remove_file(installation.path("venv/site-packages/_sopin_start.py")).unwrap();
    with("enable").code(1).stdout_eq("").stderr_eq(str![[r#"
sopin: ./python: its environment has no package sopin; ./python -m pip install sopin

"#]]);
    with("disable").success().stdout_eq(str![[r#"
[ROOT]/venv/site-packages/sopin.pth: disabled

"#]]);
}

#[test]
fn help() {
    common::sopin().args(["enable", "--help"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Have every Python of an environment load libsopin.so when it starts

Whatever is started with such a Python is protected without LD_PRELOAD: servers, workers, notebooks'
kernels, zip applications. Programs that it starts are not, unless their interpreter is of the
environment.

The environment needs the package sopin (pip install sopin). Without --python it is the one in which
this command is installed. The command writes the file sopin.pth beside the package. It replaces no
file of this name that it did not write itself.

Python reads the file also with -I and -E, and not with -S. If the library is missing or is not as
it was installed, Python starts without it and prints one line; if the package is removed, it prints
nothing.

Usage: sopin enable [OPTIONS]

Options:
      --python <PYTHON>
          An interpreter of the environment; the command starts it to learn where its packages are

  -h, --help
          Print help (see a summary with '-h')

Exit status:
  0  the environment is enabled
  1  it is not: the reason is on stderr
  2  the command line was not understood

Examples:
  sopin enable
  sopin enable --python /srv/shop/venv/bin/python

"#]]);
    common::sopin().args(["disable", "-h"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Undo what sopin enable did

Usage: sopin disable [OPTIONS]

Options:
      --python <PYTHON>  An interpreter of the environment; the command starts it to learn where its
                         packages are
  -h, --help             Print help (see more with '--help')

"#]]);
}
