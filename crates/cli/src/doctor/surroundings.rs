//! Finds out once the facts on which several subjects depend.

use std::env;
use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use sopin_core::credentials::User;
use sopin_core::image_layers;
use sopin_core::settings::Settings;
use sopin_core::thread_status::ThreadStatus;

use super::copies::Stores;
use super::harmless::Harmless;
use super::probes::Answers;
use crate::exit::Failure;
use crate::library::Library;
use crate::program::elf::Machine;

/// The machine or container as this user's programs find it.
pub struct DoctorSurroundings {
    /// The library, or why there is none.
    pub library: Result<Library, Failure>,
    /// The machine of the library; `None` if its file cannot be read.
    pub machine: Option<Machine>,
    /// A program that can be started.
    pub harmless: Option<Harmless>,
    /// `None` if memory is lacking.
    pub settings: Option<Settings>,
    /// The library's complaints about the settings.
    pub complaints: Vec<String>,
    /// The stores of this user.
    pub stores: Stores,
    /// The rights of this process; `None` without `/proc`.
    pub status: Option<ThreadStatus>,
    /// Whether a seccomp filter is in force that no container engine has installed: the library then
    /// adds nothing to the user's store.
    pub is_filtered: bool,
    /// The system calls that were tried; `None` without `/proc`, by which this command starts
    /// itself.
    pub calls: Option<Answers>,
}

impl DoctorSurroundings {
    /// Looks at everything.
    pub fn find() -> Self {
        let library = Library::find();
        let machine = library.as_ref().ok().and_then(|library| Some(library.elf().ok()?.machine));
        let (settings, complaints) = settings();
        let status = ThreadStatus::read_if(|_| true).ok();
        let is_filtered = status.is_some_and(|status| status.is_filtered);
        Self {
            harmless: Harmless::find(machine),
            machine,
            library,
            stores: Stores::find(settings.as_ref(), User::of_this_thread()),
            settings,
            complaints,
            status,
            is_filtered: is_filtered && !image_layers::is_root_of_an_engine(),
            calls: fs::metadata("/proc/self/exe").is_ok().then(Answers::find),
        }
    }
}

fn settings() -> (Option<Settings>, Vec<String>) {
    let variables: Vec<_> = env::vars_os().collect();
    let get = |name: &CStr| {
        let found = variables.iter().find(|(known, _)| known.as_bytes() == name.to_bytes());
        found.map(|(_, value)| value.as_bytes())
    };
    let mut complaints = Vec::new();
    let settings = Settings::read(get, |complaint| complaints.push(complaint.to_string())).ok();
    (settings, complaints)
}
