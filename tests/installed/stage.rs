//! Runs `make install` into a directory, as a packager does, and `make uninstall`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Completion;

use super::Try;
use crate::common::process::{self, Outcome};
use crate::common::{self, library, rewrite};

pub const TRIALS: &[(&str, Try)] =
    &[("install::tree", tree), ("install::elsewhere", elsewhere), ("install::reinstalled", reinstalled)];

const TIMEOUT: Duration = Duration::from_secs(120);
const PREFIX: &str = "/usr/local";

/// A staged installation, which is made on first use.
pub struct Stage {
    root: PathBuf,
    installed: OnceLock<Result<(), String>>,
}

impl Stage {
    pub fn new(root: PathBuf) -> Self {
        Self { root, installed: OnceLock::new() }
    }

    /// Returns the directory that stands for `/`.
    pub fn root(&self) -> Result<&Path, String> {
        self.installed.get_or_init(|| make(&["install"], &self.root)).clone()?;
        Ok(&self.root)
    }

    /// Returns the path of an installed file or directory, from its path below the
    /// prefix.
    pub fn path(&self, below: &str) -> Result<PathBuf, String> {
        Ok(self.root()?.join(&PREFIX[1..]).join(below))
    }
}

/// Runs make in the checkout with `DESTDIR` set.
fn make(arguments: &[&str], destination: &Path) -> Result<(), String> {
    fs::create_dir_all(destination).map_err(|error| error.to_string())?;
    let log = destination.with_extension("make");
    let mut command = Command::new("make");
    command.current_dir(library::checkout()).args(arguments).arg(format!("DESTDIR={}", destination.display()));
    // make runs as from a shell, and not as from the make that runs the tests.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MAKE") {
            command.env_remove(name);
        }
    }
    command.env_remove("MFLAGS");
    let finished = process::run(&mut command, &log, TIMEOUT).map_err(|error| format!("make: {error}"))?;
    if finished.outcome == Outcome::Exit(0) { Ok(()) } else { Err(format!("{command:?}\n{finished}")) }
}

/// Returns all files below a directory, relative to it.
fn files(root: &Path) -> Result<BTreeSet<String>, String> {
    let found = common::tree::files(root, |_| true).map_err(|error| format!("{}: {error}", root.display()))?;
    let below = |path: PathBuf| {
        let below = path.strip_prefix(root).map_err(|error| error.to_string())?;
        Ok(below.to_string_lossy().into_owned())
    };
    found.into_iter().map(below).collect()
}

fn tree(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let version = env!("CARGO_PKG_VERSION");
    let real = stage.path(&format!("lib/libsopin.so.{version}"))?;
    for (link, target) in [("libsopin.so", "libsopin.so.0"), ("libsopin.so.0", &format!("libsopin.so.{version}"))] {
        let link = stage.path("lib")?.join(link);
        let leads_to = fs::read_link(&link).map_err(|error| format!("{}: {error}", link.display()))?;
        if leads_to != Path::new(target) {
            return Err(format!("{} leads to {}", link.display(), leads_to.display()));
        }
    }
    if fs::read(&real).map_err(|error| error.to_string())?
        != fs::read(library::path()?).map_err(|error| error.to_string())?
    {
        return Err("the installed library is another one".to_owned());
    }
    let installed = files(stage.root()?)?;
    let documents = ["share/doc/sopin/README.md", "share/doc/sopin/docs/limits.md"];
    for wanted in ["bin/sopin", "include/sopin.h", "lib/pkgconfig/sopin.pc"].into_iter().chain(documents) {
        let below = format!("usr/local/{wanted}");
        if !installed.contains(&below) {
            return Err(format!("{below} is not installed, but {installed:?}"));
        }
    }
    // No file may contain the path of the stage, because a package would contain it
    // too.
    let description = fs::read_to_string(stage.path("lib/pkgconfig/sopin.pc")?).map_err(|error| error.to_string())?;
    if description.contains(&*stage.root()?.to_string_lossy()) || description.contains('@') {
        return Err(description);
    }
    leaves_nothing(&[], directory)
}

fn elsewhere(_: &Stage, directory: &Path) -> Result<Completion, String> {
    leaves_nothing(&["PREFIX=/opt/so pin", "LIBDIR=/opt/so pin/lib64"], directory)
}

/// Checks that installing and uninstalling leaves exactly the files that existed
/// before.
fn leaves_nothing(settings: &[&str], directory: &Path) -> Result<Completion, String> {
    let root = directory.join("root");
    let kept = root.join("usr/local/lib/other.so");
    fs::create_dir_all(kept.parent().unwrap_or(&root)).map_err(|error| error.to_string())?;
    fs::write(&kept, "").map_err(|error| error.to_string())?;
    make(&[&["install"], settings].concat(), &root)?;
    if files(&root)?.len() < 10 {
        return Err(format!("hardly anything was installed: {:?}", files(&root)?));
    }
    make(&[&["uninstall"], settings].concat(), &root)?;
    let left = files(&root)?;
    if left.len() != 1 || root.join("opt").exists() || root.join("usr/local/share").exists() {
        return Err(format!("left after uninstall: {left:?}, or empty directories"));
    }
    // Uninstalling again, when no file exists, is no error.
    make(&[&["uninstall"], settings].concat(), &root)?;
    Ok(Completion::Completed)
}

/// Checks that an installation does not harm a process that runs with the library,
/// whether it makes a new file or rewrites the old one.
fn reinstalled(_: &Stage, directory: &Path) -> Result<Completion, String> {
    use std::os::unix::fs::MetadataExt;
    let root = directory.join("root");
    make(&["install"], &root)?;
    let real = root.join(format!("usr/local/lib/libsopin.so.{}", env!("CARGO_PKG_VERSION")));
    let inode = || fs::metadata(&real).map(|metadata| metadata.ino()).map_err(|error| error.to_string());
    let before = inode()?;
    let mut command = Command::new("cat");
    command.env("LD_PRELOAD", root.join("usr/local/lib/libsopin.so")).env("SOPIN_STORE", "off");
    let mut cat = crate::common::dialogue::Dialogue::start(&mut command, &directory.join("cat"), TIMEOUT)
        .map_err(|error| error.to_string())?;
    cat.say("before");
    cat.wait_for("before", 1)?;
    make(&["install"], &root)?;
    if inode()? == before {
        return Err("the library was rewritten in place".to_owned());
    }
    rewrite::Rewrite::Traps.apply(&real).map_err(|error| error.to_string())?;
    cat.say("after");
    cat.wait_for("after", 1)?;
    let finished = cat.finish()?;
    if finished.outcome == Outcome::Exit(0) { Ok(Completion::Completed) } else { Err(finished.to_string()) }
}
