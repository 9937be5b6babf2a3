//! Finished builds of fixtures and other programs of the tests, which one machine makes and another one uses. Where the
//! processor is emulated, compiling takes longer than all that is tested.
//!
//! `SOPIN_MAKE_BUILDS` names the directory in which they are made, `SOPIN_TEST_BUILDS` the one
//! from which they are used. A build has a stamp beside it, which says from what it was
//! made ([`Sources`]). A build with another stamp is never used, and its programs are compiled as
//! if there were no finished build.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use super::library;
use super::toolchain::CLibrary;
use super::tree;

/// What builds are made of. Programs include and compile files of each other, so all builds of the
/// same sources are made anew when one file changes.
pub struct Sources {
    recipes: &'static [&'static str],
    directories: &'static [&'static str],
    hash: OnceLock<Result<u64, String>>,
}

/// The sources of the fixtures.
pub static FIXTURES: Sources = Sources::new(
    &[include_str!("../fixtures.rs"), include_str!("directives.rs"), include_str!("toolchain.rs")],
    &["tests/fixtures", "include"],
);

/// A source from which the preprocessor makes the compiler's version, the C library's version and
/// the architecture.
const TOOLCHAIN: &[u8] = b"#include <features.h>\n__VERSION__ __GLIBC__ __GLIBC_MINOR__ __x86_64__ __aarch64__\n";

/// Returns the directory in which builds are made, if that is what this process is to do.
pub fn to_make() -> Option<PathBuf> {
    env::var_os("SOPIN_MAKE_BUILDS").map(PathBuf::from)
}

/// Returns the directory of the finished build of this name, if there is one of the sources and
/// for the compiler of this machine.
pub fn finished(sources: &Sources, name: &str) -> Option<PathBuf> {
    let all = PathBuf::from(env::var_os("SOPIN_TEST_BUILDS")?);
    is_current(sources, &all, name).then(|| all.join(name))
}

/// Makes the build of this name in `all` by calling `build` with its directory, unless it is
/// there and of the present sources.
///
/// # Errors
/// Those of `build`, which then leaves nothing, and those of the file system.
pub fn make(
    sources: &Sources,
    all: &Path,
    name: &str,
    build: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    if is_current(sources, all, name) {
        return Ok(());
    }
    let directory = all.join(name);
    let error = |error| format!("{}: {error}", directory.display());
    // The old stamp goes first, so that a run that is killed leaves no build that looks finished.
    let stamp_file = stamp_of(all, name);
    if stamp_file.exists() {
        fs::remove_file(&stamp_file).map_err(error)?;
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(error)?;
    }
    fs::create_dir_all(&directory).map_err(error)?;
    if let Err(reason) = build(&directory) {
        fs::remove_dir_all(&directory).map_err(error)?;
        return Err(reason);
    }
    fs::write(stamp_file, sources.stamp()?).map_err(error)
}

fn is_current(sources: &Sources, all: &Path, name: &str) -> bool {
    let stamped = fs::read_to_string(stamp_of(all, name)).ok();
    stamped.is_some_and(|stamped| sources.stamp().is_ok_and(|stamp| stamp == stamped)) && all.join(name).is_dir()
}

fn stamp_of(all: &Path, name: &str) -> PathBuf {
    all.join(format!("{name}.stamp"))
}

impl Sources {
    /// `recipes` is the text of the code that compiles what is in these `directories` of the checkout.
    pub const fn new(recipes: &'static [&'static str], directories: &'static [&'static str]) -> Self {
        Self { recipes, directories, hash: OnceLock::new() }
    }

    /// Returns what identifies all that a build is made of.
    fn stamp(&self) -> Result<String, String> {
        let hash = self.hash.get_or_init(|| self.make_hash()).clone()?;
        Ok(format!("{} {hash:016x}\n", toolchain()?))
    }

    /// Returns a hash of the recipes and of the names and contents of all sources.
    fn make_hash(&self) -> Result<u64, String> {
        let mut hasher = DefaultHasher::new();
        self.recipes.hash(&mut hasher);
        for part in self.directories {
            let root = library::checkout().join(part);
            for file in tree::files(&root, |_| true).map_err(|error| format!("{}: {error}", root.display()))? {
                file.hash(&mut hasher);
                fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?.hash(&mut hasher);
            }
        }
        Ok(hasher.finish())
    }
}

/// Returns the versions of the compiler and of the C library, and the architecture.
fn toolchain() -> Result<String, String> {
    static VERSIONS: OnceLock<Result<String, String>> = OnceLock::new();
    VERSIONS.get_or_init(ask_compiler).clone()
}

fn ask_compiler() -> Result<String, String> {
    let mut command = CLibrary::Native.compiler(Path::new(""))?;
    let error = |error| format!("the compiler: {error}");
    command.args(["-E", "-P", "-x", "c", "-"]);
    let mut compiler = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(error)?;
    // A compiler that does not read its input fails, which its status shows.
    let _ = compiler.stdin.take().map(|mut input| input.write_all(TOOLCHAIN));
    let output = compiler.wait_with_output().map_err(error)?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
}
