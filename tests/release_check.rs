//! Runs `scripts/release-check` on copies of the checkout: it passes a copy that is
//! ready, and names what is wrong with one that is not.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::library;
use common::needs::Need;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A copy of the checkout in a temporary directory, with a git repository of its own.
struct Copy(tempfile::TempDir);

impl Copy {
    /// Copies what the script reads, and commits it as ready for a release.
    fn ready() -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let checkout = library::checkout();
        for directory in ["man", "include", "scripts", "crates/cli", "crates/core", "target/release"] {
            fs::create_dir_all(copy.path(directory)).unwrap();
        }
        let pages = fs::read_dir(checkout.join("man")).unwrap().map(|entry| entry.unwrap().file_name());
        let pages: Vec<_> = pages.map(|name| format!("man/{}", name.to_str().unwrap())).collect();
        let files = [
            "Cargo.toml",
            "Cargo.lock",
            "CHANGELOG.md",
            ".gitignore",
            "include/sopin.h",
            "scripts/release-check",
            "crates/cli/Cargo.toml",
            "crates/core/Cargo.toml",
        ];
        for file in files.into_iter().chain(pages.iter().map(String::as_str)) {
            fs::copy(checkout.join(file), copy.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let built = library::path().unwrap_or_else(|error| panic!("{error}"));
        fs::copy(&built, copy.path("target/release/libsopin.so")).unwrap();
        fs::copy(built.with_file_name("sopin"), copy.path("target/release/sopin")).expect("run `make` first");
        let section = format!("## [{VERSION}] - 2026-01-31\n");
        copy.edit("CHANGELOG.md", |text| format!("{text}\n{section}"));
        copy.git(&["init", "--quiet"]);
        copy.commit();
        copy
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn edit(&self, file: &str, change: impl FnOnce(&str) -> String) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "{file}: nothing was changed");
        fs::write(self.path(file), changed).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
        let git = Command::new("git").current_dir(self.0.path()).args(identity).args(arguments).output().unwrap();
        assert!(git.status.success(), "git {arguments:?}: {git:?}");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=test"]);
    }

    /// Runs the script and returns whether it passed, and what it printed.
    fn check(&self) -> (bool, String) {
        let output = Command::new(self.path("scripts/release-check")).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    /// Asserts that these checks fail and no others, each with a message that contains
    /// a word.
    fn assert_wrong(&self, expected: &[(&str, &str)]) {
        let (passes, printed) = self.check();
        let wrong: Vec<_> = printed.lines().filter(|line| line.starts_with("wrong")).collect();
        assert_eq!(wrong.len(), expected.len(), "{printed}");
        for (line, (name, reason)) in wrong.iter().zip(expected) {
            assert!(line.starts_with(&format!("wrong  {name}: ")) && line.contains(reason), "{name}: {reason}: {line}");
        }
        assert_eq!(passes, expected.is_empty(), "{printed}");
    }
}

/// Returns whether the programs are installed with which a release is made.
fn can_check() -> bool {
    let missing = ["git", "cc", "readelf"].into_iter().find_map(|program| Need::Program(program.to_owned()).unmet());
    if let Some(missing) = &missing {
        eprintln!("skipped: {missing}");
    }
    missing.is_none()
}

#[test]
fn a_copy_that_is_ready_passes() {
    if can_check() {
        Copy::ready().assert_wrong(&[]);
    }
}

#[test]
fn another_version_in_cargo_toml_is_found_everywhere() {
    if !can_check() {
        return;
    }
    let copy = Copy::ready();
    copy.edit("Cargo.toml", |text| text.replace(&format!("\nversion = \"{VERSION}\""), "\nversion = \"77.0.0\""));
    copy.commit();
    copy.assert_wrong(&[
        ("versions in Cargo.lock", &format!("sopin-core is {VERSION}")),
        ("section of the changelog", "no section [77.0.0]"),
        ("version of the library", VERSION),
        ("soname", "not libsopin.so.77"),
        ("version of the command", VERSION),
        ("versions of the manual pages", "man/libsopin.7"),
    ]);
}

#[test]
fn one_crate_one_page_a_date_and_a_change() {
    if !can_check() {
        return;
    }
    let copy = Copy::ready();
    copy.edit("crates/core/Cargo.toml", |text| {
        text.replace("version.workspace = true\nedition", "version = \"77.0.0\"\nedition")
    });
    copy.edit("man/sopin-run.1", |text| text.replace(VERSION, "77.0.0"));
    copy.edit("CHANGELOG.md", |text| text.replace("] - 2026-01-31", "]"));
    copy.assert_wrong(&[
        ("versions of all crates", "crates/core/Cargo.toml has \"77.0.0\""),
        ("section of the changelog", "no date"),
        ("versions of the manual pages", "man/sopin-run.1"),
        ("clean tree", "CHANGELOG.md"),
    ]);
}

#[test]
fn packages_of_another_version_and_wrong_sums_are_found() {
    if !can_check() {
        return;
    }
    let copy = Copy::ready();
    let packages = copy.path("target/packages");
    fs::create_dir(&packages).unwrap();
    let name = format!("sopin_{VERSION}-1_amd64.deb");
    fs::write(packages.join(&name), "").unwrap();
    // Of a file without contents.
    let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::write(packages.join("SHA256SUMS"), format!("{sum}  {name}\n")).unwrap();
    copy.assert_wrong(&[]);
    fs::write(packages.join(&name), "other contents").unwrap();
    copy.assert_wrong(&[("packages", "SHA256SUMS is wrong")]);
    let other = "sopin_77.0.0-1_amd64.deb";
    fs::write(packages.join(other), "").unwrap();
    fs::write(packages.join("SHA256SUMS"), format!("{sum}  {other}\n")).unwrap();
    copy.assert_wrong(&[("packages", "sopin_77.0.0-1_amd64.deb is of another version")]);
}

#[test]
fn the_document_lists_every_check() {
    let document = fs::read_to_string(library::checkout().join("docs/releasing.md")).unwrap();
    let script = fs::read_to_string(library::checkout().join("scripts/release-check")).unwrap();
    let names: Vec<_> = script.lines().filter_map(|line| line.strip_prefix("report '")?.split('\'').next()).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in &names {
        assert!(document.contains(&format!("\n- *{name}*: ")), "docs/releasing.md does not list {name:?}");
    }
}
