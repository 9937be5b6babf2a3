//! System calls that the library makes, and that kernels, filters or security modules may lack or
//! refuse. Each is made in a child process: this command, started again with `--probe`.

use std::io::{self, IoSliceMut, Read};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use sopin_core::sys;
use sopin_core::vmas;

use super::children::{self, Ended};
use crate::output;

/// How an answer begins if the call was not tried.
const UNTRIED: &str = "not tried: ";

/// A system call to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Probe {
    /// Nothing: the process prints that it is ready, and waits until its input ends.
    Wait,
    /// `memfd_create(2)`, executable and with seals, for private copies.
    Memfd,
    /// `process_vm_readv(2)` of the process's own memory.
    ProcessVmReadv,
    /// The `PROCMAP_QUERY` ioctl (Linux 6.11).
    ProcmapQuery,
    /// `ptrace(2)`, which stops threads for late pins.
    Ptrace,
}

impl Probe {
    /// Makes the system call in this process.
    ///
    /// # Errors
    /// The answer of the kernel.
    pub fn make(self) -> Result<(), Errno> {
        let errno = |error: sys::Errno| Errno::from_raw(error.0);
        match self {
            Self::Wait => {
                // If its output is closed, or the input cannot be read, there is nothing to wait for.
                let _ = output::print("ready\n");
                let _ = io::stdin().lock().read(&mut [0]);
                Ok(())
            }
            Self::Memfd => sys::memfd_create(c"sopin-doctor").map(drop).map_err(errno),
            Self::ProcessVmReadv => {
                let (from, mut to) = ([7_u8], [0_u8]);
                let remote = RemoteIoVec { base: from.as_ptr().addr(), len: 1 };
                process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut to)], &[remote])?;
                if from == to { Ok(()) } else { Err(Errno::EIO) }
            }
            Self::ProcmapQuery => vmas::try_query().map_err(errno),
            Self::Ptrace => ptrace::traceme(),
        }
    }

    /// Makes the system call in a child process, and returns `ok`, what the kernel has answered, or
    /// why the call was not tried.
    fn make_in_child(self) -> String {
        let mut command = children::own_command();
        match children::run(command.args(["doctor", "--probe", self.word()])) {
            Ok(Ended { status, stdout, .. }) if status.code().is_some() && !stdout.is_empty() => stdout,
            Ok(ended) if ended.was_filtered() => "a seccomp filter kills for it".to_owned(),
            Ok(ended) => ended.fate(),
            Err(reason) => format!("{UNTRIED}{reason}"),
        }
    }

    /// Returns its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Memfd => "memfd",
            Self::ProcessVmReadv => "process-vm-readv",
            Self::ProcmapQuery => "procmap-query",
            Self::Ptrace => "ptrace",
        }
    }
}

/// The answer of the kernel: `ok`, or why not, or why the call was not tried.
pub struct Answers {
    pub memfd: String,
    pub process_vm_readv: String,
    pub procmap_query: String,
    pub ptrace: String,
}

impl Answers {
    /// Tries everything.
    pub fn find() -> Self {
        Self {
            memfd: Probe::Memfd.make_in_child(),
            process_vm_readv: Probe::ProcessVmReadv.make_in_child(),
            procmap_query: Probe::ProcmapQuery.make_in_child(),
            ptrace: Probe::Ptrace.make_in_child(),
        }
    }

    /// Returns the calls with their answers. No kernel before 6.11 has the third.
    pub fn all(&self) -> [(&'static str, &str); 4] {
        [
            ("memfd_create", &self.memfd),
            ("process_vm_readv", &self.process_vm_readv),
            ("PROCMAP_QUERY", &self.procmap_query),
            ("ptrace", &self.ptrace),
        ]
    }
}

/// Returns whether an answer is that a call works.
pub fn works(answer: &str) -> bool {
    answer == "ok"
}

/// Returns whether an answer is that a call does not work.
pub fn fails(answer: &str) -> bool {
    !works(answer) && !is_untried(answer)
}

/// Returns whether an answer is that a call was not tried.
pub fn is_untried(answer: &str) -> bool {
    answer.starts_with(UNTRIED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_names_are_those_of_the_command_line() {
        for probe in Probe::value_variants() {
            assert_eq!(probe.to_possible_value().unwrap().get_name(), probe.word());
        }
    }

    #[test]
    fn memory_of_this_process_can_be_read() {
        assert_eq!(Probe::ProcessVmReadv.make(), Ok(()));
        assert_eq!(Probe::Memfd.make(), Ok(()));
    }
}
