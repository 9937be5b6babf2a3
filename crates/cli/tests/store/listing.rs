//! `sopin store list`, and what the JSON of all three subcommands has in common.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use snapbox::str;

use crate::Case;
use crate::scene::{DAY, Holder, LIBRARIES, Scene, age, make_foreign, set_mode};

pub const CASES: &[Case] = &[
    Case {
        name: "listing::a_list_shows_users_states_and_totals",
        needs: &[],
        test: a_list_shows_users_states_and_totals,
    },
    Case { name: "listing::more_users_than_fit_are_counted", needs: &[], test: more_users_than_fit_are_counted },
    Case {
        name: "listing::an_entry_made_anew_is_not_in_use_by_processes_that_map_the_old_one",
        needs: &[],
        test: an_entry_made_anew_is_not_in_use_by_processes_that_map_the_old_one,
    },
    Case { name: "listing::every_field_is_documented", needs: &[], test: every_field_is_documented },
    Case {
        name: "listing::a_copy_that_one_process_uses_alone_is_listed_as_own",
        needs: &[],
        test: a_copy_that_one_process_uses_alone_is_listed_as_own,
    },
    Case {
        name: "listing::a_store_may_have_more_entries_than_the_command_may_have_descriptors",
        needs: &[],
        test: a_store_may_have_more_entries_than_the_command_may_have_descriptors,
    },
];

fn a_list_shows_users_states_and_totals() {
    let scene = Scene::with(&LIBRARIES);
    let holder = scene.hold(&["libone.so"]);
    fs::remove_file(scene.path("libtwo.so")).unwrap();
    age(&scene.copy("libtwo.so"), 3 * DAY);
    fs::write(scene.path("libthree.so"), "another").unwrap();
    scene.sopin(&["list"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
     SIZE    ON DISK  LAST USE  USED BY[..]STATE       ORIGIN
32.00 KiB  32.00 KiB  just now  [..]current     [ROOT]/libone.so
32.00 KiB  32.00 KiB  just now  -[..]superseded  [ROOT]/libthree.so
32.00 KiB  32.00 KiB    3 days  -[..]gone        [ROOT]/libtwo.so
3 entries, 96.00 KiB (96.00 KiB on disk), 1 in use, 2 outdated
...

"#]]);
    let answer = scene.json(&["list"]);
    assert_eq!(answer["schema"], 1);
    let store = &answer["stores"][0];
    assert_eq!(store["path"], scene.path("store").to_str().unwrap());
    let by_file = |name: &str| store["entries"].as_array().unwrap().iter().find(|entry| entry["file"] == name).unwrap();
    let one = by_file("libone.so");
    assert_eq!(one["users"], serde_json::json!([holder.0.id()]));
    assert_eq!((&one["state"], &one["size"]), (&"current".into(), &(32 << 10).into()));
    assert_eq!(one["origin"], scene.path("libone.so").to_str().unwrap());
    let status = fs::metadata(scene.copy("libone.so")).unwrap();
    assert_eq!(one["allocated"], status.blocks() * 512);
    assert_eq!(one["last_use"], status.atime());
    assert_eq!(one["key"].as_str().unwrap().as_bytes(), scene.key("libone.so").file_name().unwrap().as_bytes());
    assert_eq!(by_file("libtwo.so")["state"], "gone");
    assert_eq!(by_file("libtwo.so")["users"], serde_json::json!([]));
    assert_eq!(by_file("libthree.so")["state"], "superseded");
    let totals = &store["totals"];
    assert_eq!((&totals["entries"], &totals["in_use"], &totals["outdated"]), (&3.into(), &1.into(), &2.into()));
    assert_eq!(totals["size"], 96 << 10);
    holder.end();
}

fn more_users_than_fit_are_counted() {
    let scene = Scene::with(&["libone.so"]);
    let holders: Vec<_> = (0..5).map(|_| scene.hold(&["libone.so"])).collect();
    make_foreign(&scene.key("libone.so"));
    scene.sopin(&["list"]).assert().success().stdout_eq(str![[r#"
[ROOT]/store
     SIZE    ON DISK  LAST USE  USED BY[..]STATE    ORIGIN
32.00 KiB  32.00 KiB  just now  [..],[..],[..],+2[..]unknown  /elsewhere[ROOT]/libone.so
1 entry, 32.00 KiB (32.00 KiB on disk), 1 in use, 0 outdated
...

"#]]);
    holders.into_iter().for_each(Holder::end);
}

fn an_entry_made_anew_is_not_in_use_by_processes_that_map_the_old_one() {
    let scene = Scene::with(&["libone.so"]);
    let holder = scene.hold(&["libone.so"]);
    fs::remove_dir_all(scene.key("libone.so")).unwrap();
    scene.run(&["libone.so"]);
    assert_eq!(scene.json(&["list"])["stores"][0]["entries"][0]["users"], serde_json::json!([]));
    holder.end();
}

/// Collects every name in a JSON output.
pub fn fields(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            found.push(name.clone());
            fields(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

fn every_field_is_documented() {
    let scene = Scene::with(&["libone.so"]);
    set_mode(&scene.copy("libone.so"), 0o644);
    for command in ["list", "verify", "prune"] {
        let help = scene.installation.sopin().args(["store", command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let (_, table) = help.split_once("JSON output:").unwrap();
        let words: Vec<_> = table.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let mut found = Vec::new();
        fields(&scene.json(&[command]), &mut found);
        assert!(found.len() > 5);
        found.retain(|name| !words.contains(&name.as_str()));
        assert!(found.is_empty(), "{command}: {found:?}");
    }
}

fn a_copy_that_one_process_uses_alone_is_listed_as_own() {
    let scene = Scene::with(&["libone.so"]);
    // The file changes now.
    fs::write(scene.path("libtwo.so"), fs::read(scene.path("libone.so")).unwrap()).unwrap();
    let holder = scene.hold(&["libtwo.so"]);
    let entry_of = |answer: &Value| {
        let entries = answer["stores"][0]["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["file"] == "libtwo.so").cloned()
    };
    let entry = entry_of(&scene.json(&["list"])).unwrap();
    assert_eq!((&entry["state"], &entry["size"]), (&"own".into(), &32768.into()));
    assert_eq!(entry["users"], serde_json::json!([holder.0.id()]));
    assert_eq!(entry["origin"], scene.path("libtwo.so").to_str().unwrap());
    let intact = |scene: &Scene| scene.json(&["verify"])["stores"][0]["problems"] == serde_json::json!([]);
    assert!(intact(&scene));
    assert_eq!(scene.json(&["prune"])["stores"][0]["kept_in_use"], 1);
    holder.end();
    assert!(intact(&scene));
    let answer = scene.json(&["prune"]);
    assert_eq!(answer["stores"][0]["removed"][0]["reason"], "its process has ended");
    assert!(entry_of(&scene.json(&["list"])).is_none());
}

fn a_store_may_have_more_entries_than_the_command_may_have_descriptors() {
    let scene = Scene::with(&LIBRARIES);
    let key = scene.key("libone.so");
    let name = key.file_name().unwrap().to_str().unwrap().to_owned();
    let (hash, rest) = name.split_once('-').unwrap();
    let (device, rest) = rest.split_once('-').unwrap();
    let (_, rest) = rest.split_once('-').unwrap();
    for inode in 0x7000_0000..0x7000_0100 {
        fs::create_dir(key.with_file_name(format!("{hash}-{device}-{inode:x}-{rest}"))).unwrap();
    }
    let listed = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_sopin"),
            "store",
            "list",
            "--json",
            "--store",
        ])
        .arg(key.parent().unwrap())
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(answer["stores"][0]["totals"]["entries"], 256 + LIBRARIES.len());
}
