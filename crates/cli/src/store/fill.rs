//! `sopin store fill`: copies of objects for the system's store, made by root
//! before any program needs them.
//!
//! | module | responsible for |
//! |---|---|
//! | [`jobs`] | which files are examined |
//! | [`candidate`] | whether a file may be copied: who may read it, what it is |
//! | [`answer`] | what was done, for people and for programs |
//!
//! sopin-store makes a copy, proves that it is the file's and writes it to the disk
//! ([`Store::fill`]).

use std::collections::HashSet;
use std::ffi::CString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sopin_core::cause::{Cause, Reason};
use sopin_core::pages::PageVec;
use sopin_store::{Filled, NOT_SETTLED, OriginFile, SYSTEM, Store};

use super::place;
use super::printing::print;
use crate::exit::{Exit, Failure};
use crate::output::{self, shown};
use answer::{Failed, FillAnswer};
use candidate::{FillCandidate, FillRefusal};
use jobs::Job;

mod answer;
mod candidate;
mod jobs;

/// How long the command waits for files that have changed recently, and how often it checks
/// them.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Number of files from which on progress is shown.
const MANY: usize = 8;

/// The result for one file.
enum FileOutcome {
    Done,
    /// The file has changed within the last seconds.
    Unsettled,
}

struct Filler {
    store: Store,
    buffer: PageVec<u8>,
    /// Paths of the files that were copied, or whose copies existed.
    done: HashSet<CString>,
    answer: FillAnswer,
}

/// Copies the files, and prints what was done.
///
/// # Errors
/// 3 when the store cannot be used, for instance because the user is not root.
pub fn fill(paths: &[PathBuf], processes: &[u32], json: bool) -> Result<Exit, Failure> {
    let path = SYSTEM.to_string_lossy().into_owned();
    place::check_root("only root writes the system's store")?;
    let store = Store::create_system().map_err(|cause| unusable(&path, cause))?;
    let mut filler =
        Filler { store, buffer: PageVec::new(), done: HashSet::new(), answer: FillAnswer::new(path.clone()) };
    let jobs = jobs::collect(paths, processes, &mut filler.answer.failed);
    filler.fill_all(jobs).map_err(|cause| unusable(&path, cause))?;
    let is_done = filler.answer.failed.is_empty();
    print(json, &filler.answer)?;
    Ok(if is_done { Exit::Success } else { Exit::Negative })
}

fn unusable(path: &str, cause: Cause) -> Failure {
    let failure = Failure::new(Exit::Uninspected, path, cause);
    let is = |errno: Errno| cause.reason == Reason::Errno(sopin_core::sys::Errno(errno.raw_os_error()));
    if is(Errno::NOSPC) || is(Errno::DQUOT) {
        failure.with_way_out("make room on its file system, or remove what is not needed (sopin store prune --system)")
    } else {
        failure
    }
}

/// Returns whether no further file can be copied either.
fn is_about_the_store(cause: Cause) -> bool {
    let errnos = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
    errnos.iter().any(|errno| cause.reason == Reason::Errno(sopin_core::sys::Errno(errno.raw_os_error())))
}

impl Filler {
    /// Copies all files. Those that have changed recently come last, because the first of them
    /// are old enough by then.
    fn fill_all(&mut self, jobs: Vec<Job>) -> Result<(), Cause> {
        let progress = output::progress(if jobs.len() > MANY { jobs.len() } else { 0 });
        let mut unsettled = Vec::new();
        for job in jobs {
            progress.set_message(shown(&job.title()));
            match self.fill(&job)? {
                FileOutcome::Done => progress.inc(1),
                FileOutcome::Unsettled => unsettled.push(job),
            }
        }
        let begun = Instant::now();
        while !unsettled.is_empty() && begun.elapsed() < PATIENCE {
            progress.set_message("waiting until 2 seconds have passed since the last change");
            thread::sleep(LOOK_AGAIN);
            let mut left = Vec::new();
            for job in unsettled {
                match self.fill(&job)? {
                    FileOutcome::Done => progress.inc(1),
                    FileOutcome::Unsettled => left.push(job),
                }
            }
            unsettled = left;
        }
        progress.finish_and_clear();
        for job in unsettled {
            self.refuse(&job, &FillRefusal::Changing);
        }
        self.store.synchronise()
    }

    fn fill(&mut self, job: &Job) -> Result<FileOutcome, Cause> {
        let candidate = match job.candidate() {
            Ok(candidate) => candidate,
            Err(refusal) => {
                self.refuse(job, &refusal);
                return Ok(FileOutcome::Done);
            }
        };
        if self.done.contains(&candidate.path) {
            return Ok(FileOutcome::Done);
        }
        let FillCandidate { file, path, identity, file_system, has_build_id } = &candidate;
        let origin = OriginFile { file, path, identity: *identity, has_own_numbers: true, file_system };
        match self.store.fill(&origin, *has_build_id, &mut self.buffer) {
            Ok(Filled::Added) => self.answer.add(&candidate),
            Ok(Filled::WasThere) => self.answer.were_there += 1,
            Err(NOT_SETTLED) => return Ok(FileOutcome::Unsettled),
            Err(_) if !candidate.is_unchanged() => return Ok(FileOutcome::Unsettled),
            Err(cause) if is_about_the_store(cause) => return Err(cause),
            Err(cause) => {
                self.answer.failed.push(Failed::new(candidate.path().display(), cause, ""));
                return Ok(FileOutcome::Done);
            }
        }
        self.done.insert(candidate.path);
        Ok(FileOutcome::Done)
    }

    fn refuse(&mut self, job: &Job, refusal: &FillRefusal) {
        let is_trouble = !matches!(refusal, FillRefusal::NeedsNoCopy) && job.is_named();
        if is_trouble || !self.answer.skip(job.title(), refusal) {
            self.answer.failed.push(Failed::new(job.title(), refusal, refusal.way_out()));
        }
    }
}
