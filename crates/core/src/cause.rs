//! Why something was not done: the operation and the reason, in a form that
//! can be compared, so that a cause can be named once.

use core::fmt;

use crate::sys::Errno;
use crate::sys::gate::NOT_MADE;

/// Defines [`Operation`] by a table of all operations and their texts.
macro_rules! operations {
    ($($name:ident = $text:literal,)*) => {
        /// What can fail or be refused. The texts are part of messages and of what is
        /// published for readers outside; they live as long as the library.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $(#[doc = concat!("\"", $text, "\"")] $name,)*
        }

        impl Operation {
            /// Returns what messages call it: a system call, or words.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

operations! {
    AddToStore = "add to the store",
    Capget = "capget",
    CompareCopy = "compare the copy",
    CompareStoreEntry = "compare the store entry",
    CopyToPrivateMemory = "copy to private memory",
    CopyToStore = "copy to the store",
    CreateStore = "create the store",
    Fchmod = "fchmod",
    Fcntl = "fcntl",
    Flock = "flock",
    Fstat = "fstat",
    FstatOfStoreEntry = "fstat of the store entry",
    FstatfsOfStore = "fstatfs of the store",
    Fsync = "fsync",
    Getresgid = "getresgid",
    Getresuid = "getresuid",
    Linkat = "linkat",
    ListLoadedObjects = "list the loaded objects",
    MemfdCreate = "memfd_create",
    Mkdirat = "mkdirat",
    Mmap = "mmap",
    Mprotect = "mprotect",
    Mremap = "mremap",
    Open = "open",
    OpenFileWithoutName = "open a file without a name",
    OpenMaps = "open /proc/self/maps",
    OpenMemory = "open /proc/self/mem",
    OpenNewStoreEntry = "open a new store entry",
    OpenPasswd = "open /etc/passwd",
    OpenSmaps = "open /proc/self/smaps",
    OpenStore = "open the store",
    OpenStoreEntry = "open the store entry",
    OpenSystemStore = "open the system's store",
    Openat = "openat",
    PinRanges = "pin ranges",
    PinText = "pin text",
    PinWritableRanges = "pin writable ranges",
    Prctl = "prctl",
    Prlimit64 = "prlimit64",
    ProcessVmReadv = "process_vm_readv",
    Pwrite = "pwrite",
    ReadMaps = "read /proc/self/maps",
    ReadMemory = "read /proc/self/mem",
    ReadOverflowUid = "read /proc/sys/kernel/overflowuid",
    ReadOwnStatus = "read /proc/thread-self/status",
    ReadPagemap = "read /proc/self/pagemap",
    ReadPasswd = "read /etc/passwd",
    ReadProgramHeaders = "read program headers",
    ReadSettings = "read the settings",
    ReadSmaps = "read /proc/self/smaps",
    ReadThreadStatus = "read /proc/self/task/TID/status",
    ReadUidMap = "read /proc/self/uid_map",
    RtSigprocmask = "rt_sigprocmask",
    Stat = "stat",
    StatThreads = "stat /proc/self/task",
    UseStore = "use the store",
    UseStoreEntry = "use the store entry",
    UseUserStore = "use the user's store",
    Write = "write",
    WriteFileBack = "write the file back",
}

impl Operation {
    /// Returns what makes a cause of the error of a system call: for `map_err`.
    pub fn failed(self) -> impl Fn(Errno) -> Cause {
        move |errno| Cause::call(self, errno)
    }
}

/// What was attempted and why it did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What was attempted.
    pub operation: Operation,
    /// Why it did not work.
    pub reason: Reason,
}

/// Why something that reads has stopped: the reading has failed, or what was to be done
/// with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The reading has failed.
    Reading(Errno),
    /// The other has.
    Working(Cause),
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Self {
        Self::Reading(errno)
    }
}

impl From<Cause> for Stopped {
    fn from(cause: Cause) -> Self {
        Self::Working(cause)
    }
}

impl Stopped {
    /// Returns the cause, if this `operation` was the reading.
    pub const fn cause(self, operation: Operation) -> Cause {
        match self {
            Self::Reading(errno) => Cause::call(operation, errno),
            Self::Working(cause) => cause,
        }
    }
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
    /// Makes the cause of a system call that failed.
    pub const fn call(operation: Operation, errno: Errno) -> Self {
        Self { operation, reason: Reason::Errno(errno) }
    }

    /// Makes the cause of a decision.
    pub const fn words(operation: Operation, words: &'static str) -> Self {
        Self { operation, reason: Reason::Words(words) }
    }

    /// Makes the cause of memory that could not be mapped.
    pub const fn no_memory(errno: Errno) -> Self {
        Self::call(Operation::Mmap, errno)
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
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation.text();
        match self.reason {
            Reason::Errno(errno) => write!(f, "{operation}: {errno}"),
            Reason::Words(words) => write!(f, "{operation}: {words}"),
        }
    }
}
