//! The packages in `target/packages`: their names, their lists of files, and unpacking them.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::common::library;
use crate::common::needs::found_program;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// The form of a package, and which part of sopin it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Archive,
    Deb,
    DebDevelopment,
    Rpm,
    RpmDevelopment,
}

/// One package in `target/packages`.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    pub kind: Kind,
    pub architecture: &'static str,
}

/// A file, directory or link in a package.
#[derive(Debug)]
pub struct Entry {
    /// As `ls` shows it: `-rw-r--r--`.
    pub mode: String,
    /// `root/root`
    pub owner: String,
    /// Relative to the root, without a slash at its end.
    pub path: String,
    /// Where a link leads.
    pub link: Option<String>,
}

/// Returns why a published file cannot be examined, or `None`.
pub fn outdated(path: &Path) -> Option<String> {
    let Ok(metadata) = fs::metadata(path) else { return Some(format!("no {} (make dist)", path.display())) };
    let is_current = metadata.mtime().to_string() == source_date();
    (!is_current).then(|| format!("{} is of other sources (make dist)", path.display()))
}

/// Returns the date that packages of these sources have (`scripts/source-date`); empty if there
/// is none.
fn source_date() -> &'static str {
    static DATE: OnceLock<String> = OnceLock::new();
    DATE.get_or_init(|| {
        let date = said(&mut Command::new(library::checkout().join("scripts/source-date")));
        date.unwrap_or_default().trim().to_owned()
    })
}

/// Returns the version as dpkg and rpm have it: `1.0.0-rc.1` comes before `1.0.0`.
pub fn packaged_version() -> String {
    VERSION.replacen('-', "~", 1)
}

/// Returns every package.
pub fn all() -> impl Iterator<Item = Package> {
    let kinds = [Kind::Archive, Kind::Deb, Kind::DebDevelopment, Kind::Rpm, Kind::RpmDevelopment];
    ARCHITECTURES.into_iter().flat_map(move |architecture| kinds.map(|kind| Package { kind, architecture }))
}

pub fn directory() -> PathBuf {
    library::checkout().join("target/packages")
}

impl Package {
    pub fn native(kind: Kind) -> Self {
        Self { kind, architecture: env::consts::ARCH }
    }

    /// Returns the name of its trials.
    pub fn title(self) -> String {
        let kind = match self.kind {
            Kind::Archive => "archive",
            Kind::Deb => "deb",
            Kind::DebDevelopment => "deb_development",
            Kind::Rpm => "rpm",
            Kind::RpmDevelopment => "rpm_development",
        };
        format!("{kind}_{}", self.architecture)
    }

    /// Returns its file name, for a revision of the packages.
    pub fn file_name(self, revision: u32) -> String {
        let debian = if self.architecture == "aarch64" { "arm64" } else { "amd64" };
        let version = packaged_version();
        match self.kind {
            Kind::Archive => format!("sopin-{VERSION}-{}-linux.tar.gz", self.architecture),
            Kind::Deb => format!("sopin_{version}-{revision}_{debian}.deb"),
            Kind::DebDevelopment => format!("libsopin-dev_{version}-{revision}_{debian}.deb"),
            Kind::Rpm => format!("sopin-{version}-{revision}.{}.rpm", self.architecture),
            Kind::RpmDevelopment => format!("sopin-devel-{version}-{revision}.{}.rpm", self.architecture),
        }
    }

    pub fn path(self) -> PathBuf {
        directory().join(self.file_name(1))
    }

    /// Returns why it cannot be examined, or `None`.
    pub fn unmet(self) -> Option<String> {
        let path = self.path();
        if let Some(reason) = outdated(&path) {
            return Some(reason);
        }
        let programs: &[&str] = match self.kind {
            Kind::Archive => &[],
            Kind::Deb | Kind::DebDevelopment => &["dpkg-deb"],
            Kind::Rpm | Kind::RpmDevelopment => &["rpm", "rpm2cpio", "cpio"],
        };
        let missing = programs.iter().find(|program| found_program(program).is_none());
        missing.map(|program| format!("no program {program}"))
    }

    /// Returns what it contains.
    pub fn entries(self) -> Result<Vec<Entry>, String> {
        let path = self.path();
        let text = match self.kind {
            Kind::Archive => said(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(path))?,
            Kind::Deb | Kind::DebDevelopment => said(Command::new("dpkg-deb").arg("--contents").arg(path))?,
            Kind::Rpm | Kind::RpmDevelopment => {
                let form =
                    "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} 0 - - %{FILENAMES} -> %{FILELINKTOS}\n]";
                said(Command::new("rpm").args(["-qp", "--nosignature", "--queryformat", form]).arg(path))?
            }
        };
        text.lines().map(|line| entry(line).ok_or_else(|| format!("not understood: {line}"))).collect()
    }

    /// Unpacks it below a directory.
    pub fn unpack(self, to: &Path) -> Result<(), String> {
        fs::create_dir_all(to).map_err(|error| error.to_string())?;
        let path = self.path();
        let mut command = match self.kind {
            Kind::Archive => {
                let mut tar = Command::new("tar");
                tar.arg("-xzf").arg(path).arg("-C").arg(to);
                tar
            }
            Kind::Deb | Kind::DebDevelopment => {
                let mut dpkg = Command::new("dpkg-deb");
                dpkg.arg("-x").arg(path).arg(to);
                dpkg
            }
            Kind::Rpm | Kind::RpmDevelopment => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "rpm2cpio \"$1\" | cpio --quiet -idm", "sh"]).arg(path).current_dir(to);
                shell
            }
        };
        said(&mut command).map(drop)
    }
}

/// Reads a line of `tar -tv`, which dpkg-deb prints too.
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let (mode, owner) = (words.next()?, words.next()?);
    // size, date, time
    let path = words.nth(3)?;
    let leads_to = words.next().and(words.next());
    let path = path.trim_start_matches("./").trim_matches('/');
    Some(Entry {
        mode: mode.to_owned(),
        owner: owner.to_owned(),
        path: path.to_owned(),
        link: leads_to.map(str::to_owned),
    })
}

/// Runs a program, and returns its standard output.
///
/// # Errors
/// What it has said, if it fails.
pub fn said(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        Ok(stdout)
    } else {
        Err(format!("{command:?}: {status}\n{stdout}{}", String::from_utf8_lossy(&stderr)))
    }
}
