//! `sopin status`: its output for a process in each state. `status_programs` has
//! programs of other projects and of other users.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use common::victim::{Victim, object};
use common::{Installation, clean_process, sopin, zombie};
use serde_json::Value;
use snapbox::str;

#[test]
fn a_healthy_process() {
    let victim = Victim::new();
    let running = victim.start_protected(&[]);
    victim.status(running.pid(), &[]).code(0).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..] yes    5         0       0       0 [..] ./program

"#]]);
    victim.status(running.pid(), &["--verbose"]).code(0).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..] yes    5         0       0       0 [..] ./program
    full[..] KiB  [ROOT]/program
    full[..] KiB  [ROOT]/lib/libsopin.so
    full[..] KiB  [ROOT]/libvictim.so
    full[..] KiB  /[..]/libc.so.6
    full[..] KiB  /[..]/ld-[..]

"#]]);
    assert!(running.ends_well());
}

#[test]
fn an_exposed_process() {
    let victim = Victim::new();
    let running = victim.start();
    victim.status(running.pid(), &["-v"]).code(1).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       4       0          0 ./program
    exposed         0 KiB  [ROOT]/program: libsopin.so is not loaded
    exposed         0 KiB  [ROOT]/libvictim.so: libsopin.so is not loaded
    exposed         0 KiB  /[..]/libc.so.6: libsopin.so is not loaded
    exposed         0 KiB  /[..]/ld-[..]: libsopin.so is not loaded

"#]]);
    assert!(running.ends_well());
}

#[test]
fn a_damaged_process() {
    let victim = Victim::new();
    let running = victim.start();
    victim.rewrite(&running);
    victim.status(running.pid(), &[]).code(4).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       3       1          0 ./program
    damaged         0 KiB  [ROOT]/libvictim.so: rewritten on disk since it was loaded; libsopin.so is not loaded
              [..] relocated words are again what the file has:
...
                0x[..] in .data.rel.ro, table[..]: holds 0x[..], should hold 0x[..]
...
                0x[..] in .data, [..]: holds 0x[..], should hold 0x[..]
                and [..] more (--verbose lists them)

"#]]);
    assert!(!running.ends_well(), "the damaged program must not end well");
}

/// Every word of both tables is listed, with its value and the right one.
#[test]
fn damaged_words_have_names_and_values() {
    let victim = Victim::new();
    let running = victim.start();
    let before = victim.json(running.pid());
    assert_eq!((&before["damaged"], &object(&before, "libvictim.so")["damage"]), (&0.into(), &Value::Null));
    victim.rewrite(&running);
    let output = victim.status(running.pid(), &["--json", "-v"]).code(4).get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let process = &answer["processes"][0];
    let library = object(process, "libvictim.so");
    let words = library["damage"]["words"].as_array().unwrap();
    assert_eq!(words.len() as u64, library["damage"]["reverted_words"].as_u64().unwrap());
    let base = library["base"].as_u64().unwrap();
    for (name, section) in [("table", ".data.rel.ro"), ("changing", ".data")] {
        let of_table: Vec<_> = words.iter().filter(|word| word["symbol"] == name).collect();
        // The page that contains the end of the file may keep its copy.
        assert!(of_table.len() > 1024, "{name}: {}", of_table.len());
        for word in of_table {
            assert_eq!(word["section"], section);
            assert_eq!(word["offset"].as_u64().unwrap() % 8, 0);
            let (value, expected) = (word["value"].as_u64().unwrap(), word["expected"].as_u64().unwrap());
            assert!(value < 0x10_0000 && expected > base && expected < library["end"].as_u64().unwrap(), "{word}");
        }
    }
    assert_eq!(process["damaged"], 1);
    assert_eq!(library["file"]["state"], "rewritten");
    assert_eq!(library["file"]["certain"], true);
    assert_eq!(library["unjudged"], Value::Null);
}

/// Without RELRO, all of the table lies on pages to which the program may store, so a
/// page can be private again after the loader's stores to it were lost.
#[test]
fn damage_shows_on_pages_that_were_stored_to_since() {
    let installation = Installation::new();
    let source = "static int answer(void) { return 42; }\n\
        static volatile struct { long counter; int (*function)(void); long more[510]; } block = { 0, answer, { 1 } };\n\
        void count(long value) { block.counter = value; }\n";
    let library = installation.compile("libvictim.so", source, "cc", &["-shared", "-fPIC", "-Wl,-z,norelro"]);
    let main = "#include <stdio.h>\nvoid count(long);\n\
        int main(void) { count(1); puts(\"ready\"); fflush(stdout); getchar(); count(2); getchar(); return 0; }\n";
    installation.compile("program", main, "cc", &[library.to_str().unwrap()]);
    let victim = Victim { installation, library };
    let mut running = victim.start();
    victim.rewrite(&running);
    running.say("x");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let process = victim.json(running.pid());
        let words = &object(&process, "libvictim.so")["damage"]["words"];
        let word = words.as_array().into_iter().flatten().find(|word| word["symbol"] == "block");
        if word.is_some_and(|word| word["offset"] == 8) {
            break;
        }
        assert!(Instant::now() < deadline, "{process:#}");
    }
}

#[test]
fn a_process_whose_library_is_empty() {
    let victim = Victim::new();
    let running = victim.start();
    running.settle();
    fs::write(&victim.library, "").unwrap();
    victim.status(running.pid(), &[]).code(4).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       3       1          0 ./program
    damaged         0 KiB  [ROOT]/libvictim.so: rewritten on disk since it was loaded; libsopin.so is not loaded
              [..] KiB lie behind the end of the file: touching them is SIGBUS

"#]]);
}

#[test]
fn another_build_over_the_old_one() {
    let victim = Victim::new();
    let running = victim.start();
    running.settle();
    let other = "#include <unistd.h>\nstatic int other(void) { return 7; }\nint unrelated[9000] = { 1 };\n\
        int (*const table[3000])(void) = { [0 ... 2999] = other };\nint (*changing[50])(void) = { other };\n";
    let path =
        victim.installation.compile("libother.so", other, "cc", &["-shared", "-fPIC", "-lm", "-Wl,--no-as-needed"]);
    fs::write(&victim.library, fs::read(path).unwrap()).unwrap();
    let process = victim.json(running.pid());
    let library = object(&process, "libvictim.so");
    assert_eq!(library["state"], "damaged", "{library:#}");
    assert_eq!(library["damage"]["other_version"], true);
    assert_eq!(library["damage"]["words"], Value::Array(vec![]));
    victim.status(running.pid(), &[]).code(4).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       3       1          0 ./program
    damaged         0 KiB  [ROOT]/libvictim.so: rewritten on disk since it was loaded; libsopin.so is not loaded
              relocations are lost; the file is of another version now, so which is not known

"#]]);
}

/// `rsync --inplace` does this: private pages stay, and pages to which nothing was
/// stored follow the file.
#[test]
fn rewritten_without_truncation() {
    let victim = Victim::new();
    let running = victim.start();
    running.settle();
    let bytes = fs::read(&victim.library).unwrap();
    OpenOptions::new().write(true).open(&victim.library).unwrap().write_all(&bytes).unwrap();
    victim.status(running.pid(), &["-v"]).code(1).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       4       0          0 ./program
    exposed         0 KiB  [ROOT]/program: libsopin.so is not loaded
    exposed         0 KiB  [ROOT]/libvictim.so: changed on disk after its process was started; libsopin.so is not loaded
    exposed         0 KiB  /[..]/libc.so.6: libsopin.so is not loaded
    exposed         0 KiB  /[..]/ld-[..]: libsopin.so is not loaded

"#]]);
    assert!(running.ends_well());
}

#[test]
fn a_file_that_only_seems_rewritten_is_doubtful() {
    let victim = Victim::new();
    let running = victim.start();
    assert_eq!(object(&victim.json(running.pid()), "libvictim.so")["file"]["state"], "unchanged");
    running.settle();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::set_permissions(&victim.library, mode).unwrap();
    let process = victim.json(running.pid());
    assert_eq!(object(&process, "libvictim.so")["file"]["state"], "rewritten");
    assert_eq!(object(&process, "libvictim.so")["file"]["certain"], false);
    let output = victim.status(running.pid(), &["-v"]).get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("libvictim.so: changed on disk after its process was started"), "{text}");
}

#[test]
fn replaced_and_deleted() {
    let victim = Victim::new();
    let running = victim.start();
    let copy = victim.installation.path("copy");
    fs::copy(&victim.library, &copy).unwrap();
    fs::rename(&copy, &victim.library).unwrap();
    let path = victim.library.to_str().unwrap();
    let process = victim.json(running.pid());
    assert_eq!(object(&process, path)["file"]["state"], "replaced");
    assert_eq!(object(&process, path)["state"], "exposed", "the old file is as it was");
    fs::remove_file(&victim.library).unwrap();
    assert_eq!(object(&victim.json(running.pid()), path)["file"]["state"], "deleted");
    // There is another file with exactly the name that the kernel shows.
    let marked = format!("{path} (deleted)");
    fs::write(&marked, "").unwrap();
    assert_eq!(object(&victim.json(running.pid()), path)["file"]["state"], "deleted");
    assert!(running.ends_well());
}

#[test]
fn unusual_names_are_reported_on_one_line() {
    let victim = Victim::new();
    let strange = victim.installation.path("a b\n(deleted) \\ü (deleted)");
    fs::rename(victim.installation.path("program"), &strange).unwrap();
    let mut command = Command::new(&strange);
    let command = clean_process(&mut command);
    let running = common::victim::Running::start(command.current_dir(victim.installation.path("")));
    let process = victim.json(running.pid());
    let object = object(&process, "/a b\n(deleted) \\ü (deleted)");
    assert_eq!((&object["state"], &object["file"]["state"]), (&"exposed".into(), &"unchanged".into()));
    let output = victim.status(running.pid(), &["-v"]).get_output().stdout.clone();
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 6, "a line is a line");
}

#[test]
fn every_mode_of_the_library_is_reported() {
    let victim = Victim::new();
    let state = |variables: &[(&str, &str)], code: i32| {
        let running = victim.start_protected(variables);
        let process = victim.json(running.pid());
        victim.status(running.pid(), &[]).code(code);
        let library = object(&process, "libvictim.so").clone();
        (process, library)
    };
    let store = victim.installation.path("store");
    for (variables, what, reason, mode, code) in [
        (&[("SOPIN_STORE", "off")][..], "full", Value::Null, "full", 0),
        (&[("SOPIN_STORE", store.to_str().unwrap())], "full", Value::Null, "full", 0),
        (&[("SOPIN_MODE", "relocated")], "relocated", "SOPIN_MODE=relocated".into(), "relocated", 0),
        (&[("SOPIN_MODE", "off")], "exposed", "SOPIN_MODE=off".into(), "off", 1),
        (
            &[("SOPIN_EXCLUDE", "*/libvictim.so")],
            "exposed",
            "left alone, as SOPIN_EXCLUDE or SOPIN_ONLY says".into(),
            "full",
            1,
        ),
    ] {
        let (process, library) = state(variables, code);
        assert_eq!(library["state"], what, "{variables:?}: {process:#}");
        assert_eq!(library["reason"], reason, "{variables:?}");
        assert_eq!(process["shim"]["mode"], mode, "{variables:?}");
        assert_eq!(process["shim"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(process["shim"]["path"], victim.installation.library());
        assert_eq!(library["pinned_kib"].as_u64().unwrap() > 0, what != "exposed", "{variables:?}");
        assert_eq!(process["errors"], Value::Array(vec![]));
    }
    assert!(fs::read_dir(store).unwrap().count() >= 2, "copies of libc and the loader");
}

/// The store's entry shows which version was loaded, so the result does not depend on a
/// clock.
#[test]
fn a_rewriting_under_the_library_is_reported_as_certain() {
    let victim = Victim::new();
    // The library copies no file that has changed in the last two seconds.
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let store = victim.installation.path("store");
    let running = victim.start_protected(&[("SOPIN_STORE", store.to_str().unwrap())]);
    let process = victim.json(running.pid());
    assert_eq!(object(&process, "libvictim.so")["file"]["state"], "unchanged");
    victim.rewrite(&running);
    let process = victim.json(running.pid());
    let library = object(&process, "libvictim.so");
    assert_eq!((&library["state"], &library["damage"]), (&"full".into(), &Value::Null));
    assert_eq!((&library["file"]["state"], &library["file"]["certain"]), (&"rewritten".into(), &true.into()));
    assert!(running.ends_well());
}

/// The help lists these names.
#[test]
fn the_names_in_json_are_those_documented() {
    let victim = Victim::new();
    let running = victim.start();
    victim.rewrite(&running);
    let output = victim.status(running.pid(), &["--json"]).get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let help = sopin().args(["status", "--help"]).assert().get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    let words: Vec<&str> = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let process = &answer["processes"][0];
    let object = object(process, "libvictim.so");
    for part in [&answer, process, object, &object["file"], &object["damage"], &object["damage"]["words"][0]] {
        let names = part.as_object().unwrap().keys();
        assert!(names.len() >= 3);
        for name in names {
            assert!(words.contains(&name.as_str()), "{name} is not in the help");
        }
    }
}

#[test]
fn processes_that_cannot_be_inspected_are_reported() {
    let mut child = zombie();
    let pid = child.id();
    sopin().args(["status", &pid.to_string()]).assert().code(3).stderr_eq("").stdout_eq(str![[r#"
[..]: could not be inspected: it has ended and waits for its parent

"#]]);
    child.wait().unwrap();
    sopin().args(["status", "4194305"]).assert().code(3).stderr_eq("").stdout_eq(str![[r#"
4194305: could not be inspected: no such process

"#]]);
    let output = sopin().args(["status", "--json", "4194305"]).assert().code(3).get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["not_inspected"][0]["pid"], 4_194_305);
    assert_eq!(answer["not_inspected"][0]["error"], "vanished");
    assert_eq!(answer["processes"], Value::Array(vec![]));
}

#[test]
fn the_command_line_is_checked() {
    for arguments in [&["0"][..], &["x"], &["-1"], &["--all", "1"], &["--no-such-option"]] {
        sopin().arg("status").args(arguments).assert().code(2).stdout_eq("");
    }
}

#[test]
fn without_pid_only_processes_with_the_library_are_shown() {
    let victim = Victim::new();
    let (with, without) = (victim.start_protected(&[]), victim.start());
    let pids = |arguments: &[&str]| {
        let output = victim.installation.sopin().arg("status").args(arguments).arg("--json").assert();
        let answer: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        let processes = answer["processes"].as_array().unwrap().clone();
        processes.iter().map(|process| process["pid"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let (selected, all) = (pids(&[]), pids(&["--all"]));
    assert!(selected.contains(&with.pid().into()) && !selected.contains(&without.pid().into()));
    assert!(all.contains(&with.pid().into()) && all.contains(&without.pid().into()));
    assert!(all.is_sorted());
}

/// A process that was forked after its library was rewritten has the objects of its
/// parent.
#[test]
fn children_of_a_fork_were_loaded_with_their_parent() {
    let victim = Victim::new();
    let main = "#include <stdio.h>\n#include <unistd.h>\nextern int (*const table[2048])(void);\n\
        int main(void) { puts(\"ready\"); fflush(stdout); getchar();\n\
        if (fork() == 0) for (;;) pause();\n getchar(); return table[0] == 0; }\n";
    victim.installation.compile("program", main, "cc", &[victim.library.to_str().unwrap()]);
    let mut running = victim.start();
    running.settle();
    let bytes = fs::read(&victim.library).unwrap();
    OpenOptions::new().write(true).open(&victim.library).unwrap().write_all(&bytes).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    running.say("x");
    let deadline = Instant::now() + Duration::from_secs(20);
    while common::victim::children(running.pid()).is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let child = running.child();
    let process = victim.json(child);
    assert!(Command::new("kill").args(["-9", &child.to_string()]).status().unwrap().success());
    assert_eq!(object(&process, "libvictim.so")["file"]["state"], "rewritten");
}
