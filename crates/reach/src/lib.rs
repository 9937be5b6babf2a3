//! Pins the objects of a running process from outside. Nothing is loaded into the process and
//! no code of sopin's runs there: its own threads, stopped by `ptrace(2)`, make the system calls.
//!
//! ```text
//! running   find exposed objects, make or find copies of their files
//! stopped   read the maps again, plan, run the steps, restore, resume
//! running   find out what is still exposed; once more if there is something
//! ```
//!
//! | module | responsible for |
//! |---|---|
//! | `ptrace` | the requests of `ptrace(2)`, and waiting for tasks |
//! | `task` | one task: a thread, or a process that shares the memory |
//! | `stop` | stopping all tasks of a process, and resuming them |
//! | `held` | the tasks that could not be released yet |
//! | `sharers` | the processes that share the memory of another one |
//! | `slowness` | how little time the scheduler gives to a task |
//! | `moment` | choosing the moment of a stop |
//! | `descriptor` | a descriptor of a task |
//! | `transfers` | transfers that a stop may cut short |
//! | `restartable` | restartable sequences (`rseq(2)`) |
//! | `frame` | the signal frame by which a task restores itself if this process dies |
//! | `instructions` | finding the instructions that a task is made to execute |
//! | `calls` | system calls that a stopped task is made to make |
//! | `passing` | passing descriptors into the process |
//! | `interpreter` | the interpreter of steps |
//! | `records` | the records of the library in the process |
//! | `memory` | writing to its memory, and reading words of it |
//! | `kernel_stores` | stores of the kernel that a stop does not hinder |
//! | `copies` | copies of files, each made once for all processes |
//! | `target` | whether a process may be pinned, and its files in `/proc` |
//! | `frozen` | whether its cgroup is frozen |
//! | `object` | planning one object |
//! | [`focus`] | which objects are pinned, and how long that may take |
//! | `prepared` | the files that its objects map, and their copies |
//! | `watchdog` | the end of a stop, or of an interrupted pin, that takes very long |
//! | `urgency` | the priority of this process meanwhile |
//! | `work` | what is done while the process has stopped |
//! | `pinner` | pinning one process: `Pinner` |
//! | [`report`] | the result |

#![deny(missing_docs)]
#![allow(clippy::doc_markdown, clippy::must_use_candidate)]
// Addresses of a process and sizes of mappings: 64 bits on both sides.
#![allow(clippy::cast_possible_truncation)]

mod calls;
mod copies;
mod descriptor;
pub mod focus;
mod frame;
mod frozen;
mod held;
mod instructions;
mod interpreter;
mod kernel_stores;
mod memory;
mod moment;
mod object;
mod passing;
pub mod pinner;
mod prepared;
mod ptrace;
mod records;
pub mod report;
mod restartable;
mod sharers;
mod slowness;
mod stop;
mod target;
mod task;
mod transfers;
mod urgency;
mod watchdog;
mod work;

pub use pinner::Pinner;
