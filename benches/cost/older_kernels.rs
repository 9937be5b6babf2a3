//! Measures the cost of protection on kernels before Linux 6.11. They have no
//! `PROCMAP_QUERY`, so the library reads the text of `/proc/self/maps`.
//!
//! The variants of sopin preload a copy of the library in which the number of that request is
//! another one. The kernel answers it with ENOTTY, as those kernels answer the right one. A
//! seccomp filter that does so would itself take time at each system call, and the library would
//! first have to find out what else it refuses.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use crate::memory;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{interleave, interleave_until_known};
use crate::run::{self, Held};
use crate::site::Site;
use crate::small;

const VARIANTS: [Variant; 5] = [Variant::Native, Variant::Relocated, Variant::Warm, Variant::Cold, Variant::Memfd];
/// Fewer variants, of which more rounds are made: the median of a start scatters.
const IMPORTS: [Variant; 3] = [Variant::Native, Variant::Warm, Variant::Cold];
const IMPORT_ROUNDS: usize = 9;
const LIBRARY_ROUNDS: usize = 5;
/// How many tiny libraries are loaded: some more than the largest number around which is measured.
const LOADED: usize = 2050;
/// At least so many objects must be pinned by an import.
const LEAST_OBJECTS: usize = 150;
/// `PROCMAP_QUERY`, and a number that is no request.
const QUERY: u32 = 0xc068_6611;
const NO_REQUEST: u32 = 0xc068_66fe;
const ABOUT: &str = "In a copy of the library the number of `PROCMAP_QUERY` is another one, so that the kernel answers it \
    with ENOTTY, as older kernels do.";

/// Measures importing the packages of a data-serving Python process.
///
/// # Errors
/// When a program fails.
pub fn imports(site: &Site) -> Result<Section, String> {
    let library = OlderLibrary::copy(site)?;
    let mut objects = 0;
    let [cpu, elapsed] = interleave_until_known(site, &IMPORTS, IMPORT_ROUNDS, Variant::Warm, |variant| {
        let mut command = site.python(variant)?;
        command.arg(site.program("importing.py")).arg("scientific");
        let held = Held::start(library.preload_into(&mut command))?;
        let text = memory::text_of(held.pid(), &site.stores())?;
        if variant == Variant::Native {
            objects = text.files;
        }
        text.check(variant, LEAST_OBJECTS)?;
        let elapsed = held.took;
        Ok([1e3 * held.end()?.as_secs_f64(), 1e3 * elapsed.as_secs_f64()])
    })?;
    Ok(Section {
        title: "Importing numpy, scipy, pandas and SQLAlchemy on Linux before 6.11".to_owned(),
        about: format!("{ABOUT} {objects} objects. CPU and elapsed as above."),
        rounds: cpu.count(),
        columns: vec![
            Column::new("CPU", "ms", &[Compared::Ratio, Compared::Extra], cpu.cells())
                .target(Variant::Warm, Compared::Ratio, 1.05)
                .in_summary(names::SCIENCE_OLDER),
            Column::new("elapsed", "ms", &[Compared::Extra], elapsed.cells()),
        ],
    })
}

/// Measures loading one more tiny library.
///
/// # Errors
/// When a program fails.
pub fn libraries(site: &Site) -> Result<Section, String> {
    site.copy_tiny_libraries()?;
    let library = OlderLibrary::copy(site)?;
    let [few, thousand, two_thousand] = interleave(site, &VARIANTS, LIBRARY_ROUNDS, |variant| {
        library.took_around(site, variant, LOADED, [100, 1000, 2000])
    })?;
    let column = small::library_column;
    Ok(Section {
        title: "Loading one tiny library on Linux before 6.11".to_owned(),
        about: format!("{ABOUT} One `dlopen` as above, in a process that loads {LOADED} libraries."),
        rounds: few.count(),
        columns: vec![
            column("100", &few).target(Variant::Warm, Compared::Ratio, 3.0),
            column("1,000", &thousand),
            column("2,000", &two_thousand)
                .target(Variant::Warm, Compared::Ratio, 4.0)
                .in_summary("the same, 2,000 loaded, Linux before 6.11"),
        ],
    })
}

/// A copy of the library that works as on a kernel without `PROCMAP_QUERY`.
pub struct OlderLibrary {
    original: PathBuf,
    copy: PathBuf,
}

impl OlderLibrary {
    /// Makes the copy, and has the warm store have it.
    ///
    /// # Errors
    /// If the library does not contain the number in one piece, or the kernel knows the other one.
    pub fn copy(site: &Site) -> Result<Self, String> {
        let original = site.library.clone();
        let named = |path: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut content = fs::read(&original).map_err(|error| named(&original, &error))?;
        let mut found = 0;
        for at in 0..content.len().saturating_sub(3) {
            if content[at..at + 4] == QUERY.to_le_bytes() {
                content[at..at + 4].copy_from_slice(&NO_REQUEST.to_le_bytes());
                found += 1;
            }
        }
        if found == 0 || !is_refused()? {
            return Err(named(&original, &"no copy can be made that asks nothing by PROCMAP_QUERY"));
        }
        let copy = site.built("libsopin-older.so");
        fs::write(&copy, content).map_err(|error| named(&copy, &error))?;
        site.age();
        let library = Self { original, copy };
        run::run(library.preload_into(&mut site.command("/bin/true".as_ref(), Variant::Warm)))?;
        Ok(library)
    }

    /// Has a command preload the copy, if it preloads the library.
    pub fn preload_into<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let preloads = |(name, value)| name == "LD_PRELOAD" && value == Some(self.original.as_os_str());
        if command.get_envs().any(preloads) { command.env("LD_PRELOAD", &self.copy) } else { command }
    }

    /// Runs the program that opens so many tiny libraries; returns how many microseconds one took around
    /// each of these numbers of loaded libraries.
    ///
    /// # Errors
    /// When the program fails.
    pub fn took_around<const N: usize>(
        &self,
        site: &Site,
        variant: Variant,
        loaded: usize,
        counts: [usize; N],
    ) -> Result<[f64; N], String> {
        let mut command = site.command(&site.built("libraries"), variant);
        command.arg(site.tiny_libraries(variant)).arg(loaded.to_string());
        small::took_around(self.preload_into(&mut command), counts)
    }
}

/// Returns whether the kernel answers the other number as older ones do.
fn is_refused() -> Result<bool, String> {
    let maps = File::open("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    // SAFETY: the kernel knows no such request, and so it reads and writes nothing.
    let answer = unsafe { libc::ioctl(maps.as_raw_fd(), libc::Ioctl::from(NO_REQUEST), 0) };
    Ok(answer == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOTTY))
}
