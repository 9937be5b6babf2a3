//! Measures the cost of protection on kernels before Linux 6.11. They have no
//! `PROCMAP_QUERY`, so the library reads the text of `/proc/self/maps`.
//!
//! In every variant, the native one too, a seccomp filter answers that ioctl with ENOTTY, as
//! those kernels do, and permits everything else. Under a filter that it does not know, the
//! library would make fewer calls than it makes on such a kernel. A process that was forked
//! tries which calls pass (`src/filters/trial.rs`), finds that all do, and then works as
//! without a filter. So each program forks first, in every variant, and the child does
//! what is measured; the CPU time is that of both.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::memory;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::run::Held;
use crate::site::Site;
use crate::small;

const VARIANTS: [Variant; 5] = [Variant::Native, Variant::Relocated, Variant::Warm, Variant::Cold, Variant::Memfd];
const IMPORT_ROUNDS: usize = 7;
const LIBRARY_ROUNDS: usize = 5;
/// How many tiny libraries are loaded: some more than the largest number around which is measured.
const LOADED: usize = 2050;
/// At least so many objects must be pinned by an import.
const LEAST_OBJECTS: usize = 150;
/// The argument that makes a program fork.
const OLDER_KERNEL: &str = "older-kernel";
const ABOUT: &str = "In all variants a seccomp filter answers `PROCMAP_QUERY` with ENOTTY, as older kernels do, and a \
    forked child does what is measured.";

/// Measures importing the packages of a data-serving Python process.
///
/// # Errors
/// When a program fails.
pub fn imports(site: &Site) -> Result<Section, String> {
    let mut objects = 0;
    let [cpu, elapsed] = interleave(site, &VARIANTS, IMPORT_ROUNDS, |variant| {
        let mut command = site.python(variant)?;
        command.arg(site.program("importing.py")).arg("scientific").arg(OLDER_KERNEL);
        let held = Held::start(refuse_query(&mut command))?;
        let text = memory::text_of(child_of(held.pid())?, &site.stores())?;
        if variant == Variant::Native {
            objects = text.files;
        }
        text.check(variant, LEAST_OBJECTS)?;
        let elapsed = held.took;
        Ok([1e3 * held.end()?.as_secs_f64(), 1e3 * elapsed.as_secs_f64()])
    })?;
    Ok(Section {
        title: "Importing numpy, scipy, pandas and SQLAlchemy on Linux before 6.11".to_owned(),
        about: format!("{ABOUT} {objects} objects. CPU and elapsed as above; CPU is that of parent and child."),
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
    let [few, thousand, two_thousand] =
        interleave(site, &VARIANTS, LIBRARY_ROUNDS, |variant| took_around(site, variant, LOADED, [100, 1000, 2000]))?;
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

/// Runs the program that opens so many tiny libraries; returns how many microseconds one took around
/// each of these numbers of loaded libraries.
///
/// # Errors
/// When the program fails.
pub fn took_around<const N: usize>(
    site: &Site,
    variant: Variant,
    loaded: usize,
    counts: [usize; N],
) -> Result<[f64; N], String> {
    let mut command = site.command(&site.built("libraries"), variant);
    command.arg(site.tiny_libraries(variant)).arg(loaded.to_string()).arg(OLDER_KERNEL);
    small::took_around(refuse_query(&mut command), counts)
}

/// Returns the id of the only child of a process with one thread.
fn child_of(process: u32) -> Result<u32, String> {
    let list = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&list).map_err(|error| format!("{list}: {error}"))?;
    children.trim().parse().map_err(|error| format!("{list}: {children:?}: {error}"))
}

/// Makes the kernel refuse `PROCMAP_QUERY` to the program.
fn refuse_query(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the function only makes system calls.
    unsafe { command.pre_exec(filter_out_query) }
}

fn filter_out_query() -> io::Result<()> {
    const QUERY: u32 = 0xc068_6611;
    const ENOTTY: u32 = libc::ENOTTY.cast_unsigned();
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    let differs = |value, skipped| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, value);
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, 0, value);
    let mut program = [
        load(0),
        differs(u32::try_from(libc::SYS_ioctl).map_err(io::Error::other)?, 3),
        // The lower half of the second argument.
        load(24),
        differs(QUERY, 1),
        answer(libc::SECCOMP_RET_ERRNO | ENOTTY),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: program.as_mut_ptr() };
    // SAFETY: the program is live and has that length, and the kernel only reads it.
    let filtered = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if filtered { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns an instruction that, if it is a comparison, skips so many others unless it holds.
fn instruction(code: u32, skipped: u8, k: u32) -> libc::sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
    let code = code as u16;
    libc::sock_filter { code, jt: 0, jf: skipped, k }
}
