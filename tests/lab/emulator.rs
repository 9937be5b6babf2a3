//! QEMU's command line for a machine. It has no network and no KVM, and its serial console
//! is standard output.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::library;

/// The architecture of a machine, by Debian's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// Returns Debian's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns the name of QEMU's program.
    pub fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }
}

/// A machine to boot.
pub struct Hardware<'a> {
    /// The architecture of its processors.
    pub architecture: Architecture,
    /// The name of its kernel in `scripts/lab-kernel`.
    pub kernel: &'a str,
    /// The file with its initramfs.
    pub initramfs: &'a Path,
    /// The number of its processors.
    pub processors: u8,
    /// Its memory in MiB.
    pub memory: u16,
    /// Words of the kernel's command line for `guest/boot` and the program that this executes.
    pub words: &'a str,
}

impl Hardware<'_> {
    /// Returns the command that boots it, without its disks ([`add_drive`]).
    pub fn command(&self) -> Command {
        let mut qemu = Command::new(self.architecture.emulator());
        let console = match self.architecture {
            Architecture::Amd64 => {
                qemu.args(["-machine", "pc"]);
                // On a busy host the kernel may take the emulated timer for broken, and panic.
                "console=ttyS0 mitigations=off no_timer_check"
            }
            Architecture::Arm64 => {
                // `max` has pages of 16 and 64 KiB and branch targets. The architected algorithm of
                // pointer authentication would take most of the time.
                qemu.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on"]);
                "console=ttyAMA0 mitigations=off"
            }
        };
        // KVM is never used, because a host that is a virtual machine itself may offer
        // a KVM that cannot run a kernel.
        qemu.args(["-accel", "tcg", "-smp", &self.processors.to_string(), "-m", &self.memory.to_string()]);
        qemu.args(["-nodefaults", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        qemu.arg("-kernel").arg(kernel(self.kernel, "vmlinuz")).arg("-initrd").arg(self.initramfs);
        // `quiet` keeps lines of the kernel out of the machine's own, except for
        // emergencies. A panic resets the machine, which ends QEMU.
        qemu.args(["-append", &format!("{console} quiet panic=-1 {}", self.words)]);
        qemu
    }
}

/// Adds the next disk with these options of QEMU's `-drive`.
pub fn add_drive(qemu: &mut Command, image: &Path, options: &str) {
    qemu.args(["-drive", &format!("file={},if=virtio,format=raw,{options}", image.display())]);
}

/// Returns the path of a file of a kernel that `scripts/lab-kernel` has fetched or built.
pub fn kernel(name: &str, file: &str) -> PathBuf {
    library::checkout().join("target/lab/kernels").join(name).join(file)
}
