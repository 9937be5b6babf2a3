//! Private copies in files without names (`O_TMPFILE` of `open(2)`), which stand in for
//! memfds where a seccomp filter may kill for making one.

use core::ffi::CStr;

/// The directories that are tried for such a file; the first one counts that has files without
/// names and from which code may be mapped. Those on a disk come first, because the kernel can
/// reclaim the pages of a file on a disk.
pub const DIRECTORIES: [&CStr; 3] = [c"/var/tmp", c"/tmp", c"/dev/shm"];

/// Returns whether `/proc/PID/maps` shows such a file by this path, without the " (deleted)"
/// behind it: `#` and the inode number (`d_tmpfile`, fs/dcache.c). Other programs' files look
/// the same, but they are not mapped in place of an object.
pub fn is_path_of_copy(path: &[u8]) -> bool {
    DIRECTORIES.iter().any(|directory| {
        let name = path.strip_prefix(directory.to_bytes()).and_then(|rest| rest.strip_prefix(b"/#"));
        name.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_in_these_directories_are_copies() {
        assert!(is_path_of_copy(b"/var/tmp/#4711") && is_path_of_copy(b"/dev/shm/#1"));
        for other in [&b"/var/tmp/#"[..], b"/var/tmp/#47x", b"/var/tmp/4711", b"/home/#4711", b"/var/tmp/a/#4711", b""]
        {
            assert!(!is_path_of_copy(other));
        }
    }
}
