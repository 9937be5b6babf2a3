//! The directories that count as stores, and their owners.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;
use snapbox::str;

use crate::Case;
use crate::common::clean_process;
use crate::scene::{Holder, Scene, set_mode};

pub const CASES: &[Case] = &[
    Case {
        name: "places::the_command_examines_the_directories_that_the_library_uses",
        needs: &[],
        test: the_command_examines_the_directories_that_the_library_uses,
    },
    Case {
        name: "places::a_directory_that_is_not_a_store_is_refused",
        needs: &[],
        test: a_directory_that_is_not_a_store_is_refused,
    },
    Case { name: "places::an_empty_directory_can_be_a_store", needs: &[], test: an_empty_directory_can_be_a_store },
    Case {
        name: "places::a_process_that_sees_the_store_elsewhere_uses_it",
        needs: &["root", "unshare"],
        test: a_process_that_sees_the_store_elsewhere_uses_it,
    },
    Case {
        name: "places::shared_blocks_are_reported",
        needs: &["root", "unshare", "mkfs.btrfs"],
        test: shared_blocks_are_reported,
    },
];

fn the_command_examines_the_directories_that_the_library_uses() {
    let scene = Scene::with(&[]);
    let home = scene.path("home");
    fs::create_dir(&home).unwrap();
    let mut program = scene.program(&["libone.so"]);
    assert_eq!(program.env_remove("SOPIN_STORE").env("HOME", &home).status().unwrap().code(), Some(42));
    // This store was used before HOME was set.
    let cache = scene.path("cache");
    let mut program = scene.program(&["libone.so"]);
    assert_eq!(program.env_remove("SOPIN_STORE").env("CACHE_DIRECTORY", &cache).status().unwrap().code(), Some(42));
    let sopin =
        scene.sopin(&["list", "--json"]).env_remove("SOPIN_STORE").env("HOME", &home).env("CACHE_DIRECTORY", &cache);
    let answer: Value = serde_json::from_slice(&sopin.output().unwrap().stdout).unwrap();
    let stores = answer["stores"].as_array().unwrap();
    let paths: Vec<_> = stores.iter().map(|store| store["path"].as_str().unwrap()).take(2).collect();
    assert_eq!(paths, [cache.join("sopin").to_str().unwrap(), home.join(".cache/sopin").to_str().unwrap()]);
    // Reading creates nothing.
    let empty = scene.path("empty");
    fs::create_dir(&empty).unwrap();
    scene.sopin(&["list"]).env_remove("SOPIN_STORE").env("HOME", &empty).assert().success();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

fn a_directory_that_is_not_a_store_is_refused() {
    let scene = Scene::with(&["libone.so"]);
    let precious = scene.path("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("letter"), "dear").unwrap();
    set_mode(&precious, 0o700);
    let store = precious.to_str().unwrap();
    for command in ["list", "verify", "prune"] {
        scene.sopin(&[command, "--store", store]).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/precious: this is no store: it holds "letter" and no entry; name the directory that the programs' SOPIN_STORE names

"#]]);
    }
    assert_eq!(fs::read(precious.join("letter")).unwrap(), b"dear");
    scene.sopin(&["prune", "--store", "/"]).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
sopin: /: [..]

"#]]);
    scene.sopin(&["list", "--store", scene.path("nowhere").to_str().unwrap()]).assert().code(3).stderr_eq(str![[r#"
sopin: [ROOT]/nowhere: open the store: ENOENT (No such file or directory)

"#]]);
    scene.sopin(&["list", "--store", "off"]).assert().code(3).stderr_eq(str![[r#"
sopin: SOPIN_STORE: the store is off; name one with --store DIR

"#]]);
    scene.sopin(&["list"]).env("SOPIN_STORE", "off").assert().code(3).stderr_eq(str![[r#"
sopin: SOPIN_STORE: the store is off; name one with --store DIR

"#]]);
    set_mode(&scene.path("store"), 0o777);
    scene.sopin(&["prune"]).assert().code(3).stderr_eq(str![[r#"
sopin: [ROOT]/store: use the store: it belongs to another user or others can write to it

"#]]);
    symlink("store", scene.path("link")).unwrap();
    scene.sopin(&["prune", "--store", scene.path("link").to_str().unwrap()]).assert().code(3).stderr_eq(str![[r#"
sopin: [ROOT]/link: open the store: ENOTDIR (Not a directory); a store is a directory, and no link

"#]]);
    scene.sopin(&["prune", "--older-than", "a while"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value 'a while' for '--older-than <DURATION>': expected number at 0

For more information, try '--help'.

"#]]);
}

fn an_empty_directory_can_be_a_store() {
    let scene = Scene::with(&[]);
    fs::create_dir(scene.path("store")).unwrap();
    set_mode(&scene.path("store"), 0o700);
    scene.sopin(&["list"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
0 entries, 0 B (0 B on disk), 0 in use, 0 outdated
...

"#]]);
}

/// Returns a command that runs in a mount namespace of its own, after a script.
fn in_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    command
}

fn a_process_that_sees_the_store_elsewhere_uses_it() {
    let mut command = in_namespace();
    let scene = Scene::with(&["libone.so"]);
    // The store is bound to another directory, which does not exist in the other
    // namespaces.
    clean_process(&mut command).current_dir(scene.path("")).arg(
        "mkdir elsewhere && mount --bind store elsewhere\n\
         export LD_PRELOAD=$PWD/lib/libsopin.so SOPIN_STORE=$PWD/elsewhere SOPIN_ONLY='*/libone.so'\n\
         exec ./program $PWD/libone.so",
    );
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let holder = Holder(child);
    let answer = scene.json(&["list"]);
    assert_eq!(answer["stores"][0]["entries"][0]["users"], serde_json::json!([holder.0.id()]));
    holder.end();
}

fn shared_blocks_are_reported() {
    let mut command = in_namespace();
    let scene = Scene::with(&[]);
    let script = "truncate -s 256M image && mkfs.btrfs -q image >/dev/null 2>&1\n\
         mkdir mounted && mount -o loop image mounted && cp libone.so mounted && sync\n\
         while [ $(date +%s) -le $(($(stat -c %Z mounted/libone.so) + 2)) ]; do sleep 0.1; done\n\
         export SOPIN_STORE=$PWD/mounted/store SOPIN_ONLY='*/libone.so'\n\
         LD_PRELOAD=$PWD/lib/libsopin.so ./program $PWD/mounted/libone.so </dev/null >/dev/null || test $? = 42\n\
         sync; bin/sopin store list --json; bin/sopin store verify >&2";
    let output = clean_process(&mut command).current_dir(scene.path("")).arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entry = &answer["stores"][0]["entries"][0];
    // All blocks are shared; the file has a hole at its end.
    assert!(entry["shared"].as_u64() > Some(0) && entry["shared"] == entry["allocated"], "{entry}");
}
