//! An installation whose store contains what a program has loaded.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{Installation, clean_process};

/// A program that loads libraries, prints that it has, and ends with its input.
const PROGRAM: &str = "#include <dlfcn.h>\n#include <stdio.h>\n\
    int main(int count, char **names) {\n\
    for (int i = 1; i < count; i++) if (!dlopen(names[i], RTLD_NOW)) return 1;\n\
    puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {} return 42; }\n";
pub const LIBRARIES: [&str; 3] = ["libone.so", "libtwo.so", "libthree.so"];
pub const DAY: u64 = 24 * 60 * 60;

/// An installation with libraries that are in its store.
pub struct Scene {
    pub installation: Installation,
}

impl Scene {
    /// Makes a scene with these of [`LIBRARIES`] in the store.
    pub fn with(stored: &[&str]) -> Self {
        let installation = Installation::new();
        installation.compile("program", PROGRAM, "cc", &["-ldl"]);
        for name in LIBRARIES {
            let library = installation.compile(name, "int one(void) { return 1; }\n", "cc", &["-shared", "-fPIC"]);
            // This gives the library the same size with every compiler.
            OpenOptions::new().write(true).open(library).unwrap().set_len(32 << 10).unwrap();
        }
        let scene = Self { installation };
        scene.settle();
        scene.run(stored);
        scene
    }

    /// Waits until the library would copy all files.
    pub fn settle(&self) {
        for name in LIBRARIES {
            let changed = fs::metadata(self.path(name)).map_or(0, |status| status.ctime());
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
            while now() <= changed + 2 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.installation.path(below)
    }

    pub fn program(&self, libraries: &[&str]) -> Command {
        let mut command = Command::new(self.path("program"));
        clean_process(&mut command)
            .args(libraries.iter().map(|name| self.path(name)))
            .env("LD_PRELOAD", self.path("lib/libsopin.so"))
            .env("SOPIN_STORE", self.path("store"))
            .env("SOPIN_ONLY", "*/libone.so:*/libtwo.so:*/libthree.so")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub fn run(&self, libraries: &[&str]) {
        assert_eq!(self.program(libraries).status().unwrap().code(), Some(42));
    }

    /// Starts a process that loads libraries and waits.
    pub fn hold(&self, libraries: &[&str]) -> Holder {
        let mut child = self.program(libraries).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Holder(child)
    }

    pub fn sopin(&self, arguments: &[&str]) -> snapbox::cmd::Command {
        self.installation.sopin().arg("store").args(arguments).env("SOPIN_STORE", self.path("store"))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.sopin(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the directory of the entry of a library.
    pub fn key(&self, library: &str) -> PathBuf {
        let mut keys = fs::read_dir(self.path("store")).unwrap().map(|key| key.unwrap().path());
        keys.find(|key| key.join(library).symlink_metadata().is_ok()).unwrap()
    }

    pub fn copy(&self, library: &str) -> PathBuf {
        self.key(library).join(library)
    }

    pub fn names(&self) -> usize {
        fs::read_dir(self.path("store")).unwrap().count()
    }
}

/// A process that has libraries of the store mapped.
pub struct Holder(pub Child);

impl Holder {
    pub fn end(mut self) {
        drop(self.0.stdin.take());
        assert_eq!(self.0.wait().unwrap().code(), Some(42));
    }
}

/// Sets the last use of a copy to so many seconds ago.
pub fn age(copy: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::open(copy).unwrap().set_times(FileTimes::new().set_accessed(then)).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Makes an entry look like that of another container, from below another root.
pub fn make_foreign(key: &Path) {
    let link = key.join(".source");
    let target = fs::read_link(&link).unwrap().into_os_string().into_string().unwrap();
    fs::remove_file(&link).unwrap();
    let (directories, path) = target.split_once('/').unwrap();
    symlink(format!("{}{}/elsewhere/{path}", "00000000", &directories[8..]), link).unwrap();
}
