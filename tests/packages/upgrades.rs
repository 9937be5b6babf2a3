//! A service runs with the library while its package is upgraded twice, while the library is
//! rewritten in place, and while the package is removed: no process dies, every process keeps
//! its pins, and can load further objects. At every moment of an upgrade a program that starts
//! finds the library.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libtest_mimic::Completion;
use serde_json::Value;

use crate::Try;
use crate::common::library;
use crate::common::rewrite::Rewrite;
use crate::package::{Kind, Package, VERSION, packaged_version, said};
use crate::root::{self, Root, Service};

pub fn trials() -> Vec<(String, Try)> {
    vec![("upgrades::deb".to_owned(), Box::new(deb)), ("upgrades::rpm".to_owned(), Box::new(rpm))]
}

/// The name by which the loader looks for the library.
const SONAME: &str = "libsopin.so.0";

/// The states of the objects of a process, by path.
type Pins = BTreeMap<String, String>;

fn deb(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Deb);
    if let Some(reason) = root::unmet("bookworm", &[package], &["dpkg-deb"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy("bookworm", directory)?;
    root::dies_without_sopin(&root)?;
    let install = |file: &Path| {
        root.add(file, "/root/sopin.deb")?;
        root.succeed(&["dpkg", "--install", "/root/sopin.deb"])
    };
    install(&package.path())?;
    // By its soname: the directory is one of the loader's.
    let mut service = root.start(&["env", "LD_PRELOAD=libsopin.so.0"])?;
    let library = format!("/usr/lib/{}-linux-gnu/libsopin.so.{VERSION}", package.architecture);
    let pins = pinned(&root, &service)?;
    let name = root.path(&Path::new(&library).with_file_name(SONAME).to_string_lossy());
    let (before, revision) = (inode(&root.path(&library))?, repackaged(package, "deb", 2, directory)?);
    stays_while(&name, || install(&revision).map(drop))?;
    if inode(&root.path(&library))? == before {
        return Err("dpkg has rewritten the library in place".to_owned());
    }
    service.work("work")?;
    service.work("load _codecs_jp")?;
    in_place(&root, &library, &mut service)?;
    let next = next_version(package, directory)?;
    stays_while(&name, || install(&next).map(drop))?;
    if root.path(&library).exists() {
        return Err(format!("{library} is left after the upgrade to another version"));
    }
    service.work("work")?;
    let removals: [(&[&str], &str); 2] =
        [(&["dpkg", "--remove", "sopin"], "load _codecs_kr"), (&["dpkg", "--purge", "sopin"], "load _codecs_tw")];
    for (removal, line) in removals {
        root.succeed(removal)?;
        service.work(line)?;
    }
    conclude(&root, service, &pins)?;
    leaves_nothing(&root)?;
    root.discard()?;
    Ok(Completion::Completed)
}

fn rpm(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Rpm);
    if let Some(reason) = root::unmet("bookworm", &[package], &["rpmbuild"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy("bookworm", directory)?;
    root::dies_without_sopin(&root)?;
    // What the package needs is not in rpm's database here.
    root.rpm(&["--nodeps", "--install"], &[&package.path()])?;
    let mut service = root.start(&["sopin", "run", "--"])?;
    let library = format!("/usr/lib64/{SONAME}");
    let pins = pinned(&root, &service)?;
    for revision in [2, 3] {
        let before = inode(&root.path(&library))?;
        let file = repackaged(package, "rpm", revision, directory)?;
        stays_while(&root.path(&library), || root.rpm(&["--nodeps", "--upgrade"], &[&file]).map(drop))?;
        if inode(&root.path(&library))? == before {
            return Err("rpm has rewritten the library in place".to_owned());
        }
        service.work("work")?;
    }
    service.work("load _codecs_jp")?;
    in_place(&root, &library, &mut service)?;
    root.rpm(&["--erase", "sopin"], &[])?;
    service.work("load _codecs_kr")?;
    conclude(&root, service, &pins)?;
    leaves_nothing(&root)?;
    root.discard()?;
    Ok(Completion::Completed)
}

/// Packs the same files as another revision.
fn repackaged(package: Package, kind: &str, revision: u32, directory: &Path) -> Result<PathBuf, String> {
    let to = directory.join("repackaged");
    let mut pack = Command::new(library::checkout().join("scripts/dist-packages"));
    pack.args(["--revision", &revision.to_string(), "--to"]).arg(&to).args([package.architecture, kind]);
    said(&mut pack)?;
    Ok(to.join(package.file_name(revision)))
}

/// Packs the files of a Debian package as another version, in which the library has another name.
fn next_version(package: Package, directory: &Path) -> Result<PathBuf, String> {
    let (stage, file) = (directory.join("next"), directory.join("next.deb"));
    said(Command::new("dpkg-deb").arg("--raw-extract").arg(package.path()).arg(&stage))?;
    let libraries = stage.join(format!("usr/lib/{}-linux-gnu", package.architecture));
    let renamed = format!("{SONAME}.999");
    let change = || {
        fs::rename(libraries.join(format!("libsopin.so.{VERSION}")), libraries.join(&renamed))?;
        fs::remove_file(libraries.join(SONAME))?;
        symlink(&renamed, libraries.join(SONAME))?;
        fs::remove_file(stage.join("DEBIAN/md5sums"))?;
        let control = fs::read_to_string(stage.join("DEBIAN/control"))?;
        fs::write(stage.join("DEBIAN/control"), control.replace(&format!(" {}-1", packaged_version()), " 0.999-1"))
    };
    change().map_err(|error| format!("{}: {error}", stage.display()))?;
    said(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&stage).arg(&file))?;
    Ok(file)
}

/// Checks that a file can be found at every moment of a change: a program that starts then gets
/// the library.
fn stays_while(path: &Path, change: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut looked, mut missing) = (0_u64, 0_u64);
            while !is_over.load(Ordering::Relaxed) {
                looked += 1;
                missing += u64::from(!path.exists());
            }
            (looked, missing)
        });
        let changed = change();
        is_over.store(true, Ordering::Relaxed);
        let (looked, missing) = watcher.join().map_err(|_| "the watcher has ended".to_owned())?;
        changed?;
        match missing {
            0 if looked > 100 => Ok(()),
            _ => Err(format!("{} was missing {missing} of {looked} times", path.display())),
        }
    })
}

/// Overwrites the library in the same inode: with the same bytes, and with bytes that trap.
fn in_place(root: &Root, library: &str, service: &mut Service) -> Result<(), String> {
    let library = root.path(library);
    let bytes = fs::read(&library).map_err(|error| error.to_string())?;
    for rewrite in [Rewrite::SameBytes, Rewrite::Traps, Rewrite::Empty] {
        let before = inode(&library)?;
        rewrite.apply(&library).map_err(|error| error.to_string())?;
        if inode(&library)? != before {
            return Err("the library has a new inode".to_owned());
        }
        service.work("work")?;
    }
    fs::write(&library, bytes).map_err(|error| error.to_string())
}

fn inode(path: &Path) -> Result<u64, String> {
    fs::metadata(path).map(|metadata| metadata.ino()).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns the states of the objects of each process, which must all be pinned. Asks the command
/// in `target/dist`, because the package may be removed.
fn pinned(root: &Root, service: &Service) -> Result<Vec<Pins>, String> {
    let command = library::checkout().join("target/dist").join(std::env::consts::ARCH).join("sopin");
    let processes: Vec<String> = service.processes().iter().map(u32::to_string).collect();
    let mut words = vec![command.to_str().ok_or("a path that is not UTF-8")?, "status", "--json"];
    words.extend(processes.iter().map(String::as_str));
    let finished = root.run(&words)?;
    let answer: Value = serde_json::from_str(&finished.stdout).map_err(|_| finished.to_string())?;
    let mut all = Vec::new();
    for process in answer["processes"].as_array().ok_or_else(|| finished.to_string())? {
        let mut pins = Pins::new();
        for object in process["objects"].as_array().ok_or_else(|| finished.to_string())? {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            pins.insert(text("path"), text("state"));
        }
        let is_pinned = pins.len() > 15 && pins.values().all(|state| state == "full");
        let has_library = pins.keys().any(|path| path.contains("/libsopin.so.0"));
        if !is_pinned || !has_library || process["damaged"] != 0 {
            return Err(finished.to_string());
        }
        all.push(pins);
    }
    if all.len() == processes.len() { Ok(all) } else { Err(finished.to_string()) }
}

/// Checks that every process lives, has the pins that it had and is immune still.
fn conclude(root: &Root, mut service: Service, before: &[Pins]) -> Result<(), String> {
    root.rewrite()?;
    service.work("work")?;
    let after = pinned(root, &service)?;
    for (before, after) in before.iter().zip(&after) {
        if let Some((path, state)) = before.iter().find(|(path, state)| after.get(*path) != Some(state)) {
            return Err(format!("{path} was {state} before, and is {:?}", after.get(path)));
        }
    }
    service.finish()
}

/// Checks that the removed package has left nothing that it has brought.
fn leaves_nothing(root: &Root) -> Result<(), String> {
    let left =
        said(Command::new("find").arg(root.path("/")).args(["-path", "*sopin*", "-not", "-path", "*/.cache/*"]))?;
    // The package manager's own records, the package that the trial has copied, and the name of
    // the root itself.
    let is_known = |path: &&str| ["/var/lib/", "/root/sopin.deb", "/var/log/"].iter().any(|known| path.contains(known));
    let left: Vec<&str> = left.lines().filter(|path| !is_known(path)).collect();
    let inside = |path: &&&str| {
        Path::new(path).strip_prefix(root.path("/")).is_ok_and(|below| below.to_string_lossy().contains("sopin"))
    };
    let left: Vec<&&str> = left.iter().filter(inside).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("left: {left:?}")) }
}
