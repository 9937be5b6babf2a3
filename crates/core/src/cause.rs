//! Causes: which operation was not done, and why. Causes can be compared, so that the log names
//! each of them once.

use core::fmt;

use crate::sys::Errno;
use crate::sys::gate::NOT_MADE;

/// Defines [`Operation`] by a table of all operations and their texts.
macro_rules! operations {
    ($first:ident = $first_text:literal, $($name:ident = $text:literal,)*) => {
        /// An operation that can fail or be refused. The texts are part of messages and of the
        /// records for readers outside the process; they live as long as the library.
        ///
        /// None is 0, so that an absent cause can be: a static without causes needs no page of the
        /// library's file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            #[doc = concat!("\"", $first_text, "\"")]
            $first = 1,
            $(#[doc = concat!("\"", $text, "\"")] $name,)*
        }

        impl Operation {
            /// Returns its name in messages: that of a system call, or words.
            pub const fn text(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
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
    CopyUntouchedData = "copy untouched data to private memory",
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
    /// Returns a function for `map_err`, which makes a cause of this operation's error.
    pub fn failed(self) -> impl Fn(Errno) -> Cause {
        move |errno| Cause::call(self, errno)
    }
}

/// An operation that was not done, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The operation that failed or was refused.
    pub operation: Operation,
    /// The reason for that.
    pub reason: Reason,
}

/// The error of a function that reads something and passes each part of it to a closure: the
/// reading or the closure has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The reading has failed.
    Reading(Errno),
    /// The closure has failed.
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
    /// Returns the cause, where `operation` is the one that was reading.
    pub const fn cause(self, operation: Operation) -> Cause {
        match self {
            Self::Reading(errno) => Cause::call(operation, errno),
            Self::Working(cause) => cause,
        }
    }
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A system call has failed with this error.
    Errno(Errno),
    /// The library has decided against it, for the reason in these words.
    Words(&'static str),
}

impl Cause {
    /// Makes the cause of a system call that failed.
    pub const fn call(operation: Operation, errno: Errno) -> Self {
        Self { operation, reason: Reason::Errno(errno) }
    }

    /// Makes the cause of a decision of the library.
    pub const fn words(operation: Operation, words: &'static str) -> Self {
        Self { operation, reason: Reason::Words(words) }
    }

    /// Makes the cause of a failure to map memory.
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

    /// Returns whether the operation is a system call that the gate has not let through, because a
    /// seccomp filter may kill for it.
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
