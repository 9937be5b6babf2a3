//! The files of an installed package: of dpkg, of rpm, and of Python environments. A name can be that
//! of several; then the files of all of them are returned. This module runs dpkg-query and rpm, and
//! no interpreter: what pip and uv install, they list in a file.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::exit::{Exit, Failure};
use crate::python;

/// More bytes than the list of any package has.
const MOST_LIST: u64 = 64 << 20;

/// Returns the absolute paths of the files of a package. In another `sysroot` that directory stands for
/// the root directory.
///
/// # Errors
/// 3 when no manager knows the package.
pub fn files(name: &str, sysroot: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    // A name that begins with a dash would be an option of these programs.
    if !name.starts_with('-') {
        let root = sysroot.unwrap_or(Path::new("/"));
        let mut dpkg = Command::new("dpkg-query");
        dpkg.arg("--admindir").arg(root.join("var/lib/dpkg")).args(["--listfiles", name]);
        found.extend(listed(&mut dpkg));
        let mut rpm = Command::new("rpm");
        if let Some(sysroot) = sysroot {
            rpm.arg("--root").arg(sysroot);
        }
        found.extend(listed(rpm.args(["--query", "--list", name])));
    }
    for directory in sites(sysroot) {
        let files = recorded(&directory, name).into_iter();
        found.extend(files.filter_map(|path| match sysroot {
            Some(sysroot) => Some(Path::new("/").join(path.strip_prefix(sysroot).ok()?)),
            None => Some(path),
        }));
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(Failure::new(
            Exit::Uninspected,
            name,
            "neither dpkg nor rpm nor a Python environment has this package",
        )
        .with_way_out(
            "name the directory with its files: --in DIRECTORY (an active virtual environment is searched)",
        ));
    }
    Ok(found)
}

/// Returns the paths that a program prints, one on each line; none if it fails.
fn listed(command: &mut Command) -> Vec<PathBuf> {
    let command = command.stdin(Stdio::null()).stderr(Stdio::null()).env("LC_ALL", "C");
    let Some(output) = command.output().ok().filter(|output| output.status.success()) else { return Vec::new() };
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"/"));
    lines.map(|path| OsStr::from_bytes(path).into()).collect()
}

/// Returns the directories of Python environments in which packages may be: of the active one, of the
/// Python in `PATH`, and of the system.
fn sites(sysroot: Option<&Path>) -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> = Vec::new();
    if sysroot.is_none() {
        prefixes.extend(std::env::var_os("VIRTUAL_ENV").map(PathBuf::from));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let python = std::env::split_paths(&path).find(|directory| directory.join("python3").is_file());
        prefixes.extend(python.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    let root = sysroot.unwrap_or(Path::new("/"));
    prefixes.extend(["usr/local", "usr"].map(|prefix| root.join(prefix)));
    let mut sites: Vec<PathBuf> =
        prefixes.iter().flat_map(|prefix| python::below(prefix)).map(|packages| packages.directory).collect();
    // Debian's packages of Python are there, whatever the version.
    sites.push(root.join("usr/lib/python3/dist-packages"));
    sites.sort_unstable();
    sites.dedup();
    sites
}

/// Returns the files in the list of a distribution (`RECORD`, PEP 376 and the specification of
/// installed projects): a CSV file whose first field is a path relative to the directory.
fn recorded(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let Some(project) = file_name.to_str().and_then(|name| name.strip_suffix(".dist-info")) else { continue };
        // The version has no dash in it.
        let Some((project, _)) = project.rsplit_once('-') else { continue };
        if normal(project) != normal(name) {
            continue;
        }
        let mut text = Vec::new();
        let file = fs::File::open(entry.path().join("RECORD"));
        if file.is_ok_and(|file| file.take(MOST_LIST).read_to_end(&mut text).is_ok()) {
            let lines = text.split(|byte| *byte == b'\n').filter_map(first_field).filter(|path| !path.is_empty());
            found.extend(lines.map(|path| directory.join(OsStr::from_bytes(&path))));
        }
    }
    found
}

/// Returns the first field of a line of CSV.
fn first_field(line: &[u8]) -> Option<Vec<u8>> {
    match line.strip_prefix(b"\"") {
        Some(quoted) => {
            let (mut field, mut bytes) = (Vec::new(), quoted.iter().peekable());
            while let Some(byte) = bytes.next() {
                if *byte == b'"' && bytes.next_if(|next| **next == b'"').is_none() {
                    return Some(field);
                }
                field.push(*byte);
            }
            None
        }
        None => line.split(|byte| *byte == b',').next().map(<[u8]>::to_vec),
    }
}

/// Returns a project's name in the form in which names are compared (PEP 503).
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_lists_its_files() {
        let site = tempfile::tempdir().unwrap();
        let notes = site.path().join("SQLAlchemy-1.3.0.dist-info");
        fs::create_dir(&notes).unwrap();
        fs::write(
            notes.join("RECORD"),
            "sqlalchemy/cutils.so,sha256=x,100\n\"a \"\"b\"\",c.so\",,\n\n../../../bin/x,,\n",
        )
        .unwrap();
        fs::create_dir(site.path().join("other-1.dist-info")).unwrap();
        let found = recorded(site.path(), "sqlalchemy");
        assert_eq!(
            found,
            ["sqlalchemy/cutils.so", "a \"b\",c.so", "../../../bin/x"].map(|name| site.path().join(name))
        );
        assert_eq!(recorded(site.path(), "sql"), Vec::<PathBuf>::new());
        assert_eq!(
            (normal("Zope.Interface"), normal("zope__interface")),
            ("zope-interface".into(), "zope-interface".into())
        );
    }

    #[test]
    fn a_package_that_is_not_installed_is_an_error() {
        for name in ["no-such-package-here", "--admindir=/", "-L", ""] {
            let failure = files(name, None).unwrap_err();
            assert_eq!(failure.exit, Exit::Uninspected, "{failure}");
        }
    }
}
