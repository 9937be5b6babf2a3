//! The activities of a host while calls of the library fail.

/// An activity of programs in which the library makes calls.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name in the trials and in the table.
    pub name: &'static str,
    /// The argument of `host.c`.
    pub activity: &'static str,
    /// Settings in addition to `SOPIN_LOG=warn` and `SOPIN_STORE=off`; `{store}` is the
    /// run's own store, `{dir}` the host's directory, `{run}` the run's own.
    pub settings: &'static [(&'static str, &'static str)],
    /// The contents of the store before the run.
    pub store: Before,
    /// Whether `make test` tries filters that kill as well.
    pub is_tried_with_filters: bool,
    /// Rules of `supervisor.c` for calls that always fail, as they do on another kernel
    /// or file system.
    pub always: &'static [Always],
}

/// The contents of the run's store when it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It does not exist.
    Nothing,
    /// An entry for every object, written in this boot.
    Everything,
    /// The same, with marks that do not show in which boot they were written.
    FromAnotherBoot,
    /// Older versions of every object.
    OldVersions,
}

/// A kind of call that always fails.
#[derive(Clone, Copy)]
pub struct Always {
    number: libc::c_long,
    error: i32,
    index: u32,
    mask: u64,
    value: u64,
}

impl Always {
    const fn every(number: libc::c_long, error: i32) -> Self {
        Self { number, error, index: 0, mask: 0, value: 0 }
    }

    /// Returns it as an argument of the supervisor.
    pub fn argument(&self) -> String {
        let Self { number, error, index, mask, value } = self;
        format!("{number}:{error}:{index}:{mask:x}:{value:x}")
    }
}

const STORE: &[(&str, &str)] = &[("SOPIN_STORE", "{store}"), ("SOPIN_ONLY", "{dir}/*")];
const NO_QUERY: Always =
    // PROCMAP_QUERY exists since Linux 6.11.
    Always { index: 1, mask: 0xffff_ffff, value: 0xc068_6611, ..Always::every(libc::SYS_ioctl, libc::ENOTTY) };
const NO_UNNAMED_FILES: Always = Always {
    index: 2,
    mask: libc::O_TMPFILE as u64,
    value: libc::O_TMPFILE as u64,
    ..Always::every(libc::SYS_openat, libc::EOPNOTSUPP)
};

const fn plain(name: &'static str, activity: &'static str) -> Scenario {
    Scenario { name, activity, settings: &[], store: Before::Nothing, is_tried_with_filters: false, always: &[] }
}

const fn stored(name: &'static str, store: Before, always: &'static [Always]) -> Scenario {
    Scenario { settings: STORE, store, always, ..plain(name, "startup") }
}

pub const ALL: &[Scenario] = &[
    Scenario { is_tried_with_filters: true, ..plain("startup", "startup") },
    Scenario { settings: &[("SOPIN_MODE", "relocated")], ..plain("startup_relocated", "startup") },
    Scenario { settings: &[("SOPIN_LOG", "debug"), ("SOPIN_ONLY", "{dir}/*")], ..plain("startup_talking", "startup") },
    Scenario {
        settings: &[("SOPIN_LOG", "debug"), ("SOPIN_LOG_FILE", "{run}/log"), ("SOPIN_ONLY", "{dir}/*")],
        ..plain("startup_log_file", "startup")
    },
    Scenario { settings: &[("SOPIN_MODE", "off"), ("SOPIN_EXCLUDE", "/no/such/*")], ..plain("startup_off", "startup") },
    Scenario { always: &[NO_QUERY], ..plain("startup_maps_as_text", "startup") },
    Scenario {
        always: &[Always::every(libc::SYS_process_vm_readv, libc::EPERM)],
        ..plain("startup_proc_mem", "startup")
    },
    plain("early_pin", "early"),
    Scenario { settings: &[("SOPIN_MODE", "relocated")], ..plain("early_pin_relocated", "early") },
    Scenario { always: &[NO_QUERY], ..plain("early_pin_maps_as_text", "early") },
    plain("dlopen", "plain"),
    plain("dlopen_bare", "bare"),
    plain("dlopen_beside_thread", "threads"),
    plain("dlmopen", "namespace"),
    plain("dlclose", "dlclose"),
    Scenario { is_tried_with_filters: true, ..plain("fork", "fork") },
    Scenario { is_tried_with_filters: true, ..stored("store_fill", Before::Nothing, &[]) },
    stored("store_fill_named", Before::Nothing, &[NO_UNNAMED_FILES]),
    stored("store_fill_sendfile", Before::Nothing, &[Always::every(libc::SYS_copy_file_range, libc::EXDEV)]),
    stored("store_replace", Before::OldVersions, &[]),
    stored("store_hit", Before::Everything, &[]),
    stored("store_after_reboot", Before::FromAnotherBoot, &[]),
    Scenario { settings: STORE, store: Before::Everything, ..plain("store_hit_dlopen", "early") },
];
