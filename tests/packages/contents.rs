//! What is in the packages: every file with its mode, owner and place; the published binaries;
//! versions; no trace of the machine that packed them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;

use crate::Try;
use crate::common::{library, tree};
use crate::package::{self, Entry, Kind, Package, VERSION, said};

type Check = fn(Package, &Path) -> Result<(), String>;

const CHECKS: [(&str, Check); 6] = [
    ("files", files),
    ("links", links),
    ("binaries", binaries),
    ("versions", versions),
    ("no_trace_of_the_machine", no_trace_of_the_machine),
    ("compressed_without_a_date", compressed_without_a_date),
];

const FILE: &str = "-rw-r--r--";
const PROGRAM: &str = "-rwxr-xr-x";
const DIRECTORY: &str = "drwxr-xr-x";
const LINK: &str = "lrwxrwxrwx";

pub fn trials() -> Vec<(String, Try)> {
    let mut trials: Vec<(String, Try)> = Vec::new();
    for package in package::all() {
        for (name, check) in CHECKS {
            let run = move |directory: &Path| match package.unmet() {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => check(package, directory).map(|()| Completion::Completed),
            };
            trials.push((format!("contents::{}::{name}", package.title()), Box::new(run)));
        }
    }
    trials
}

/// Returns the files that a package must contain, with their modes; links with their targets
/// behind a colon.
fn expected(package: Package) -> Result<BTreeMap<String, String>, String> {
    let major = VERSION.split('.').next().unwrap_or_default();
    let (real, soname) = (format!("libsopin.so.{VERSION}"), format!("libsopin.so.{major}"));
    let mut files = BTreeMap::new();
    let mut add = |path: String, mode: &str| {
        files.insert(path, mode.to_owned());
    };
    let (prefix, library_directory) = match package.kind {
        Kind::Archive => {
            let top = format!("sopin-{VERSION}-{}-linux", package.architecture);
            (top.clone(), format!("{top}/lib"))
        }
        Kind::Deb | Kind::DebDevelopment => ("usr".to_owned(), format!("usr/lib/{}-linux-gnu", package.architecture)),
        Kind::Rpm | Kind::RpmDevelopment => ("usr".to_owned(), "usr/lib64".to_owned()),
    };
    let document = |name: &str| format!("{prefix}/share/doc/sopin/{name}");
    if matches!(package.kind, Kind::Archive | Kind::Deb | Kind::Rpm) {
        let is_deb = package.kind == Kind::Deb;
        add(format!("{prefix}/bin/sopin"), PROGRAM);
        if package.kind == Kind::Rpm {
            // rpm would replace a link before the file to which it leads.
            add(format!("{library_directory}/{soname}"), PROGRAM);
        } else {
            add(format!("{library_directory}/{real}"), if is_deb { FILE } else { PROGRAM });
            add(format!("{library_directory}/{soname}"), &format!("{LINK}:{real}"));
        }
        let suffix = if package.kind == Kind::Archive { "" } else { ".gz" };
        for page in names("man", &["1", "7"])? {
            let section = page.rsplit('.').next().unwrap_or_default();
            add(format!("{prefix}/share/man/man{section}/{page}{suffix}"), FILE);
        }
        for page in names("docs", &["md", "svg"])? {
            if !["releasing.md", "memory-order.md"].contains(&&*page) {
                add(document(&format!("docs/{page}")), FILE);
            }
        }
        for name in ["README.md", "SECURITY.md"] {
            add(document(name), FILE);
        }
        let zsh = if is_deb { "vendor-completions" } else { "site-functions" };
        for completion in
            ["bash-completion/completions/sopin", &format!("zsh/{zsh}/_sopin"), "fish/vendor_completions.d/sopin.fish"]
        {
            add(format!("{prefix}/share/{completion}"), FILE);
        }
    }
    if matches!(package.kind, Kind::Archive | Kind::DebDevelopment | Kind::RpmDevelopment) {
        add(format!("{prefix}/include/sopin.h"), FILE);
        add(format!("{library_directory}/pkgconfig/sopin.pc"), FILE);
        add(format!("{library_directory}/libsopin.so"), &format!("{LINK}:{soname}"));
    }
    let more: &[&str] = match package.kind {
        Kind::Archive => &["LICENSE", "CHANGELOG.md", "third-party-licenses.txt"],
        Kind::Deb => &["copyright", "changelog.gz", "changelog.Debian.gz", "third-party-licenses.txt"],
        Kind::Rpm => &["CHANGELOG.md"],
        Kind::DebDevelopment | Kind::RpmDevelopment => &[],
    };
    for name in more {
        add(document(name), FILE);
    }
    let others: &[(&str, &str)] = match package.kind {
        Kind::Deb => &[
            ("etc/default/sopin", FILE),
            ("usr/libexec/sopin/fill-store", PROGRAM),
            ("usr/share/lintian/overrides/sopin", FILE),
        ],
        Kind::DebDevelopment => &[
            ("usr/share/doc/libsopin-dev/copyright", FILE),
            ("usr/share/doc/libsopin-dev/changelog.Debian.gz", FILE),
            ("usr/share/lintian/overrides/libsopin-dev", FILE),
        ],
        Kind::Rpm => &[
            ("etc/sysconfig/sopin", FILE),
            ("usr/libexec/sopin/fill-store", PROGRAM),
            ("usr/share/licenses/sopin/LICENSE", FILE),
            ("usr/share/licenses/sopin/third-party-licenses.txt", FILE),
        ],
        Kind::Archive | Kind::RpmDevelopment => &[],
    };
    for (path, mode) in others {
        add((*path).to_owned(), mode);
    }
    Ok(files)
}

/// Returns the names of the files with one of these endings in a directory of the checkout.
fn names(directory: &str, endings: &[&str]) -> Result<Vec<String>, String> {
    let found = tree::files(&library::checkout().join(directory), |_| false).map_err(|error| error.to_string())?;
    let names = found.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(names.filter(|name| name.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending))).collect())
}

fn files(package: Package, _: &Path) -> Result<(), String> {
    let expected = expected(package)?;
    let mut found = BTreeMap::new();
    let mut wrong = Vec::new();
    for Entry { mode, owner, path, link } in package.entries()? {
        // tar shows numbers, the packages names.
        if owner != "root/root" && owner != "0/0" {
            wrong.push(format!("{path} belongs to {owner}"));
        }
        if mode.starts_with('d') {
            if mode != DIRECTORY {
                wrong.push(format!("{path} has the mode {mode}"));
            }
        } else {
            let link = link.filter(|_| mode == LINK);
            found.insert(path, link.map_or(mode.clone(), |link| format!("{mode}:{link}")));
        }
    }
    for (path, mode) in &expected {
        match found.remove(path) {
            None => wrong.push(format!("{path} is missing")),
            Some(other) if other != *mode => wrong.push(format!("{path} is {other}, not {mode}")),
            Some(_) => {}
        }
    }
    wrong.extend(found.keys().map(|path| format!("{path} does not belong there")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Checks that the links in the documents lead to files of the package, or to the project's page.
fn links(package: Package, directory: &Path) -> Result<(), String> {
    package.unpack(directory)?;
    let mut examined = 0;
    for path in tree::files(directory, |_| true).map_err(|error| error.to_string())? {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_elsewhere = link.is_empty() || link.starts_with("https://");
            if !is_elsewhere && !path.with_file_name(link).exists() {
                return Err(format!("{} leads to {link}, which is not there", path.display()));
            }
            examined += 1;
        }
    }
    let has_documents = !matches!(package.kind, Kind::DebDevelopment | Kind::RpmDevelopment);
    if (examined > 20) == has_documents { Ok(()) } else { Err(format!("{examined} links")) }
}

/// Checks that the command and the library are those of `target/dist`.
fn binaries(package: Package, directory: &Path) -> Result<(), String> {
    let built = library::checkout().join("target/dist").join(package.architecture);
    package.unpack(directory)?;
    let mut compared = 0;
    for path in tree::files(directory, |_| true).map_err(|error| error.to_string())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let original = if name.starts_with("libsopin.so.") && !path.is_symlink() {
            built.join("libsopin.so")
        } else if path.ends_with("bin/sopin") {
            built.join("sopin")
        } else {
            continue;
        };
        let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        if read(&path)? != read(&original)? {
            return Err(format!("{name} is not {} (make dist)", original.display()));
        }
        compared += 1;
    }
    let is_main = !matches!(package.kind, Kind::DebDevelopment | Kind::RpmDevelopment);
    if compared == if is_main { 2 } else { 0 } { Ok(()) } else { Err(format!("{compared} binaries")) }
}

fn versions(package: Package, directory: &Path) -> Result<(), String> {
    let path = package.path();
    let found = match package.kind {
        Kind::Archive => VERSION.to_owned(),
        Kind::Deb | Kind::DebDevelopment => {
            said(Command::new("dpkg-deb").args(["--field"]).arg(&path).arg("Version"))?.trim().to_owned()
        }
        Kind::Rpm | Kind::RpmDevelopment => {
            let form = "%{VERSION}-%{RELEASE}";
            said(Command::new("rpm").args(["-qp", "--nosignature", "--queryformat", form]).arg(&path))?
        }
    };
    if found != VERSION && found != format!("{}-1", package::packaged_version()) {
        return Err(format!("the package says {found}"));
    }
    package.unpack(directory)?;
    let mut checked = 0;
    for path in tree::files(directory, |_| true).map_err(|error| error.to_string())? {
        let text = || fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
        let is_right = if path.ends_with("pkgconfig/sopin.pc") {
            text()?.lines().any(|line| line == format!("Version: {VERSION}"))
        } else if path.ends_with("bin/sopin") && package.architecture == env::consts::ARCH {
            said(Command::new(&path).arg("--version"))? == format!("sopin {VERSION}\n")
        } else {
            continue;
        };
        if !is_right {
            return Err(format!("{} has another version", path.display()));
        }
        checked += 1;
    }
    let is_foreign = package.architecture != env::consts::ARCH;
    if checked > 0 || is_foreign { Ok(()) } else { Err("nothing with a version was found".to_owned()) }
}

/// Checks that no file names a directory of this machine. What is compressed in the package is
/// compared after unpacking.
fn no_trace_of_the_machine(package: Package, directory: &Path) -> Result<(), String> {
    package.unpack(directory)?;
    let home = env::var("HOME").unwrap_or_default();
    let checkout = library::checkout().to_string_lossy().into_owned();
    let cargo = format!("{home}/.cargo");
    let mut examined = 0;
    for path in tree::files(directory, |_| true).map_err(|error| error.to_string())? {
        if path.is_symlink() {
            continue;
        }
        let bytes = if path.extension().is_some_and(|extension| extension == "gz") {
            said(Command::new("gzip").arg("-dc").arg(&path))?.into_bytes()
        } else {
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?
        };
        examined += 1;
        for name in [&checkout, &cargo].map(String::as_bytes) {
            if bytes.windows(name.len()).any(|window| window == name) {
                return Err(format!("{} names {}", path.display(), String::from_utf8_lossy(name)));
            }
        }
    }
    if examined > 0 { Ok(()) } else { Err("the package is empty".to_owned()) }
}

/// Checks that compressed files contain neither a name nor a time (RFC 1952, 2.3).
fn compressed_without_a_date(package: Package, directory: &Path) -> Result<(), String> {
    package.unpack(directory)?;
    let mut compressed = tree::files(directory, |_| true).map_err(|error| error.to_string())?;
    compressed.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    if package.kind == Kind::Archive {
        compressed.push(package.path());
    }
    for path in compressed {
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // Magic number, method 8, no flags, no time.
        if !bytes.starts_with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]) {
            return Err(format!("{}: {:x?}", path.display(), &bytes[..bytes.len().min(8)]));
        }
    }
    Ok(())
}
