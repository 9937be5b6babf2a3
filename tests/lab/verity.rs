//! fs-verity: if the file system of a store has it, the kernel itself refuses to change
//! a copy, even to its owner, so a process that maps it cannot be harmed. Without it,
//! the same attack kills the process, which is the control.

use crate::common::directives::PASSED;
use crate::console::{Report, report};
use crate::machine::{Laboratory, Orders};

/// The number of libraries of the victim, each of which has a copy. The system's
/// libraries are additional.
const LIBRARIES: u64 = 40;

/// The result of an attack on the copies that a process maps.
struct Attack {
    attacked: Report,
    held: Report,
}

/// Checks that on an ext4 with fs-verity no copy can be opened for writing or
/// truncated, and that the process that maps them continues to compute.
///
/// # Errors
/// A description of what was wrong.
pub fn copies_are_sealed(laboratory: &Laboratory) -> Result<(), String> {
    if !Laboratory::kernel_configuration()?.lines().any(|line| line == "CONFIG_FS_VERITY=y") {
        return Err("the kernel has no fs-verity; scripts/lab-kernel 6.1 fetches one that has".to_owned());
    }
    let Attack { attacked, held } = attack(laboratory, "verity", &["-O", "verity"])?;
    let entries = attacked.number("entries");
    let is_sealed = ["verity", "write-refused", "truncate-refused"].iter().all(|word| attacked.number(word) == entries);
    if !is_sealed || attacked.number("truncated") > 0 {
        return Err(format!("not all of the copies are sealed: {attacked:?}"));
    }
    if held.number("status") != u64::from(PASSED.cast_unsigned()) || held.number("wrong") > 0 {
        return Err(format!("the process that maps the copies has to live: {held:?}"));
    }
    Ok(())
}

/// Checks that on an ext4 without it, their owner truncates all copies, and the process
/// dies.
///
/// # Errors
/// A description of what was wrong.
pub fn control(laboratory: &Laboratory) -> Result<(), String> {
    let Attack { attacked, held } = attack(laboratory, "no-verity", &[])?;
    if attacked.number("verity") > 0 || attacked.number("truncated") != attacked.number("entries") {
        return Err(format!("all of the copies can be truncated here: {attacked:?}"));
    }
    // A shell reports in this way that a signal ended the process.
    if ![libc::SIGBUS, libc::SIGSEGV]
        .iter()
        .any(|signal| held.number("status") == 128 + u64::from(signal.cast_unsigned()))
    {
        return Err(format!("the process that maps truncated copies has to die: {held:?}"));
    }
    Ok(())
}

fn attack(laboratory: &Laboratory, name: &str, features: &[&str]) -> Result<Attack, String> {
    let disks = laboratory.disks(name, features)?;
    let machine = laboratory.boot(&disks, Orders { task: "entries", round: 1, options: "defaults" })?;
    let said = machine.said_at_its_end()?;
    let (mapped, attacked, held) = (report(&said, "mapped")?, report(&said, "attacked")?, report(&said, "held")?);
    // Otherwise there would be nothing to attack.
    if attacked.number("entries") < LIBRARIES || mapped.number("ranges") < LIBRARIES {
        return Err(format!("the process does not run on the store's copies\n{said}"));
    }
    Ok(Attack { attacked, held })
}
