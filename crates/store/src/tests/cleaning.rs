//! Which entries are removed when unneeded ones are looked for.

use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::clean::{remove_unneeded, remove_unneeded_of};
use crate::name::Key;

use super::*;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Sets the last use of an entry, and nothing else, to so many seconds ago.
fn age(key: &Path, seconds: u64) {
    for file in fs::read_dir(key).unwrap().map(|file| file.unwrap().path()).filter(|file| !file.is_symlink()) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::open(file).unwrap().set_times(FileTimes::new().set_accessed(then)).unwrap();
    }
}

/// Does what a process does that adds another file.
fn look(store: &Store) {
    let elsewhere = Identity { device: 1, inode: 1, size: 1, modified: 1, changed: 1 };
    remove_unneeded(store.directory(), &Key::new(&elsewhere, c"libother.so"));
}

/// Returns whether an entry that has not been used for so long is kept.
fn is_kept(store: &Store, key: &Path, seconds: u64) -> bool {
    age(key, seconds);
    look(store);
    key.exists()
}

fn freshness_of(key: &Path) -> Freshness {
    let target = c_string(&fs::read_link(key.join(".source")).unwrap());
    let version = Version::parse(key.file_name().unwrap().as_bytes()).unwrap();
    Origin::parse(&target).unwrap().freshness(&version.identity)
}

#[test]
fn a_current_entry_is_kept_for_a_month() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    assert_eq!(freshness_of(&key), Freshness::Current);
    assert!(is_kept(&store, &key, 29 * DAY));
    assert!(!is_kept(&store, &key, 31 * DAY));
}

#[test]
fn an_entry_whose_origin_is_gone_is_removed_when_it_is_unused() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("libfoo.so"));
    let held = store.entry(Opened::new(&path).origin(), &Nothing, &mut PageVec::new(), |_| ()).unwrap();
    let key = scratch.only_key();
    fs::remove_file(&path).unwrap();
    assert_eq!(freshness_of(&key), Freshness::Gone);
    assert!(is_kept(&store, &key, DAY), "in use");
    drop(held);
    assert!(is_kept(&store, &key, 1), "the process that has just made it may not have locked it yet");
    assert!(!is_kept(&store, &key, 2 * 60));
}

#[test]
fn a_removed_directory_makes_its_entries_outdated() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("one/libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    fs::remove_dir_all(scratch.file("one")).unwrap();
    assert_eq!(freshness_of(&key), Freshness::Gone);
    // Made anew, as one virtual environment a job is, it is another directory,
    // perhaps with the inode number of the old one.
    fs::create_dir(scratch.file("one")).unwrap();
    fs::write(&path, "new").unwrap();
    assert!(matches!(freshness_of(&key), Freshness::Gone | Freshness::Superseded));
    assert!(!is_kept(&store, &key, 2 * 60));
}

#[test]
fn an_entry_of_a_rewritten_file_is_removed_when_it_is_unused() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    fs::write(&path, "two").unwrap();
    assert_eq!(freshness_of(&key), Freshness::Superseded);
    fs::rename(scratch.file("libfoo.so.new"), &path).unwrap();
    assert_eq!(freshness_of(&key), Freshness::Superseded);
    assert!(!is_kept(&store, &key, 2 * 60));
}

#[test]
fn a_file_with_other_names_may_still_exist_under_them() {
    let scratch = Scratch::new();
    let (store, path, link) = (scratch.store(), scratch.file("libfoo.so"), scratch.file("one/link.so"));
    fs::hard_link(&path, &link).unwrap();
    settle(&path);
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    assert_eq!(freshness_of(&key), Freshness::Current);
    fs::remove_file(&path).unwrap();
    assert_eq!(freshness_of(&key), Freshness::Unknown);
    fs::write(&path, "another file").unwrap();
    assert_eq!(freshness_of(&key), Freshness::Unknown);
    assert!(is_kept(&store, &key, 23 * HOUR));
    assert!(!is_kept(&store, &key, 25 * HOUR));
}

#[test]
fn a_file_in_place_of_an_entry_is_removed_in_the_end() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let (key, elsewhere) = (scratch.only_key(), scratch.file("two"));
    for is_link in [false, true] {
        fs::remove_dir_all(&key).unwrap();
        if is_link {
            symlink(&elsewhere, &key).unwrap();
        } else {
            fs::write(&key, "a file").unwrap();
        }
        look(&store);
        assert!(fs::symlink_metadata(&key).is_ok(), "another process is about to repair it");
        let then = libc::timespec { tv_sec: sys::realtime_seconds() - 2 * HOUR as i64, tv_nsec: 0 };
        let (path, times) = (c_string(&key), [then, then]);
        // SAFETY: a C string and two timespecs.
        let set = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
        assert_eq!(set, 0);
        look(&store);
        assert!(fs::symlink_metadata(&key).is_err());
        fs::create_dir(&key).unwrap();
    }
    assert!(elsewhere.join("libfoo.so").exists(), "the target of the link does not belong to the store");
}

#[test]
fn entries_of_unknown_freshness_are_kept_for_a_day() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("one/libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let key = scratch.only_key();
    fs::remove_file(&path).unwrap();
    let link = key.join(".source");
    let target = fs::read_link(&link).unwrap().into_os_string().into_string().unwrap();
    // Another root, as in another container.
    let (directories, path) = target.split_once('/').unwrap();
    let elsewhere = format!("{:08x}{}/{path}", !u32::from_str_radix(&directories[..8], 16).unwrap(), &directories[8..]);
    for other in [elsewhere.as_str(), "nonsense", "/no/directories"] {
        fs::remove_file(&link).unwrap();
        symlink(other, &link).unwrap();
        assert!(is_kept(&store, &key, 23 * HOUR), "{other}");
    }
    fs::remove_file(&link).unwrap();
    assert!(is_kept(&store, &key, 23 * HOUR), "no link");
    assert!(!is_kept(&store, &key, 25 * HOUR));
}

#[test]
fn a_remote_file_system_is_not_examined() {
    let scratch = Scratch::new();
    let (store, path) = (scratch.store(), scratch.file("libfoo.so"));
    assert_eq!(entry(&store, &path), intact(b"one"));
    let link = scratch.only_key().join(".source");
    let target = fs::read_link(&link).unwrap().into_os_string().into_string().unwrap();
    fs::remove_file(&link).unwrap();
    symlink(format!("@{target}"), &link).unwrap();
    assert_eq!(freshness_of(&scratch.only_key()), Freshness::Unknown);
}

#[test]
fn a_large_store_keeps_entries_of_unknown_freshness_for_an_hour() {
    let scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(entry(&store, &scratch.file("libfoo.so")), intact(b"one"));
    assert_eq!(entry(&store, &scratch.file("one/libfoo.so")), intact(b"one"));
    let keys = scratch.keys();
    fs::remove_file(keys[0].join(".source")).unwrap();
    age(&keys[0], 2 * HOUR);
    age(&keys[1], 2 * HOUR);
    look(&store);
    assert_eq!(scratch.keys(), keys);
    // What the name says counts.
    let large = Identity { device: 2, inode: 2, size: 5 << 30, modified: 1, changed: 1 };
    let large = scratch.store_path().join(Key::new(&large, c"liblarge.so").as_c_str().to_str().unwrap());
    fs::create_dir(&large).unwrap();
    look(&store);
    assert!(!keys[0].exists() && keys[1].exists());
}

/// Makes an entry of a file that is gone, and has been for long.
fn abandoned_entry(scratch: &Scratch, inode: u64, size: u64) -> PathBuf {
    let identity = Identity { device: 3, inode, size, modified: 1, changed: 1 };
    let entry = scratch.store_path().join(Key::new(&identity, c"libgone.so").as_c_str().to_str().unwrap());
    fs::create_dir(&entry).unwrap();
    File::open(&entry).unwrap().set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    entry
}

fn has_link(scratch: &Scratch) -> bool {
    fs::symlink_metadata(scratch.store_path().join(".next")).is_ok()
}

#[test]
fn a_large_store_is_cleaned_part_by_part() {
    let scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(entry(&store, &scratch.file("libfoo.so")), intact(b"one"));
    let kept = scratch.only_key();
    let gone: Vec<_> = (0..40).map(|inode| abandoned_entry(&scratch, inode, 1)).collect();
    let elsewhere = Identity { device: 1, inode: 1, size: 1, modified: 1, changed: 1 };
    let key = Key::new(&elsewhere, c"libother.so");
    let left = || gone.iter().filter(|entry| entry.exists()).count();
    let mut before = left();
    for _ in 0..20 {
        remove_unneeded_of(store.directory(), &key, 7);
        assert!(left() + 7 >= before, "one look examines a part");
        before = left();
        assert!(has_link(&scratch) || before == 0);
    }
    assert_eq!(scratch.keys(), [kept]);
    // What one part contains needs no link.
    look(&store);
    look(&store);
    assert!(!has_link(&scratch));
}

#[test]
fn the_bytes_of_all_parts_make_a_store_large() {
    let scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(entry(&store, &scratch.file("libfoo.so")), intact(b"one"));
    let unknown = scratch.only_key();
    fs::remove_file(unknown.join(".source")).unwrap();
    let elsewhere = Identity { device: 1, inode: 1, size: 1, modified: 1, changed: 1 };
    let look = || remove_unneeded_of(store.directory(), &Key::new(&elsewhere, c"libother.so"), 2);
    // Young directories without a copy stay.
    let mut add = |inode: u64| {
        let identity = Identity { device: 3, inode, size: 1 << 30, modified: 1, changed: 1 };
        fs::create_dir(scratch.store_path().join(Key::new(&identity, c"libbig.so").as_c_str().to_str().unwrap()))
            .unwrap();
    };
    (0..3).for_each(&mut add);
    age(&unknown, 2 * HOUR);
    (0..6).for_each(|_| look());
    assert!(unknown.exists());
    (3..9).for_each(&mut add);
    (0..12).for_each(|_| look());
    assert!(!unknown.exists(), "no two names have 4 GiB");
}

#[test]
fn a_link_that_means_nothing_is_replaced() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for target in ["nonsense", "7fffffffffffffff-0-0", "123456789-0-0"] {
        let gone = abandoned_entry(&scratch, 1, 1);
        symlink(target, scratch.store_path().join(".next")).unwrap();
        look(&store);
        look(&store);
        assert!(!gone.exists(), "{target}");
        let _ = fs::remove_file(scratch.store_path().join(".next"));
    }
}

#[test]
fn a_copy_that_one_process_used_is_found_in_a_large_store() {
    let scratch = Scratch::new();
    let store = scratch.store();
    // More than one look lists.
    for inode in 0..5000 {
        let identity = Identity { device: 3, inode, size: 1, modified: 1, changed: 1 };
        let name = Key::new(&identity, c"libx.so");
        sys::mkdirat(store.directory(), name.as_c_str(), 0o700).unwrap();
    }
    let own: Vec<_> = (0..50).map(|number| scratch.store_path().join(format!("own-1-{number:x}"))).collect();
    for entry in &own {
        fs::create_dir(entry).unwrap();
        fs::write(entry.join("libx.so"), "x").unwrap();
    }
    own::clean_part(store.directory());
    own::clean_part(store.directory());
    assert!(own.iter().all(|entry| !entry.exists()));
}
