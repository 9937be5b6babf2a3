//! The file systems on which a library can lie. They are mounted for this run in a
//! mount namespace of its own, so that none is left when the run is over.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Set in the process that runs in the namespace; its value is not read.
const IN_NAMESPACE: &str = "FILESYSTEM_TESTS_IN_NAMESPACE";

/// Runs this program again in a private mount namespace: a real one for root, else one
/// where the user looks like root, which allows tmpfs and overlayfs. Returns when the
/// program has ended or the namespace cannot be made.
pub fn enter_namespace() {
    if env::var_os(IN_NAMESPACE).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(user).args(["--mount", "--propagation", "private", "--"]);
        command
    };
    if unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        // exec returns only if it fails.
        let error = unshare().arg(program).args(env::args_os().skip(1)).env(IN_NAMESPACE, "").exec();
        eprintln!("filesystems: unshare: {error}");
    }
}

/// The origin of a file system.
#[derive(Clone, Copy)]
enum Source {
    /// The file system of target/.
    Here,
    Tmpfs,
    /// An overlayfs. The library is made in this one of its two layers.
    Overlay(Layer),
    /// An image of this many MiB, made by `mkfs.TYPE`.
    Image(&'static str, u64),
}

/// The layer of an overlayfs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Upper,
    Lower,
}

/// A place for a library.
pub struct Place {
    /// Its name in the trials.
    pub name: &'static str,
    /// A file that is rewritten there keeps its inode, so that the rewriting affects
    /// processes that have mapped it.
    pub keeps_inodes: bool,
    source: Source,
    mounted: OnceLock<Result<Mounted, String>>,
}

/// The lock that is held while a file system is mounted, because two threads that look
/// for a free loop device at the same time may find the same one.
static MOUNTING: Mutex<()> = Mutex::new(());

/// A mounted file system.
#[derive(Clone)]
pub struct Mounted {
    /// The directory in which libraries are made.
    pub made_in: PathBuf,
    /// The directory in which processes find them: the same one, except in an
    /// overlayfs.
    pub seen_in: PathBuf,
}

/// Returns every place.
pub fn all() -> Vec<Place> {
    let place = |name, source| Place { name, keeps_inodes: true, source, mounted: OnceLock::new() };
    vec![
        place("here", Source::Here),
        place("ext4", Source::Image("ext4", 64)),
        place("xfs", Source::Image("xfs", 512)),
        place("btrfs", Source::Image("btrfs", 256)),
        place("tmpfs", Source::Tmpfs),
        place("overlayfs_upper", Source::Overlay(Layer::Upper)),
        // The first write copies the file up, and the copy has another inode.
        Place { keeps_inodes: false, ..place("overlayfs_lower", Source::Overlay(Layer::Lower)) },
    ]
}

impl Place {
    /// Mounts it if this is the first time, in a directory of its own below `scratch`.
    ///
    /// # Errors
    /// The reason why this machine does not offer it.
    pub fn mounted(&self, scratch: &Path) -> Result<Mounted, String> {
        self.mounted.get_or_init(|| self.mount(&scratch.join(self.name))).clone()
    }

    /// Undoes `mounted`. The end of the namespace would unmount it as well, but the
    /// scratch directory is removed before that.
    pub fn unmount(&self) {
        let Some(Ok(mounted)) = self.mounted.get() else { return };
        if !matches!(self.source, Source::Here) {
            // If it stays mounted, removing the directory fails and reports that.
            let _ = unmount(&mounted.seen_in);
        }
    }

    fn mount(&self, directory: &Path) -> Result<Mounted, String> {
        let make = |name: &str| {
            let made = directory.join(name);
            fs::create_dir_all(&made).map(|()| made).map_err(|error| format!("{}: {error}", directory.display()))
        };
        let target = make("mounted")?;
        let same = |directory: PathBuf| Mounted { made_in: directory.clone(), seen_in: directory };
        if matches!(self.source, Source::Here) {
            return Ok(same(target));
        }
        if env::var_os(IN_NAMESPACE).is_none() {
            return Err("no mount namespace of our own".to_owned());
        }
        let _mounting = MOUNTING.lock().unwrap_or_else(PoisonError::into_inner);
        match self.source {
            Source::Here => unreachable!("returned above"),
            Source::Tmpfs => {
                run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&target))?;
            }
            Source::Overlay(layer) => {
                let (lower, upper, work) = (make("lower")?, make("upper")?, make("work")?);
                let [l, u, w] = [&lower, &upper, &work].map(|path| path.display());
                let options = format!("lowerdir={l},upperdir={u},workdir={w}");
                run(Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&target))?;
                if layer == Layer::Lower {
                    return Ok(Mounted { made_in: lower, seen_in: target });
                }
            }
            Source::Image(kind, mebibytes) => {
                let image = directory.join("image");
                File::create(&image)
                    .and_then(|file| file.set_len(mebibytes << 20))
                    .map_err(|error| format!("{}: {error}", image.display()))?;
                run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))?;
                run(Command::new("mount").args(["-o", "loop"]).args([&image, &target]))?;
            }
        }
        Ok(same(target))
    }
}

/// Mounts the directory of a library at another one, which exists, so that its files
/// have other paths there.
///
/// # Errors
/// The reason why this machine cannot do that.
pub fn bind(directory: &Path, to: &Path) -> Result<(), String> {
    if env::var_os(IN_NAMESPACE).is_none() {
        return Err("no mount namespace of our own".to_owned());
    }
    run(Command::new("mount").arg("--bind").args([directory, to]))
}

/// Undoes a mount.
///
/// # Errors
/// The message of umount(8).
pub fn unmount(directory: &Path) -> Result<(), String> {
    run(Command::new("umount").arg(directory))
}

/// Runs a system administration command to its end.
fn run(command: &mut Command) -> Result<(), String> {
    // mkfs is in these directories, which are not on the PATH of every user.
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", said.lines().next().unwrap_or("no message")))
}
