//! `sopin store verify`.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use snapbox::str;

use crate::Case;
use crate::common::{clean_process, terminal};
use crate::scene::{DAY, LIBRARIES, Scene, age, set_mode};

pub const CASES: &[Case] = &[
    Case { name: "verifying::an_intact_store_is_found_intact", needs: &[], test: an_intact_store_is_found_intact },
    Case { name: "verifying::every_damage_is_found_and_pruned", needs: &[], test: every_damage_is_found_and_pruned },
    Case {
        name: "verifying::a_compared_entry_is_known_to_be_on_the_disk",
        needs: &[],
        test: a_compared_entry_is_known_to_be_on_the_disk,
    },
    Case {
        name: "verifying::problems_are_reported_with_the_way_out",
        needs: &[],
        test: problems_are_reported_with_the_way_out,
    },
    Case { name: "verifying::progress_is_for_terminals", needs: &[], test: progress_is_for_terminals },
];

fn an_intact_store_is_found_intact() {
    let scene = Scene::with(&LIBRARIES);
    scene.sopin(&["verify"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store: intact (3 entries, 3 compared with their origins)

"#]]);
    // A copy that cannot be compared is still examined.
    fs::remove_file(scene.path("libtwo.so")).unwrap();
    scene.sopin(&["verify"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store: intact (3 entries, 2 compared with their origins)

"#]]);
}

/// Damages the entry of a library.
type Damage = fn(&Scene, &Path);

const DAMAGES: [(&str, Damage); 12] = [
    ("the copy has mode 0644 instead of 0444", |_, copy| set_mode(copy, 0o644)),
    ("the copy has 100 bytes instead of 32768", |_, copy| {
        set_mode(copy, 0o600);
        OpenOptions::new().write(true).open(copy).unwrap().set_len(100).unwrap();
        set_mode(copy, 0o444);
    }),
    ("its bytes differ from the origin's, first at offset 4096", |_, copy| {
        let mut bytes = fs::read(copy).unwrap();
        bytes[4096] ^= 1;
        set_mode(copy, 0o600);
        fs::write(copy, bytes).unwrap();
        set_mode(copy, 0o444);
    }),
    ("libone.so is not a regular file", |scene, copy| {
        fs::remove_file(copy).unwrap();
        symlink(scene.path("libone.so"), copy).unwrap();
    }),
    ("libone.so is not a regular file", |_, copy| {
        fs::remove_file(copy).unwrap();
        fs::create_dir(copy).unwrap();
    }),
    ("others can write to its directory (mode 0770)", |_, copy| set_mode(copy.parent().unwrap(), 0o770)),
    ("it holds 2 files", |_, copy| fs::write(copy.with_extension("bak"), "stray").unwrap()),
    ("it is not a directory", |_, copy| {
        fs::remove_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy.parent().unwrap(), "a file").unwrap();
    }),
    ("it is not a directory", |scene, copy| {
        let key = copy.parent().unwrap();
        fs::rename(key, scene.path("aside")).unwrap();
        symlink(scene.path("aside"), key).unwrap();
    }),
    ("libfour.so is not the name that the key is for", |_, copy| {
        fs::rename(copy, copy.with_file_name("libfour.so")).unwrap();
    }),
    ("it holds no copy", |_, copy| {
        fs::remove_file(copy).unwrap();
        let then = SystemTime::now() - Duration::from_secs(DAY);
        File::open(copy.parent().unwrap()).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
    }),
    ("the copy belongs to user 65534", |_, copy| {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(copy, Some(65534), None).unwrap();
        }
    }),
];

fn every_damage_is_found_and_pruned() {
    let is_root = rustix::process::geteuid().is_root();
    let scene = Scene::with(&["libone.so", "libtwo.so"]);
    for (reason, damage) in DAMAGES {
        if reason.contains("65534") && !is_root {
            continue;
        }
        scene.run(&["libone.so"]);
        let key = scene.key("libone.so");
        damage(&scene, &key.join("libone.so"));
        let answer = scene.json(&["verify"]);
        let problems = answer["stores"][0]["problems"].as_array().unwrap().clone();
        assert_eq!(problems.len(), 1, "{reason}: {problems:?}");
        assert_eq!(problems[0]["reason"], reason);
        assert_eq!(problems[0]["name"], key.file_name().unwrap().to_str().unwrap());
        scene.sopin(&["verify"]).assert().code(1);
        let way_out = problems[0]["way_out"].as_str().unwrap();
        assert!(way_out.contains("prune removes it"), "{reason}: {way_out}");
        let removed = scene.json(&["prune"])["stores"][0]["removed"].as_array().unwrap().len();
        match (reason, removed) {
            // `prune` leaves a directory in an entry to the user.
            ("libone.so is not a regular file", 0) => fs::remove_dir_all(&key).unwrap(),
            (_, removed) => assert_eq!(removed, 1, "{reason}"),
        }
        let _ = fs::remove_dir_all(&key);
        let _ = fs::remove_dir_all(scene.path("aside"));
        scene.sopin(&["verify"]).assert().success();
    }
    assert!(scene.copy("libtwo.so").exists());
}

fn a_compared_entry_is_known_to_be_on_the_disk() {
    let scene = Scene::with(&["libone.so"]);
    age(&scene.copy("libone.so"), 3 * DAY);
    let listed = || scene.json(&["list"])["stores"][0]["entries"][0].clone();
    let before = listed();
    assert_eq!((&before["on_disk"], &before["verity"]), (&false.into(), &false.into()));
    scene.sopin(&["prune", "--dry-run"]).assert().success();
    assert_eq!(listed(), before);
    scene.sopin(&["verify"]).assert().success();
    let after = listed();
    assert_eq!(after["on_disk"], true);
    // Verifying a copy does not count as a use.
    assert_eq!(after["last_use"], before["last_use"]);
    fs::remove_dir_all(scene.key("libone.so")).unwrap();
    scene.run(&["libone.so"]);
    assert_eq!(listed()["on_disk"], false);
    scene.sopin(&["prune"]).assert().success();
    assert_eq!(listed()["on_disk"], true);
}

fn problems_are_reported_with_the_way_out() {
    let scene = Scene::with(&LIBRARIES);
    set_mode(&scene.copy("libone.so"), 0o666);
    fs::write(scene.path("store/notes"), "mine").unwrap();
    fs::write(scene.path("store/.new-1-2"), "half").unwrap();
    fs::write(scene.path("store/.new-1-3"), "half").unwrap();
    // Where the library goes on in a large store.
    symlink("7-0-0", scene.path("store/.next")).unwrap();
    symlink("7-0-0", scene.path("store/.next-own")).unwrap();
    let then = SystemTime::now() - Duration::from_secs(DAY);
    File::open(scene.path("store/.new-1-2")).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
    scene.sopin(&["verify"]).assert().code(1).stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store: 3 problems (3 entries, 2 compared with their origins)
  .new-1-2: left behind by a process that was killed; sopin store prune removes it
  [..]: the copy has mode 0666 instead of 0444; sopin store prune removes it, and it is made anew when it is needed
    a copy of [ROOT]/libone.so
  notes: sopin has not put it there; move it away, if it is needed

"#]]);
    scene.sopin(&["prune"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  unfinished, 4 B: .new-1-2
  damaged, 32.00 KiB: [ROOT]/libone.so
2 entries removed, 32.00 KiB; 2 kept

"#]]);
    scene.sopin(&["verify"]).assert().code(1).stdout_eq(str![[r#"
[ROOT]/store: 1 problem (2 entries, 2 compared with their origins)
  notes: sopin has not put it there; move it away, if it is needed

"#]]);
}

fn progress_is_for_terminals() {
    let scene = Scene::with(&LIBRARIES);
    let (program, mut user) = terminal();
    let mut command = Command::new(scene.path("bin/sopin"));
    clean_process(&mut command).args(["store", "verify"]).env("SOPIN_STORE", scene.path("store")).env("TERM", "xterm");
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(program).output().unwrap();
    drop(command);
    let mut shown = Vec::new();
    let _ = user.read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(output.status.success() && shown.contains("/4"), "{shown:?}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains('\x1b'));
}
