//! The store against real directories. What takes several processes, users or
//! file systems is shown by `tests/fixtures/store_*`.

use core::ffi::CStr;
use std::borrow::ToOwned;
use std::format;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::string::{String, ToString};
use std::thread;
use std::vec::Vec;

use sopin_core::cause::{Cause, Reason};
use sopin_core::pages::PageVec;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::sys::{self, Errno, Fd};

use crate::settled::SETTLING_SECONDS;
use crate::*;

mod cleaning;
mod omissions;
mod proofs;
mod scratch;

use scratch::{Nothing, Opened, Scratch, c_string, refuse, refuse_unnamed_files, settle, this_user};

/// Returns the content of an entry, and whether something had been changed by others.
fn try_entry(store: &Store, path: &Path) -> Result<(Vec<u8>, bool), Cause> {
    let (opened, mut has_changed) = (Opened::new(path), false);
    let entry = store.entry(opened.origin(), &Nothing, &mut PageVec::new(), |_| has_changed = true)?;
    Ok((content(&entry.file), has_changed))
}

fn entry(store: &Store, path: &Path) -> (Vec<u8>, bool) {
    try_entry(store, path).unwrap()
}

fn content(file: &Fd) -> Vec<u8> {
    fs::read(format!("/proc/self/fd/{}", file.raw())).unwrap()
}

fn intact(content: &[u8]) -> (Vec<u8>, bool) {
    (content.to_owned(), false)
}

fn replaced(content: &[u8]) -> (Vec<u8>, bool) {
    (content.to_owned(), true)
}

/// Something that others do to a copy.
type Damage = fn(&Path);

/// Returns the inode number of the copy.
fn copy_inode(key: &Path, name: &str) -> u64 {
    fs::symlink_metadata(key.join(name)).unwrap().ino()
}

#[test]
fn an_entry_is_a_whole_copy_without_writers() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    assert_eq!(entry(&scratch.store(), &path), intact(b"one"));
    let key = scratch.only_key();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&scratch.store_path()), 0o700);
    assert_eq!(mode(&key), 0o700);
    assert_eq!(mode(&key.join("libfoo.so")), 0o444);
    let mut names: Vec<_> = fs::read_dir(&key).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".source", "libfoo.so"]);
    let origin = fs::read_link(key.join(".source")).unwrap();
    assert_eq!(Origin::parse(&c_string(&origin)).unwrap().path, c_string(&path).as_c_str());
}

#[test]
fn an_entry_is_made_once() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    assert_eq!(entry(&scratch.store(), &path), intact(b"one"));
    let first = copy_inode(&scratch.only_key(), "libfoo.so");
    assert_eq!(entry(&scratch.store(), &path), intact(b"one"));
    assert_eq!(copy_inode(&scratch.only_key(), "libfoo.so"), first);
}

#[test]
fn an_empty_file_and_a_large_one_are_copied() {
    let scratch = Scratch::new();
    let large: Vec<u8> = (0..copy::COPY_STEP + 12345).map(|index| (index % 251) as u8).collect();
    let (empty, path) = (scratch.file("libempty.so"), scratch.write("liblarge.so", &large));
    assert_eq!(entry(&scratch.store(), &empty), intact(b""));
    assert!(entry(&scratch.store(), &path) == intact(&large));
}

#[test]
fn a_file_is_copied_through_memory_where_the_kernel_does_not_copy() {
    let scratch = Scratch::new();
    let large: Vec<u8> = (0..3 * copy::COPY_STEP + 12345).map(|index| (index % 251) as u8).collect();
    let path = scratch.write("liblarge.so", &large);
    for errno in [libc::ENOSYS, libc::EINVAL] {
        let (store, path) = (scratch.store(), path.clone());
        let done = thread::spawn(move || {
            refuse(libc::SYS_sendfile, errno);
            let (opened, mut buffer) = (Opened::new(&path), PageVec::new());
            let entry = store.entry(opened.origin(), &Nothing, &mut buffer, |_| ()).unwrap();
            (content(&entry.file), buffer.len())
        });
        let (copied, through) = done.join().unwrap();
        assert!(copied == large);
        assert_eq!(through, copy::COPY_STEP);
        fs::remove_dir_all(scratch.only_key()).unwrap();
    }
}

#[test]
fn a_copy_that_exceeds_the_limit_of_file_sizes_is_refused_and_kills_nobody() {
    // Another process, because the limit holds for all threads.
    if std::env::var_os("LIMITED").is_none() {
        let test = "tests::a_copy_that_exceeds_the_limit_of_file_sizes_is_refused_and_kills_nobody";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let status = command.args(["--exact", test, "--nocapture"]).env("LIMITED", "").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.write("liblarge.so", &std::vec![1; 3 * copy::COPY_STEP]);
    let store = scratch.store();
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: the call only reads the live struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    let error = try_entry(&store, &path).unwrap_err();
    assert_eq!(error.reason, Reason::Errno(Errno(libc::EFBIG)));
    assert!(!sys::is_signal_pending(libc::SIGXFSZ));
    assert!(scratch.keys().is_empty());
}

#[test]
fn a_file_that_has_just_changed_is_not_copied() {
    let scratch = Scratch::new();
    let path = scratch.0.join("libfoo.so");
    let store = scratch.store();
    // Unless the machine stops for two seconds in between, which shows.
    let refused = loop {
        fs::write(&path, "one").unwrap();
        let result = try_entry(&store, &path);
        let identity = Opened::new(&path).identity;
        if !identity.has_settled(sys::realtime_seconds(), SETTLING_SECONDS) {
            break result;
        }
    };
    let Err(Cause { reason: Reason::Words(reason), .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, "the file has changed within the last 2 seconds");
    assert!(scratch.keys().is_empty());
}

#[test]
fn another_version_than_the_mapped_one_is_not_published() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let mut opened = Opened::new(&path);
    // As if the file had been written between its examination and its copy.
    opened.identity.modified -= 1;
    let error = scratch.store().entry(opened.origin(), &Nothing, &mut PageVec::new(), |_| ()).err().unwrap();
    assert_eq!(error.reason, Reason::Words("the file has changed meanwhile"));
    assert!(scratch.keys().is_empty());
}

#[test]
fn an_entry_that_was_tampered_with_is_made_anew() {
    let damage: [(&str, Damage); 6] = [
        ("writable", |copy| fs::set_permissions(copy, Permissions::from_mode(0o644)).unwrap()),
        ("truncated", |copy| {
            fs::set_permissions(copy, Permissions::from_mode(0o644)).unwrap();
            fs::write(copy, "o").unwrap();
            fs::set_permissions(copy, Permissions::from_mode(0o444)).unwrap();
        }),
        ("unreadable", |copy| fs::set_permissions(copy, Permissions::from_mode(0o000)).unwrap()),
        ("link", |copy| {
            let other = copy.with_extension("other");
            fs::rename(copy, &other).unwrap();
            symlink(other, copy).unwrap();
        }),
        ("pipe", |copy| {
            fs::remove_file(copy).unwrap();
            // SAFETY: the path is a C string.
            assert_eq!(unsafe { libc::mkfifo(c_string(copy).as_ptr(), 0o444) }, 0);
        }),
        ("directory_writable", |copy| {
            fs::set_permissions(copy.parent().unwrap(), Permissions::from_mode(0o770)).unwrap();
        }),
    ];
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    for (how, damage) in damage {
        assert_eq!(entry(&store, &path), intact(b"one"), "{how}");
        let key = scratch.only_key();
        damage(&key.join("libfoo.so"));
        assert_eq!(entry(&store, &path), replaced(b"one"), "{how}");
        assert_eq!(scratch.only_key(), key, "{how}");
        assert_eq!(entry(&store, &path), intact(b"one"), "{how}");
    }
}

#[test]
fn a_file_in_place_of_an_entry_is_removed() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();

    let elsewhere = scratch.0.join("elsewhere");
    fs::rename(&key, &elsewhere).unwrap();
    symlink(&elsewhere, &key).unwrap();
    assert_eq!(entry(&store, &path), replaced(b"one"));
    assert!(fs::symlink_metadata(&key).unwrap().is_dir());
    // What the link led to is not ours.
    assert_eq!(fs::read(elsewhere.join("libfoo.so")).unwrap(), b"one");

    fs::remove_dir_all(&key).unwrap();
    fs::write(&key, "a file").unwrap();
    assert_eq!(entry(&store, &path), replaced(b"one"));
    assert!(fs::symlink_metadata(&key).unwrap().is_dir());
}

#[test]
fn an_entry_that_was_removed_is_made_anew() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    fs::remove_file(key.join("libfoo.so")).unwrap();
    assert_eq!(entry(&store, &path), intact(b"one"));
    fs::remove_dir_all(&key).unwrap();
    assert_eq!(entry(&store, &path), intact(b"one"));
}

#[test]
fn a_version_written_in_place_replaces_the_older_one() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    let opened = Opened::new(&path);
    let held = store.entry(opened.origin(), &Nothing, &mut PageVec::new(), |_| ()).unwrap();
    let older = scratch.only_key();
    scratch.write("libfoo.so", b"two");
    assert_eq!(entry(&store, &path), intact(b"two"));
    assert_ne!(scratch.only_key(), older);
    // Who has it keeps it.
    assert_eq!(content(&held.file), b"one");
}

#[test]
fn a_version_renamed_into_place_replaces_the_older_one() {
    let scratch = Scratch::new();
    let (path, new) = (scratch.file("libfoo.so"), scratch.file("libfoo.so.new"));
    let store = scratch.store();
    assert_eq!(entry(&store, &path), intact(b"one"));
    let older = scratch.only_key();
    fs::rename(new, &path).unwrap();
    settle(&path);
    assert_eq!(entry(&store, &path), intact(b"two"));
    assert_ne!(scratch.only_key(), older);
}

#[test]
fn files_of_one_name_in_two_directories_have_an_entry_each() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.file("one/libfoo.so"), scratch.file("two/libfoo.so"));
    let store = scratch.store();
    assert_eq!(entry(&store, &one), intact(b"one"));
    let first = copy_inode(&scratch.only_key(), "libfoo.so");
    assert_eq!(entry(&store, &two), intact(b"two"));
    assert_eq!(scratch.keys().len(), 2);
    assert_eq!(entry(&store, &one), intact(b"one"));
    assert!(scratch.keys().iter().any(|key| copy_inode(key, "libfoo.so") == first));
}

#[test]
fn one_path_in_two_directories_has_an_entry_each() {
    // Two containers: another directory has come to lie at the same path.
    let scratch = Scratch::new();
    let path = scratch.file("one/libfoo.so");
    let store = scratch.store();
    assert_eq!(entry(&store, &path), intact(b"one"));
    fs::rename(scratch.file("one"), scratch.file("aside")).unwrap();
    fs::rename(scratch.file("two"), scratch.file("one")).unwrap();
    assert_eq!(entry(&store, &path), intact(b"two"));
    assert_eq!(scratch.keys().len(), 2);
}

#[test]
fn a_lock_keeps_no_process_from_using_an_entry() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    assert_eq!(entry(&store, &path), intact(b"one"));
    let copy = sys::open(&c_string(&scratch.only_key().join("libfoo.so")), libc::O_RDONLY, 0).unwrap();
    sys::flock(&copy, libc::LOCK_EX | libc::LOCK_NB).unwrap();
    assert_eq!(entry(&store, &path), intact(b"one"));
}

#[test]
fn an_entry_in_use_is_locked() {
    let scratch = Scratch::new();
    let opened = Opened::new(&scratch.file("libfoo.so"));
    let held = scratch.store().entry(opened.origin(), &Nothing, &mut PageVec::new(), |_| ()).unwrap();
    let copy = sys::open(&c_string(&scratch.only_key().join("libfoo.so")), libc::O_RDONLY, 0).unwrap();
    let lock = || sys::flock(&copy, libc::LOCK_EX | libc::LOCK_NB);
    assert_eq!(lock(), Err(Errno(libc::EWOULDBLOCK)));
    drop(held);
    assert_eq!(lock(), Ok(()));
}

#[test]
fn a_copy_is_made_where_every_file_has_a_name() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    let done = thread::spawn(move || {
        refuse_unnamed_files();
        entry(&store, &path)
    });
    assert_eq!(done.join().unwrap(), intact(b"one"));
    // Nothing is left of the name that it had at first.
    assert_eq!(scratch.keys(), [scratch.only_key()]);
}

#[test]
fn an_unfinished_copy_is_removed_with_its_name() {
    let scratch = Scratch::new();
    let mut opened = Opened::new(&scratch.file("libfoo.so"));
    opened.identity.modified -= 1;
    let store = scratch.store();
    let done = thread::spawn(move || {
        refuse_unnamed_files();
        store.entry(opened.origin(), &Nothing, &mut PageVec::new(), |_| ()).is_err()
    });
    assert!(done.join().unwrap());
    assert!(scratch.keys().is_empty());
}

#[test]
fn a_directory_that_others_can_write_to_is_not_a_store() {
    for mode in [0o720, 0o702, 0o1777] {
        let scratch = Scratch::new();
        fs::create_dir(scratch.store_path()).unwrap();
        fs::set_permissions(scratch.store_path(), Permissions::from_mode(mode)).unwrap();
        assert!(Store::open(&scratch.places(), this_user(), &mut Known::new()).is_err(), "{mode:o}");
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.0.join("real")).unwrap();
    symlink("real", scratch.store_path()).unwrap();
    assert!(Store::open(&scratch.places(), this_user(), &mut Known::new()).is_err());
}

#[test]
fn the_first_usable_place_is_taken() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.join(name);
    let [cache, home, absent] = ["cache", "home", "absent"].map(path);
    fs::create_dir(&home).unwrap();
    let texts: Vec<String> =
        [format!("{}:/nowhere", cache.display()), absent.display().to_string(), home.display().to_string()].into();
    let open = |names: &[&CStr]| {
        let places = SearchDirs::read(|name| {
            let index = [c"CACHE_DIRECTORY", c"XDG_CACHE_HOME", c"HOME"].iter().position(|known| *known == name)?;
            names.contains(&name).then(|| texts[index].as_bytes())
        });
        Store::open(&places.unwrap(), this_user(), &mut Known::new()).map(drop)
    };
    open(&[c"HOME"]).unwrap();
    assert!(home.join(".cache/sopin").is_dir());
    open(&[c"XDG_CACHE_HOME", c"HOME"]).unwrap();
    assert!(absent.join("sopin").is_dir());
    open(&[c"CACHE_DIRECTORY", c"XDG_CACHE_HOME", c"HOME"]).unwrap();
    assert!(cache.join("sopin").is_dir());
}
