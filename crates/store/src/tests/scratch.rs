//! Directories with files old enough to be copied, and file systems that are
//! less able than the one that the tests run on.

use core::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::string::ToString;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use std::vec::Vec;

use sopin_core::build_id::BuildId;
use sopin_core::credentials::User;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::sys::{self, Fd, FileSystem};

use crate::settled::SETTLING_SECONDS;
use crate::{Identity, Known, LOOKED, MappedRanges, NEXT, NEXT_OWN, OriginFile, Store};

/// A directory of a test's own, removed when the test passes. What `FILES` lists
/// is in it.
pub struct Scratch(pub PathBuf);

/// Files that have not changed for long enough, and their content.
const FILES: [(&str, &[u8]); 5] = [
    ("libfoo.so", b"one"),
    ("libempty.so", b""),
    ("one/libfoo.so", b"one"),
    ("two/libfoo.so", b"two"),
    ("libfoo.so.new", b"two"),
];

/// Directories for all tests, made at once so that their files settle once.
fn directories() -> &'static Mutex<Vec<PathBuf>> {
    static ALL: OnceLock<Mutex<Vec<PathBuf>>> = OnceLock::new();
    ALL.get_or_init(|| {
        // Not below /tmp, which may be a file system of another kind.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/store-tests");
        fs::create_dir_all(&root).unwrap();
        let root = root.canonicalize().unwrap();
        for run in fs::read_dir(&root).unwrap().map(|run| run.unwrap()) {
            if !Path::new("/proc").join(run.file_name()).exists() {
                // Another run may be removing it too.
                let _ = fs::remove_dir_all(run.path());
            }
        }
        let run = root.join(process::id().to_string());
        let all: Vec<_> = (0..80).map(|number| run.join(number.to_string())).collect();
        for directory in &all {
            for (name, content) in FILES {
                let path = directory.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        settle(&all.last().unwrap().join(FILES[FILES.len() - 1].0));
        Mutex::new(all)
    })
}

impl Scratch {
    pub fn new() -> Self {
        let mut all = directories().lock().unwrap_or_else(PoisonError::into_inner);
        Self(all.pop().expect("a directory for every test"))
    }

    pub fn store_path(&self) -> PathBuf {
        self.0.join("store")
    }

    pub fn store(&self) -> Store {
        Store::open(&self.places(), this_user(), &mut Known::new()).unwrap()
    }

    pub fn places(&self) -> SearchDirs {
        let mut places = SearchDirs::new();
        places.set_explicit(self.store_path().as_os_str().as_bytes()).unwrap();
        places
    }

    /// Returns the path of one of `FILES`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Changes the content of a file and waits until that is long ago.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        settle(&path);
        path
    }

    /// Returns the entries in the store, and what else is there but for the library's marks.
    pub fn keys(&self) -> Vec<PathBuf> {
        let mut keys: Vec<_> = fs::read_dir(self.store_path()).unwrap().map(|key| key.unwrap().path()).collect();
        let marks = [LOOKED, NEXT, NEXT_OWN].map(CStr::to_bytes);
        keys.retain(|key| !marks.contains(&key.file_name().unwrap().as_bytes()));
        keys.sort();
        keys
    }

    pub fn only_key(&self) -> PathBuf {
        let keys = self.keys();
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !thread::panicking() {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

/// Waits until the store would copy a file.
pub fn settle(path: &Path) {
    let identity = Identity::of(&sys::stat(&c_string(path)).unwrap());
    while !identity.has_settled(sys::realtime_seconds(), SETTLING_SECONDS) {
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// A file opened as the source of an entry.
pub struct Opened {
    path: CString,
    file: Fd,
    pub identity: Identity,
    pub file_system: FileSystem,
    pub has_own_numbers: bool,
}

/// Returns the user who runs the tests.
pub fn this_user() -> User {
    User::of_this_thread().unwrap()
}

/// A process that has mapped nothing: no copy contradicts it.
pub struct Nothing;

impl MappedRanges for Nothing {
    fn build_id_of(&self, _: &Fd) -> sys::Result<BuildId> {
        Ok(BuildId::Absent)
    }

    fn equals(&self, _: &Fd) -> sys::Result<bool> {
        Ok(true)
    }
}

impl Opened {
    pub fn new(path: &Path) -> Self {
        let path = c_string(path);
        let file = sys::open(&path, libc::O_RDONLY, 0).unwrap();
        let identity = Identity::of(&sys::fstat(file.raw()).unwrap());
        let file_system = FileSystem::of(&file).unwrap();
        Self { path, file, identity, file_system, has_own_numbers: true }
    }

    pub fn origin(&self) -> OriginFile<'_> {
        let Self { file, path, identity, file_system, has_own_numbers } = self;
        OriginFile { file, path, identity: *identity, has_own_numbers: *has_own_numbers, file_system }
    }
}

/// Makes `O_TMPFILE` fail in this thread, as on a file system without it.
pub fn refuse_unnamed_files() {
    install(&mut [
        load(0),
        unless_equal(libc::SYS_openat as u32, 4),
        // seccomp_data: the arguments of eight bytes each begin at 16.
        load(16 + 2 * 8),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, libc::O_TMPFILE as u32),
        unless_equal(libc::O_TMPFILE as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// Makes the system call of this number fail in this thread.
pub fn refuse(number: libc::c_long, errno: i32) {
    install(&mut [
        load(0),
        unless_equal(number.cast_unsigned() as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]);
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Loads a word of `struct seccomp_data`, which begins with the call's number.
fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn unless_equal(k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { jf, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) }
}

fn install(filter: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls concern this thread alone; the program outlives them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(done, 0, "seccomp");
}
