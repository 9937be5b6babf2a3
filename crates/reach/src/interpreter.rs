//! Runs the program of [`sopin_core::steps`] in a process that has stopped: one of its tasks makes
//! the system calls. Like the interpreter of the library, it makes no decisions.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use sopin_core::object::Span;
use sopin_core::plan::Backing;
use sopin_core::steps::{File, PIECE, Place, Step};
use sopin_core::vmas::Protection;
use sopin_inspect::memory::{Bytes, FileBytes};

use crate::calls::{CallError, Caller};
use crate::memory::WritableMemory;
use crate::passing::{self, Passage};

/// A process in which steps are run.
pub struct Interpreter<'a, 'b> {
    /// The task that makes the system calls.
    pub caller: &'a mut Caller<'b>,
    /// How descriptors get into the process, or why they cannot.
    pub passage: Result<&'a Passage, Errno>,
    /// The memory of the process.
    pub readable: &'a FileBytes,
    /// The same, for writing.
    pub writable: &'a WritableMemory,
}

/// The result for the ranges of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectOutcome {
    /// How many bytes were replaced.
    pub bytes: usize,
    /// Why writable or relocated ranges were left, if some were.
    pub relocated_failure: Option<String>,
    /// Why read-only ranges were left, if some were.
    pub read_only_failure: Option<String>,
    /// Address of the page that maps its original file, if one was mapped.
    pub witness: Option<u64>,
}

impl ObjectOutcome {
    /// Notes why ranges with this backing were left.
    pub fn note(&mut self, backing: Backing, reason: &str) {
        let place = if backing == Backing::Copy { &mut self.read_only_failure } else { &mut self.relocated_failure };
        place.get_or_insert_with(|| reason.to_owned());
    }
}

/// Scratch memory in the process: what is left of it, and the last copy.
#[derive(Clone, Copy, Default)]
struct Scratch {
    rest: u64,
    end: u64,
    copy: u64,
}

/// The reason why a step has failed: the operation in words, or an error after which the process makes no more
/// calls.
enum StepError {
    Failed(String),
    Final(CallError),
}

/// Makes an error of a call in the process one of a step.
fn failed(operation: &'static str) -> impl Fn(CallError) -> StepError {
    move |error| match error {
        CallError::Failed(errno) => StepError::Failed(format!("{operation}: {errno}")),
        CallError::NotBegun | CallError::Lost => StepError::Final(error),
    }
}

impl Interpreter<'_, '_> {
    /// Runs a program. `file` returns the files that it maps, which have the bytes of the object's
    /// ranges at the places that the program names, and never change.
    ///
    /// # Errors
    /// One that [is final](CallError::is_final).
    pub fn run<'f>(
        &mut self,
        program: impl Iterator<Item = Step>,
        file: impl Fn(File) -> Result<BorrowedFd<'f>, String>,
    ) -> Result<ObjectOutcome, CallError> {
        let mut outcome = ObjectOutcome::default();
        let mut scratch = Scratch::default();
        let mut passed = Vec::new();
        let (mut failure, mut is_skipping): (Option<String>, bool) = (None, false);
        for step in program {
            is_skipping &= !matches!(step, Step::Copy { .. } | Step::Done { .. });
            if is_skipping {
                continue;
            }
            let done = match step {
                Step::Done { backing, bytes } => {
                    match failure.take() {
                        None => outcome.bytes += bytes,
                        Some(reason) => outcome.note(backing, &reason),
                    }
                    Ok(())
                }
                Step::MapFile { span, protection, place, otherwise } => {
                    let mut map = |place: Place| {
                        let number = self.descriptor(place.file, &file, &mut passed)?;
                        self.map_file(span, protection, number, place.offset).map(drop)
                    };
                    match (map(place), otherwise) {
                        (Err(StepError::Failed(_)), Some(otherwise)) => map(otherwise),
                        (result, _) => result,
                    }
                }
                _ => self.change_memory(step, &mut scratch),
            };
            match done {
                Ok(()) => {}
                Err(StepError::Failed(reason)) => {
                    failure.get_or_insert(reason);
                    is_skipping = true;
                }
                Err(StepError::Final(error)) => return Err(error),
            }
        }
        let mut cleaned = Ok(());
        for (_, number) in passed {
            cleaned = cleaned.and(passing::close(self.caller, number));
        }
        if scratch.rest < scratch.end {
            let len = usize::try_from(scratch.end - scratch.rest).unwrap_or_default();
            cleaned = cleaned.and(self.caller.unmap(scratch.rest, len));
        }
        cleaned.map(|()| outcome)
    }

    /// Runs a step that concerns memory only.
    fn change_memory(&mut self, step: Step, scratch: &mut Scratch) -> Result<(), StepError> {
        match step {
            Step::Map { len } => {
                let start = self.caller.map_anonymous(len).map_err(failed("mmap"))?;
                *scratch = Scratch { rest: start, end: start + len as u64, copy: start };
                Ok(())
            }
            Step::Copy { span } => {
                let len = span.len() as u64;
                if scratch.end - scratch.rest < len {
                    return Err(StepError::Failed("mmap: no memory".to_owned()));
                }
                scratch.copy = scratch.rest;
                scratch.rest += len;
                self.copy(span, scratch.copy)
            }
            Step::ProtectCopy { protection } => {
                let len = scratch.rest - scratch.copy;
                self.protect(scratch.copy, len, protection)
            }
            Step::Move { span } => {
                let len = span.len() as u64;
                let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
                let arguments = [scratch.copy, len, len, flags, span.start as u64, 0];
                self.caller.call(libc::SYS_mremap, arguments).map(drop).map_err(failed("mremap"))
            }
            Step::Protect { span, protection } => self.protect(span.start as u64, span.len() as u64, protection),
            Step::MapFile { .. } | Step::Done { .. } => Ok(()),
        }
    }

    /// Copies the bytes of a range of the object.
    fn copy(&self, span: Span, to: u64) -> Result<(), StepError> {
        let wrong = |errno| StepError::Failed(format!("read its memory: {errno}"));
        for start in (span.start..span.end).step_by(PIECE) {
            let len = PIECE.min(span.end - start);
            let bytes = self.readable.read_exact(start as u64, len).map_err(wrong)?;
            self.writable.write(to + (start - span.start) as u64, &bytes).map_err(wrong)?;
        }
        Ok(())
    }

    fn protect(&mut self, start: u64, len: u64, protection: Protection) -> Result<(), StepError> {
        let arguments = [start, len, u64::from(protection.cast_unsigned()), 0, 0, 0];
        self.caller.call(libc::SYS_mprotect, arguments).map(drop).map_err(failed("mprotect"))
    }

    fn map_file(&mut self, span: Span, protection: Protection, number: u64, offset: u64) -> Result<u64, StepError> {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let protection = u64::from(protection.cast_unsigned());
        let arguments = [span.start as u64, span.len() as u64, protection, flags, number, offset];
        self.caller.call(libc::SYS_mmap, arguments).map_err(failed("mmap"))
    }

    /// Returns the process's descriptor of a file, which is passed when it is needed first.
    fn descriptor<'f>(
        &mut self,
        file: File,
        open: &impl Fn(File) -> Result<BorrowedFd<'f>, String>,
        passed: &mut Vec<(File, u64)>,
    ) -> Result<u64, StepError> {
        if let Some((_, number)) = passed.iter().find(|(known, _)| *known == file) {
            return Ok(*number);
        }
        let passing = failed("pass a descriptor");
        // Before the file, which may be a copy that is made now.
        let passage = self.passage.map_err(|errno| passing(errno.into()))?;
        let open = open(file).map_err(StepError::Failed)?;
        let numbers = passage.pass(self.caller, self.readable, self.writable, &[open]);
        let number = numbers.map_err(passing)?.first().copied();
        let number = number.ok_or_else(|| StepError::Failed("pass a descriptor".to_owned()))?;
        passed.push((file, number));
        Ok(number)
    }

    /// Maps a page of the original file above the stack, so that the file stays visible.
    ///
    /// # Errors
    /// One that [is final](CallError::is_final).
    pub fn map_witness(
        &mut self,
        original: BorrowedFd<'_>,
        place: usize,
        protection: Protection,
        offset: u64,
        page: u64,
    ) -> Result<Option<u64>, CallError> {
        let Ok(passage) = self.passage else { return Ok(None) };
        let mut mapped = None;
        let numbers = match passage.pass(self.caller, self.readable, self.writable, &[original]) {
            Ok(numbers) => numbers,
            Err(error) if error.is_final() => return Err(error),
            // The page is for people and tools: without it the object is pinned as well.
            Err(_) => return Ok(None),
        };
        for number in numbers {
            let protection = u64::from(protection.cast_unsigned());
            let arguments = [place as u64, page, protection, libc::MAP_PRIVATE as u64, number, offset];
            match self.caller.call(libc::SYS_mmap, arguments) {
                Err(error) if error.is_final() => return Err(error),
                result => mapped = result.ok(),
            }
            passing::close(self.caller, number)?;
        }
        Ok(mapped)
    }
}
