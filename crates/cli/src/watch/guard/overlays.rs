//! Finds out whether an overlay is mounted in this process's mount namespace. In a user namespace of their own, a user can
//! mount an overlay over a FUSE file system, and neither the file nor `statfs(2)` shows the file system below it. Such a
//! mount does not appear in the mount namespace of root (`mount_namespaces(7)`).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

/// Returns whether the overlay on which a file is that a process maps is mounted in this process's mount namespace, too,
/// as the root directory of a container usually is.
pub fn is_mounted_here(file: &OwnedFd, pid: u32) -> bool {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let information = read(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    let mount = information.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let (mounts, own) = (read(format!("/proc/{pid}/mountinfo")), read("/proc/self/mountinfo".to_owned()));
    mount.and_then(|mount| device_of(&mounts, mount.trim())).is_some_and(|device| has_device(&own, device))
}

/// Returns the device of the mount with a number, as in `proc_pid_mountinfo(5)`.
fn device_of<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| if fields.next() == Some(number) { fields.nth(1) } else { None })
}

fn has_device(mounts: &str, device: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number_and_its_device() {
        let mounts = "36 35 98:0 / / rw - ext4 /dev/root rw\n136 36 0:35 / /a\\040b rw - overlay overlay rw\n";
        assert_eq!((device_of(mounts, "136"), device_of(mounts, "3")), (Some("0:35"), None));
        assert!(has_device(mounts, "0:35") && !has_device(mounts, "0:3") && !has_device(mounts, "36"));
    }

    #[test]
    fn a_file_of_this_namespace_is_on_a_mount_of_it() {
        let file = fs::File::open("/proc/self/exe").unwrap().into();
        assert!(is_mounted_here(&file, std::process::id()));
        assert!(!is_mounted_here(&file, u32::MAX), "the process is not there");
    }
}
