//! The compilers with which fixtures are built: for the C library of this machine, and for musl.
//!
//! Debian's musl-gcc is the machine's GCC with musl's headers and libraries. What it links does
//! not register unwinding information, and has no `PT_GNU_EH_FRAME`, unlike objects of a GCC that is
//! built for musl. So the start-up code of such a GCC is linked in its place
//! (`tests/musl/crtbeginS.S`), and the header is asked for.
//!
//! `SOPIN_TEST_CC` names the compiler to use instead of `cc`, for builds that are made for another
//! architecture ([`super::builds`]).

use std::env::{self, consts::ARCH};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::library;
use super::needs::Need;

/// The flags of every build of a fixture. A fixture's own flags follow and override them.
pub const FLAGS: [&str; 6] = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"];

/// A C library for which programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CLibrary {
    /// The C library of this machine.
    Native,
    /// musl.
    Musl,
}

impl CLibrary {
    /// Returns whether a fixture with this need is not built for it.
    pub const fn is_ruled_out_by(self, need: &Need) -> bool {
        match self {
            Self::Native => matches!(need, Need::Musl),
            Self::Musl => matches!(need, Need::Glibc | Need::GlibcVersion(..)),
        }
    }

    /// Returns why no program can be built for it, if that is so.
    pub fn unmet(self) -> Option<String> {
        let works = || Command::new("musl-gcc").arg("--version").output().is_ok_and(|output| output.status.success());
        (self == Self::Musl && !works()).then(|| "no program musl-gcc".to_owned())
    }

    /// Returns the file that is the dynamic loader.
    ///
    /// # Errors
    /// There is no compiler, or no such loader.
    pub fn loader(self) -> Result<PathBuf, String> {
        match self {
            Self::Native => {
                let version = if cfg!(target_arch = "x86_64") { 2 } else { 1 };
                found_by_compiler(&format!("ld-linux-{}.so.{version}", ARCH.replace('_', "-")))
            }
            Self::Musl => Ok(PathBuf::from(format!("/lib/ld-musl-{ARCH}.so.1"))),
        }
    }

    /// Returns the compiler. `scratch` is a directory of this run.
    ///
    /// # Errors
    /// The start-up code cannot be assembled.
    pub fn compiler(self, scratch: &Path) -> Result<Command, String> {
        if self == Self::Native {
            return Ok(Command::new(env::var_os("SOPIN_TEST_CC").unwrap_or_else(|| "cc".into())));
        }
        let mut command = Command::new("musl-gcc");
        command.arg("-B").arg(start_files(scratch)?).arg("-Wl,--eh-frame-hdr");
        // The kernel's headers, which musl-dev does not have.
        command.args(["-idirafter", "/usr/include", "-idirafter"]).arg(kernel_headers());
        Ok(command)
    }
}

/// Returns the file with which the machine's compiler would link for `-l:name`.
///
/// # Errors
/// There is no compiler, or it finds no such file.
pub fn found_by_compiler(name: &str) -> Result<PathBuf, String> {
    let output =
        Command::new("cc").arg(format!("-print-file-name={name}")).output().map_err(|error| format!("cc: {error}"))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // cc prints only the name if it finds nothing.
    if path.is_absolute() { Ok(path) } else { Err(format!("cc finds no {name}")) }
}

/// Assembles the start-up code once, and returns the directory in which it is.
fn start_files(scratch: &Path) -> Result<&'static Path, String> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let assemble = || {
        let directory = scratch.join(".musl");
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let source = library::checkout().join("tests/musl/crtbeginS.S");
        let mut command = Command::new("cc");
        command.arg("-c").arg(source).arg("-o").arg(directory.join("crtbeginS.o"));
        let output = command.output().map_err(|error| format!("cc: {error}"))?;
        if output.status.success() {
            Ok(directory)
        } else {
            Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    };
    DIRECTORY.get_or_init(assemble).as_deref().map_err(Clone::clone)
}

/// Returns the directory with the kernel's headers for this architecture.
fn kernel_headers() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let output = Command::new("cc").arg("-print-multiarch").output();
        let name = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        Path::new("/usr/include").join(name)
    })
}
