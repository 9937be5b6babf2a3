//! `sopin store` on stores that real programs have filled.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use common::{Installation, clean_process, missing, terminal};
use serde_json::Value;
use snapbox::str;

/// Loads libraries, says so, and ends with its input.
const PROGRAM: &str = "#include <dlfcn.h>\n#include <stdio.h>\n\
    int main(int count, char **names) {\n\
    for (int i = 1; i < count; i++) if (!dlopen(names[i], RTLD_NOW)) return 1;\n\
    puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {} return 42; }\n";
const LIBRARIES: [&str; 3] = ["libone.so", "libtwo.so", "libthree.so"];
const DAY: u64 = 24 * 60 * 60;

/// An installation with libraries that are in its store.
struct Scene {
    installation: Installation,
}

impl Scene {
    /// With these of [`LIBRARIES`] in the store.
    fn with(stored: &[&str]) -> Self {
        let installation = Installation::new();
        installation.compile("program", PROGRAM, "cc", &["-ldl"]);
        for name in LIBRARIES {
            let library = installation.compile(name, "int one(void) { return 1; }\n", "cc", &["-shared", "-fPIC"]);
            // So that every compiler's is as large.
            OpenOptions::new().write(true).open(library).unwrap().set_len(32 << 10).unwrap();
        }
        let scene = Self { installation };
        scene.settle();
        scene.run(stored);
        scene
    }

    /// Waits until the library would copy everything.
    fn settle(&self) {
        for name in LIBRARIES {
            let changed = fs::metadata(self.path(name)).map_or(0, |status| status.ctime());
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
            while now() <= changed + 2 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.installation.path(below)
    }

    fn program(&self, libraries: &[&str]) -> Command {
        let mut command = Command::new(self.path("program"));
        clean_process(&mut command)
            .args(libraries.iter().map(|name| self.path(name)))
            .env("LD_PRELOAD", self.path("lib/libsopin.so"))
            .env("SOPIN_STORE", self.path("store"))
            .env("SOPIN_ONLY", "*/libone.so:*/libtwo.so:*/libthree.so")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn run(&self, libraries: &[&str]) {
        assert_eq!(self.program(libraries).status().unwrap().code(), Some(42));
    }

    /// A process that has loaded libraries and waits.
    fn hold(&self, libraries: &[&str]) -> Holder {
        let mut child = self.program(libraries).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Holder(child)
    }

    fn sopin(&self, arguments: &[&str]) -> snapbox::cmd::Command {
        self.installation.sopin().arg("store").args(arguments).env("SOPIN_STORE", self.path("store"))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.sopin(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The directory of the entry of a library.
    fn key(&self, library: &str) -> PathBuf {
        let mut keys = fs::read_dir(self.path("store")).unwrap().map(|key| key.unwrap().path());
        keys.find(|key| key.join(library).symlink_metadata().is_ok()).unwrap()
    }

    fn copy(&self, library: &str) -> PathBuf {
        self.key(library).join(library)
    }

    fn names(&self) -> usize {
        fs::read_dir(self.path("store")).unwrap().count()
    }
}

struct Holder(Child);

impl Holder {
    fn end(mut self) {
        drop(self.0.stdin.take());
        assert_eq!(self.0.wait().unwrap().code(), Some(42));
    }
}

/// The last use of a copy becomes so many seconds ago.
fn age(copy: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::open(copy).unwrap().set_times(FileTimes::new().set_accessed(then)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// As another container's entry: from below another root.
fn make_foreign(key: &Path) {
    let link = key.join(".source");
    let target = fs::read_link(&link).unwrap().into_os_string().into_string().unwrap();
    fs::remove_file(&link).unwrap();
    let (directories, path) = target.split_once('/').unwrap();
    symlink(format!("{}{}/elsewhere/{path}", "00000000", &directories[8..]), link).unwrap();
}

#[test]
fn a_list_tells_users_states_and_totals() {
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

#[test]
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

#[test]
fn what_was_unlinked_and_made_anew_is_not_mapped_by_who_maps_the_old_one() {
    let scene = Scene::with(&["libone.so"]);
    let holder = scene.hold(&["libone.so"]);
    fs::remove_dir_all(scene.key("libone.so")).unwrap();
    scene.run(&["libone.so"]);
    assert_eq!(scene.json(&["list"])["stores"][0]["entries"][0]["users"], serde_json::json!([]));
    holder.end();
}

#[test]
fn the_same_places_are_looked_at_as_the_library_uses() {
    let scene = Scene::with(&[]);
    let home = scene.path("home");
    fs::create_dir(&home).unwrap();
    let mut program = scene.program(&["libone.so"]);
    assert_eq!(program.env_remove("SOPIN_STORE").env("HOME", &home).status().unwrap().code(), Some(42));
    // One that was used before HOME was set.
    let cache = scene.path("cache");
    let mut program = scene.program(&["libone.so"]);
    assert_eq!(program.env_remove("SOPIN_STORE").env("CACHE_DIRECTORY", &cache).status().unwrap().code(), Some(42));
    let sopin =
        scene.sopin(&["list", "--json"]).env_remove("SOPIN_STORE").env("HOME", &home).env("CACHE_DIRECTORY", &cache);
    let answer: Value = serde_json::from_slice(&sopin.output().unwrap().stdout).unwrap();
    let stores = answer["stores"].as_array().unwrap();
    let paths: Vec<_> = stores.iter().map(|store| store["path"].as_str().unwrap()).take(2).collect();
    assert_eq!(paths, [cache.join("sopin").to_str().unwrap(), home.join(".cache/sopin").to_str().unwrap()]);
    // Looking makes nothing.
    let empty = scene.path("empty");
    fs::create_dir(&empty).unwrap();
    scene.sopin(&["list"]).env_remove("SOPIN_STORE").env("HOME", &empty).assert().success();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn what_is_no_store_is_refused() {
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

#[test]
fn an_empty_store_is_one() {
    let scene = Scene::with(&[]);
    fs::create_dir(scene.path("store")).unwrap();
    set_mode(&scene.path("store"), 0o700);
    scene.sopin(&["list"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
0 entries, 0 B (0 B on disk), 0 in use, 0 outdated
...

"#]]);
}

#[test]
fn an_intact_store_is_found_intact() {
    let scene = Scene::with(&LIBRARIES);
    scene.sopin(&["verify"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store: intact (3 entries, 3 compared with their origins)

"#]]);
    // What cannot be compared is still looked at.
    fs::remove_file(scene.path("libtwo.so")).unwrap();
    scene.sopin(&["verify"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store: intact (3 entries, 2 compared with their origins)

"#]]);
}

/// Something that is done to the entry of a library.
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

#[test]
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
        // A user's own unwritable file can be opened by root alone.
        let answer = scene.json(&["verify"]);
        let problems = answer["stores"][0]["problems"].as_array().unwrap().clone();
        assert_eq!(problems.len(), 1, "{reason}: {problems:?}");
        assert_eq!(problems[0]["reason"], reason);
        assert_eq!(problems[0]["name"], key.file_name().unwrap().to_str().unwrap());
        scene.sopin(&["verify"]).assert().code(1);
        // What only the bytes tell is found by reading them, which pruning does not.
        let is_found_without_reading = !reason.contains("bytes differ");
        let way_out = problems[0]["way_out"].as_str().unwrap();
        assert_eq!(way_out.contains("prune removes it"), is_found_without_reading, "{reason}: {way_out}");
        let removed = scene.json(&["prune"])["stores"][0]["removed"].as_array().unwrap().len();
        match (reason, removed) {
            // Whoever made a directory there has to look at it.
            ("libone.so is not a regular file", 0) => fs::remove_dir_all(&key).unwrap(),
            (_, removed) => assert_eq!(removed, usize::from(is_found_without_reading), "{reason}"),
        }
        let _ = fs::remove_dir_all(&key);
        let _ = fs::remove_dir_all(scene.path("aside"));
        scene.sopin(&["verify"]).assert().success();
    }
    assert!(scene.copy("libtwo.so").exists());
}

#[test]
fn problems_are_told_with_the_way_out() {
    let scene = Scene::with(&LIBRARIES);
    set_mode(&scene.copy("libone.so"), 0o666);
    fs::write(scene.path("store/notes"), "mine").unwrap();
    fs::write(scene.path("store/.new-1-2"), "half").unwrap();
    fs::write(scene.path("store/.new-1-3"), "half").unwrap();
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

#[test]
fn pruning_removes_what_nobody_needs() {
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

#[test]
fn what_cannot_be_seen_is_kept_for_a_day() {
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

#[test]
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

#[test]
fn what_cannot_be_removed_is_told() {
    let scene = Scene::with(&["libone.so"]);
    fs::create_dir(scene.key("libone.so").join("directory")).unwrap();
    scene.sopin(&["prune"]).assert().code(1).stderr_eq("").stdout_eq(str![[r#"
[ROOT]/store
  not removed: [..]; look at it, and remove it yourself
0 entries removed, 0 B; 0 kept

"#]]);
}

#[test]
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
    // Otherwise they have not met.
    assert!(removed > 3 && listed > 0, "{removed} removed, {listed} listed");
}

/// Every name in a JSON answer.
fn fields(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            found.push(name.clone());
            fields(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
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

#[test]
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

/// A command in a mount namespace of its own, after a script; `None`, and why on
/// stderr, where that cannot be done.
fn in_namespace(needs: &[&str]) -> Option<Command> {
    if let Some(reason) = missing(&[&["root", "unshare"], needs].concat()) {
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    Some(command)
}

#[test]
fn a_process_that_sees_the_store_elsewhere_uses_it() {
    let Some(mut command) = in_namespace(&[]) else { return };
    let scene = Scene::with(&["libone.so"]);
    // Bound to another directory, which the other namespaces do not have there.
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

#[test]
fn blocks_that_are_shared_are_told() {
    let Some(mut command) = in_namespace(&["mkfs.btrfs"]) else { return };
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
    // All but the hole at its end.
    assert!(entry["shared"].as_u64() > Some(0) && entry["shared"] == entry["allocated"], "{entry}");
}
