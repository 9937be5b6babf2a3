//! Whether the writable ranges of an object may be copied and replaced without
//! losing a store. Pure: decides from what is known of the objects of one sweep.
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
//! | at startup, together with an object that may have run | if there is one thread | left | left |
//! | an object of a `dlopen` announces itself | copied | left | |
//! | the same, together with an object that may have run | if there is one thread | left | left |
//! | after a `dlopen`, or when the host asks | left | left | left |

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

/// What the candidates of one sweep prove about stores to their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSafety {
    /// The process has run nothing but the loader and the C library's initialisation.
    AtStartup,
    /// None of the candidates has run that could have started something.
    BeforeAnnouncement,
    /// A candidate may have run and started something that stores to the others.
    BesideRunning,
    /// Code of every candidate may have run.
    AfterRunning,
}

/// Whether writable ranges may be copied and replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// They may.
    Granted,
    /// They may if the process has one thread and signals are blocked.
    WithOneThread,
    /// They may not.
    Refused,
}

impl WriteSafety {
    /// Judges a sweep that an announcement has caused, by the progress of all its
    /// candidates. `at_startup`: the executable is one of them and has not begun,
    /// and no earlier sweep has seen anything.
    pub fn of_announcement(progress: impl IntoIterator<Item = Progress>, at_startup: bool) -> Self {
        if progress.into_iter().any(|progress| progress == Progress::MayHaveRun) {
            Self::BesideRunning
        } else if at_startup {
            Self::AtStartup
        } else {
            Self::BeforeAnnouncement
        }
    }

    /// Whether the writable ranges of a candidate with that progress may be copied.
    pub const fn permission(self, progress: Progress) -> Permission {
        match (self, progress) {
            (Self::AfterRunning, _) | (_, Progress::MayHaveRun) => Permission::Refused,
            (Self::AtStartup, _) | (Self::BeforeAnnouncement, Progress::NotBegun) => Permission::Granted,
            (Self::BesideRunning, Progress::NotBegun) => Permission::WithOneThread,
            (Self::BeforeAnnouncement | Self::BesideRunning, Progress::NoConstructors | Progress::CLibrary) => {
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
        let safety = WriteSafety::of_announcement([NotBegun, NotBegun, CLibrary, NoConstructors], true);
        for progress in [NotBegun, CLibrary, NoConstructors] {
            assert_eq!(safety.permission(progress), Permission::Granted);
        }
    }

    #[test]
    fn only_what_announces_itself_is_copied_later() {
        let safety = WriteSafety::of_announcement([NotBegun, NoConstructors, CLibrary], false);
        assert_eq!(safety.permission(NotBegun), Permission::Granted);
        assert_eq!(safety.permission(NoConstructors), Permission::Refused);
        assert_eq!(safety.permission(CLibrary), Permission::Refused);
    }

    #[test]
    fn one_that_may_have_run_casts_doubt_on_all() {
        for at_startup in [true, false] {
            let safety = WriteSafety::of_announcement([NotBegun, MayHaveRun, CLibrary], at_startup);
            assert_eq!(safety.permission(NotBegun), Permission::WithOneThread);
            for progress in [MayHaveRun, CLibrary, NoConstructors] {
                assert_eq!(safety.permission(progress), Permission::Refused);
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
