//! The same crash, whose core reaches the command in other ways: compressed, from standard input, of
//! gdb, cut off, with less memory in it, without the files, of a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::{self, Way};
use crate::common::needs::Need;
use crate::cores::{self, Crash, DEFAULT_FILTER};
use crate::explained::{self, Explanation, Verdict};
use crate::hosts::{Builds, Host, Linking, cpp_program, source, succeed};

use Verdict::{Rewritten, Unknown, Unrelated};

/// A trial.
pub struct Variant {
    pub name: &'static str,
    /// Programs that it needs.
    pub programs: &'static [&'static str],
    pub needs_root: bool,
    pub test: fn(&Builds, &Path) -> Result<(), String>,
}

const fn variant(
    name: &'static str,
    programs: &'static [&'static str],
    test: fn(&Builds, &Path) -> Result<(), String>,
) -> Variant {
    Variant { name, programs, needs_root: false, test }
}

pub const ALL: &[Variant] = &[
    variant("compressed::gzip", &["gzip"], |builds, directory| compressed(builds, directory, "gzip")),
    variant("compressed::zstd", &["zstd"], |builds, directory| compressed(builds, directory, "zstd")),
    variant("compressed::lz4", &["lz4"], |builds, directory| compressed(builds, directory, "lz4")),
    variant("from_standard_input", &[], from_standard_input),
    variant("gcore::damaged", &["gcore"], gcore_of_a_damaged_process),
    variant("gcore::sound", &["gcore"], gcore_of_a_sound_process),
    variant("cut_off", &[], cut_off),
    variant("filters", &[], filters),
    variant("sysroot", &[], sysroot),
    variant("deleted", &[], deleted),
    variant("stripped", &["objcopy", "readelf"], stripped),
    variant("aarch64", &["zstd"], aarch64),
    Variant { needs_root: true, ..variant("container", &["unshare", "mount"], container) },
];

impl Variant {
    /// Returns why it cannot be run here, if that is so.
    pub fn unmet_need(&self) -> Option<String> {
        let programs = self.programs.iter().find_map(|name| Need::Program((*name).to_owned()).unmet());
        programs.or_else(|| Host::Cpp.unmet_need()).or_else(|| self.needs_root.then(|| Need::Root.unmet())?)
    }
}

/// The crash of most variants: a call through a pointer that has reverted.
fn way() -> &'static Way {
    cases::find("same_bytes::call")
}

fn crash(builds: &Builds, directory: &Path) -> Result<Crash, String> {
    way().crash(Host::Cpp, builds, directory, DEFAULT_FILTER)
}

fn judge(explanation: &Explanation, directory: &Path) -> Result<(), String> {
    way().judge(explanation, &directory.join("plug.so"))
}

/// Explains what a shell's command line writes to the standard input.
fn explain_output(line: &str, file: &Path, directory: &Path) -> Result<Explanation, String> {
    let mut command = Command::new("sh");
    command.args(["-euc", &format!("{line} | \"$2\" explain -"), "sh"]).arg(file).arg(explained::command()?);
    explained::run(command, directory)
}

fn compressed(builds: &Builds, directory: &Path, program: &str) -> Result<(), String> {
    let core = crash(builds, directory)?.core;
    let packed = directory.join("packed");
    let mut command = Command::new("sh");
    command.args(["-euc", "\"$1\" -c \"$2\" >\"$3\"", "sh", program]).arg(&core).arg(&packed);
    succeed(command)?;
    fs::remove_file(core).map_err(|error| error.to_string())?;
    // The name does not say how it is compressed.
    judge(&explained::explain(&packed, directory)?, directory)?;
    judge(&explain_output("cat \"$1\"", &packed, directory)?, directory)?;
    // A part of it is the beginning of the core.
    let size = fs::metadata(&packed).map_err(|error| error.to_string())?.len();
    let explanation = explain_output(&format!("head -c {} \"$1\"", size / 2), &packed, directory)?;
    explanation.is_one_of(&[Rewritten, Unknown])
}

fn from_standard_input(builds: &Builds, directory: &Path) -> Result<(), String> {
    let core = crash(builds, directory)?.core;
    judge(&explain_output("cat \"$1\"", &core, directory)?, directory)?;
    let mut command = Command::new("sh");
    command.args(["-euc", "\"$2\" explain - <\"$1\"", "sh"]).arg(&core).arg(explained::command()?);
    judge(&explained::run(command, directory)?, directory)
}

/// Starts the program, damages its plug-in, and returns a core that gdb makes of it.
fn gcore(way: &Way, builds: &Builds, directory: &Path) -> Result<PathBuf, String> {
    let mut process = way.start(Host::Cpp, builds, directory, DEFAULT_FILTER)?;
    let mut command = Command::new("gcore");
    command.arg("-o").arg(directory.join("gcore")).arg(process.id().to_string());
    succeed(command)?;
    if process.is_over()? {
        return Err("gcore has ended the program".to_owned());
    }
    Ok(directory.join(format!("gcore.{}", process.id())))
}

/// The process lives, but its next call will kill it.
fn gcore_of_a_damaged_process(builds: &Builds, directory: &Path) -> Result<(), String> {
    let explanation = explained::explain(&gcore(way(), builds, directory)?, directory)?;
    explanation.is_one_of(&[Rewritten, Unknown])?;
    if explanation.text.contains("plug.so") { Ok(()) } else { Err(format!("the plug-in is not named:\n{explanation}")) }
}

fn gcore_of_a_sound_process(builds: &Builds, directory: &Path) -> Result<(), String> {
    let way = cases::find("untouched::nothing");
    explained::explain(&gcore(way, builds, directory)?, directory)?.is_one_of(&[Unrelated])
}

/// systemd-coredump cuts off at `ExternalSizeMax=`, and a file system that is full anywhere.
fn cut_off(builds: &Builds, directory: &Path) -> Result<(), String> {
    let core = crash(builds, directory)?.core;
    let bytes = fs::read(&core).map_err(|error| error.to_string())?;
    let mut seen = [false; 2];
    for sixteenths in 1..16 {
        let part = directory.join("part");
        fs::write(&part, &bytes[..bytes.len() / 16 * sixteenths]).map_err(|error| error.to_string())?;
        let explanation = explained::explain(&part, directory)?;
        explanation
            .is_one_of(&[Rewritten, Unknown])
            .map_err(|error| format!("with {sixteenths} of 16 parts, {error}"))?;
        if explanation.verdict == Rewritten {
            judge(&explanation, directory)?;
        }
        seen[usize::from(explanation.verdict == Rewritten)] = true;
    }
    // The object's data is somewhere between.
    if seen == [true; 2] { Ok(()) } else { Err("the parts have the same verdict".to_owned()) }
}

/// The command judges the memory that the core has. If the core lacks the object's memory, it may answer `Unknown`.
fn filters(builds: &Builds, directory: &Path) -> Result<(), String> {
    for (filter, verdicts) in [
        (0, &[Unknown, Rewritten][..]),
        (0x10, &[Unknown, Rewritten]),
        (0x33, &[Rewritten]),
        (0x3f, &[Rewritten]),
        (0x1ff, &[Rewritten]),
    ] {
        let own = directory.join(format!("{filter:#x}"));
        fs::create_dir(&own).map_err(|error| error.to_string())?;
        let core = way().crash(Host::Cpp, builds, &own, filter)?.core;
        let explanation = explained::explain(&core, &own)?;
        explanation.is_one_of(verdicts).map_err(|error| format!("with {filter:#x}, {error}"))?;
        if explanation.verdict == Rewritten {
            judge(&explanation, &own)?;
        } else if !explanation.text.contains("0x33") {
            return Err(format!("the filter that is needed is not named:\n{explanation}"));
        }
        // An unrelated crash stays one that is not blamed on a file.
        let other = directory.join(format!("{filter:#x}.unrelated"));
        fs::create_dir(&other).map_err(|error| error.to_string())?;
        let core = cases::find("untouched::wild").crash(Host::Cpp, builds, &other, filter)?.core;
        let explanation = explained::explain(&core, &other)?;
        let verdicts = if filter & 1 == 0 { &[Unknown, Unrelated][..] } else { &[Unrelated] };
        explanation.is_one_of(verdicts).map_err(|error| format!("with {filter:#x}, {error}"))?;
    }
    Ok(())
}

/// The core is explained on another machine, which has the files elsewhere.
fn sysroot(builds: &Builds, directory: &Path) -> Result<(), String> {
    let here = directory.join("here");
    fs::create_dir(&here).map_err(|error| error.to_string())?;
    let core = crash(builds, &here)?.core;
    let plug = here.join("plug.so");
    let root = directory.join("root");
    let moved = root.join(plug.strip_prefix("/").map_err(|error| error.to_string())?);
    fs::create_dir_all(moved.parent().ok_or("no directory")?).map_err(|error| error.to_string())?;
    fs::rename(&plug, &moved).map_err(|error| error.to_string())?;
    let mut command = Command::new(explained::command()?);
    command.arg("explain").arg("--sysroot").arg(&root).arg(&core);
    judge(&explained::run(command, directory)?, &here)
}

/// The file is gone when the core is explained.
fn deleted(builds: &Builds, directory: &Path) -> Result<(), String> {
    let core = crash(builds, directory)?.core;
    fs::remove_file(directory.join("plug.so")).map_err(|error| error.to_string())?;
    let explanation = explained::explain(&core, directory)?;
    explanation.is_one_of(&[Rewritten, Unknown])?;
    if explanation.verdict == Unknown && !explanation.text.contains("plug.so") {
        return Err(format!("the file that is needed is not named:\n{explanation}"));
    }
    Ok(())
}

/// The function has its name in a separate file only, which is found by the build-id.
fn stripped(builds: &Builds, directory: &Path) -> Result<(), String> {
    let plug = Host::Cpp.plug(builds, Linking::Lazy, false)?;
    let debug = directory.join("plug.debug");
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(program);
        command.args(arguments);
        succeed(command)
    };
    run("objcopy", &["--only-keep-debug".as_ref(), plug.as_ref(), debug.as_ref()])?;
    let core = crash(builds, directory)?.core;
    // The same first bytes without the names: the process has died, so a new file does no harm.
    let copy = directory.join("plug.so");
    run("objcopy", &["--strip-all".as_ref(), plug.as_ref(), copy.as_ref()])?;
    let id = build_id(&plug)?;
    let place = directory.join("debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    fs::rename(&debug, place.join(format!("{}.debug", &id[2..]))).map_err(|error| error.to_string())?;
    let mut command = Command::new(explained::command()?);
    command.arg("explain").arg("--debug-dir").arg(directory.join("debug")).arg(&core);
    judge(&explained::run(command, directory)?, directory)
}

/// Returns the build-id of a file, as `readelf -n` prints it.
fn build_id(file: &Path) -> Result<String, String> {
    let output = Command::new("readelf").arg("-nW").arg(file).output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = printed.lines().find_map(|line| line.split_once("Build ID: ")).map(|(_, id)| id);
    id.map(|id| id.trim().to_owned()).ok_or_else(|| format!("no build-id in {}", file.display()))
}

/// The program has seen its plug-in at a path that exists in its container only.
fn container(builds: &Builds, directory: &Path) -> Result<(), String> {
    let program = cpp_program(builds)?;
    let plug = Host::Cpp.plug(builds, Linking::Lazy, false)?;
    let image = directory.join("image");
    fs::create_dir(&image).map_err(|error| error.to_string())?;
    fs::copy(&plug, image.join("plug.so")).map_err(|error| error.to_string())?;
    fs::copy(program, image.join("host")).map_err(|error| error.to_string())?;
    let work = directory.join("work");
    fs::create_dir(&work).map_err(|error| error.to_string())?;
    // A file system over /opt: the files in it are seen by this program alone.
    let script = "mount -t tmpfs none /opt; mkdir /opt/sopin-crash; cp \"$1\"/* /opt/sopin-crash; cd /opt/sopin-crash
        ulimit -c unlimited; mkfifo input; ./host call <input >output & program=$!; exec 9>input
        while ! grep -q ready output; do sleep 0.01; done
        cat \"$1/plug.so\" >plug.so; echo call >&9; wait $program || true; mv core* \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]).arg(&image).arg(&work);
    succeed(command)?;
    let core = cores::find(&work)?;
    let inside = Path::new("/opt/sopin-crash/plug.so");
    let explanation = explained::explain(&core, directory)?;
    explanation.is_one_of(&[Rewritten, Unknown])?;
    explanation.says(&[&inside.to_string_lossy()])?;
    // The image's files, as they are in the layer that an engine has unpacked.
    let root = directory.join("layer");
    fs::create_dir_all(root.join("opt")).map_err(|error| error.to_string())?;
    fs::rename(&image, root.join("opt/sopin-crash")).map_err(|error| error.to_string())?;
    let mut command = Command::new(explained::command()?);
    command.arg("explain").arg("--sysroot").arg(&root).arg(&core);
    way().judge(&explained::run(command, directory)?, inside)
}

/// Cores of another architecture, which tests/crashes/arm64/make has made. The other machine's files
/// are not here, but for the plug-in.
fn aarch64(_: &Builds, directory: &Path) -> Result<(), String> {
    let unpack = |name: &str, to: &Path| {
        let mut command = Command::new("zstd");
        command.args(["-q", "-d"]).arg(source("../arm64").join(format!("{name}.zst"))).arg("-o").arg(to);
        succeed(command)
    };
    let plug = Path::new("/srv/plug.so");
    let root = directory.join("root");
    fs::create_dir_all(root.join("srv")).map_err(|error| error.to_string())?;
    unpack("plug.so", &root.join("srv/plug.so"))?;
    for (name, verdicts) in [
        ("same_bytes.call", &[Rewritten][..]),
        ("same_bytes.data", &[Rewritten]),
        ("emptied.data", &[Rewritten]),
        // The program's own file is not here either.
        ("untouched.wild", &[Unrelated, Unknown]),
        ("untouched.nowhere", &[Unrelated, Unknown]),
    ] {
        let core = directory.join("core");
        unpack(&format!("{name}.core"), &core)?;
        let mut command = Command::new(explained::command()?);
        command.arg("explain").arg("--sysroot").arg(&root).arg(&core);
        let explanation = explained::run(command, directory)?;
        explanation.is_one_of(verdicts).map_err(|error| format!("{name}: {error}"))?;
        if explanation.verdict == Rewritten {
            explanation.says(&[&plug.to_string_lossy()])?;
        }
        fs::remove_file(core).map_err(|error| error.to_string())?;
    }
    Ok(())
}
