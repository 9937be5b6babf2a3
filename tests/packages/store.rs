//! The packages' triggers fill the system's store where the administrator has turned that on,
//! and only there; mistakes in the settings harm no installation; the store goes with the
//! package, and what maps it lives.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Completion;

use crate::Try;
use crate::common::tree;
use crate::package::{Kind, Package, said};
use crate::root::{self, Root};

const STORE: &str = "/var/lib/sopin";
/// Root's own, where root has no `HOME`.
const ROOTS_STORE: &str = "/var/cache/sopin";
const OBJECT: &str = "/usr/lib/other/libother.so";

pub fn trials() -> Vec<(String, Try)> {
    vec![
        ("store::deb_trigger".to_owned(), Box::new(deb_trigger)),
        ("store::rpm_trigger".to_owned(), Box::new(rpm_trigger)),
        ("store::purge".to_owned(), Box::new(purge)),
    ]
}

/// How a package manager installs the package of another project, which has one object.
trait Installer {
    /// Installs a version of it that contains these bytes.
    fn install(&self, root: &Root, version: u32, bytes: &[u8], directory: &Path) -> Result<String, String>;
    fn settings(&self) -> &'static str;
    /// Removes sopin, and what it has made.
    fn remove_sopin(&self, root: &Root) -> Result<(), String>;
}

struct Dpkg;

impl Installer for Dpkg {
    fn install(&self, root: &Root, version: u32, bytes: &[u8], directory: &Path) -> Result<String, String> {
        let (stage, file) = (directory.join(format!("other-{version}")), directory.join("other.deb"));
        write(&stage.join(&OBJECT[1..]), bytes)?;
        let control = format!(
            "Package: other\nVersion: {version}\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n"
        );
        write(&stage.join("DEBIAN/control"), control.as_bytes())?;
        said(Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "--build"]).arg(&stage).arg(&file))?;
        root.add(&file, "/root/other.deb")?;
        Ok(root.succeed(&["dpkg", "--install", "/root/other.deb"])?.to_string())
    }

    fn settings(&self) -> &'static str {
        "/etc/default/sopin"
    }

    fn remove_sopin(&self, root: &Root) -> Result<(), String> {
        root.succeed(&["dpkg", "--purge", "sopin"]).map(drop)
    }
}

struct Rpm;

impl Installer for Rpm {
    fn install(&self, root: &Root, version: u32, bytes: &[u8], directory: &Path) -> Result<String, String> {
        let (stage, spec) = (directory.join(format!("other-{version}")), directory.join("other.spec"));
        write(&stage.join(&OBJECT[1..]), bytes)?;
        let recipe = format!(
            "%global __os_install_post %{{nil}}\nName: other\nVersion: {version}\nRelease: 1\nSummary: test\nLicense: none\n\
             BuildArch: noarch\n%description\ntest\n%install\nmkdir -p %{{buildroot}}\ncp -a '{}/.' %{{buildroot}}\n\
             %files\n{OBJECT}\n",
            stage.display()
        );
        write(&spec, recipe.as_bytes())?;
        let mut build = Command::new("rpmbuild");
        build.args(["-bb", "--quiet", "--define", &format!("_topdir {}", directory.join("rpmbuild").display())]);
        // The object is for this machine, though the package says that it is for all.
        build.args(["--define", "_binaries_in_noarch_packages_terminate_build 0", "--nodeps"]).arg(&spec);
        said(&mut build)?;
        let file = directory.join(format!("rpmbuild/RPMS/noarch/other-{version}-1.noarch.rpm"));
        Ok(root.rpm(&["--nodeps", "--upgrade"], &[&file])?.to_string())
    }

    fn settings(&self) -> &'static str {
        "/etc/sysconfig/sopin"
    }

    fn remove_sopin(&self, root: &Root) -> Result<(), String> {
        root.rpm(&["--erase", "sopin"], &[]).map(drop)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let written = fs::create_dir_all(path.parent().unwrap_or(path)).and_then(|()| fs::write(path, bytes));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn deb_trigger(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Deb);
    if let Some(reason) = root::unmet("bookworm", &[package], &["dpkg-deb"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy("bookworm", directory)?;
    root.add(&package.path(), "/root/sopin.deb")?;
    root.succeed(&["dpkg", "--install", "/root/sopin.deb"])?;
    fills_where_turned_on(root, &Dpkg, directory)
}

fn rpm_trigger(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Rpm);
    if let Some(reason) = root::unmet("bookworm", &[package], &["rpmbuild"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy("bookworm", directory)?;
    root.rpm(&["--nodeps", "--install"], &[&package.path()])?;
    fills_where_turned_on(root, &Rpm, directory)
}

fn fills_where_turned_on(root: Root, installer: &dyn Installer, directory: &Path) -> Result<Completion, String> {
    let original = fs::read_to_string(root.path(installer.settings())).map_err(|error| error.to_string())?;
    let object = some_object(&root)?;
    // The bytes behind the end of an object make another file of it, which a loader loads all the
    // same.
    let bytes = |version: u32| [&*object, format!("{version}").as_bytes()].concat();
    let install = |version: u32| installer.install(&root, version, &bytes(version), directory);
    let set = |text: &str| write(&root.path(installer.settings()), text.as_bytes());

    install(1)?;
    if !copies(&root)?.is_empty() || root.path(STORE).exists() {
        return Err("the store was filled, though nobody has turned that on".to_owned());
    }
    let turned_on = original.replace("FILL_STORE=no", "FILL_STORE=yes");
    let limited = turned_on.lines().filter(|line| !line.starts_with("FILL_PATHS=")).collect::<Vec<_>>().join("\n");
    if turned_on == original || limited == turned_on.trim_end() {
        return Err(format!("the settings are not as they were: {original}"));
    }
    set(&format!("{limited}\nFILL_PATHS=\"/usr/lib/none /usr/lib/oth*\"\n"))?;
    for version in [2, 3] {
        let printed = install(version)?;
        // The copy of the version before is pruned.
        let copies = copies(&root)?;
        let found = copies.iter().map(|path| fs::read(path).unwrap_or_default()).collect::<Vec<_>>();
        if found != [bytes(version)] {
            return Err(format!("after version {version} the store has {copies:?}\n{printed}"));
        }
    }
    for (version, (settings, wanted)) in (4..).zip([
        ("FILL_STORE=maybe\n", "neither yes nor no"),
        ("FILL_STORE='yes\n", "cannot be read"),
        ("FILL_STORE=yes\nFILL_PATHS=/usr/lib/none\n", "names no file"),
        ("exit 3\n", "cannot be read"),
    ]) {
        set(settings)?;
        let printed = install(version)?;
        if !printed.contains(wanted) {
            return Err(format!("{settings}: {printed}"));
        }
    }
    write(&root.path(ROOTS_STORE).join("entry/copy"), b"a copy")?;
    let stores = [STORE, ROOTS_STORE].map(|store| root.path(store));
    if let Some(missing) = stores.iter().find(|store| !store.exists()) {
        return Err(format!("no {}", missing.display()));
    }
    installer.remove_sopin(&root)?;
    if let Some(left) = stores.iter().find(|store| store.exists()) {
        return Err(format!("{} is left", left.display()));
    }
    root.discard()?;
    Ok(Completion::Completed)
}

/// Returns the bytes of a shared object of the root.
fn some_object(root: &Root) -> Result<Vec<u8>, String> {
    let directory = root.path(&format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let path = directory.join("libz.so.1");
    fs::read(path.canonicalize().unwrap_or(path)).map_err(|error| error.to_string())
}

/// Returns the copies in the system's store.
fn copies(root: &Root) -> Result<Vec<PathBuf>, String> {
    let store = root.path(STORE);
    if !store.exists() {
        return Ok(Vec::new());
    }
    let files = tree::files(&store, |_| true).map_err(|error| error.to_string())?;
    Ok(files.into_iter().filter(|path| path.ends_with("libother.so")).collect())
}

/// A service maps the system's store, which goes with the package. A link in its place stays.
fn purge(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Deb);
    if let Some(reason) = root::unmet("bookworm", &[package], &[]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy("bookworm", directory)?;
    root.add(&package.path(), "/root/sopin.deb")?;
    root.succeed(&["dpkg", "--install", "/root/sopin.deb"])?;
    root.succeed(&["sopin", "store", "fill", "/usr/lib", "/usr/bin/python3"])?;
    let mut service = root.start(&["sopin", "run", "--"])?;
    for process in service.processes() {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).map_err(|error| error.to_string())?;
        if !maps.contains(&format!("{STORE}/")) {
            return Err(format!("the service does not map the store:\n{maps}"));
        }
    }
    root.succeed(&["dpkg", "--remove", "sopin"])?;
    if !root.path(STORE).exists() || !root.path("/etc/default/sopin").exists() {
        return Err("the removal has taken the store or the settings".to_owned());
    }
    root.succeed(&["dpkg", "--purge", "sopin"])?;
    if root.path(STORE).exists() || root.path("/etc/default/sopin").exists() {
        return Err("the store or the settings are left".to_owned());
    }
    root.rewrite()?;
    service.work("work")?;
    service.work("load _codecs_jp")?;
    service.finish()?;

    root.succeed(&["dpkg", "--install", "/root/sopin.deb"])?;
    let elsewhere = root.path("/srv/elsewhere/kept");
    write(&elsewhere, b"the administrator's")?;
    symlink("/srv/elsewhere", root.path(STORE)).map_err(|error| error.to_string())?;
    root.succeed(&["dpkg", "--purge", "sopin"])?;
    if !elsewhere.exists() || !root.path(STORE).is_symlink() {
        return Err("the purge has followed a link".to_owned());
    }
    root.discard()?;
    Ok(Completion::Completed)
}
