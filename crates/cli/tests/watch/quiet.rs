//! A watch is silent about uses of a file that are no rewriting in place, about stores that the kernel does not
//! report, and about files that it does not watch.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::Case;
use crate::watcher::{Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "replacing_is_no_rewriting", needs: &[], test: replacing_is_no_rewriting },
    Case { name: "opening_is_no_rewriting", needs: &[], test: opening_is_no_rewriting },
    Case { name: "stores_through_a_shared_mapping_are_not_seen", needs: &[], test: stores_are_not_seen },
    Case { name: "other_files_are_not_watched", needs: &[], test: other_files_are_not_watched },
];

/// At the end of each test, a rewriting is reported: so silence means something.
fn assert_awake(watcher: Watcher, victim: &crate::common::victim::Victim) {
    let _rewriter = Rewriter::run(&victim.installation, &[], &["same", victim.library.to_str().unwrap()]);
    assert_eq!(watcher.next_about(&victim.library)["exposed"], 1);
    watcher.end();
}

fn replacing_is_no_rewriting() {
    let victim = scene();
    let old = victim.start();
    let watcher = Watcher::start(
        &victim.installation,
        &["--mapping", victim.installation.path("").to_str().unwrap(), "--period", "0.1"],
    );
    let new = victim.installation.copy(&victim.library, "new.so");
    fs::rename(new, &victim.library).unwrap();
    // Another process maps the new file.
    let running = victim.start();
    running.settle();
    watcher.is_silent_about(&victim.library);
    assert!(old.ends_well());
    assert_awake(watcher, &victim);
}

fn opening_is_no_rewriting() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start(&victim.installation, &["--mapping", path]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["open", path]);
    fs::set_permissions(&victim.library, fs::Permissions::from_mode(0o700)).unwrap();
    fs::hard_link(&victim.library, victim.installation.path("link")).unwrap();
    fs::read(&victim.library).unwrap();
    watcher.is_silent_about(&victim.library);
    assert_awake(watcher, &victim);
}

/// docs/limits.md says so. If a kernel sends an event for it one day, that page is wrong.
fn stores_are_not_seen() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start(&victim.installation, &["--mapping", path]);
    let before = fs::read(&victim.library).unwrap();
    let _rewriter = Rewriter::start(&victim.installation, &[], &["map", path]);
    let deadline = std::time::Instant::now() + crate::watcher::PATIENCE;
    while fs::read(&victim.library).unwrap() == before {
        assert!(std::time::Instant::now() < deadline);
    }
    watcher.is_silent_about(&victim.library);
    assert_awake(watcher, &victim);
}

fn other_files_are_not_watched() {
    let victim = scene();
    let _running = victim.start();
    let watcher = Watcher::start(&victim.installation, &["--mapping", victim.library.to_str().unwrap()]);
    let data = victim.installation.file("data", &[7; 5000], 0o644);
    let other = victim.installation.copy(&victim.library, "other.so");
    for path in [&data, &other] {
        let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path.to_str().unwrap()]);
    }
    watcher.is_silent_about(&other);
    assert_awake(watcher, &victim);
}
