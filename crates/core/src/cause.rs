//! Why something was not done: the operation and the reason, in a form that
//! can be compared, so that a cause can be named once.

use core::fmt;

use crate::sys::Errno;
use crate::sys::gate::NOT_MADE;

/// What was attempted and why it did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What was attempted: a system call, or words.
    pub operation: &'static str,
    /// Why it did not work.
    pub reason: Reason,
}

/// Why an operation did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The kernel said so.
    Errno(Errno),
    /// We decided so.
    Words(&'static str),
}

impl Cause {
    /// A system call that failed.
    pub const fn call(operation: &'static str, errno: Errno) -> Self {
        Self { operation, reason: Reason::Errno(errno) }
    }

    /// Returns the error of the system call, if one has failed.
    pub const fn errno(&self) -> Option<Errno> {
        match self.reason {
            Reason::Errno(errno) => Some(errno),
            Reason::Words(_) => None,
        }
    }

    /// Returns whether this is a system call that was not made, because a seccomp filter may kill for it.
    pub fn is_not_made(&self) -> bool {
        self.reason == Reason::Errno(NOT_MADE)
    }

    /// A decision.
    pub const fn words(operation: &'static str, words: &'static str) -> Self {
        Self { operation, reason: Reason::Words(words) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Errno(errno) => write!(f, "{}: {errno}", self.operation),
            Reason::Words(words) => write!(f, "{}: {words}", self.operation),
        }
    }
}
