//! Finding out the facts from which [`sopin_core::write_safety`] decides: for each candidate
//! of a sweep, whether its code may have run. [`crate::reach`] finds out which other objects
//! those that may have run can reach.

use sopin_core::cause::{Cause, Operation};
use sopin_core::crt1;
use sopin_core::crtbegin::Before;
use sopin_core::memory::ProcessMemory;
use sopin_core::sys::Errno;
use sopin_core::write_safety::{Permission, Progress, Reach, WriteSafety};

use crate::candidates::Candidate;
use crate::environment;
use crate::loader::{self, Loaded};
use crate::own;
use crate::reach::References;

/// Why writable ranges of an object are left whose code may have run.
const CODE_MAY_HAVE_RUN: Cause =
    Cause::words(Operation::PinWritableRanges, "code of the object may have run, and something may be storing to them");

/// Why writable ranges of an object are left that has not run, beside one that may have.
pub const OTHER_MAY_HAVE_RUN: Cause = Cause::words(
    Operation::PinWritableRanges,
    "an object loaded together with it may have run, and something may be storing to them",
);

/// The cause for leaving the writable ranges of an object whose symbols musl has not all bound: it
/// stores to them when it binds the others.
const NOT_ALL_BOUND: Cause = Cause::words(
    Operation::PinWritableRanges,
    "the object has symbols that are not bound yet, and another thread may be loading what defines them",
);

/// SONAMEs of the objects of glibc that have constructors and do not announce
/// themselves, because they are not linked with the start-up files of other objects. They are
/// recognised by name and not by addresses of functions: a program may export functions of
/// the same names, and in one that is not position-independent the addresses of functions
/// that it calls are in the program itself. The loader of aarch64 has a constructor where
/// GCC's outline atomics are linked in (Debian 12); it notes whether the processor has such
/// instructions.
const UNANNOUNCED_SONAMES: [&[u8]; 3] = [b"libc.so.6", b"libpthread.so.0", b"ld-linux-aarch64.so.1"];

/// The facts from which a sweep after an announcement starts.
pub struct Announcement<'a> {
    pub memory: &'a ProcessMemory,
    /// The loader's list.
    pub objects: &'a [Loaded],
    /// The index among the candidates of the object that has announced itself, or
    /// of this library while its constructor runs.
    pub root: usize,
    /// Where the call returns to by which it has announced itself, or another address in it.
    pub caller: usize,
    /// No object was recorded before this sweep.
    pub is_first: bool,
    /// An object may have announced itself without being recorded.
    pub has_missed: bool,
    /// Why an object that is no candidate could not be read, if there is one. Its code may have
    /// run.
    pub unreadable: Option<Cause>,
}

/// What a sweep knows about stores to its candidates.
#[derive(Clone, Copy)]
pub struct Assessment {
    safety: WriteSafety,
    /// The process is starting: no code of it has run, except that of candidates that may have.
    is_start: bool,
    /// The address of the executable's program headers.
    executable: usize,
    /// Why the progress of a candidate could not be found out, if that is so.
    doubt: Option<Cause>,
}

impl Announcement<'_> {
    /// Finds out the progress of each candidate, and assesses stores to their data from all of
    /// them. The candidates must be in the order of the loader's list.
    pub fn assess(&self, candidates: &mut [Candidate]) -> Assessment {
        let mut doubt = None;
        let is_before_all_others = self.is_before_all_others(candidates);
        for (index, candidate) in candidates.iter_mut().enumerate() {
            match self.progress(candidate, index == self.root, is_before_all_others) {
                Ok(progress) => candidate.progress = progress,
                Err(cause) => doubt = doubt.or(Some(cause)),
            }
            candidate.may_be_beginning = index != self.root
                && !is_before_all_others
                && candidate.progress == Progress::NotBegun
                && self.has_code_before_announcement(candidate);
        }
        let is_start = self.is_start(candidates).unwrap_or_else(|cause| {
            doubt = doubt.or(Some(cause));
            false
        });
        let at_startup = self.marks_executable(candidates, is_start);
        let mut safety = match WriteSafety::of_announcement(at_startup) {
            WriteSafety::AtStartup if loader::is_musl() && !self.is_entry_known(candidates) => WriteSafety::AfterEntry,
            safety => safety,
        };
        if self.unreadable.is_some() {
            doubt = doubt.or(self.unreadable);
            safety = safety.beside(Reach::Everywhere);
        }
        let references = References { memory: self.memory, objects: self.objects };
        if !is_start && loader::is_musl() {
            for candidate in candidates.iter_mut().filter(|candidate| !candidate.dynamic.is_bound_now) {
                candidate.has_unbound = references.has_unbound(candidate).unwrap_or(true);
            }
        }
        // This library's own data gets the same permission whatever the others reach, except where
        // none of them has called anything of another object, and then none has loaded it.
        let can_gain = candidates
            .iter()
            .any(|candidate| candidate.progress == Progress::NotBegun && !own::is_in(candidate.object.span));
        for index in 0..candidates.len() {
            if safety == WriteSafety::BesideRunning(Reach::Everywhere) {
                // Nothing makes that worse, and a word takes a read of memory.
                break;
            }
            if !candidates.get(index).is_some_and(Candidate::may_have_run) {
                continue;
            }
            let reach = if can_gain { references.reach(candidates, index) } else { Ok(Reach::Everywhere) };
            safety = safety.beside(reach.unwrap_or_else(|cause| {
                doubt = doubt.or(Some(cause));
                Reach::Everywhere
            }));
        }
        let executable = self.objects.first().map_or(0, |first| first.headers);
        Assessment { safety, is_start, executable, doubt }
    }

    /// Returns whether only musl's code has run at the entry point of the executable, the first of
    /// the candidates.
    fn is_entry_known(&self, candidates: &[Candidate]) -> bool {
        let executable = candidates.first().map(|executable| executable.object);
        executable.is_some_and(|executable| crt1::is_entry_of(self.memory, &executable).unwrap_or(false))
    }

    fn progress(&self, candidate: &Candidate, is_root: bool, is_before_all_others: bool) -> Result<Progress, Cause> {
        if candidate.dynamic.has_preinit_array && !loader::is_musl() {
            // The functions of that array run before the constructors of all objects. musl ignores
            // the array.
            return Ok(Progress::MayHaveRun);
        }
        if !candidate.dynamic.has_constructors() {
            return Ok(Progress::NoConstructors);
        }
        // In an object that was loaded before this library, the slot of `__gmon_start__` is
        // empty. If the slot has this library's function, the object announces itself before it
        // begins. If sweeps were missed it may have done so already, unless it is the root, which
        // is announcing itself now.
        let is_announcing = is_root && candidate.is_announcing(self.memory, self.caller);
        if is_announcing || candidate.will_announce(self.memory)? && (is_root || !self.has_missed) {
            return Ok(Progress::NotBegun);
        }
        if self.is_first && !self.has_missed && own::is_in(candidate.object.span) {
            // No code has called this library before its first sweep.
            return Ok(Progress::NotBegun);
        }
        if self.is_c_library(candidate)? {
            return Ok(Progress::CLibrary);
        }
        // Both loaders initialise an object after those on which it depends, but only musl's does
        // so in an order that depends on nothing else (source: `queue_ctors`).
        let is_later = (candidate.depends_on_root && !self.has_missed)
            || is_before_all_others
            || self.is_cxx_library(candidate)?;
        Ok(if is_later { Progress::NotBegun } else { Progress::MayHaveRun })
    }

    /// Returns whether a candidate that has not announced itself may be running code of its own in
    /// another thread. musl releases its lock before it calls constructors; glibc does not.
    fn has_code_before_announcement(&self, candidate: &Candidate) -> bool {
        loader::is_musl()
            && !candidate.depends_on_root
            && !own::is_in(candidate.object.span)
            && candidate.before_announcement(self.memory) != Ok(Some(Before::Nothing))
    }

    /// Returns whether this library's constructor is the first one that musl calls in this process.
    /// It calls those of the object that comes second in its list before all others, but for those
    /// on which that object depends (source: `queue_ctors`). This library depends on musl only.
    fn is_before_all_others(&self, candidates: &[Candidate]) -> bool {
        let (root, second) = (candidates.get(self.root), self.objects.get(1));
        let is_second = root
            .zip(second)
            .is_some_and(|(root, second)| root.loaded.headers == second.headers && own::is_in(root.object.span));
        is_second && self.is_first && !self.has_missed && loader::is_musl()
    }

    fn is_c_library(&self, candidate: &Candidate) -> Result<bool, Cause> {
        if loader::musl_address().is_some_and(|address| candidate.object.span.contains(address)) {
            return Ok(true);
        }
        self.has_soname(candidate, |soname| UNANNOUNCED_SONAMES.contains(&soname))
    }

    /// Returns whether the candidate is the C++ library of a GCC for musl and has yet to announce
    /// itself. Its constructors that have a priority run before its announcement. They set up
    /// locales, streams and a pool of memory, and start nothing that stores to memory. It is
    /// recognised by its SONAME, with the suffix that wheels give it.
    fn is_cxx_library(&self, candidate: &Candidate) -> Result<bool, Cause> {
        let is_it = loader::is_musl()
            && !self.has_missed
            && self.has_soname(candidate, |soname| {
                soname.starts_with(b"libstdc++.so.") || soname.starts_with(b"libstdc++-")
            })?;
        Ok(is_it && candidate.refers_to_registration(self.memory)?)
    }

    fn has_soname(&self, candidate: &Candidate, is_it: impl FnOnce(&[u8]) -> bool) -> Result<bool, Cause> {
        // The buffer is longer than each of the names, so a name that does not fit is another.
        let mut buffer = [0; 48];
        let Some(address) = candidate.dynamic.soname_address() else { return Ok(false) };
        match self.memory.read_string(address, &mut buffer) {
            Ok(soname) => Ok(is_it(soname)),
            Err(Errno(libc::ENAMETOOLONG)) => Ok(false),
            Err(errno) => Err(Cause::call(self.memory.operation(), errno)),
        }
    }

    /// Returns whether the executable is the first candidate and its code has certainly not
    /// begun. An executable that does not announce itself (because it is linked without crti, or
    /// calls a `__gmon_start__` of its own) has not begun if this library was loaded together
    /// with it, which `is_start` says. Then it is marked accordingly.
    fn marks_executable(&self, candidates: &mut [Candidate], is_start: bool) -> bool {
        let Some(executable) = candidates.first_mut() else { return false };
        let is_listed_first = self.objects.first().is_some_and(|first| first.headers == executable.loaded.headers);
        if !self.is_first || self.has_missed || !is_listed_first || executable.dynamic.has_preinit_array {
            return false;
        }
        if is_start {
            executable.progress = Progress::NotBegun;
        }
        executable.progress == Progress::NotBegun
    }

    /// Returns whether this is the first sweep of the process and this library was loaded
    /// together with the executable, so that the loader's list has it before libc.
    fn is_start(&self, candidates: &[Candidate]) -> Result<bool, Cause> {
        for candidate in candidates.iter().filter(|_| self.is_first && !self.has_missed) {
            if own::is_in(candidate.object.span) {
                return Ok(true);
            }
            if self.is_c_library(candidate)? {
                break;
            }
        }
        Ok(false)
    }
}

impl Assessment {
    /// The assessment for candidates whose code may have run, all of them.
    pub const AFTER_RUNNING: Self =
        Self { safety: WriteSafety::AfterRunning, is_start: false, executable: 0, doubt: None };

    /// Returns whether no code of `candidate` has run. Then no code can have set attributes of its
    /// ranges yet, such as a lock.
    pub fn proves_not_begun(&self, candidate: &Candidate) -> bool {
        self.permission(candidate) != Permission::Refused
    }

    fn is_beside_running(&self) -> bool {
        matches!(self.safety, WriteSafety::BesideRunning(_))
    }

    fn permission(&self, candidate: &Candidate) -> Permission {
        match self.safety {
            // An object that knows the addresses of this library's data does not store to it. But
            // a thread that calls a function of this library does.
            WriteSafety::BesideRunning(Reach::Everywhere) if own::is_in(candidate.object.span) => {
                WriteSafety::BesideRunning(Reach::ThroughOthers).permission(candidate.progress)
            }
            _ if candidate.is_known => Permission::Refused,
            // The executable may have copies of variables of the C library (`optind`, `tzname`), to
            // which the C library's functions store on behalf of any thread.
            WriteSafety::BesideRunning(Reach::Itself) if candidate.loaded.headers == self.executable => {
                WriteSafety::BesideRunning(Reach::ThroughOthers).permission(candidate.progress)
            }
            safety => match safety.permission(candidate.progress) {
                Permission::Granted if candidate.has_unbound => Permission::WithOneThread,
                permission => permission,
            },
        }
    }

    /// Returns whether the only reason to leave `candidate` is that another candidate may have
    /// run. `signals` is an error if signals are not blocked in this thread.
    pub fn is_left_for_another(&self, signals: Result<(), Errno>, candidate: &Candidate) -> bool {
        let is_another = match candidate.progress {
            Progress::MayHaveRun => false,
            Progress::NotBegun => !own::is_in(candidate.object.span),
            Progress::NoConstructors | Progress::CLibrary => self.is_start,
        };
        is_another && self.is_beside_running() && self.reason_to_leave(signals, candidate).is_some()
    }

    /// Returns why the writable ranges of `candidate` must be left, if they must. `signals` is an
    /// error if signals are not blocked in this thread.
    pub fn reason_to_leave(&self, signals: Result<(), Errno>, candidate: &Candidate) -> Option<Cause> {
        let is_beside =
            self.is_beside_running() && candidate.progress == Progress::NotBegun && !own::is_in(candidate.object.span);
        let cause = match candidate.progress {
            _ if is_beside => OTHER_MAY_HAVE_RUN,
            Progress::NotBegun if candidate.has_unbound => NOT_ALL_BOUND,
            _ => CODE_MAY_HAVE_RUN,
        };
        let cause = self.doubt.unwrap_or(cause);
        match self.permission(candidate) {
            Permission::Granted => None,
            Permission::Refused => Some(cause),
            Permission::WithOneThread => match (signals, environment::has_one_thread()) {
                (Ok(()), Ok(true)) => None,
                (Ok(()), Ok(false)) => Some(cause),
                (Err(errno), _) => Some(Cause::call(Operation::RtSigprocmask, errno)),
                (Ok(()), Err(errno)) => Some(Cause::call(Operation::StatThreads, errno)),
            },
        }
    }
}
