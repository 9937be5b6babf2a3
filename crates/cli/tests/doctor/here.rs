//! The form of the answer, and that nothing is left behind.

use std::fs::{self, File};
use std::process;

use serde_json::Value;
use snapbox::str;

use crate::common::{Installation, clean_process, library, sopin};
use crate::{Answer, Case};

pub const CASES: &[Case] = &[
    Case { name: "ten_lines", needs: &["true"], test: ten_lines },
    Case { name: "numbers_are_numbers", needs: &["true"], test: numbers_are_numbers },
    Case { name: "a_store_that_would_be_made", needs: &["root", "true"], test: a_store_that_would_be_made },
    Case { name: "stores_that_are_refused", needs: &["true"], test: stores_that_are_refused },
    Case { name: "settings", needs: &["true"], test: settings },
    Case { name: "children_that_are_not_kept", needs: &["bash", "true"], test: children_that_are_not_kept },
    Case { name: "no_children", needs: &["sh", "true"], test: no_children },
    Case { name: "an_answer_that_cannot_be_printed", needs: &[], test: an_answer_that_cannot_be_printed },
];

fn ten_lines() -> Result<(), String> {
    let installation = Installation::new();
    let output = installation.sopin().arg("doctor").assert().code(1).stderr_eq("").stdout_eq(str![[r#"
library    ok       [ROOT]/lib/libsopin.so, version [..], for [..]
libc       ok       [..], loaded by /[..]
kernel     [..]  Linux [..], /proc is readable; works: [..]
trial      [..]/true has run with the library: its [..] objects were full
store      limited  SOPIN_STORE is off: copies are in private memory; [..]; unset SOPIN_STORE
memory     [..]  copies are private, at most 256 MiB in each process[..]
filter     [..]
container  [..]
pin        [..]  sopin pin [..]
preload    [..]  LD_PRELOAD is not set here, sopin run -- COMMAND sets it[..]

"#]]);
    assert_eq!(String::from_utf8_lossy(&output.get_output().stdout).lines().count(), 10);
    Ok(())
}

fn numbers_are_numbers() -> Result<(), String> {
    let installation = Installation::new();
    let answer = Answer::of(installation.sopin());
    assert_eq!(answer.0["schema"], 1);
    assert_eq!(answer.fact("library", "path"), &installation.library());
    assert_eq!(answer.fact("library", "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.fact("trial", "status"), 0);
    assert!(answer.fact("trial", "full").as_u64().unwrap() >= 3);
    for (subject, fact) in [("memory", "limit"), ("memory", "available"), ("pin", "uid"), ("trial", "left")] {
        assert!(answer.fact(subject, fact).is_u64(), "{subject}: {fact}");
    }
    assert!(answer.fact("trial", "milliseconds").as_f64().unwrap() > 0.0);
    assert!(answer.fact("kernel", "proc") == true && answer.fact("store", "path") == &Value::Null);
    assert_eq!(answer.subject("store")["remedy"], "unset SOPIN_STORE");
    Ok(())
}

/// The control is a program that is started with the library: it makes the store.
fn a_store_that_would_be_made() -> Result<(), String> {
    let installation = Installation::new();
    let home = installation.path("home");
    fs::create_dir(&home).unwrap();
    let doctor = || Answer::of(installation.sopin().env_remove("SOPIN_STORE").env("HOME", &home));
    let store = home.join(".cache/sopin");

    let answer = doctor();
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert_eq!(answer.fact("store", "path"), store.to_str().unwrap());
    assert_eq!(answer.fact("store", "exists"), false);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "doctor makes nothing");

    let mut run = process::Command::new(installation.path("bin/sopin"));
    let run = clean_process(&mut run).env_remove("SOPIN_STORE").env("HOME", &home).args(["run", "--", "true"]);
    assert!(run.status().unwrap().success());
    assert!(store.is_dir(), "a program makes it");

    let answer = doctor();
    assert_eq!((answer.verdict("store"), answer.fact("store", "exists")), ("ok", &true.into()));
    assert!(answer.fact("store", "writable") == true && answer.meaning("store").contains(" is used; "));
    let entries = || fs::read_dir(&store).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    let is_ours = entries().iter().all(|name| !name.to_string_lossy().contains("doctor"));
    assert!(is_ours, "{:?}", entries());
    Ok(())
}

fn stores_that_are_refused() -> Result<(), String> {
    let installation = Installation::new();
    let open_to_all = installation.path("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let answer = Answer::of(installation.sopin().env("SOPIN_STORE", &open_to_all));
    assert_eq!(answer.verdict("store"), "limited");
    let refused = answer.fact("store", "refused");
    assert_eq!(refused[0]["path"], open_to_all.to_str().unwrap(), "{refused:#}");
    assert!(answer.meaning("store").contains(&format!("no directory can be used ({}", open_to_all.display())));
    // The library makes one directory, not two.
    let deep = installation.path("a/b");
    let answer = Answer::of(installation.sopin().env("SOPIN_STORE", &deep));
    assert!(answer.verdict("store") == "limited" && !installation.path("a").exists());
    Ok(())
}

fn settings() -> Result<(), String> {
    let installation = Installation::new();
    let answer = Answer::of(installation.sopin().env("SOPIN_PRIVATE_LIMIT", "0"));
    assert_eq!((answer.verdict("memory"), answer.verdict("trial")), ("no", "limited"));
    assert!(answer.fact("trial", "relocated").as_u64().unwrap() >= 3);
    assert!(answer.meaning("trial").contains("more than SOPIN_PRIVATE_LIMIT"), "{}", answer.meaning("trial"));
    // A bound below the size of the C library leaves objects relocated, too.
    let answer = Answer::of(installation.sopin().env("SOPIN_PRIVATE_LIMIT", "1K"));
    assert_eq!((answer.verdict("memory"), answer.verdict("trial")), ("limited", "limited"));
    assert!(answer.meaning("memory").starts_with("SOPIN_PRIVATE_LIMIT is 1024 bytes"), "{}", answer.meaning("memory"));
    // A bound beyond the machine's memory is no limitation.
    let default = Answer::of(installation.sopin());
    let answer = Answer::of(installation.sopin().env("SOPIN_PRIVATE_LIMIT", u64::MAX.to_string()));
    assert_eq!(answer.fact("memory", "limit"), u64::MAX);
    assert_eq!(answer.verdict("memory"), default.verdict("memory"));
    let answer = Answer::of(installation.sopin().env("SOPIN_MODE", "fulll"));
    assert!(answer.verdict("trial") == "limited" && answer.meaning("trial").contains("\"fulll\" is not understood"));
    let answer = Answer::of(installation.sopin().env("SOPIN_MODE", "off"));
    assert_eq!((answer.verdict("trial"), &answer.subject("trial")["remedy"]), ("no", &"unset SOPIN_MODE".into()));
    let answer = Answer::of(installation.sopin().env("SOPIN_MODE", "relocated"));
    assert!(answer.verdict("trial") == "ok" && answer.meaning("trial").contains("relocated, as SOPIN_MODE says"));

    let preload = |list: &str| {
        // A command that is dynamic has the loader's complaint on stderr.
        let command = installation.sopin().env("LD_PRELOAD", list).args(["doctor", "--json"]);
        let answer = Answer(serde_json::from_slice(&command.assert().get_output().stdout).unwrap());
        (answer.verdict("preload").to_owned(), answer.meaning("preload").to_owned(), answer)
    };
    let (verdict, meaning, _) = preload(&installation.library());
    assert!(verdict == "ok" && meaning.starts_with("LD_PRELOAD has the library"), "{meaning}");
    installation.copy(&library(), "other/libsopin.so");
    let (verdict, meaning, _) = preload(installation.path("other/libsopin.so").to_str().unwrap());
    assert!(verdict == "limited" && meaning.contains("another build"), "{meaning}");
    // It is loaded by a relative path in this directory only, and not at all by a name.
    let (verdict, meaning, _) = preload("lib/libsopin.so");
    assert!(verdict == "limited" && meaning.contains("in another directory are not protected"), "{meaning}");
    fs::create_dir_all(installation.path("directory/libsopin.so")).unwrap();
    for list in ["libsopin.so", installation.path("directory/libsopin.so").to_str().unwrap()] {
        let (verdict, meaning, answer) = preload(list);
        assert!(verdict == "no" && meaning.contains("the loader does not load it"), "{list}: {meaning}");
        let remedy = answer.subject("preload")["remedy"].as_str().unwrap();
        assert_eq!(remedy, format!("name it by its path, {}", installation.library()));
    }
    // Of another library that is missing sopin's is none the worse.
    let (verdict, meaning, _) = preload(&format!("{}:/gone/libother.so", installation.library()));
    assert!(verdict == "limited" && meaning.contains("/gone/libother.so, which does not exist"), "{meaning}");
    Ok(())
}

/// With SIGCHLD ignored, a parent learns nothing of how its children end.
fn children_that_are_not_kept() -> Result<(), String> {
    let installation = Installation::new();
    // dash does not pass on that it ignores the signal.
    let under = |script| installation.command("bash").args(["-c", script, "bash"]);
    let answer = Answer::of(under("trap '' CHLD; exec bin/sopin \"$@\""));
    assert_eq!((answer.verdict("libc"), answer.verdict("trial")), ("ok", "ok"), "{}", answer.meaning("libc"));
    assert_eq!(answer.fact("kernel", "memfd"), "ok");
    under("trap '' CHLD; exec bin/sopin check true").assert().success();
    Ok(())
}

/// What cannot be tried is not said to be refused.
fn no_children() -> Result<(), String> {
    let installation = Installation::new();
    // Where no file can be opened, everything would seem to be missing.
    let script = "ulimit -n 5; exec bin/sopin doctor";
    let output = installation.command("sh").args(["-c", script]).assert().code(3).stdout_eq("");
    let message = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(message.starts_with("sopin: open files: ") && message.contains("(ulimit -n)"), "{message}");
    let script = "ulimit -n 7; exec bin/sopin \"$@\"";
    let answer = Answer::of(installation.command("sh").args(["-c", script, "sh"]));
    for subject in ["libc", "kernel", "trial", "pin"] {
        assert_ne!(answer.verdict(subject), "ok", "{subject}");
        assert!(answer.meaning(subject).contains("could not be started: "), "{}", answer.meaning(subject));
        let remedy = answer.subject(subject)["remedy"].as_str().unwrap();
        assert!(remedy.starts_with("permit more processes and open files"), "{subject}: {remedy}");
    }
    assert!(answer.fact("kernel", "memfd").as_str().unwrap().starts_with("not tried: "));
    assert!(!answer.meaning("memory").contains("does not work"), "{}", answer.meaning("memory"));
    Ok(())
}

fn an_answer_that_cannot_be_printed() -> Result<(), String> {
    let full = File::options().write(true).open("/dev/full").map_err(|error| error.to_string())?;
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_sopin"));
    let output = clean_process(&mut command).arg("doctor").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("sopin: stdout: "));
    // What --probe prints is for the command itself.
    sopin().args(["doctor", "--probe", "memfd"]).assert().success().stdout_eq("ok");
    sopin().args(["doctor", "--probe", "something"]).assert().code(2);
    for shell in ["bash", "zsh", "fish"] {
        let completions = sopin().args(["completions", shell]).assert().success().get_output().stdout.clone();
        let completions = String::from_utf8_lossy(&completions).into_owned();
        assert!(completions.contains("doctor") && !completions.contains("probe"), "{shell}");
    }
    Ok(())
}
