//! `sopin store prune`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use snapbox::str;

use crate::Case;
use crate::scene::{DAY, LIBRARIES, Scene, age, make_foreign, set_mode};

pub const CASES: &[Case] = &[
    Case { name: "pruning::pruning_removes_unneeded_entries", needs: &[], test: pruning_removes_unneeded_entries },
    Case {
        name: "pruning::entries_of_unknown_freshness_are_kept_for_a_day",
        needs: &[],
        test: entries_of_unknown_freshness_are_kept_for_a_day,
    },
    Case {
        name: "pruning::entries_that_differ_from_their_origins_are_removed_though_mapped",
        needs: &[],
        test: entries_that_differ_from_their_origins_are_removed_though_mapped,
    },
    Case { name: "pruning::pruning_follows_no_link", needs: &[], test: pruning_follows_no_link },
    Case {
        name: "pruning::entries_that_cannot_be_removed_are_reported",
        needs: &[],
        test: entries_that_cannot_be_removed_are_reported,
    },
    Case {
        name: "pruning::programs_start_while_the_store_is_pruned",
        needs: &[],
        test: programs_start_while_the_store_is_pruned,
    },
];

fn pruning_removes_unneeded_entries() {
    let scene = Scene::with(&LIBRARIES);
    let holder = scene.hold(&["libthree.so"]);
    fs::remove_file(scene.path("libone.so")).unwrap();
    age(&scene.copy("libtwo.so"), 31 * DAY);
    age(&scene.copy("libthree.so"), 31 * DAY);
    let before = scene.names();
    scene.sopin(&["prune", "--dry-run"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  unused for 4 weeks, 32.00 KiB: [ROOT]/libtwo.so
  gone, 32.00 KiB: [ROOT]/libone.so
2 entries would be removed, 64.00 KiB; 1 kept (1 for being in use)

"#]]);
    assert_eq!(scene.names(), before);
    scene.sopin(&["prune"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  unused for 4 weeks, 32.00 KiB: [ROOT]/libtwo.so
  gone, 32.00 KiB: [ROOT]/libone.so
2 entries removed, 64.00 KiB; 1 kept (1 for being in use)

"#]]);
    assert_eq!(scene.names(), before - 2);
    assert!(scene.copy("libthree.so").exists());
    holder.end();
    let answer = scene.json(&["prune", "--older-than", "0s"]);
    let store = &answer["stores"][0];
    assert_eq!((&answer["schema"], &answer["dry_run"]), (&1.into(), &false.into()));
    assert_eq!(
        (&store["removed"][0]["size"], &store["kept"], &store["size"]),
        (&32768.into(), &0.into(), &32768.into())
    );
    assert_eq!(store["removed"][0]["origin"], scene.path("libthree.so").to_str().unwrap());
    assert_eq!(store["failed"], serde_json::json!([]));
}

fn entries_of_unknown_freshness_are_kept_for_a_day() {
    let scene = Scene::with(&["libone.so", "libtwo.so"]);
    make_foreign(&scene.key("libone.so"));
    age(&scene.copy("libone.so"), DAY - 600);
    age(&scene.copy("libtwo.so"), 2 * DAY);
    assert_eq!(scene.json(&["prune"])["stores"][0]["kept"], 2);
    age(&scene.copy("libone.so"), DAY + 600);
    scene.sopin(&["prune"]).assert().success().stdout_eq(str![[r#"
[ROOT]/store
  unused for 24 hours, 32.00 KiB: /elsewhere[ROOT]/libone.so
1 entry removed, 32.00 KiB; 1 kept

"#]]);
    assert!(scene.copy("libtwo.so").exists());
}

fn entries_that_differ_from_their_origins_are_removed_though_mapped() {
    let scene = Scene::with(&["libone.so", "libtwo.so"]);
    let holder = scene.hold(&["libone.so"]);
    let (copy, inode) = (scene.copy("libone.so"), fs::metadata(scene.copy("libone.so")).unwrap().ino());
    // The copy is as after a power loss: of its size, with zeroes at its end.
    set_mode(&copy, 0o644);
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    file.write_all_at(b"x", (32 << 10) - 1).unwrap();
    set_mode(&copy, 0o444);
    scene.sopin(&["prune", "--dry-run"]).assert().success().stdout_eq(str![[r#"
[ROOT]/store
  damaged, 32.00 KiB: [ROOT]/libone.so
1 entry would be removed, 32.00 KiB; 1 kept

"#]]);
    assert_eq!(fs::metadata(&copy).unwrap().ino(), inode);
    scene.sopin(&["prune"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  damaged, 32.00 KiB: [ROOT]/libone.so
1 entry removed, 32.00 KiB; 1 kept

"#]]);
    assert!(!copy.exists() && scene.copy("libtwo.so").exists());
    holder.end();
    scene.run(&["libone.so"]);
    scene.sopin(&["verify"]).assert().success();
}

fn pruning_follows_no_link() {
    let scene = Scene::with(&["libone.so"]);
    let precious = scene.path("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("libone.so"), "dear").unwrap();
    let key = scene.key("libone.so");
    fs::remove_dir_all(&key).unwrap();
    symlink(&precious, &key).unwrap();
    symlink(precious.join("libone.so"), scene.path("store/.new-1-1")).unwrap();
    scene.sopin(&["prune", "--older-than", "0s"]).assert().success();
    assert!(key.symlink_metadata().is_err());
    assert_eq!(fs::read(precious.join("libone.so")).unwrap(), b"dear");
}

fn entries_that_cannot_be_removed_are_reported() {
    let scene = Scene::with(&["libone.so"]);
    fs::create_dir(scene.key("libone.so").join("directory")).unwrap();
    scene.sopin(&["prune"]).assert().code(1).stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  not removed: [..]; look at it, and remove it yourself
0 entries removed, 0 B; 0 kept

"#]]);
}

fn programs_start_while_the_store_is_pruned() {
    let scene = Scene::with(&LIBRARIES);
    let is_over = AtomicBool::new(false);
    let (mut removed, mut listed) = (0, 0);
    thread::scope(|scope| {
        let starters: Vec<_> = (0..2).map(|_| scope.spawn(|| (0..60).for_each(|_| scene.run(&LIBRARIES)))).collect();
        let pruner = scope.spawn(|| {
            let (mut removed, mut listed) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                scene.sopin(&["verify"]).assert().success();
                let answer = scene.json(&["prune", "--older-than", "0s"]);
                removed += answer["stores"][0]["removed"].as_array().unwrap().len();
                assert_eq!(answer["stores"][0]["failed"], serde_json::json!([]));
                listed += scene.json(&["list"])["stores"][0]["entries"].as_array().unwrap().len();
            }
            (removed, listed)
        });
        let started: Vec<_> = starters.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        (removed, listed) = pruner.join().unwrap();
        assert!(started.iter().all(Result::is_ok));
    });
    // Otherwise the starts and the pruning have not coincided.
    assert!(removed > 3 && listed > 0, "{removed} removed, {listed} listed");
}
