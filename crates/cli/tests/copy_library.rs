//! `sopin copy-library`: what appears in the directory, and what the command does not touch there.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use common::{Installation, library, missing};
use snapbox::str;

/// Returns the permission bits of a file or directory.
fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Returns an installation with an empty directory `volume`, to which every user may write.
fn with_volume() -> Installation {
    let installation = Installation::new();
    let volume = installation.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(volume, Permissions::from_mode(0o777)).unwrap();
    installation
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn the_copy_is_the_library() {
    let installation = with_volume();
    // The mode of the copy does not depend on the umask.
    let script = "umask 077; exec bin/sopin copy-library volume";
    installation.command("sh").args(["-c", script]).assert().success().stdout_eq("").stderr_eq("");
    let copy = installation.path("volume/libsopin.so");
    assert!(fs::read(&copy).unwrap() == fs::read(library()).unwrap());
    assert_eq!(mode(&copy), 0o755);
    assert_eq!(names(&installation.path("volume")), ["libsopin.so"]);
}

#[test]
fn what_had_the_name_is_replaced_and_not_written_to() {
    let installation = with_volume();
    let (copy, elsewhere) = (installation.path("volume/libsopin.so"), installation.path("elsewhere"));
    fs::write(&copy, "an older copy").unwrap();
    let mut older = File::open(&copy).unwrap();
    installation.sopin().args(["copy-library", "volume"]).assert().success();
    let mut text = String::new();
    older.read_to_string(&mut text).unwrap();
    assert_eq!(text, "an older copy");

    fs::write(&elsewhere, "not the volume's").unwrap();
    fs::remove_file(&copy).unwrap();
    symlink(&elsewhere, &copy).unwrap();
    installation.sopin().args(["copy-library", "volume"]).assert().success();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "not the volume's");
    assert!(fs::symlink_metadata(&copy).unwrap().is_file());
}

#[test]
fn a_store_is_for_this_user_alone() {
    let installation = with_volume();
    let store = installation.path("volume/store");
    let make = || installation.sopin().args(["copy-library", "--make-store", "store", "volume"]).assert();
    make().success().stdout_eq("").stderr_eq("");
    assert_eq!(mode(&store), 0o700);
    // A second run finds it, with what it has.
    fs::write(store.join("entry"), "").unwrap();
    fs::set_permissions(&store, Permissions::from_mode(0o777)).unwrap();
    make().success();
    assert_eq!((mode(&store), names(&store)), (0o700, vec!["entry".to_owned()]));
}

#[test]
fn a_store_that_another_user_has_made_is_refused() {
    if let Some(reason) = missing(&["root"]) {
        return eprintln!("not tried: {reason}");
    }
    let installation = with_volume();
    let store = installation.path("volume/store");
    fs::create_dir(&store).unwrap();
    chown(&store, Some(65534), None).unwrap();
    let make = || installation.sopin().args(["copy-library", "--make-store", "store", "volume"]).assert();
    make().code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: volume/store: it belongs to another user

"#]]);
    assert_eq!(fs::metadata(&store).unwrap().uid(), 65534);

    fs::remove_dir(&store).unwrap();
    symlink(installation.path("lib"), &store).unwrap();
    let before = mode(&installation.path("lib"));
    make().code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: volume/store: Not a directory (os error 20)

"#]]);
    assert_eq!(mode(&installation.path("lib")), before);
}

#[test]
fn what_cannot_be_done() {
    let installation = with_volume();
    installation.sopin().args(["copy-library", "no-such-directory"]).assert().code(125).stdout_eq("").stderr_eq(str![
        [r#"
sopin: no-such-directory/libsopin.so: No such file or directory (os error 2)

"#]
    ]);
    fs::create_dir(installation.path("volume/libsopin.so")).unwrap();
    installation.sopin().args(["copy-library", "volume"]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: volume/libsopin.so: Is a directory (os error 21)

"#]]);
    assert_eq!(names(&installation.path("volume")), ["libsopin.so"]);
    installation
        .sopin()
        .args(["copy-library", "--make-store", "../other", "volume"])
        .assert()
        .code(2)
        .stdout_eq("")
        .stderr_eq(str![[r#"
error: invalid value '../other' for '--make-store <NAME>': it must be the name of a directory in DIRECTORY

For more information, try '--help'.

"#]]);
    let without = Installation::without_library();
    without.sopin().args(["copy-library", "."]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: libsopin.so: not found in [ROOT]/bin, [ROOT]/lib, [ROOT]/lib/x86_64-linux-gnu, [ROOT]/lib64; install the library and the command below one prefix

"#]]);
    assert_eq!(names(&without.path(".")), ["bin"]);
}
