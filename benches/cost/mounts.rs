//! The mount namespace of a running process, in which others can be started.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A mount namespace, held open.
pub struct Mounts(File);

impl Mounts {
    /// Opens that of a process.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn of(process: u32) -> Result<Self, String> {
        let file = format!("/proc/{process}/ns/mnt");
        File::open(&file).map(Self).map_err(|error| format!("{file}: {error}"))
    }

    /// Makes a command run in it.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let namespace = self.0.as_raw_fd();
        // SAFETY: between fork and exec the child makes one system call, and none of its other
        // threads exists.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace, libc::CLONE_NEWNS) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        }
    }
}
