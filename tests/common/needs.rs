//! The needs of a fixture, and whether the machine meets them.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;

use super::stops::stops_threads;

/// One word of a `needs:` directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The effective user is root.
    Root,
    /// An unprivileged process may make a user namespace.
    UserNamespaces,
    /// This process may make namespaces of mounts and of processes, with its user's rights.
    Namespaces,
    /// Linux of at least this version.
    Kernel(u32, u32),
    /// The fixture is built for glibc.
    Glibc,
    /// The fixture is built for musl.
    Musl,
    /// The fixture is built for a glibc of at least this version.
    GlibcVersion(u32, u32),
    /// A process can stop its own threads by `ptrace(2)`.
    Stops,
    /// The kernel makes rings of `io_uring(7)` for this process.
    IoUring,
    /// This process may make cgroups that limit memory.
    MemoryCgroups,
    /// This process may make cgroups of version 2 that can be frozen.
    Freezer,
    /// The processor and the kernel check the targets of indirect branches (BTI of aarch64).
    BranchTargets,
    /// This architecture, by its name in `uname -m`.
    Arch(String),
    /// A program of this name on the PATH.
    Program(String),
    /// A file system that the kernel knows.
    FileSystem(String),
    /// A C header that the compiler finds.
    Header(String),
    /// A flag with which the compiler can link a shared object.
    LinkFlag(String),
    /// A sanitizer of the compiler whose runtime works here: some know only certain sizes of the
    /// address space.
    Sanitizer(String),
}

impl FromStr for Need {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let not_understood = || format!("needs: {word:?} is not understood");
        match word {
            "root" => return Ok(Self::Root),
            "namespaces" => return Ok(Self::Namespaces),
            "userns" => return Ok(Self::UserNamespaces),
            "glibc" => return Ok(Self::Glibc),
            "musl" => return Ok(Self::Musl),
            "io_uring" => return Ok(Self::IoUring),
            "stops" => return Ok(Self::Stops),
            "memory-cgroups" => return Ok(Self::MemoryCgroups),
            "freezer" => return Ok(Self::Freezer),
            "branch-targets" => return Ok(Self::BranchTargets),
            _ => {}
        }
        if let Some(version) = word.strip_prefix("kernel>=") {
            let (major, minor) = version_of(version).ok_or_else(not_understood)?;
            return Ok(Self::Kernel(major, minor));
        }
        if let Some(version) = word.strip_prefix("glibc>=") {
            let (major, minor) = version_of(version).ok_or_else(not_understood)?;
            return Ok(Self::GlibcVersion(major, minor));
        }
        match word.split_once(':') {
            Some(("cmd", name)) => Ok(Self::Program(name.to_owned())),
            Some(("filesystem", name)) => Ok(Self::FileSystem(name.to_owned())),
            Some(("header", name)) => Ok(Self::Header(name.to_owned())),
            Some(("links", flag)) => Ok(Self::LinkFlag(flag.to_owned())),
            Some(("sanitizer", name)) => Ok(Self::Sanitizer(name.to_owned())),
            Some(("arch", name)) => Ok(Self::Arch(name.to_owned())),
            _ => Err(not_understood()),
        }
    }
}

impl Need {
    /// Returns why this machine does not meet the need, or `None` if it does.
    pub fn unmet(&self) -> Option<String> {
        let (met, otherwise) = match self {
            Self::Root => (rustix::process::geteuid().is_root(), "not root".to_owned()),
            Self::UserNamespaces => (
                succeeds(Command::new("unshare").args(["--user", "--map-root-user", "true"])),
                "no user namespaces".to_owned(),
            ),
            Self::Namespaces => (
                succeeds(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])),
                "no namespaces of mounts and processes".to_owned(),
            ),
            Self::Kernel(major, minor) => {
                let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                (
                    version_of(&running).is_some_and(|version| version >= (*major, *minor)),
                    format!("Linux {} is older than {major}.{minor}", running.trim()),
                )
            }
            // The runner does not make the trials that would be built for another one.
            Self::Glibc | Self::Musl => (true, String::new()),
            Self::GlibcVersion(major, minor) => {
                (preprocesses(&of_glibc(*major, *minor)), format!("no glibc {major}.{minor} or newer"))
            }
            Self::Stops => {
                (stops_threads(), "its own threads cannot be stopped (Yama, or a seccomp filter)".to_owned())
            }
            Self::IoUring => (makes_rings(), "no io_uring".to_owned()),
            Self::MemoryCgroups => (makes_memory_cgroups(), "no cgroups that limit memory".to_owned()),
            Self::Freezer => (freezer().is_some(), "no cgroups that can be frozen".to_owned()),
            Self::BranchTargets => (checks_branch_targets(), "no check of branch targets".to_owned()),
            Self::Arch(name) => (env::consts::ARCH == name, format!("not {name}")),
            Self::Program(name) => (found_program(name).is_some(), format!("no program {name}")),
            Self::FileSystem(name) => (knows_file_system(name), format!("no file system {name}")),
            Self::Header(name) => (preprocesses(&format!("#include <{name}>")), format!("no header {name}")),
            Self::LinkFlag(flag) => (links_with(flag), format!("no linking with {flag}")),
            Self::Sanitizer(name) => (sanitizes(name).unwrap_or(false), format!("no sanitizer {name} that works")),
        };
        (!met).then_some(otherwise)
    }
}

/// Returns the first two numbers of `6.18.44-something`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the file of a program on the PATH.
pub fn found_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn knows_file_system(name: &str) -> bool {
    let is_known = || {
        let all = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.lines().any(|line| line.split_whitespace().next_back() == Some(name))
    };
    // The kernel may not have loaded the module yet.
    is_known() || succeeds(Command::new("modprobe").arg(name)) && is_known()
}

/// Returns whether `io_uring_setup(2)` reads its argument. Kernels without it, filters
/// and `kernel.io_uring_disabled` cause other errors.
fn makes_rings() -> bool {
    // SAFETY: the call reads its parameters through the pointer, and the kernel returns
    // EFAULT for a null pointer.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Returns whether a new cgroup of either version has a limit that can be written.
fn makes_memory_cgroups() -> bool {
    let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    places.iter().any(|(mount, limit)| {
        let directory = Path::new(mount).join(format!("sopin-needs-{}", std::process::id()));
        if !Path::new(mount).join("cgroup.procs").exists() || fs::create_dir(&directory).is_err() {
            return false;
        }
        let is_limited = fs::write(directory.join(limit), "100M").is_ok();
        let _ = fs::remove_dir(directory);
        is_limited
    })
}

/// Returns the mount of cgroups of version 2, if this process may make one that can be frozen.
pub fn freezer() -> Option<PathBuf> {
    // Trials that run at the same time must not try with the same cgroup.
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let can_freeze = |mount: &PathBuf| {
        let directory = mount.join(format!("sopin-freezer-{}", std::process::id()));
        if !mount.join("cgroup.controllers").exists() || fs::create_dir(&directory).is_err() {
            return false;
        }
        let has_switch = directory.join("cgroup.freeze").exists();
        let _ = fs::remove_dir(directory);
        has_switch
    };
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    MOUNT.get_or_init(|| places.into_iter().find(can_freeze)).clone()
}

/// Returns whether the kernel says `HWCAP2_BTI`.
fn checks_branch_targets() -> bool {
    cfg!(target_arch = "aarch64") && rustix::param::linux_hwcap().1 & (1 << 17) != 0
}

fn links_with(flag: &str) -> bool {
    succeeds(Command::new("cc").args(["-shared", "-fPIC", "-o", "/dev/null", "-x", "c", "/dev/null", flag]))
}

/// Returns whether a program with this sanitizer runs.
fn sanitizes(name: &str) -> std::io::Result<bool> {
    let directory = tempfile::tempdir()?;
    let (source, program) = (directory.path().join("main.c"), directory.path().join("main"));
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let flag = format!("-fsanitize={name}");
    let compiles = succeeds(Command::new("cc").arg(flag).arg("-o").arg(&program).arg(source));
    Ok(compiles && succeeds(&mut Command::new(program)))
}

/// Returns a source that is accepted only with the headers of this glibc or a newer one. How
/// this program was compiled does not show the C library: a static one also runs beside glibc
/// (`scripts/static-harness`).
fn of_glibc(major: u32, minor: u32) -> String {
    format!(
        "#include <features.h>\n#ifndef __GLIBC_PREREQ\n#error\n#elif !__GLIBC_PREREQ({major}, {minor})\n#error\n#endif"
    )
}

fn preprocesses(source: &str) -> bool {
    let Ok(mut compiler) = Command::new("cc")
        .args(["-E", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    if let Some(mut input) = compiler.stdin.take() {
        // A compiler that does not read its input fails, which its status shows.
        let _ = writeln!(input, "{source}");
    }
    compiler.wait().is_ok_and(|status| status.success())
}
