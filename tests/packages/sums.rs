//! `SHA256SUMS`, and the list of components (SBOM).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;
use serde_json::Value;

use crate::Try;
use crate::common::{library, tree};
use crate::package::{self, VERSION, said};

pub fn trials() -> Vec<(String, Try)> {
    vec![("sums::checksums".to_owned(), Box::new(checksums)), ("sums::components".to_owned(), Box::new(components))]
}

/// The sums are right, and there is one for each file.
fn checksums(_: &Path) -> Result<Completion, String> {
    let directory = package::directory();
    let sums = directory.join("SHA256SUMS");
    let Ok(text) = fs::read_to_string(&sums) else {
        return Ok(Completion::ignored_with(format!("no {} (make dist)", sums.display())));
    };
    let files = tree::files(&directory, |_| true).map_err(|error| error.to_string())?;
    // The packages have set dates, but nothing sets a ctime.
    let changed = |path: &Path| fs::metadata(path).map(|metadata| (metadata.ctime(), metadata.ctime_nsec()));
    let last = changed(&sums).map_err(|error| error.to_string())?;
    if let Some(newer) = files.iter().find(|path| changed(path).is_ok_and(|changed| changed > last)) {
        return Ok(Completion::ignored_with(format!("{} was packed anew (make dist)", newer.display())));
    }
    said(Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&directory))?;
    let listed: BTreeSet<String> = text.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for path in files {
        let below = path.strip_prefix(&directory).map_err(|error| error.to_string())?;
        found.insert(below.to_string_lossy().into_owned());
    }
    found.remove("SHA256SUMS");
    for package in package::all() {
        found.insert(package.file_name(1));
    }
    if listed == found { Ok(Completion::Completed) } else { Err(format!("listed {listed:?}, found {found:?}")) }
}

/// The list has a component for each package of Cargo that is linked, with the version, the
/// license and the checksum of `Cargo.lock`, and nothing that is for tests only.
fn components(_: &Path) -> Result<Completion, String> {
    let path = package::directory().join(format!("sopin-{VERSION}.cdx.json"));
    if let Some(reason) = package::outdated(&path) {
        return Ok(Completion::ignored_with(reason));
    }
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let list: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if list["bomFormat"] != "CycloneDX"
        || list["specVersion"] != "1.6"
        || list["metadata"]["component"]["version"] != VERSION
    {
        return Err(text);
    }
    let locked = checksums_of_lock()?;
    let (mut names, mut versioned) = (BTreeSet::new(), BTreeSet::new());
    for component in list["components"].as_array().ok_or("no components")? {
        let text = |field: &str| component[field].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        if version.is_empty() || !component["licenses"][0]["expression"].is_string() {
            return Err(format!("incomplete: {component}"));
        }
        let sum = component["hashes"][0]["content"].as_str();
        versioned.insert(format!("{name}-{version}"));
        let is_locked = !text("bom-ref").starts_with("rust-toolchain:");
        if let Some(known) = locked.get(&(name.clone(), version)).filter(|_| is_locked)
            && sum != Some(known)
        {
            return Err(format!("{name} has the checksum {sum:?}, Cargo.lock has {known}"));
        }
        names.insert(name);
    }
    for wanted in ["sopin", "sopin-cli", "sopin-core", "libc", "lock_api", "clap", "rustix", "rust-std", "musl"] {
        if !names.contains(wanted) {
            return Err(format!("no component {wanted}: {names:?}"));
        }
    }
    for linked in of_standard_library()? {
        if !versioned.contains(&linked) {
            return Err(format!("the command contains parts of {linked}, which the list has not: {versioned:?}"));
        }
    }
    // The tests need the first three, and turn on the feature that needs the last.
    if let Some(foreign) = ["libtest-mimic", "snapbox", "cbindgen", "errno"].iter().find(|name| names.contains(**name))
    {
        return Err(format!("{foreign} is not in the files"));
    }
    let checkout = library::checkout().to_string_lossy();
    if text.contains(&*checkout) { Err(format!("the list names {checkout}")) } else { Ok(Completion::Completed) }
}

/// Returns the packages of Cargo that the standard library has brought into the commands, as its
/// messages name them: `/rust/deps/gimli-0.32.3/src/read/line.rs`.
fn of_standard_library() -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for architecture in package::ARCHITECTURES {
        let command = library::checkout().join("target/dist").join(architecture).join("sopin");
        let Ok(bytes) = fs::read(&command) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        found.extend(text.split("/rust/deps/").skip(1).filter_map(|rest| Some(rest.split_once('/')?.0.to_owned())));
    }
    if found.len() < 3 { Err(format!("only {found:?} in the commands")) } else { Ok(found) }
}

/// Returns the checksums of `Cargo.lock` by name and version.
fn checksums_of_lock() -> Result<BTreeMap<(String, String), String>, String> {
    let lock = fs::read_to_string(library::checkout().join("Cargo.lock")).map_err(|error| error.to_string())?;
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        Some(((value(package, "name")?, value(package, "version")?), value(package, "checksum")?))
    });
    Ok(packages.collect())
}
