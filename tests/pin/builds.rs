//! Compiles the programs and libraries of the trials, or uses finished builds
//! ([`crate::common::builds`]).

use std::path::{Path, PathBuf};

use crate::common::builds::{self, Sources};
use crate::common::library::checkout;
use crate::common::toolchain::{CLibrary, FLAGS};

/// What everything here is compiled of.
static SOURCES: Sources =
    Sources::new(&[include_str!("builds.rs"), include_str!("../common/toolchain.rs")], &[DIRECTORY]);

/// The directory of the sources, in the checkout.
const DIRECTORY: &str = "tests/pin/programs";

/// The name of the finished build; no fixture has it.
const NAME: &str = "pin-programs";

/// An output with its source and the further arguments of the compiler.
#[derive(Clone, Copy)]
struct Build {
    output: &'static str,
    arguments: &'static [&'static str],
    /// The architecture that it is for, if it is not for all.
    architecture: Option<&'static str>,
    /// Whether it needs a processor or a compiler that this machine may not have.
    is_optional: bool,
}

const fn build(output: &'static str, arguments: &'static [&'static str]) -> Build {
    Build { output, arguments, architecture: None, is_optional: false }
}

const fn only(architecture: &'static str, build: Build) -> Build {
    Build { architecture: Some(architecture), ..build }
}

const fn optional(build: Build) -> Build {
    Build { is_optional: true, ..build }
}

const BUILDS: &[Build] = &[
    build("libplug.so", &["plug.c", "-shared", "-fPIC"]),
    build("libuntouched.so", &["untouched.c", "-shared", "-fPIC"]),
    build("libplug_without_start_files.so", &["plug.c", "-shared", "-fPIC", "-nostartfiles", "-DWITHOUT_START_FILES"]),
    build("libdeep.so", &["../../fixtures/store/libdeep.c", "-shared", "-fPIC"]),
    build("deep", &["deep.c", "-ldl"]),
    build("libanswers.so", &["answers.c", "-shared", "-fPIC"]),
    build("host", &["host.c", "-rdynamic", "-pthread", "-ldl"]),
    build("static_host", &["host.c", "plug.c", "-static", "-DSTATIC", "-pthread"]),
    build("calls", &["calls.c", "-pthread", "-lrt"]),
    build("loads", &["loads.c", "-pthread", "-ldl"]),
    build("events", &["events.c", "-pthread"]),
    build("sleepers", &["sleepers.c", "-pthread"]),
    build("intruder", &["intruder.c"]),
    build("killer", &["killer.c"]),
    build("zero", &["zero.c"]),
    only("x86_64", build("libtext_relocations.so", &["text_relocations.c", "-shared", "-Wl,-z,notext"])),
    only("x86_64", build("registers", &["registers.c", "-mno-red-zone"])),
    only("aarch64", build("registers", &["registers_aarch64.c"])),
    optional(build("restartable", &["restartable.c"])),
    only("x86_64", optional(build("program32", PROGRAM32))),
];

const PROGRAM32: &[&str] =
    &["program32.c", "-m32", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-fno-stack-protector"];

/// Returns a directory with all outputs: a finished build, or this one, in which they are compiled.
///
/// # Errors
/// The compiler's messages.
pub fn in_directory(own: PathBuf) -> Result<PathBuf, String> {
    if let Some(finished) = builds::finished(&SOURCES, NAME) {
        return Ok(finished);
    }
    compile(&own)?;
    Ok(own)
}

/// Makes the finished build in a directory with others.
///
/// # Errors
/// The compiler's messages.
pub fn make_finished(all: &Path) -> Result<(), String> {
    builds::make(&SOURCES, all, NAME, compile)
}

fn compile(directory: &Path) -> Result<(), String> {
    let sources = checkout().join(DIRECTORY);
    let architecture = architecture_of_compiler()?;
    for build in BUILDS.iter().filter(|build| build.architecture.is_none_or(|only| only == architecture)) {
        let mut command = CLibrary::Native.compiler(directory)?;
        command.current_dir(&sources).args(FLAGS).args(build.arguments);
        command.arg("-o").arg(directory.join(build.output));
        let compiled = command.output().map_err(|error| format!("cc: {error}"))?;
        if !compiled.status.success() && !build.is_optional {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&compiled.stderr)));
        }
    }
    Ok(())
}

/// Returns the architecture for which the compiler compiles, by its name in `uname -m`.
fn architecture_of_compiler() -> Result<String, String> {
    let mut command = CLibrary::Native.compiler(Path::new(""))?;
    let output = command.arg("-dumpmachine").output().map_err(|error| format!("cc: {error}"))?;
    let triplet = String::from_utf8_lossy(&output.stdout);
    Ok(triplet.split('-').next().unwrap_or_default().to_owned())
}
