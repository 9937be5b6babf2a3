//! Restartable sequences (`rseq(2)`): instructions of a thread that the kernel begins anew when
//! the thread was preempted in the middle of them. When a thread is made to execute something
//! else there, the kernel forgets that it was in such a sequence; so what the kernel would do is
//! done here: the thread goes on at the sequence's abort handler.

use std::sync::OnceLock;

use rustix::io::Errno;
use sopin_core::registers::Registers;
use sopin_inspect::memory::{Bytes, FileBytes};

use crate::ptrace;

/// Offset of the pointer to the descriptor of the present sequence, in `struct rseq`.
const SEQUENCE: u64 = 8;

/// Returns whether the kernel shows where the sequences of a task are: since Linux 5.13.
pub fn are_shown() -> bool {
    static ARE_SHOWN: OnceLock<bool> = OnceLock::new();
    *ARE_SHOWN.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        is_since_5_13(&release)
    })
}

fn is_since_5_13(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(13))
}

/// Makes a task that has stopped in a restartable sequence go on at its abort handler. Returns
/// whether it is known that the task is in no sequence now. `is_in_call`: it has stopped in a system call.
pub fn leave(task: i32, registers: &mut Registers, memory: &FileBytes, is_in_call: bool) -> bool {
    let configuration = match ptrace::rseq_configuration(task) {
        Ok(configuration) => configuration,
        // Linux before 5.13 does not tell. No system call can be made in a sequence.
        Err(Errno::IO | Errno::INVAL) => return is_in_call,
        Err(_) => return false,
    };
    if configuration.pointer == 0 {
        return true;
    }
    let Ok(descriptor) = memory.word(configuration.pointer.wrapping_add(SEQUENCE)) else { return false };
    if descriptor == 0 {
        return true;
    }
    // `struct rseq_cs`: version and flags, start, length, abort handler.
    let word = |index: u64| memory.word(descriptor.wrapping_add(index * 8));
    let (Ok(start), Ok(len), Ok(abort)) = (word(1), word(2), word(3)) else { return false };
    if registers.instruction().wrapping_sub(start) < len {
        registers.set_instruction(abort);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_since_5_13;

    #[test]
    fn releases_of_the_kernel_are_compared_by_numbers() {
        assert!(["5.13.0", "5.15-rc1", "6.1.0-50-cloud-amd64", "10.0"].into_iter().all(is_since_5_13));
        assert!(!["5.10.0-32-cloud-amd64", "5.9", "4.18.0", ""].into_iter().any(is_since_5_13));
    }
}
