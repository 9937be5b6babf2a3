//! Crashes that a program dies of because of what it does itself: the virtual functions and exceptions
//! of C++, the table of methods of `CPython`, handlers of signals that end the process in another
//! way, and the libraries that the programs really use.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cases::{self, Way};
use crate::common::protection;
use crate::common::rewrite::Rewrite;
use crate::cores::{self, DEFAULT_FILTER};
use crate::damage::Damage;
use crate::explained::{self, Explanation, Verdict};
use crate::hosts::{Builds, Host, java_home, postgresql, succeed};
use crate::real::{self, Program};

use Verdict::{Rewritten, Unknown, Unrelated};

/// A trial.
pub struct Own {
    pub name: &'static str,
    pub host: Host,
    pub test: fn(&Builds, &Path) -> Result<(), String>,
}

pub const ALL: &[Own] = &[
    Own {
        name: "cpp::virtual_function",
        host: Host::Cpp,
        test: |builds, directory| {
            calls(Host::Cpp, "area", Damage::SameBytes, &[Rewritten], &["area"], builds, directory)
        },
    },
    Own {
        name: "cpp::exception_that_is_caught",
        host: Host::Cpp,
        test: |builds, directory| calls(Host::Cpp, "caught", Damage::SameBytes, &[Rewritten], &[], builds, directory),
    },
    Own {
        name: "cpp::exception_that_nobody_catches",
        host: Host::Cpp,
        test: |builds, directory| calls(Host::Cpp, "uncaught", Damage::None, &[Unrelated], &[], builds, directory),
    },
    Own {
        name: "cpp::exception_that_nobody_catches_in_a_replaced_file",
        host: Host::Cpp,
        test: |builds, directory| {
            calls(Host::Cpp, "uncaught", Damage::Replaced, &[Unrelated, Unknown], &[], builds, directory)
        },
    },
    Own {
        name: "cpython::table_of_methods",
        host: Host::CPython,
        test: |builds, directory| {
            calls(
                Host::CPython,
                "distill_params",
                Damage::SameBytes,
                &[Rewritten],
                &["distill_params"],
                builds,
                directory,
            )
        },
    },
    Own {
        name: "cpython::documentation_of_a_method",
        host: Host::CPython,
        test: |builds, directory| {
            calls(Host::CPython, "distill_params.__doc__", Damage::SameBytes, &[Rewritten], &[], builds, directory)
        },
    },
    Own { name: "cpython::faulthandler", host: Host::CPython, test: faulthandler },
    Own { name: "jvm::all_memory_in_the_core", host: Host::Jvm, test: all_memory },
    Own { name: "jvm::libzip", host: Host::Jvm, test: libzip },
    Own { name: "postgresql::pg_trgm", host: Host::PostgreSql, test: pg_trgm },
];

/// Lets a program call something of its plug-in that is not one of the ways of every program.
fn calls(
    host: Host,
    call: &'static str,
    damage: Damage,
    verdicts: &'static [Verdict],
    words: &'static [&'static str],
    builds: &Builds,
    directory: &Path,
) -> Result<(), String> {
    let way = Way { words, ..cases::way("", damage, call, verdicts) };
    way.try_on(host, builds, directory).map(drop)
}

/// The handler prints the stacks and raises the signal again.
fn faulthandler(builds: &Builds, directory: &Path) -> Result<(), String> {
    for (way, verdicts) in [
        (cases::find("same_bytes::call"), &[Rewritten][..]),
        (cases::find("emptied::data"), &[Rewritten]),
        (cases::find("untouched::wild"), &[Unrelated]),
        (cases::find("untouched::nothing"), &[Unrelated]),
    ] {
        let own = directory.join(way.name().replace("::", "."));
        fs::create_dir(&own).map_err(|error| error.to_string())?;
        let plug = own.join("plug.so");
        fs::copy(Host::CPython.plug(builds, way.linking, false)?, &plug).map_err(|error| error.to_string())?;
        let mut command = Host::CPython.command(builds, &own, way.call, DEFAULT_FILTER)?;
        command.env("PYTHONFAULTHANDLER", "1");
        let mut process = cores::start(command, &own)?;
        process.wait_for("ready", 1)?;
        way.damage.apply(&plug, &plug)?;
        process.say(way.call);
        let crash = cores::of(process, &own)?;
        if !crash.finished.stderr.contains("Fatal Python error") {
            return Err(format!("the handler has to run: {}", crash.finished));
        }
        let explanation = explained::explain(&crash.core, &own)?;
        explanation.is_one_of(verdicts).map_err(|error| format!("{}: {error}", way.name()))?;
        if explanation.verdict == Rewritten {
            explanation.says(&[&plug.to_string_lossy()])?;
        }
    }
    Ok(())
}

/// As a virtual machine is started: it asks the kernel for its files too.
fn all_memory(builds: &Builds, directory: &Path) -> Result<(), String> {
    let way = cases::find("same_bytes::call");
    let plug = directory.join("plug.so");
    fs::copy(Host::Jvm.plug(builds, way.linking, false)?, &plug).map_err(|error| error.to_string())?;
    let mut command = Host::Jvm.command(builds, directory, way.call, DEFAULT_FILTER)?;
    // A later option of the same name counts.
    command
        .env("JDK_JAVA_OPTIONS", "")
        .env("_JAVA_OPTIONS", "-XX:+UnlockDiagnosticVMOptions -XX:+DumpSharedMappingsInCore");
    let mut process = cores::start(command, directory)?;
    process.wait_for("ready", 1)?;
    way.damage.apply(&plug, &plug)?;
    process.say(way.call);
    let crash = cores::of(process, directory)?;
    way.judge(&explained::explain(&crash.core, directory)?, &plug)
}

/// A library of the virtual machine itself, of which it has a copy here.
fn libzip(_: &Builds, directory: &Path) -> Result<(), String> {
    let home = java_home()?;
    let copy = directory.join("java");
    let mut command = Command::new("cp");
    command.arg("-a").arg("--reflink=auto").arg(&home).arg(&copy);
    succeed(command)?;
    let source = directory.join("Unpack.java");
    let text = "import java.io.*; import java.util.zip.*;
        public class Unpack { public static void main(String[] a) throws Exception {
            var d = new Deflater(); d.setInput(new byte[99]); d.finish(); d.deflate(new byte[99]);
            System.out.println(\"ready\"); System.in.read();
            for (;;) { d = new Deflater(); d.setInput(new byte[99]); d.finish(); d.deflate(new byte[99]); } } }";
    fs::write(&source, text).map_err(|error| error.to_string())?;
    let mut command = Command::new("javac");
    command.arg("-d").arg(directory).arg(&source);
    succeed(command)?;
    let mut command = cores::command(&copy.join("bin/java"), directory, DEFAULT_FILTER);
    command.args([
        "-Xmx32m",
        "-XX:+UseSerialGC",
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:-DumpSharedMappingsInCore",
        "-cp",
        ".",
        "Unpack",
    ]);
    protection::forget_settings(&mut command);
    let library = copy.join("lib/libzip.so");
    let mut process = cores::start(command, directory)?;
    process.wait_for("ready", 1)?;
    Rewrite::SameBytes.apply(&library).map_err(|error| error.to_string())?;
    process.say("");
    let crash = cores::of(process, directory)?;
    names(&explained::explain(&crash.core, directory)?, &[&library])
}

/// The extension for trigrams, which every installation has.
fn pg_trgm(builds: &Builds, directory: &Path) -> Result<(), String> {
    let library = directory.join("plug.so");
    let installed = postgresql().ok_or("no PostgreSQL")?.join("lib/pg_trgm.so");
    fs::copy(installed, &library).map_err(|error| error.to_string())?;
    let mut process = cores::start(Host::PostgreSql.command(builds, directory, "", DEFAULT_FILTER)?, directory)?;
    process.say(&format!(
        "create function similarity(text, text) returns real as '{}' language c strict;",
        library.display()
    ));
    process.say("select 'is' || (similarity('a', 'a') + 41) as answer;");
    process.wait_for_text("is42")?;
    Rewrite::SameBytes.apply(&library).map_err(|error| error.to_string())?;
    process.say("select similarity('shared object', 'shared objects');");
    let crash = cores::of(process, &Host::PostgreSql.working_directory(directory))?;
    names(&explained::explain(&crash.core, directory)?, &[&library])
}

/// Programs of `tests/hosts` whose libraries are all rewritten while they wait.
pub fn real(program: &Program, directory: &Path) -> Result<(), String> {
    let installation = directory.join("installation");
    program.install(&installation)?;
    let objects = real::rewritten(&installation)?;
    let command = program.command(&installation, "idle");
    // The program's own directory is its installation.
    let mut wrapped = cores::command(Path::new(command.get_program()), &installation, DEFAULT_FILTER);
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    protection::forget_settings(&mut wrapped);
    let mut process = cores::start(wrapped, directory)?;
    process.wait_for("ready", 1)?;
    process.wait_until_idle()?;
    Rewrite::SameBytes.apply_to_all(&objects)?;
    process.say("go");
    let crash = cores::of(process, &installation)?;
    let explanation = explained::explain(&crash.core, directory)?;
    let objects: Vec<_> = objects.iter().map(|path| &**path).collect();
    names(&explanation, &objects)
}

/// Checks that one of these files is said to have been rewritten.
fn names(explanation: &Explanation, files: &[&Path]) -> Result<(), String> {
    explanation.is_one_of(&[Rewritten])?;
    if files.iter().any(|file| explanation.says(&[&file.to_string_lossy()]).is_ok()) {
        Ok(())
    } else {
        Err(format!("none of the files is named:\n{explanation}"))
    }
}

/// Returns the programs of `tests/hosts` that die of this.
pub fn programs() -> Vec<Program> {
    real::all()
        .into_iter()
        .filter(|program| ["python_science", "node_addons", "nss_and_iconv"].contains(&program.name))
        .collect()
}
