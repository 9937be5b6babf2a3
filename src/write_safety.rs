//! Finding out what [`sopin_core::write_safety`] decides from: what is known of
//! the code of each candidate of a sweep.

use sopin_core::cause::Cause;
use sopin_core::memory::OwnMemory;
use sopin_core::write_safety::{Permission, Progress, WriteSafety};

use crate::candidates::Candidate;
use crate::environment;
use crate::loader::Loaded;
use crate::registry::Guard;

/// Why writable ranges are left.
const CODE_MAY_HAVE_RUN: Cause =
    Cause::words("pin writable ranges", "code of the object may have run, and something may be storing to them");

/// SONAMEs of the objects of glibc that have constructors and do not announce
/// themselves: their start-up files are not those of other objects. Names, and
/// not addresses of functions, because a program may export functions of the
/// same names, and one that is not position-independent has addresses of its
/// own for those that it calls.
const C_LIBRARY: [&[u8]; 2] = [b"libc.so.6", b"libpthread.so.0"];

/// What a sweep after an announcement starts from.
pub struct Announcement<'a> {
    /// To read with.
    pub memory: &'a OwnMemory,
    /// Our `__gmon_start__`.
    pub announce: usize,
    /// The loader's list.
    pub objects: &'a [Loaded],
    /// The index among the candidates of the object that has announced itself, or
    /// of this library while its constructor runs.
    pub root: usize,
    /// Nothing was recorded before this sweep.
    pub is_first: bool,
    /// An object may have announced itself without being recorded.
    pub has_missed: bool,
}

impl Announcement<'_> {
    /// Finds out the progress of each candidate, and what all of them prove. They
    /// must be in the order of the loader's list.
    pub fn assess(&self, candidates: &mut [Candidate]) -> WriteSafety {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            match self.progress(candidate, index == self.root) {
                Ok(progress) => candidate.progress = progress,
                Err(cause) => candidate.doubt = Some(cause),
            }
        }
        let at_startup = self.is_first && !self.has_missed && self.marks_executable(candidates);
        WriteSafety::of_announcement(candidates.iter().map(|candidate| candidate.progress), at_startup)
    }

    fn progress(&self, candidate: &Candidate, is_root: bool) -> Result<Progress, Cause> {
        if candidate.dynamic.has_preinit_array {
            // It runs before any constructor of any object.
            return Ok(Progress::MayHaveRun);
        }
        if !candidate.dynamic.has_constructors() {
            return Ok(Progress::NoConstructors);
        }
        // An object that was loaded before this library has nothing in the slot
        // of `__gmon_start__`. Of those with our function in it only the one that
        // is just calling is sure not to have called before, if sweeps were missed.
        if candidate.will_announce(self.memory, self.announce)? && (is_root || !self.has_missed) {
            return Ok(Progress::NotBegun);
        }
        if self.is_first && !self.has_missed && candidate.object.span.contains(self.announce) {
            // Nobody has called this library before its first sweep.
            return Ok(Progress::NotBegun);
        }
        Ok(if self.is_c_library(candidate) { Progress::CLibrary } else { Progress::MayHaveRun })
    }

    fn is_c_library(&self, candidate: &Candidate) -> bool {
        // Room for the NUL, and so that a longer name is not taken for one of these.
        let mut buffer = [0; 32];
        let soname = candidate.dynamic.soname(self.memory, &mut buffer);
        soname.is_some_and(|soname| C_LIBRARY.contains(&soname))
    }

    /// Whether the executable is among the candidates and has not begun. One that
    /// does not announce itself (linked without crti, or with one that calls a
    /// `__gmon_start__` of its own) has not in the first sweep of all, if the
    /// loader has loaded this library together with it: that comes before libc.
    fn marks_executable(&self, candidates: &mut [Candidate]) -> bool {
        let precedes_libc = {
            let own = candidates.iter().position(|candidate| candidate.object.span.contains(self.announce));
            let libc = candidates.iter().position(|candidate| self.is_c_library(candidate));
            own.zip(libc).is_some_and(|(own, libc)| own < libc)
        };
        let Some(executable) = candidates.first_mut() else { return false };
        let is_listed_first = self.objects.first().is_some_and(|first| first.headers == executable.loaded.headers);
        if !is_listed_first || executable.dynamic.has_preinit_array {
            return false;
        }
        if precedes_libc {
            executable.progress = Progress::NotBegun;
        }
        executable.progress == Progress::NotBegun
    }
}

/// Why the writable ranges of `candidate` must be left, if they must.
pub fn reason_to_leave(safety: WriteSafety, guard: &Guard, candidate: &Candidate) -> Option<Cause> {
    match safety.permission(candidate.progress) {
        Permission::Granted => None,
        Permission::Refused => Some(candidate.doubt.unwrap_or(CODE_MAY_HAVE_RUN)),
        Permission::WithOneThread => match (guard.blocks_signals(), environment::has_one_thread()) {
            (Ok(()), Ok(true)) => None,
            (Ok(()), Ok(false)) => Some(CODE_MAY_HAVE_RUN),
            (Err(errno), _) => Some(Cause::call("rt_sigprocmask", errno)),
            (Ok(()), Err(errno)) => Some(Cause::call("stat /proc/self/task", errno)),
        },
    }
}
