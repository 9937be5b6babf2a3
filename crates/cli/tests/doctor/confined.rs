//! Other users, and filters that refuse system calls or kill for them.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::common::Installation;
use crate::{Answer, Case};

pub const CASES: &[Case] = &[
    Case { name: "a_user_without_a_home", needs: &["root", "setpriv", "true"], test: a_user_without_a_home },
    Case { name: "a_filter_that_refuses", needs: &["-lseccomp", "stops", "true"], test: a_filter_that_refuses },
    Case { name: "a_filter_that_kills", needs: &["-lseccomp", "stops", "true"], test: a_filter_that_kills },
    Case { name: "a_container", needs: &["root", "-lseccomp", "stops", "unshare", "mount", "true"], test: a_container },
];

fn a_user_without_a_home() -> Result<(), String> {
    let installation = Installation::new();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "bin/sopin"];
    let command = installation.command("setpriv").args(nobody).env_remove("HOME").env_remove("SOPIN_STORE");
    let answer = Answer::of(command);
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert_eq!(answer.verdict("store"), "limited");
    assert!(answer.meaning("store").starts_with("no directory can be used (HOME is not set)"));
    // The remedy warns of what does not help.
    let remedy = answer.subject("store")["remedy"].as_str().unwrap();
    assert!(remedy.contains("none below /tmp") && remedy.contains("sopin store fill PATH"), "{remedy}");
    let own = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(own.path(), Some(65534), Some(65534)).unwrap();
    let command = installation.command("setpriv").args(nobody).env("SOPIN_STORE", own.path());
    assert_eq!(Answer::of(command).verdict("store"), "limited");
    assert_eq!((answer.fact("pin", "uid"), answer.fact("pin", "cap_sys_ptrace")), (&65534.into(), &false.into()));
    // With Yama it may not pin its own processes either.
    assert_ne!(answer.verdict("pin"), "ok");
    Ok(())
}

/// Returns the program of `tests/filters` that installs a filter, compiled.
fn jail(installation: &Installation) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/filters/jail.c");
    installation.compile("jail", &fs::read_to_string(source).unwrap(), "cc", &["-D_GNU_SOURCE", "-lseccomp"])
}

fn under(rules: &str) -> Answer {
    let installation = Installation::new();
    let jail = jail(&installation);
    installation.file("rules", rules.as_bytes(), 0o644);
    Answer::of(installation.command(jail).args(["rules", "bin/sopin"]).env("SOPIN_STORE", installation.path("store")))
}

fn a_filter_that_refuses() -> Result<(), String> {
    let free = Answer::of(Installation::new().sopin());
    if free.verdict("filter") != "ok" || free.fact("pin", "error").is_string() {
        return Err(format!("this test is confined itself: {}, {}", free.meaning("filter"), free.meaning("pin")));
    }
    // A process that is filtered itself cannot pin another one that is.
    let permissive = under("default allow\n");
    assert_eq!((permissive.verdict("kernel"), permissive.verdict("filter")), ("ok", "limited"));
    assert_eq!(
        (permissive.fact("pin", "error"), permissive.fact("filter", "refused")),
        (&"filtered".into(), &json!([]))
    );
    let answer = under("default allow\n1 ptrace\n1 process_vm_readv\n");
    assert_eq!(
        (answer.verdict("kernel"), answer.verdict("filter"), answer.verdict("pin")),
        ("limited", "limited", "no")
    );
    assert_eq!(answer.fact("kernel", "memfd"), "ok");
    assert!(answer.fact("kernel", "ptrace").as_str().unwrap().starts_with("EPERM"));
    let refused = answer.fact("filter", "refused").to_string();
    assert!(refused.contains("process_vm_readv: EPERM") && refused.contains("ptrace: EPERM"), "{refused}");
    assert_eq!(answer.fact("pin", "error"), "denied");
    assert_eq!(
        answer.subject("pin")["remedy"],
        "run it as root outside of the seccomp filter, for a container on its host"
    );
    // The library does without these calls.
    assert_eq!((answer.verdict("trial"), answer.fact("trial", "left")), ("ok", &0.into()));
    Ok(())
}

/// The command itself survives, because it makes the calls in child processes.
fn a_filter_that_kills() -> Result<(), String> {
    let answer = under("default allow\nkill ptrace\nkill process_vm_readv\nkill memfd_create\n");
    for call in ["memfd", "process_vm_readv", "ptrace"] {
        assert_eq!(answer.fact("kernel", call), "a seccomp filter kills for it");
    }
    assert!(answer.verdict("pin") == "no" && answer.meaning("pin").contains("a seccomp filter has killed it"));
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert!(answer.fact("trial", "full").as_u64().unwrap() >= 3);
    Ok(())
}

/// The root is an overlay as Docker makes it, and the filter refuses one of the calls.
fn a_container() -> Result<(), String> {
    let installation = Installation::new();
    jail(&installation);
    installation.file("rules", b"default allow\n1 process_vm_readv\n", 0o644);
    fs::create_dir(installation.path("root")).unwrap();
    let [image, own] = ["1", "2"].map(|digit| format!("root/overlay2/{}", digit.repeat(64)));
    let script = format!(
        "mount -t tmpfs none root && mkdir -p {image}/diff {own}/diff {own}/work root/merged && \
         export JAIL_ROOT=\"$PWD/root\" && exec ./jail rules bin/sopin \"$@\""
    );
    let answer = Answer::of(installation.command("unshare").args(["--mount", "sh", "-c", &script, "sh"]));
    assert_eq!(answer.fact("container", "engine"), "Docker");
    assert_eq!(
        (answer.fact("container", "overlay"), answer.fact("container", "image_layers")),
        (&true.into(), &true.into())
    );
    assert!(answer.meaning("container").contains("files of the image need no copy"));
    assert!(
        answer.meaning("filter").starts_with("the container engine's seccomp filter: "),
        "{}",
        answer.meaning("filter")
    );
    assert_eq!(answer.fact("filter", "refused"), &json!(["process_vm_readv: EPERM: Operation not permitted"]));
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert!(answer.subject("pin")["remedy"].as_str().unwrap().contains("on its host"));
    Ok(())
}
