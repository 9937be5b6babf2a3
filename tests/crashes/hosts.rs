//! The programs: what each needs from the machine, its plug-in, how it is started, and how it is
//! told which function of the plug-in to call.

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::process::geteuid;

use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::{process, protection, scratch};
use crate::cores;

const POSTGRESQL: &str = "/usr/lib/postgresql";
/// The server refuses to run as root.
const NOBODY: u32 = 65534;
const FLAGS: [&str; 9] =
    ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-fPIC", "-shared", "-Wl,--build-id"];
/// The functions of the plug-in, for a program that looks for them before its file is rewritten.
const WAYS: [&str; 15] = [
    "call",
    "data",
    "lazy",
    "nowhere",
    "nothing",
    "wild",
    "stray",
    "aborted",
    "trap",
    "overflow",
    "freed",
    "twice",
    "exhausted",
    "mapped",
    "raised",
];

/// A program that loads a plug-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Cpp,
    CPython,
    Node,
    PostgreSql,
    Jvm,
}

/// The way in which the plug-in is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// By the machine's linker, with functions of other objects bound when they are first called.
    Lazy,
    /// By LLVM's, which leaves words empty that the loader relocates, and without a build-id.
    Lld,
    /// With everything bound at once.
    Now,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpp => "cpp",
            Self::CPython => "cpython",
            Self::Node => "node",
            Self::PostgreSql => "postgresql",
            Self::Jvm => "jvm",
        })
    }
}

/// Builds programs and plug-ins, each once.
pub struct Builds {
    directory: PathBuf,
    lock: Mutex<()>,
}

impl Builds {
    /// `directory` must not exist.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(directory: PathBuf) -> Result<Self, String> {
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { directory, lock: Mutex::new(()) })
    }

    /// Returns a file, which `make` makes if there is none.
    fn file(&self, name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
        let _guard = self.lock.lock().map_err(|_| "another trial has failed to build")?;
        let file = self.directory.join(name);
        if !file.exists() {
            let unfinished = self.directory.join(format!("{name}.unfinished"));
            make(&unfinished)?;
            fs::rename(&unfinished, &file).map_err(|error| error.to_string())?;
        }
        Ok(file)
    }
}

/// Returns a file of these programs.
pub fn source(name: &str) -> PathBuf {
    checkout().join("tests/crashes/programs").join(name)
}

impl Host {
    pub const ALL: [Self; 5] = [Self::Cpp, Self::CPython, Self::Node, Self::PostgreSql, Self::Jvm];

    /// Returns its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cpp => "C++",
            Self::CPython => "CPython",
            Self::Node => "Node.js",
            Self::PostgreSql => "PostgreSQL",
            Self::Jvm => "JVM",
        }
    }

    /// Returns why it cannot be run here, or `None` if it can.
    pub fn unmet_need(self) -> Option<String> {
        let program = |name: &str| Need::Program(name.to_owned()).unmet();
        match self {
            Self::Cpp => program("c++"),
            Self::CPython => {
                (!python().is_file()).then(|| "no target/test-python: run scripts/test-environments".to_owned())
            }
            Self::Node => program("node"),
            Self::PostgreSql => match postgresql() {
                None => Some(format!("no PostgreSQL in {POSTGRESQL}")),
                Some(version) if !version.join("lib/pg_trgm.so").is_file() => {
                    Some("no contributed libraries".to_owned())
                }
                Some(_) => None,
            },
            Self::Jvm => program("javac").or_else(|| program("java")),
        }
    }

    /// Returns its plug-in, or another build of it.
    ///
    /// # Errors
    /// It cannot be compiled.
    pub fn plug(self, builds: &Builds, linking: Linking, is_other: bool) -> Result<PathBuf, String> {
        let (compiler, name) = match self {
            Self::Cpp => ("c++", "plug.cc"),
            Self::CPython => ("cc", "python.c"),
            Self::Node => ("cc", "node.c"),
            Self::PostgreSql => ("cc", "postgresql.c"),
            Self::Jvm => ("cc", "java.c"),
        };
        builds.file(&format!("{self}.{linking:?}.{is_other}.so"), |file| {
            let mut command = Command::new(compiler);
            command.args(FLAGS).arg("-o").arg(file).arg(source(name));
            command.args(match linking {
                Linking::Lazy => &["-Wl,-z,lazy"][..],
                Linking::Lld => &["-fuse-ld=lld", "-Wl,-z,lazy", "-Wl,--build-id=none"],
                Linking::Now => &["-Wl,-z,now"],
            });
            if is_other {
                command.arg("-DOTHER_BUILD");
            }
            if let (Self::PostgreSql, Some(version)) = (self, postgresql()) {
                command.arg(format!("-DINSTALLED_EXTENSION=\"{}\"", version.join("lib/pg_trgm.so").display()));
            }
            succeed(command)
        })
    }

    /// Returns the directory in which the program runs and leaves its core.
    pub fn working_directory(self, directory: &Path) -> PathBuf {
        if self == Self::PostgreSql { directory.join("data") } else { directory.to_owned() }
    }

    /// Returns a command that starts the program with the plug-in `plug.so` in `directory`. `way` is
    /// the function that it will call.
    ///
    /// # Errors
    /// Something that it needs cannot be made.
    pub fn command(self, builds: &Builds, directory: &Path, way: &str, filter: u32) -> Result<Command, String> {
        let mut command;
        match self {
            Self::Cpp => {
                command = cores::command(&cpp_program(builds)?, directory, filter);
                command.args(WAYS);
            }
            Self::CPython => {
                command = cores::command(&python(), directory, filter);
                command.arg(source("host.py"));
            }
            Self::Node => {
                command = cores::command(Path::new("node"), directory, filter);
                command.arg(source("host.js"));
            }
            Self::PostgreSql => {
                let data = directory.join("data");
                scratch::copy_tree(&builds.file("cluster", initialise)?, &data).map_err(|error| error.to_string())?;
                if geteuid().is_root() {
                    give_away(&data)?;
                }
                let program = postgresql().ok_or("no PostgreSQL")?.join("bin/postgres");
                command = cores::command(Path::new("env"), directory, filter);
                command.args(as_user()).arg(program).arg("--single").arg("-D").arg(&data);
                command.args(["-c", "fsync=off", "-c", "jit=off", "-c", "shared_buffers=1MB", "template1"]);
            }
            Self::Jvm => {
                let classes = builds.file("classes", |directory| {
                    let mut command = Command::new("javac");
                    command.arg("-d").arg(directory).arg(source("Host.java"));
                    succeed(command)
                })?;
                command = cores::command(Path::new("java"), directory, filter);
                command.args([
                    "-Xmx32m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UnlockDiagnosticVMOptions",
                    "-XX:-DumpSharedMappingsInCore",
                    "-cp",
                ]);
                command.arg(classes).args(["Host", way]);
            }
        }
        protection::forget_settings(&mut command);
        Ok(command)
    }

    /// Waits until the program has loaded the plug-in and is ready to call a function.
    ///
    /// # Errors
    /// It ends before.
    pub fn prepare(self, process: &mut Dialogue, directory: &Path, way: &str) -> Result<(), String> {
        if self != Self::PostgreSql {
            return process.wait_for("ready", 1);
        }
        let plug = directory.join("plug.so");
        process.say(&format!(
            "create function {way}(bool) returns int as '{}', 'postgresql_{way}' language c strict;",
            plug.display()
        ));
        process.say(&format!("select {way}(false);"));
        process.wait_for_text(&format!("{way} = \"42\""))
    }

    /// Lets it call the function.
    pub fn call(self, process: &mut Dialogue, way: &str) {
        if self == Self::PostgreSql {
            process.say(&format!("select {way}(true);"));
        } else {
            process.say(way);
        }
    }
}

/// Returns the C++ program.
///
/// # Errors
/// It cannot be compiled.
pub fn cpp_program(builds: &Builds) -> Result<PathBuf, String> {
    let program = builds.file("host", |file| {
        let mut command = Command::new("c++");
        command.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"]).arg(file).arg(source("host.cc"));
        succeed(command)
    })?;
    process::wait_for_writers(&program).map_err(|error| error.to_string())?;
    Ok(program)
}

/// Returns the interpreter of the tests.
pub fn python() -> PathBuf {
    checkout().join("target/test-python/bin/python")
}

/// Returns the newest `PostgreSQL` that is installed.
pub fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir(POSTGRESQL).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    versions.filter(|path| path.join("bin/postgres").is_file()).max()
}

/// Returns words that run a program as a user who may run the server.
fn as_user() -> Vec<String> {
    let number = NOBODY.to_string();
    let words = ["setpriv", "--reuid", &number, "--regid", &number, "--clear-groups", "--"];
    if geteuid().is_root() { words.map(str::to_owned).to_vec() } else { Vec::new() }
}

/// Makes a cluster.
fn initialise(directory: &Path) -> Result<(), String> {
    fs::create_dir(directory).map_err(|error| error.to_string())?;
    if geteuid().is_root() {
        give_away(directory)?;
    }
    let mut command = Command::new("env");
    command.args(as_user()).arg(postgresql().ok_or("no PostgreSQL")?.join("bin/initdb"));
    command.args([
        "--no-sync",
        "--auth",
        "trust",
        "--username",
        "postgres",
        "--encoding",
        "UTF8",
        "--locale",
        "C",
        "--wal-segsize",
        "1",
    ]);
    protection::forget_settings(&mut command);
    command.arg("--pgdata").arg(directory);
    succeed(command)?;
    // A trial copies the cluster, and uses its first database only.
    for database in ["base/4", "base/5"] {
        fs::remove_dir_all(directory.join(database)).map_err(|error| format!("{database}: {error}"))?;
    }
    Ok(())
}

fn give_away(directory: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    chown(directory, Some(NOBODY), Some(NOBODY)).map_err(failed)?;
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            give_away(&path)?;
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).map_err(failed)?;
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Runs a command to its end.
///
/// # Errors
/// The command, its status and its output, if it fails.
pub fn succeed(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Returns the directory of the virtual machine.
///
/// # Errors
/// There is none, or it does not print that.
pub fn java_home() -> Result<PathBuf, String> {
    let output = Command::new("java").args(["-XshowSettings:properties", "-version"]).output();
    let output = output.map_err(|error| format!("java: {error}"))?;
    let settings = String::from_utf8_lossy(&output.stderr);
    let home = settings.lines().find_map(|line| line.trim().strip_prefix("java.home = "));
    home.map(PathBuf::from).ok_or_else(|| format!("java does not print its directory: {settings}"))
}
