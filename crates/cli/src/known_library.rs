//! The library of a Python package as `sopin enable` finds it: whether its bytes are those that were
//! installed, and the boot and identity by which a start of Python knows that they are the same
//! still. It then need not read them. Changes nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Crc;
use rustix::fs::OFlags;
use sopin_core::sys::{self, Fd, FileSystem};
use sopin_inspect::descriptors;
use sopin_store::{Identity, SETTLING_SECONDS};

/// For how long a library that was installed just now is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// A library that is as it was installed as long as it has this identity in this boot.
pub struct KnownLibrary {
    /// The kernel's boot id. A crash can leave bytes in a file that were written since, and its old
    /// times, so after a reboot the identity proves nothing.
    pub boot: String,
    /// The identity of its file.
    pub identity: Identity,
}

impl KnownLibrary {
    /// Compares a library with what was installed. Returns `None` if they differ, if another process may be
    /// writing to the file, or if a later change could leave the file its identity.
    pub fn at(library: &Path) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim_ascii().to_owned();
        let is_id = boot.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let mut file = File::open(library).ok()?;
        let opened = descriptors::for_core(&file, OFlags::RDONLY).ok()?;
        let identity = settled_identity(&opened)?;
        let is_whole = sums_of(&mut file).ok()? == installed_sums(library)?;
        let is_same = Identity::of(&sys::fstat(opened.raw()).ok()?) == identity;
        (is_id && is_whole && is_same).then_some(Self { boot, identity })
    }
}

/// Waits until a further change of the file would change its identity. Returns `None` if its file system
/// does not promise that, or if another process may be writing to the file.
fn settled_identity(file: &Fd) -> Option<Identity> {
    if !FileSystem::of(file).ok()?.updates_ctime_on_every_change() {
        return None;
    }
    let begin = Instant::now();
    loop {
        let identity = Identity::of(&sys::fstat(file.raw()).ok()?);
        if identity.has_settled(sys::realtime_seconds(), SETTLING_SECONDS) {
            // Only the owner of the file and root learn whether it has a writer.
            let has_no_writer = sys::has_writer(file) == Ok(false);
            return (has_no_writer && identity.has_fine_times()).then_some(identity);
        }
        if begin.elapsed() > PATIENCE {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Returns size and CRC-32 of a file.
fn sums_of(file: &mut File) -> io::Result<(u64, u32)> {
    let (mut content, mut checksum) = (Vec::new(), Crc::new());
    file.read_to_end(&mut content)?;
    checksum.update(&content);
    Ok((u64::try_from(content.len()).map_err(io::Error::other)?, checksum.sum()))
}

/// Returns what the build has written beside the library, see python/library_sums.py.
fn installed_sums(library: &Path) -> Option<(u64, u32)> {
    let text = fs::read_to_string(library.with_extension("sums")).ok()?;
    let mut words = text.split_ascii_whitespace();
    let size = words.next()?.parse().ok()?;
    let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
    Some((size, checksum))
}
