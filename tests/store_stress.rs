//! Many processes start, use and fill one store, while a thread damages it and the
//! libraries are rewritten while processes use them. No process crashes, and none sees
//! a wrong byte in any read-only segment of any object.
//!
//! `STORE_STRESS_STARTS` is the number of processes (default 1,200);
//! `STORE_STRESS_SEED` repeats a sequence.

mod common;

#[path = "store_stress/vandal.rs"]
mod vandal;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::dialogue::Dialogue;
use common::directives::PASSED;
use common::process::{Finished, Outcome};
use common::protection::{Protection, SETTLING_TIME};
use common::rewrite::Rewrite;
use common::{library, process, scratch};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};
use vandal::{Random, Vandal};

const LIBRARIES: [&str; 3] = ["libone.so", "libtwo.so", "libthree.so"];
const VERSIONS: [&str; 2] = ["1", "2"];
/// The number of processes that run at the same time.
const BATCH: usize = 8;
/// The number of installations that are used in turn, because one that was rewritten
/// has to settle.
const INSTALLATIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, String>;

/// A program with its libraries, which are rewritten together.
struct Installation {
    directory: PathBuf,
    version: usize,
    rewritten: Instant,
}

/// Files that are compiled once: intact libraries of both versions, and the checksums
/// of their read-only segments.
struct World {
    scratch: PathBuf,
    store: PathBuf,
    expected: [u64; VERSIONS.len()],
}

/// Counts of what the processes reported.
#[derive(Default)]
struct Seen {
    starts: usize,
    objects: usize,
    entries: usize,
}

#[test]
fn nothing_breaks_while_the_store_is_damaged() -> Result<()> {
    let starts = number("STORE_STRESS_STARTS").unwrap_or(1200);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    let sequence = number("STORE_STRESS_SEED").unwrap_or(usize::try_from(clock).unwrap_or(1));
    let world = World::make("store_stress")?;
    let mut installations = world.install()?;
    let vandal = Vandal::start(world.store.clone(), world.scratch.join("bait"), Random(sequence as u64 | 1));
    let mut seen = Seen::default();
    let mut turn = 0;
    while seen.starts < starts {
        world
            .run_batch(&mut installations[turn % INSTALLATIONS], Protection::Stored, &mut seen)
            .map_err(|error| format!("{error}\nafter {} starts, STORE_STRESS_SEED={sequence}", seen.starts))?;
        turn += 1;
    }
    let damage = vandal.stop()?;
    println!("{} starts, {} objects, {} libraries from the store\n{damage}", seen.starts, seen.objects, seen.entries);
    // Otherwise this would not have tested the store.
    let libraries = seen.starts * LIBRARIES.len();
    if seen.entries * 2 < libraries {
        return Err(format!("only {} of {libraries} libraries came from the store", seen.entries));
    }

    // Without damage, the store recovers at once.
    let mut undisturbed = Seen::default();
    for installation in &mut installations {
        world.run_batch(installation, Protection::Stored, &mut undisturbed)?;
    }
    if undisturbed.entries != undisturbed.starts * LIBRARIES.len() {
        let (entries, starts) = (undisturbed.entries, undisturbed.starts);
        return Err(format!("{entries} libraries from the store in {starts} undisturbed starts"));
    }
    world.check_store()?;
    fs::remove_dir_all(&world.scratch).map_err(|error| error.to_string())
}

#[test]
fn the_test_notices_damage_without_the_library() -> Result<()> {
    let world = World::make("store_stress_control")?;
    let mut installations = world.install()?;
    let result = world.run_batch(&mut installations[0], Protection::Unprotected, &mut Seen::default());
    match result {
        Ok(()) => Err("unprotected processes survived".to_owned()),
        Err(_) => fs::remove_dir_all(&world.scratch).map_err(|error| error.to_string()),
    }
}

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok()?.parse().ok()
}

impl World {
    fn make(purpose: &str) -> Result<Self> {
        process::forbid_core_files().map_err(|error| error.to_string())?;
        let scratch = scratch::for_this_run(purpose).map_err(|error| error.to_string())?;
        let sources = library::checkout().join("tests");
        for version in VERSIONS {
            let directory = scratch.join(version);
            fs::create_dir(&directory).map_err(|error| error.to_string())?;
            for name in LIBRARIES {
                let mut command = Command::new("cc");
                command.args(["-O1", "-shared", "-fPIC", &format!("-DVERSION={version}"), "-DWORDS=8192"]);
                compile(command.arg(sources.join("fixtures/store/libvictim.c")), &directory.join(name))?;
            }
            let mut command = Command::new("cc");
            command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]);
            command.arg(sources.join("store_stress/starter.c")).arg("-L").arg(&directory);
            command.args([&format!("-l:{}", LIBRARIES[0]), "-Wl,-rpath,$ORIGIN", "-ldl"]);
            compile(&mut command, &directory.join("starter"))?;
        }
        fs::write(scratch.join("bait"), [0xCC; 4096]).map_err(|error| error.to_string())?;
        let mut expected = [0; VERSIONS.len()];
        for (sum, version) in expected.iter_mut().zip(VERSIONS) {
            *sum = checksum_of(&scratch.join(version).join(LIBRARIES[0]))?;
        }
        if expected[0] == expected[1] {
            return Err("both versions look alike".to_owned());
        }
        Ok(Self { store: scratch.join("store"), scratch, expected })
    }

    fn install(&self) -> Result<Vec<Installation>> {
        let install = |index| {
            let directory = self.scratch.join(format!("installation{index}"));
            scratch::copy_tree(&self.scratch.join(VERSIONS[0]), &directory).map_err(|error| error.to_string())?;
            Ok(Installation { directory, version: 0, rewritten: Instant::now() })
        };
        (0..INSTALLATIONS).map(install).collect()
    }

    /// Starts processes at the same time, rewrites their libraries when all are ready,
    /// and checks what they then have mapped.
    fn run_batch(&self, installation: &mut Installation, protection: Protection, seen: &mut Seen) -> Result<()> {
        thread::sleep(SETTLING_TIME.saturating_sub(installation.rewritten.elapsed()));
        let starter = installation.directory.join("starter");
        let mut processes = Vec::new();
        for index in 0..BATCH {
            let mut command = Command::new(&starter);
            command.arg(VERSIONS[installation.version]);
            command.args(LIBRARIES[1..].iter().map(|name| installation.directory.join(name)));
            protection.apply(&mut command, "LD_PRELOAD", &self.store)?;
            let log = self.scratch.join(format!("log{index}"));
            processes.push(Dialogue::start(&mut command, &log, TIMEOUT).map_err(|error| error.to_string())?);
        }
        for process in &mut processes {
            process.wait_for("ready", 1)?;
        }
        let loaded = installation.version;
        installation.rewrite(&self.scratch)?;
        for process in &mut processes {
            process.say("tell");
        }
        let mut known = BTreeMap::new();
        for process in processes {
            let finished = process.finish()?;
            seen.check_process(&finished, &starter, self.expected[loaded], &mut known)
                .map_err(|wrong| format!("{wrong}\n{finished}"))?;
        }
        Ok(())
    }

    /// Checks that every entry is the whole of one version, and that nothing is left
    /// over.
    fn check_store(&self) -> Result<()> {
        let mut libraries = 0;
        for key in fs::read_dir(&self.store).map_err(|error| error.to_string())? {
            let key = key.map_err(|error| error.to_string())?.path();
            // This is a file that has replaced an entry which no process has needed
            // since.
            let Ok(files) = fs::read_dir(&key) else { continue };
            for file in files.flatten().filter(|file| file.file_name() != ".source") {
                if LIBRARIES.iter().any(|name| file.file_name() == *name) {
                    let sum = checksum_of(&file.path())?;
                    if !self.expected.contains(&sum) {
                        return Err(format!("{}: {sum:016x}", file.path().display()));
                    }
                    libraries += 1;
                }
            }
        }
        // The store has one version of every library of every installation.
        let expected = INSTALLATIONS * LIBRARIES.len();
        if libraries == expected { Ok(()) } else { Err(format!("{libraries} entries of {expected} libraries")) }
    }
}

impl Seen {
    /// Compares what a process reported with the files. `known` contains the checksums
    /// that were needed before.
    fn check_process(
        &mut self,
        finished: &Finished,
        starter: &Path,
        of_libraries: u64,
        known: &mut BTreeMap<PathBuf, u64>,
    ) -> Result<()> {
        if finished.outcome != Outcome::Exit(PASSED) || !finished.stderr.is_empty() {
            return Err("a process failed".to_owned());
        }
        self.starts += 1;
        for line in finished.stdout.lines() {
            if let Some(object) = line.strip_prefix("object ") {
                let (sum, path) = object.split_once(' ').ok_or("half a line")?;
                let sum = u64::from_str_radix(sum, 16).map_err(|error| error.to_string())?;
                // The loader has an empty name for the program itself.
                let path = if path.is_empty() { starter } else { Path::new(path) };
                let is_library = LIBRARIES.iter().any(|name| path.ends_with(name));
                let expected = match known.get(path) {
                    _ if is_library => of_libraries,
                    Some(expected) => *expected,
                    None => *known.entry(path.to_owned()).or_insert(checksum_of(path)?),
                };
                if sum != expected {
                    return Err(format!("{}: {sum:016x} instead of {expected:016x}", path.display()));
                }
                self.objects += 1;
            } else if let Some(entry) = line.strip_prefix("entry ") {
                let path = entry.strip_suffix(" (deleted)").unwrap_or(entry);
                self.entries += usize::from(LIBRARIES.iter().any(|name| Path::new(path).ends_with(name)));
            }
        }
        Ok(())
    }
}

impl Installation {
    /// Fills the libraries with traps and then writes the other version, all in place.
    fn rewrite(&mut self, scratch: &Path) -> Result<()> {
        self.version = (self.version + 1) % VERSIONS.len();
        for name in LIBRARIES {
            let path = self.directory.join(name);
            let pristine = scratch.join(VERSIONS[self.version]).join(name);
            Rewrite::Traps
                .apply(&path)
                .and_then(|()| fs::read(pristine))
                .and_then(|bytes| fs::write(&path, bytes))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        self.rewritten = Instant::now();
        Ok(())
    }
}

fn compile(command: &mut Command, output: &Path) -> Result<()> {
    let compiled = command.arg("-o").arg(output).output().map_err(|error| format!("cc: {error}"))?;
    if compiled.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&compiled.stderr).into_owned()) }
}

/// Returns the checksum (FNV-1a) that a process must report for the read-only segments
/// of this file.
fn checksum_of(path: &Path) -> Result<u64> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(|error| wrong(&error))?;
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes).map_err(|error| wrong(&error))?;
    let endian = header.endian().map_err(|error| wrong(&error))?;
    let segments = header.program_headers(endian, &*bytes).map_err(|error| wrong(&error))?;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for segment in segments {
        if segment.p_type(endian) != elf::PT_LOAD || segment.p_flags(endian) & elf::PF_W != 0 {
            continue;
        }
        let content = segment.data(endian, &*bytes).map_err(|()| wrong(&"a segment beyond its end"))?;
        hash = content.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    Ok(hash)
}
