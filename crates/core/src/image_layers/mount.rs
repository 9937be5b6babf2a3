//! Which mounts are root directories of containers, by a line of `/proc/PID/mountinfo`
//! (`proc_pid_mountinfo(5)`): overlays whose directories all are where engines keep the layers
//! of images and of containers. This module only reads text.
//!
//! | engine | layers | the container's own layer |
//! |---|---|---|
//! | Docker with its own storage, `…/overlay2/` | `l/NAME`, `ID/diff` | `ID/diff` |
//! | Podman, Buildah, CRI-O: `…/overlay/` | `l/NAME`, `ID/diff` | `ID/diff` |
//! | containerd, `…/io.containerd.snapshotter.v1.overlayfs/snapshots/` | `NUMBER/fs` | `NUMBER/fs` |
//! | `BuildKit`, `…/runc-overlayfs/snapshots/snapshots/` | `NUMBER/fs` | `NUMBER/fs` |
//!
//! Docker uses containerd's storage, too. Where an option would be longer than a page, engines
//! go to the common directory and give names that begin there: containerd those of the layers,
//! the others all of them.

use crate::slices;

/// An overlay that an engine has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineMount {
    /// Whether it has an upper layer. Without one the kernel refuses to make it writable
    /// (`ovl_reconfigure`, fs/overlayfs/params.c).
    pub has_upper: bool,
}

/// Which storage a directory of a layer belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// Docker's, and that of Podman, Buildah and CRI-O: named by hashes.
    Hashes,
    /// containerd's and `BuildKit`'s: numbered.
    Numbers,
}

/// The directory of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Directory {
    storage: Storage,
    /// Whether it is named by a short symbolic link, as only lower layers are.
    is_link: bool,
    is_relative: bool,
}

impl EngineMount {
    /// Returns the mount that a line describes; `None` if it is no overlay that an engine has
    /// mounted, or shows only a part of one.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        // In front of the part of the file system that is shown: mount id, parent's id, device.
        let shown = fields.nth(3)?;
        let kind = fields.by_ref().skip_while(|field| *field != b"-").nth(1)?;
        let options = fields.nth(1)?;
        if shown != b"/" || kind != b"overlay" {
            return None;
        }
        let upper = match values(options, b"upperdir=").next() {
            None => None,
            Some(path) => Some(Directory::at(path).filter(|upper| !upper.is_link)?),
        };
        // Two colons stand before directories that hold data only. Options of `fsconfig(2)`
        // have one directory each.
        let in_one = values(options, b"lowerdir=").flat_map(|list| list.split(|byte| *byte == b':'));
        let in_one = in_one.filter(|path| !path.is_empty());
        let mut lower =
            in_one.chain(values(options, b"lowerdir+=")).chain(values(options, b"datadir+=")).map(Directory::at);
        let belongs = |layer: Option<Directory>| layer.is_some_and(|layer| layer.belongs_to(upper));
        (lower.next().is_some_and(belongs) && lower.all(belongs)).then_some(Self { has_upper: upper.is_some() })
    }
}

/// Returns whether an engine seems to have mounted what a line describes: all lower directories
/// are below its storage. That proves nothing about files.
pub fn seems_an_engines(line: &[u8]) -> bool {
    const STORAGES: [&[u8]; 3] =
        [b"/overlay2/", b"/containers/storage/overlay/", b"/io.containerd.snapshotter.v1.overlayfs/snapshots/"];
    let options = line.split(|byte| *byte == b' ').next_back().unwrap_or_default();
    let is_below = |path: &[u8]| STORAGES.iter().any(|storage| slices::contains(path, storage));
    let together = values(options, b"lowerdir=").flat_map(|list| list.split(|byte| *byte == b':'));
    let mut lower = together.filter(|path| !path.is_empty()).chain(values(options, b"lowerdir+="));
    EngineMount::of_line(line).is_some() || lower.next().is_some_and(is_below) && lower.all(is_below)
}

/// Returns the values of the options that begin with `name`. The kernel shows a comma in a value
/// as `\054`.
fn values<'a>(options: &'a [u8], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    options.split(|byte| *byte == b',').filter_map(move |option| option.strip_prefix(name))
}

impl Directory {
    /// Returns what is known of the directory at a path by its name; `None` if no engine uses
    /// such a name. A path with an escaped character could have been divided wrongly, and is
    /// refused.
    fn at(path: &[u8]) -> Option<Self> {
        if path.contains(&b'\\') {
            return None;
        }
        let (above, name) = split_last(path);
        let (above, before) = split_last(above?);
        let (storage, is_link) = match (before, name) {
            (b"l", link) if link.len() == 26 && link.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7')) => {
                (Storage::Hashes, true)
            }
            (id, b"diff") if is_id(id) => (Storage::Hashes, false),
            (number, b"fs") if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => (Storage::Numbers, false),
            _ => return None,
        };
        let is_storage = |above: &[u8]| match storage {
            Storage::Hashes => [&b"/overlay2"[..], b"/overlay"].iter().any(|end| above.ends_with(end)),
            Storage::Numbers => {
                above.ends_with(b"/io.containerd.snapshotter.v1.overlayfs/snapshots")
                    || above.ends_with(b"/runc-overlayfs/snapshots/snapshots")
            }
        };
        let is_place = |above: &[u8]| above.starts_with(b"/") && is_storage(above);
        above.is_none_or(is_place).then_some(Self { storage, is_link, is_relative: above.is_none() })
    }

    /// Returns whether an engine mounts this layer below that upper one. The path of the upper
    /// one shows where a layer is that is named by a relative path.
    fn belongs_to(self, upper: Option<Self>) -> bool {
        match upper {
            None => !self.is_relative,
            Some(upper) => {
                let is_shown = match self.storage {
                    Storage::Hashes => self.is_relative == upper.is_relative,
                    Storage::Numbers => !upper.is_relative,
                };
                self.storage == upper.storage && is_shown
            }
        }
    }
}

/// Returns whether a name is that of a layer by its hash, or by a random number: with Docker, that
/// of a container's first layer ends in `-init`.
fn is_id(name: &[u8]) -> bool {
    let number = name.strip_suffix(b"-init").unwrap_or(name);
    (25..=64).contains(&number.len()) && number.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Divides a path at its last slash; the first part is `None` without one.
fn split_last(path: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut parts = path.rsplitn(2, |byte| *byte == b'/');
    let last = parts.next().unwrap_or_default();
    (parts.next(), last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const LINK: &str = "ABCDEFGHIJKLMNOPQRSTUVWX27";

    fn line(options: &str) -> String {
        format!("36 25 0:41 / / rw,relatime master:1 - overlay overlay rw,{options},uuid=on")
    }

    fn of(options: &str) -> Option<bool> {
        EngineMount::of_line(line(options).as_bytes()).map(|mount| mount.has_upper)
    }

    #[test]
    fn what_engines_mount() {
        let docker = "/var/lib/docker/overlay2";
        let upper = format!("upperdir={docker}/{HASH}/diff,workdir={docker}/{HASH}/work");
        let links = format!("lowerdir={docker}/l/{LINK}:{docker}/l/{LINK}");
        assert_eq!(of(&format!("{links},{upper}")), Some(true));
        assert_eq!(of(&format!("lowerdir={docker}/{HASH}-init/diff:{docker}/{HASH}/diff,{upper}")), Some(true));
        assert_eq!(of(&format!("lowerdir=l/{LINK}:l/{LINK},upperdir={HASH}/diff,workdir={HASH}/work")), Some(true));
        let podman = "/home/x/.local/share/containers/storage/overlay";
        let upper = format!("upperdir={podman}/{HASH}/diff,workdir={podman}/{HASH}/work,userxattr");
        assert_eq!(of(&format!("lowerdir={podman}/l/{LINK},{upper}")), Some(true));
        assert_eq!(of(&format!("lowerdir+={podman}/l/{LINK},datadir+={podman}/l/{LINK},{upper}")), Some(true));
        assert_eq!(of(&format!("lowerdir={podman}/l/{LINK}::{podman}/l/{LINK},{upper}")), Some(true));
        for root in
            ["/var/lib/containerd", "/var/lib/rancher/k3s/agent/containerd", "/var/lib/docker/containerd/daemon"]
        {
            let at = format!("{root}/io.containerd.snapshotter.v1.overlayfs/snapshots");
            let upper = format!("upperdir={at}/13/fs,workdir={at}/13/work");
            assert_eq!(of(&format!("lowerdir={at}/12/fs:{at}/7/fs,{upper}")), Some(true), "{root}");
            assert_eq!(of(&format!("lowerdir=12/fs:7/fs,{upper}")), Some(true), "{root}");
            assert_eq!(of(&format!("lowerdir={at}/12/fs:{at}/7/fs")), Some(false), "{root}");
        }
        let build = "/var/lib/buildkit/runc-overlayfs/snapshots/snapshots";
        assert_eq!(of(&format!("lowerdir={build}/1/fs,upperdir={build}/2/fs,workdir={build}/2/work")), Some(true));
    }

    #[test]
    fn what_seems_an_engines() {
        let layer = "/x/io.containerd.snapshotter.v1.overlayfs/snapshots/debian/fs";
        let short = format!("lowerdir=l/{LINK},upperdir={HASH}/diff");
        for options in [format!("lowerdir={layer}:{layer},upperdir=/srv/x"), format!("lowerdir+={layer}"), short] {
            assert!(seems_an_engines(line(&options).as_bytes()), "{options}");
        }
        for options in ["upperdir=/srv/x".into(), "lowerdir=/srv/x".into(), format!("lowerdir={layer}:/srv/x")] {
            assert!(!seems_an_engines(line(&options).as_bytes()), "{options}");
        }
    }

    #[test]
    fn nothing_else_is_an_engines() {
        let docker = "/var/lib/docker/overlay2";
        let upper = format!("upperdir={docker}/{HASH}/diff,workdir={docker}/{HASH}/work");
        let good = format!("lowerdir={docker}/l/{LINK}");
        for options in [
            // Without or with other lower directories.
            upper.clone(),
            format!("lowerdir=,{upper}"),
            format!("lowerdir=/srv/tree,{upper}"),
            format!("{good}:/srv/tree,{upper}"),
            format!("{good}::/srv/tree,{upper}"),
            format!("{good},lowerdir+=/srv/tree,{upper}"),
            format!("{good},datadir+=/srv/tree,{upper}"),
            format!("lowerdir=x/overlay2/l/{LINK},{upper}"),
            format!("lowerdir={docker}/tree,{upper}"),
            format!("lowerdir={docker}/l/short,{upper}"),
            format!("lowerdir={docker}/l/{LINK}/tree,{upper}"),
            format!("lowerdir=/srv/myoverlay2/l/{LINK},{upper}"),
            format!("lowerdir=/srv/snapshots/7/fs,{upper}"),
            // Another upper directory, or one of another storage.
            format!("{good},upperdir=/srv/changes,workdir=/srv/work"),
            format!("{good},upperdir={docker}/l/{LINK},workdir=/srv/work"),
            format!("{good},upperdir=/x/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs,workdir=/srv/work"),
            // Relative paths, where the upper one does not show to what.
            format!("lowerdir=l/{LINK},{upper}"),
            format!("lowerdir=l/{LINK}"),
            format!("lowerdir=7/fs,{upper}"),
            "lowerdir=7/fs,upperdir=8/fs,workdir=8/work".into(),
            // Escaped characters.
            format!("lowerdir=/srv/a\\134:{docker}/l/{LINK},{upper}"),
            format!("lowerdir=/srv/a\\054b{docker}/l/{LINK},{upper}"),
        ] {
            assert_eq!(of(&options), None, "{options}");
        }
        let whole = line(&format!("{good},{upper}"));
        assert!(EngineMount::of_line(whole.as_bytes()).is_some());
        for other in [
            whole.replace("0:41 / /", "0:41 /usr /"),
            whole.replace("- overlay", "- fuse.fuse-overlayfs"),
            whole.replace(" - ", " "),
            "36 25 8:1 / / rw - ext4 /dev/sda1 rw".into(),
            String::new(),
        ] {
            assert_eq!(EngineMount::of_line(other.as_bytes()), None, "{other}");
        }
    }
}
