//! Copies of a program of the machine, which may be rewritten.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::protection;
use crate::common::rewrite;

/// Copies of a program and of all libraries that it is linked with.
pub struct Copies {
    root: PathBuf,
}

impl Copies {
    /// Makes a new directory for them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(root: &Path) -> Result<Self, String> {
        fs::create_dir_all(root.join("lib")).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Copies a program, and its libraries without the loader. The kernel takes that from the path
    /// in the program, and it refuses to write to a program that it has executed.
    ///
    /// # Errors
    /// Those of the file system; the libraries cannot be listed.
    pub fn add_program(&self, program: &Path, to: &str) -> Result<PathBuf, String> {
        let copy = self.root.join(to);
        self.add_libraries_of(program)?;
        copy_file(program, &copy)?;
        Ok(copy)
    }

    /// Copies the libraries that a program or a library is linked with.
    ///
    /// # Errors
    /// Those of the file system; they cannot be listed.
    pub fn add_libraries_of(&self, program: &Path) -> Result<(), String> {
        let mut command = Command::new("ldd");
        protection::forget_settings(&mut command);
        let output = command.arg(program).output().map_err(|error| format!("ldd: {error}"))?;
        if !output.status.success() {
            return Err(format!("ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr)));
        }
        // NAME => PATH (ADDRESS)
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
            let path = rest.split(" (").next().unwrap_or_default();
            copy_file(Path::new(path), &self.root.join("lib").join(name))?;
        }
        Ok(())
    }

    /// Copies a directory: shared objects and programs are new files, and everything else is a link.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn add_directory(&self, from: &Path, to: &str) -> Result<(), String> {
        copy_directory(from, &self.root.join(to))
    }

    /// Returns a command that runs one of the copies.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.apply(&mut command);
        command
    }

    /// Lets a command find the libraries.
    pub fn apply(&self, command: &mut Command) {
        protection::forget_settings(command);
        command.env("LD_LIBRARY_PATH", self.root.join("lib")).env("LC_ALL", "C");
    }

    /// Returns the shared objects.
    ///
    /// # Errors
    /// Those of the file system; there is none.
    pub fn objects(&self) -> Result<Vec<PathBuf>, String> {
        let objects = rewrite::shared_objects(&self.root).map_err(|error| error.to_string())?;
        if objects.is_empty() { Err(format!("no shared object in {}", self.root.display())) } else { Ok(objects) }
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), String> {
    let directory = to.parent().unwrap_or(to);
    let copy = || fs::create_dir_all(directory).and_then(|()| fs::copy(from, to));
    copy().map(drop).map_err(|error| format!("copy {} to {}: {error}", from.display(), to.display()))
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("copy {}: {error}", from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            copy_directory(&source, &target)?;
        } else if kind.is_file() && (rewrite::is_shared_object(&source).map_err(failed)? || from.ends_with("bin")) {
            copy_file(&source, &target)?;
        } else {
            symlink(source.canonicalize().unwrap_or(source), target).map_err(failed)?;
        }
    }
    Ok(())
}
