//! Machines: made by `scripts/lab-machine`, booted in QEMU, reset, and never left
//! running. `guest/machine` is what they run; `console` reads what they print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::dialogue::Dialogue;
use crate::common::library;
use crate::emulator::{Architecture, Hardware, add_drive, kernel};

/// The exit status of `scripts/lab-machine` when this host lacks something.
pub const MISSING: i32 = 69;

/// The longest time that a machine may run. It boots in some seconds and is done in a
/// minute, but the host may have much other work. This is shorter than the machine's
/// own limit in `guest/machine`.
const TIMEOUT: Duration = Duration::from_secs(240);

/// The kernel of these machines; it has fs-verity.
const KERNEL: &str = "6.1";

/// Shared by all machines of a run.
pub struct Laboratory {
    directory: PathBuf,
    system: System,
}

/// The system that machines boot.
enum System {
    NotTried,
    Built,
    /// It cannot be made, because this host lacks this.
    Missing(String),
}

/// The disks of a machine, which survive its resets.
pub struct Disks {
    name: String,
    objects: PathBuf,
    store: PathBuf,
}

/// One boot of a machine.
pub struct Machine {
    dialogue: Dialogue,
}

/// The way in which a machine is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// The guest's kernel resets the machine at once (`SysRq` b).
    SysRq,
    /// The emulator is killed, which nothing in the machine notices.
    Kill,
}

/// The machine's variables on the kernel's command line; see `guest/machine`.
#[derive(Clone, Copy)]
pub struct Orders<'a> {
    /// `LAB_TASK`.
    pub task: &'a str,
    /// `LAB_ROUND`.
    pub round: usize,
    /// `LAB_OPTIONS`.
    pub options: &'a str,
}

impl Laboratory {
    /// Returns a laboratory whose files are in this directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), system: System::NotTried }
    }

    /// Makes the system that every machine boots if this is the first time, and returns
    /// what this host lacks for that.
    ///
    /// # Errors
    /// The reason why it failed although nothing is missing.
    pub fn build(&mut self) -> Result<Option<String>, String> {
        if let System::NotTried = self.system {
            self.system = self.try_to_build()?;
        }
        match &self.system {
            System::Missing(what) => Ok(Some(what.clone())),
            System::NotTried | System::Built => Ok(None),
        }
    }

    fn try_to_build(&self) -> Result<System, String> {
        let command = library::checkout().join("target/release/sopin");
        let mut script = script("system");
        script.arg(KERNEL).args([&library::path()?, &command, &self.directory]);
        let output = script.output().map_err(|error| format!("scripts/lab-machine: {error}"))?;
        match output.status.code() {
            Some(0) => Ok(System::Built),
            Some(MISSING) => Ok(System::Missing(last_line(&output))),
            _ => Err(complaint(&output)),
        }
    }

    /// Returns the configuration of the kernel.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn kernel_configuration() -> Result<String, String> {
        let file = kernel(KERNEL, "config");
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Makes empty disks; `features` are options of mke2fs for the one with the store.
    ///
    /// # Errors
    /// The script's message.
    pub fn disks(&self, name: &str, features: &[&str]) -> Result<Disks, String> {
        let disks = Disks {
            name: name.to_owned(),
            objects: self.directory.join(format!("{name}-objects.img")),
            store: self.directory.join(format!("{name}-store.img")),
        };
        for (image, mebibytes, features) in [(&disks.objects, "512", &[][..]), (&disks.store, "1024", features)] {
            let output = script("disk").arg(image).arg(mebibytes).args(features).output();
            let output = output.map_err(|error| format!("scripts/lab-machine: {error}"))?;
            if !output.status.success() {
                return Err(complaint(&output));
            }
        }
        Ok(disks)
    }

    /// Boots a machine.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot(&self, disks: &Disks, orders: Orders<'_>) -> Result<Machine, String> {
        let Orders { task, round, options } = orders;
        let words = format!(
            "LAB_LAST_DISK=vdc LAB_SYSTEM=ro LAB_PROGRAM=/lab/machine \
             LAB_TASK={task} LAB_ROUND={round} LAB_OPTIONS={options}"
        );
        let initramfs = self.directory.join("initramfs");
        let hardware = Hardware {
            architecture: Architecture::Amd64,
            kernel: KERNEL,
            initramfs: &initramfs,
            processors: 1,
            memory: 512,
            words: &words,
        };
        let mut qemu = hardware.command();
        add_drive(&mut qemu, &self.directory.join("system.img"), "readonly=on");
        // Data that the guest has handed to its disk is then in the host's page cache
        // and survives the emulator; other data is lost.
        for image in [&disks.objects, &disks.store] {
            add_drive(&mut qemu, image, "cache=writeback");
        }
        let log = self.directory.join(format!("{}-{round}", disks.name));
        let dialogue = Dialogue::start(&mut qemu, &log, TIMEOUT).map_err(|error| format!("QEMU: {error}"))?;
        Ok(Machine { dialogue })
    }
}

impl Machine {
    /// Waits for `lab: <line>`.
    ///
    /// # Errors
    /// If the machine ends before that. The message contains all that it printed.
    pub fn wait_for(&mut self, line: &str) -> Result<(), String> {
        self.dialogue.wait_for(&format!("lab: {line}"), 1)
    }

    /// Resets it, and returns what it has printed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn strike(mut self, strike: Strike) -> Result<String, String> {
        if strike == Strike::SysRq {
            self.dialogue.say("reset");
            return self.said_at_its_end();
        }
        let id = rustix::process::Pid::from_raw(self.dialogue.id().cast_signed()).ok_or("no process")?;
        rustix::process::kill_process(id, rustix::process::Signal::KILL).map_err(|error| error.to_string())?;
        self.said_at_its_end()
    }

    /// Ends it, and returns what it has printed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self) -> Result<String, String> {
        self.dialogue.say("end");
        self.said_at_its_end()
    }

    /// Waits for its end, and returns what it has printed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn said_at_its_end(self) -> Result<String, String> {
        let finished = self.dialogue.finish()?;
        match finished.outcome {
            crate::common::process::Outcome::TimedOut => Err(format!("the machine {finished}")),
            _ => Ok(finished.stdout),
        }
    }
}

/// Returns the command that runs this part of `scripts/lab-machine`.
pub fn script(part: &str) -> Command {
    let mut command = Command::new(library::checkout().join("scripts/lab-machine"));
    command.arg(part);
    command
}

/// Returns the line that says what is missing.
pub fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message").to_owned()
}

/// Returns the error of the script when it failed although nothing is missing.
pub fn complaint(output: &Output) -> String {
    format!("scripts/lab-machine ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
}
