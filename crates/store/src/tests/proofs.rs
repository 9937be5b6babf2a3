//! What has to be proven before an entry is used.

use std::cell::Cell;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use std::vec::Vec;

use sopin_core::build_id::BuildId;
use sopin_core::cause::{Cause, Operation, Reason};
use sopin_core::credentials::User;
use sopin_core::pages::PageVec;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::sys::{self, Fd};

use super::scratch::{Nothing, Opened, Scratch, c_string, this_user};
use super::{content, copy_inode};
use crate::copy::UnnamedCopy;
use crate::proof::{Examined, examine};
use crate::*;

/// A process that has mapped something else, and counts how often it compares.
struct Process {
    build_id: BuildId,
    has_other_bytes: bool,
    comparisons: Cell<u32>,
}

impl Default for Process {
    fn default() -> Self {
        Self { build_id: BuildId::Absent, has_other_bytes: false, comparisons: Cell::new(0) }
    }
}

impl MappedRanges for Process {
    fn build_id_of(&self, _: &Fd) -> sys::Result<BuildId> {
        Ok(self.build_id)
    }

    fn equals(&self, _: &Fd) -> sys::Result<bool> {
        self.comparisons.set(self.comparisons.get() + 1);
        Ok(!self.has_other_bytes)
    }
}

fn proof(store: &Store, opened: &Opened, mapped: &impl MappedRanges) -> Result<Proof, Cause> {
    store.entry(opened.origin(), mapped, &mut PageVec::new(), |_| ()).map(|entry| entry.proof)
}

/// Writes `bytes` over the copy and leaves its times, as what a power loss has
/// left of it.
fn damage(copy: &Path, bytes: &[u8]) {
    let before = fs::metadata(copy).unwrap();
    fs::set_permissions(copy, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().write(true).open(copy).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    fs::set_permissions(copy, Permissions::from_mode(0o444)).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

/// Makes an entry look as if it was written in another boot.
fn forget_boot(copy: &Path) {
    let file = File::open(copy).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(1_234_567, 89)).unwrap();
}

fn is_on_disk(copy: &Path) -> bool {
    {
        let status = sys::stat(&c_string(copy)).unwrap();
        says_on_disk(status.st_ino, (status.st_mtime, status.st_mtime_nsec))
    }
}

#[test]
fn an_entry_of_another_boot_is_compared_once() {
    let scratch = Scratch::new();
    let (opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    assert_eq!(proof(&store, &opened, &Nothing), Ok(Proof::Whole));
    let (key, copy) = (scratch.only_key(), scratch.only_key().join("libfoo.so"));
    let (inode, status) = (copy_inode(&key, "libfoo.so"), || sys::stat(&c_string(&copy)).unwrap());
    for build_id in [BuildId::Absent, BuildId::Same] {
        forget_boot(&copy);
        assert!(!mark::is_believed(&status(), build_id));
        assert_eq!(proof(&store, &opened, &Process { build_id, ..Process::default() }), Ok(Proof::Whole));
        assert!(mark::is_believed(&status(), build_id));
        // In the boot after that only a build-id proves it.
        assert_eq!(is_on_disk(&copy), build_id == BuildId::Same);
    }
    assert_eq!(copy_inode(&key, "libfoo.so"), inode);
}

#[test]
fn a_filled_entry_without_a_build_id_is_compared_in_every_boot_but_that_of_filling() {
    use BuildId::{Absent, Same};
    let scratch = Scratch::new();
    let (mut opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    let fill = |opened: &Opened, has_build_id| {
        store.fill(&opened.origin(), has_build_id, &mut PageVec::new()).unwrap();
        scratch.only_key().join("libfoo.so")
    };
    // As a process uses the system's store: it may not mark the entry.
    let compares = |copy: &Path, opened: &Opened, build_id| {
        let process = Process { build_id, ..Process::default() };
        let entry = sys::open(&c_string(copy), libc::O_RDONLY, 0).unwrap();
        let status = sys::fstat(entry.raw()).unwrap();
        let Ok(Examined::Right(proof)) = examine(&entry, &status, &opened.origin(), &process, false) else {
            panic!("the entry is refused");
        };
        let compared = process.comparisons.get();
        assert_eq!(proof, if compared == 0 { Proof::Whole } else { Proof::Ranges });
        compared == 1
    };
    let copy = fill(&opened, false);
    assert!(!is_on_disk(&copy) && !compares(&copy, &opened, Absent));
    forget_boot(&copy);
    assert!(compares(&copy, &opened, Absent) && compares(&copy, &opened, Absent), "each process compares it");
    assert_eq!(fill(&opened, false), copy);
    assert!(!compares(&copy, &opened, Absent), "root has compared it");

    // The entry of another object is believed in later boots, if the build-id is the object's.
    fill(&opened, true);
    assert!(is_on_disk(&copy) && !compares(&copy, &opened, Same) && compares(&copy, &opened, Absent));
    fs::remove_dir_all(scratch.only_key()).unwrap();
    let copy = fill(&opened, true);
    assert!(is_on_disk(&copy) && !compares(&copy, &opened, Same) && compares(&copy, &opened, Absent));

    // Where the times do not prove which version of the file this is, the mark proves nothing.
    fill(&opened, false);
    opened.file_system.kind = 0x6573_5546;
    assert!(compares(&copy, &opened, Absent));
}

#[test]
fn a_file_with_a_writer_is_not_copied() {
    let scratch = Scratch::new();
    let (path, store) = (scratch.file("libfoo.so"), scratch.store());
    let writer = File::options().write(true).open(&path).unwrap();
    let error = proof(&store, &Opened::new(&path), &Nothing).unwrap_err();
    assert_eq!(error.reason, Reason::Words("somebody has the file open for writing"));
    drop(writer);
    assert_eq!(proof(&store, &Opened::new(&path), &Nothing), Ok(Proof::Whole));
}

#[test]
fn zeros_that_a_power_loss_has_left_are_not_believed() {
    let scratch = Scratch::new();
    let (opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    proof(&store, &opened, &Nothing).unwrap();
    let copy = scratch.only_key().join("libfoo.so");
    forget_boot(&copy);
    damage(&copy, &[0; 3]);
    let mut reason = None;
    let entry = store.entry(opened.origin(), &Nothing, &mut PageVec::new(), |cause| reason = Some(cause)).unwrap();
    assert_eq!(content(&entry.file), b"one");
    assert_eq!(reason, Some(Cause::words(Operation::UseStoreEntry, "its bytes are not those of the file")));
}

#[test]
fn the_file_is_compared_with_what_is_mapped_before_its_copy_is_published() {
    /// What makes it possible that another file than the one at the path is mapped.
    type Doubt = fn(&mut Opened);
    let doubts: [(&str, Doubt); 4] = [
        ("a subvolume of btrfs", |opened| opened.has_own_numbers = false),
        ("an overlay", |opened| opened.file_system.kind = 0x794c_7630),
        ("FUSE", |opened| opened.file_system.kind = 0x6573_5546),
        ("an unknown file system", |opened| opened.file_system.kind = 0x1234),
    ];
    for (what, doubt) in doubts {
        let scratch = Scratch::new();
        let (mut opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
        doubt(&mut opened);
        let other = Process { has_other_bytes: true, ..Process::default() };
        let error = proof(&store, &opened, &other).unwrap_err();
        assert_eq!(error.reason, Reason::Words("the file is not what is mapped"), "{what}");
        assert!(scratch.keys().is_empty() && other.comparisons.get() == 1, "{what}");
        // Before the copy is published, and when it is opened.
        let right = Process::default();
        assert_eq!(proof(&store, &opened, &right), Ok(Proof::Ranges), "{what}");
        assert_eq!(right.comparisons.get(), 2, "{what}");
    }
}

#[test]
fn a_file_with_a_number_of_its_own_is_what_is_mapped() {
    let scratch = Scratch::new();
    let (opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    let process = Process::default();
    assert_eq!(proof(&store, &opened, &process), Ok(Proof::Whole));
    assert_eq!(process.comparisons.get(), 0);
}

#[test]
fn a_file_with_a_number_of_its_own_and_another_build_id_is_compared() {
    let scratch = Scratch::new();
    let (opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    let other = Process { build_id: BuildId::Other, has_other_bytes: true, ..Process::default() };
    assert_eq!(proof(&store, &opened, &other).unwrap_err().reason, Reason::Words("the file is not what is mapped"));
    assert!(scratch.keys().is_empty());
}

#[test]
fn an_entry_with_another_build_id_is_not_used() {
    let scratch = Scratch::new();
    let (opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    proof(&store, &opened, &Nothing).unwrap();
    let other = Process { build_id: BuildId::Other, ..Process::default() };
    let error = proof(&store, &opened, &other).unwrap_err();
    assert_eq!(error.reason, Reason::Words("it has another build-id than the object"));
    // It is the file's: others use it.
    assert_eq!(content_of_only_copy(&scratch), b"one");

    damage(&scratch.only_key().join("libfoo.so"), b"two");
    let error = proof(&store, &opened, &other).unwrap_err();
    assert_eq!(error.reason, Reason::Words("it has another build-id than the object"));
    // And now it was made anew.
    assert_eq!(content_of_only_copy(&scratch), b"one");
}

fn content_of_only_copy(scratch: &Scratch) -> Vec<u8> {
    fs::read(scratch.only_key().join("libfoo.so")).unwrap()
}

#[test]
fn an_entry_is_not_removed_because_a_process_has_mapped_something_else() {
    let scratch = Scratch::new();
    let (mut opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    // As on an overlay, where a file keeps its number when it is copied up.
    opened.file_system.kind = 0x794c_7630;
    assert_eq!(proof(&store, &opened, &Process::default()), Ok(Proof::Ranges));
    let other = Process { has_other_bytes: true, ..Process::default() };
    let mut changed = None;
    let refused = store.entry(opened.origin(), &other, &mut PageVec::new(), |cause| changed = Some(cause));
    assert_eq!(refused.err().unwrap().reason, Reason::Words("its bytes are not those that are mapped"));
    assert!(changed.is_none() && scratch.keys().len() == 1);
}

#[test]
fn a_copy_with_a_temporary_name_is_marked_when_it_has_its_final_name() {
    let scratch = Scratch::new();
    let path = scratch.file("libfoo.so");
    let store = scratch.store();
    let done = std::thread::spawn(move || {
        super::scratch::refuse_unnamed_files();
        let opened = Opened::new(&path);
        let copy = UnnamedCopy::of(&opened.origin(), store.directory(), &mut PageVec::new()).unwrap();
        // Its time still shows how old it is.
        let age = sys::realtime_seconds() - sys::fstat(copy.file().raw()).unwrap().st_mtime;
        assert!((0..60).contains(&age), "{age}");
        drop(copy);
        proof(&store, &opened, &Nothing).unwrap();
    });
    done.join().unwrap();
    let copy = scratch.only_key().join("libfoo.so");
    assert!(mark::is_believed(&sys::stat(&c_string(&copy)).unwrap(), BuildId::Absent));
}

#[test]
fn where_the_kernel_does_not_vouch_for_the_identity_each_process_compares() {
    let scratch = Scratch::new();
    let (mut opened, store) = (Opened::new(&scratch.file("libfoo.so")), scratch.store());
    // FUSE.
    opened.file_system.kind = 0x6573_5546;
    let process = Process::default();
    assert_eq!(proof(&store, &opened, &process), Ok(Proof::Ranges));
    let after_adding = process.comparisons.get();
    assert_eq!(proof(&store, &opened, &process), Ok(Proof::Ranges));
    assert_eq!(process.comparisons.get(), after_adding + 1);
    let other = Process { has_other_bytes: true, ..Process::default() };
    assert!(proof(&store, &opened, &other).is_err());
}

#[test]
fn a_time_in_whole_seconds_is_an_image_builders() {
    let scratch = Scratch::new();
    let mut opened = Opened::new(&scratch.file("libfoo.so"));
    assert!(opened.origin().is_identified_by_times(BuildId::Absent));
    opened.identity.changed -= opened.identity.changed % 1_000_000_000;
    assert!(!opened.origin().is_identified_by_times(BuildId::Absent));
    assert!(opened.origin().is_identified_by_times(BuildId::Same));
    // tmpfs never cleans a page.
    opened.file_system.kind = 0x0102_1994;
    assert!(!opened.origin().is_identified_by_times(BuildId::Same));
}

#[test]
fn a_store_below_a_directory_of_others_is_refused() {
    let scratch = Scratch::new();
    let between = scratch.0.join("between");
    fs::create_dir(&between).unwrap();
    let open = |path: &Path| {
        let mut places = SearchDirs::new();
        places.set_explicit(path.as_os_str().as_encoded_bytes()).unwrap();
        Store::open(&places, this_user(), &mut Known::new()).map(drop)
    };
    let words = |result: Result<(), Cause>| match result.map_err(|cause| cause.reason) {
        Err(Reason::Words(words)) => words,
        other => panic!("{other:?}"),
    };
    open(&between.join("store")).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&between, Permissions::from_mode(mode)).unwrap();
        assert_eq!(words(open(&between.join("store"))), "others can write to a directory on the way to it", "{mode:o}");
    }
    // A sticky directory like /tmp, in which no user can rename the files of another.
    fs::set_permissions(&between, Permissions::from_mode(0o1777)).unwrap();
    open(&between.join("store")).unwrap();
    fs::set_permissions(&between, Permissions::from_mode(0o755)).unwrap();

    let link = scratch.0.join("link");
    symlink(&between, &link).unwrap();
    open(&link.join("store")).unwrap();
    fs::create_dir(scratch.0.join("outside")).unwrap();
    fs::set_permissions(scratch.0.join("outside"), Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(scratch.0.join("outside/within")).unwrap();
    let hidden = scratch.0.join("hidden");
    symlink("outside/within", &hidden).unwrap();
    assert_eq!(words(open(&hidden.join("store"))), "others can write to a directory on the way to it");
    let round = scratch.0.join("round");
    symlink("round", &round).unwrap();
    assert!(open(&round.join("store")).is_err());

    if this_user() != User::ROOT {
        return;
    }
    std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
    assert_eq!(words(open(&link.join("store"))), "a symbolic link on the way to it belongs to another user");
    chown(&between, Some(12345), None).unwrap();
    assert_eq!(words(open(&between.join("store"))), "a directory on the way to it belongs to another user");
}

#[test]
fn a_known_store_is_recognised_and_another_directory_is_not() {
    let scratch = Scratch::new();
    let (places, mut known) = (scratch.places(), Known::new());
    let first = Store::open(&places, this_user(), &mut known).unwrap();
    let inode = |store: &Store| sys::fstat(store.directory().raw()).unwrap().st_ino;
    assert_eq!(inode(&Store::open(&places, this_user(), &mut known).unwrap()), inode(&first));
    fs::rename(scratch.store_path(), scratch.0.join("aside")).unwrap();
    fs::create_dir(scratch.store_path()).unwrap();
    fs::set_permissions(scratch.store_path(), Permissions::from_mode(0o777)).unwrap();
    assert!(Store::open(&places, this_user(), &mut known).is_err());
    fs::set_permissions(scratch.store_path(), Permissions::from_mode(0o700)).unwrap();
    let second = Store::open(&places, this_user(), &mut known).unwrap();
    assert_eq!(inode(&second), fs::metadata(scratch.store_path()).unwrap().ino());
}
