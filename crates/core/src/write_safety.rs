//! Whether the writable ranges of an object may be copied and replaced without losing a store.
//! This module is pure: it decides from what is known of the objects of one sweep.
//!
//! A store that arrives between the copy and the swap is lost. Counting threads
//! proves nothing: the kernel stores for io_uring's fixed buffers, and a task
//! made with CLONE_VM but without CLONE_THREAD shares the memory without being a
//! thread of the process. What does prove something is that nothing has run
//! that could have started such a writer:
//!
//! | sweep | objects that have not begun | objects without constructors, the C library | objects that may have run |
//! |---|---|---|---|
//! | at startup | copied | copied | |
//! | at startup, behind an entry point of the program's own | copied if there is one thread | copied if there is one thread | |
//! | an object of a `dlopen` announces itself | copied | left | |
//! | either, together with an object that may have run | as that one's [`Reach`] is | left | left |
//! | after a `dlopen`, or when the host asks | left | left | left |
//!
//! The library replaces ranges that are left if it proves that its thread alone has the memory
//! ([`crate::sys::is_sole_user_of_memory`]), and else while everything has stopped that could store to
//! them, where it can stop that. The stop is another proof, and costs the program a pause.
//!
//! # musl
//!
//! glibc's loader calls the constructors of the program's objects before the executable's entry
//! point, musl's C library after it. The code of the entry point is that of `crt1.o`, which starts
//! nothing ([`crate::crt1`]). If a program has its own ([`WriteSafety::AfterEntry`]), the count of
//! threads decides. It proves little: what such an entry point has started may be a task that is
//! no thread.
//!
//! musl stores to objects that it has relocated before, if they were opened with RTLD_LAZY and
//! refer to functions that no object defined then: at every later `dlopen` it binds what has
//! become possible. Another thread may call `dlopen` at any time, since musl releases its lock
//! before constructors run. So an object with such references is copied only if there is one
//! thread.
//!
//! musl gives the unused ends of the program's writable pages to `malloc`, for the objects that
//! are loaded at startup, before any thread exists. It does not for objects that are opened later
//! (source: `reclaim_gaps` in `ldso/dynlink.c`). So no thread can have memory there that another
//! one has allocated in an object that has just been opened.
//!
//! # Beside an object that may have run
//!
//! An initialiser that runs before anything announces itself (Debian's libnuma.so.1
//! has one) may have started a writer, and no count shows that it has not. What it
//! has started stores to its own object, to the C library's, and to whatever else it
//! has the address of. Three things could have given it an address in an object
//! that has not begun, for that object's own code has given none away:
//!
//! * a relocation against a symbol that this object defines, which may be one of its
//!   own that is interposed;
//! * a function that finds objects or symbols, such as `dlsym(3)` or
//!   `dl_iterate_phdr(3)`;
//! * another object that it has called, for that may have called such a function.
//!
//! All three leave a word in its memory that the loader has bound, at load time or at the first
//! call. [`Reach`] is what these words show. An address can be found in other ways too: from
//! `/proc/self/maps`, from the auxiliary vector behind the environment, from the loader's own
//! word in the GOT. So an initialiser that is bound to a function that starts threads counts as
//! one that has called another object. What is left is one that makes the system call itself
//! (`syscall(2)`, which libnuma is bound to for other calls) and finds addresses in one of
//! these ways, and a word in `.data` for a symbol of its own that another object interposes, if
//! it has been overwritten since: a store that such a writer makes while the object is pinned
//! can be lost.
//!
//! One case is decided by a count of threads although that proves little: the third
//! one in a process with one thread ([`Reach::ThroughOthers`]). What that other
//! object has started for the initialiser may be a task that is no thread. Programs
//! built with AddressSanitizer would lose all their objects otherwise, since its
//! runtime, which looks everything up, is called before anything is announced.

/// What is known of an object's own code at the time of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It announces itself before its constructors run, and has not done so.
    NotBegun,
    /// It has no constructors, so that it starts nothing by itself. Others may
    /// have called it.
    NoConstructors,
    /// It belongs to the C library, whose constructors start nothing that stores
    /// to memory. Others may have called it.
    CLibrary,
    /// Its constructors, or functions of it that others have called, may have run.
    MayHaveRun,
}

/// What an object that may have run can know of those that were loaded together with
/// it and have not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It refers to nothing but itself and functions of the C library that report no
    /// addresses of objects. Those in whose data its words point are known and
    /// marked.
    Itself,
    /// It may have called functions of other objects, which may do anything. In a process with
    /// one thread they have started no other thread.
    ThroughOthers,
    /// It may have called a function that reports addresses of objects.
    Everywhere,
}

/// What the candidates of one sweep prove about stores to their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSafety {
    /// The process has run nothing but the loader and the C library's initialisation.
    AtStartup,
    /// The process has run nothing but the loader, the C library's initialisation and an unknown
    /// entry point of the executable.
    AfterEntry,
    /// None of the candidates has run that could have started something.
    BeforeAnnouncement,
    /// A candidate may have run and started something that stores to what it can reach.
    BesideRunning(Reach),
    /// Code of every candidate may have run.
    AfterRunning,
}

/// Whether writable ranges may be copied and replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// They may be copied and replaced.
    Granted,
    /// They may be if the process has one thread and signals are blocked.
    WithOneThread,
    /// They may not be.
    Refused,
}

impl WriteSafety {
    /// Judges a sweep that an announcement has caused, in which no candidate may have
    /// run. `at_startup`: the executable is one of them and has not begun, and no
    /// earlier sweep has seen anything.
    pub const fn of_announcement(at_startup: bool) -> Self {
        if at_startup { Self::AtStartup } else { Self::BeforeAnnouncement }
    }

    /// Returns the judgement of the same sweep with one more object, which may have run and has
    /// this reach.
    #[must_use]
    pub fn beside(self, reach: Reach) -> Self {
        match self {
            Self::AtStartup | Self::AfterEntry | Self::BeforeAnnouncement => Self::BesideRunning(reach),
            Self::BesideRunning(other) => Self::BesideRunning(reach.max(other)),
            Self::AfterRunning => self,
        }
    }

    /// Returns whether the writable ranges of a candidate with that progress may be copied.
    pub const fn permission(self, progress: Progress) -> Permission {
        match (self, progress) {
            (Self::AfterRunning, _) | (_, Progress::MayHaveRun) => Permission::Refused,
            (Self::AtStartup, _) | (Self::BeforeAnnouncement, Progress::NotBegun) => Permission::Granted,
            (Self::AfterEntry, _) => Permission::WithOneThread,
            (Self::BesideRunning(reach), Progress::NotBegun) => match reach {
                Reach::Itself => Permission::Granted,
                Reach::ThroughOthers => Permission::WithOneThread,
                Reach::Everywhere => Permission::Refused,
            },
            (Self::BeforeAnnouncement | Self::BesideRunning(_), Progress::NoConstructors | Progress::CLibrary) => {
                Permission::Refused
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Progress::{CLibrary, MayHaveRun, NoConstructors, NotBegun};
    use super::*;

    #[test]
    fn everything_is_copied_at_startup() {
        let safety = WriteSafety::of_announcement(true);
        for progress in [NotBegun, CLibrary, NoConstructors] {
            assert_eq!(safety.permission(progress), Permission::Granted);
        }
    }

    #[test]
    fn everything_is_copied_after_the_entry_point_with_one_thread() {
        for progress in [NotBegun, CLibrary, NoConstructors] {
            assert_eq!(WriteSafety::AfterEntry.permission(progress), Permission::WithOneThread);
        }
        assert_eq!(WriteSafety::AfterEntry.permission(MayHaveRun), Permission::Refused);
        assert_eq!(WriteSafety::AfterEntry.beside(Reach::Itself), WriteSafety::BesideRunning(Reach::Itself));
    }

    #[test]
    fn only_what_announces_itself_is_copied_later() {
        let safety = WriteSafety::of_announcement(false);
        assert_eq!(safety.permission(NotBegun), Permission::Granted);
        assert_eq!(safety.permission(NoConstructors), Permission::Refused);
        assert_eq!(safety.permission(CLibrary), Permission::Refused);
    }

    #[test]
    fn the_widest_reach_decides_beside_one_that_may_have_run() {
        use Reach::{Everywhere, Itself, ThroughOthers};
        for at_startup in [true, false] {
            for (running, permission) in [
                (&[Itself][..], Permission::Granted),
                (&[Itself, ThroughOthers, Itself], Permission::WithOneThread),
                (&[Everywhere, ThroughOthers], Permission::Refused),
            ] {
                let begin = WriteSafety::of_announcement(at_startup);
                let safety = running.iter().fold(begin, |safety, reach| safety.beside(*reach));
                assert_eq!(safety.permission(NotBegun), permission);
                for progress in [MayHaveRun, CLibrary, NoConstructors] {
                    assert_eq!(safety.permission(progress), Permission::Refused);
                }
            }
        }
    }

    #[test]
    fn nothing_is_copied_once_code_has_run() {
        for progress in [NotBegun, NoConstructors, CLibrary, MayHaveRun] {
            assert_eq!(WriteSafety::AfterRunning.permission(progress), Permission::Refused);
        }
    }
}
