//! The mounted file systems of a process, by their device numbers: which of them a server answers
//! for. A server that has stopped answering keeps a caller of `fstat(2)` or `open(2)` waiting for
//! ever, and such a wait cannot be killed, so this module reads `mountinfo` only, which asks no
//! server.

use std::collections::HashMap;

/// The types of file systems whose files another process or another machine answers for.
const SERVED: [&str; 14] = [
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gpfs", "lustre", "nfs", "nfs4", "orangefs",
    "smb3",
];

/// Device number, major and minor, and whether a server answers for the file system.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts(HashMap<(u32, u32), bool>);

impl Mounts {
    /// Parses `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`); skips lines of another form.
    pub fn parse(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(text).lines().filter_map(parse_line).collect())
    }

    /// Returns whether a server answers for the files on this device; `None` if it is not mounted.
    pub fn is_served(&self, device: (u32, u32)) -> Option<bool> {
        self.0.get(&device).copied()
    }
}

fn parse_line(line: &str) -> Option<((u32, u32), bool)> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    // The type of a FUSE file system may have a subtype: "fuse.sshfs".
    let kind = kind.split('.').next()?;
    Some(((major.parse().ok()?, minor.parse().ok()?), SERVED.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_the_type_of_the_file_system() {
        let mounts = Mounts::parse(
            b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
              28 27 0:41 / /srv/a\\040b rw shared:3 master:1 - fuse.sshfs host:/ rw\n\
              nonsense\n\
              29 27 0:42 / /home rw - nfs4 host:/home rw\n\
              30 27 0:43 / / rw - overlay overlay rw,lowerdir=/x\n",
        );
        assert_eq!(mounts.is_served((254, 0)), Some(false));
        assert_eq!((mounts.is_served((0, 41)), mounts.is_served((0, 42))), (Some(true), Some(true)));
        assert_eq!((mounts.is_served((0, 43)), mounts.is_served((0, 44))), (Some(false), None));
    }
}
