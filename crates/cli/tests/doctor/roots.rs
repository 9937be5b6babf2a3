//! Other root directories: without `/proc`, without a shell, without anything to write to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::common::Installation;
use crate::{Answer, Case};

pub const CASES: &[Case] = &[
    Case { name: "without_proc", needs: &["root", "unshare", "mount", "umount", "true"], test: without_proc },
    Case {
        name: "a_root_without_programs",
        needs: &["root", "unshare", "mount", "chroot", "ldd"],
        test: a_root_without_programs,
    },
];

fn without_proc() -> Result<(), String> {
    let installation = Installation::new();
    let script = "umount -l /proc && exec bin/sopin \"$@\"";
    let answer = Answer::of(installation.command("unshare").args(["--mount", "sh", "-c", script, "sh"]));
    for subject in ["library", "kernel", "trial", "pin"] {
        assert_eq!(answer.verdict(subject), "no", "{subject}");
    }
    assert_eq!(answer.fact("kernel", "proc"), false);
    assert!(answer.subject("kernel")["remedy"].as_str().unwrap().starts_with("mount it"));
    assert_eq!(answer.verdict("filter"), "limited");
    Ok(())
}

/// Returns the files that a program's loader maps, by the paths that it uses.
fn loaded(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// As in a distroless image: a read-only root, no shell, no `true`, no HOME, no `/dev`. What is
/// started is the C library's own file.
fn a_root_without_programs() -> Result<(), String> {
    let installation = Installation::new();
    let mut files = loaded(&installation.path("bin/sopin"));
    files.extend(loaded(&installation.path("lib/libsopin.so")));
    let libc = files.iter().find(|path| path.ends_with("libc.so.6")).cloned();
    let libc = libc.ok_or("this command is not linked to glibc")?;
    if fs::metadata(&libc).is_ok_and(|file| file.permissions().mode() & 0o111 == 0) {
        return Err("this libc.so.6 cannot be executed".to_owned());
    }
    for file in &files {
        installation.copy(&fs::canonicalize(file).unwrap(), &format!("root{}", file.display()));
    }
    installation.copy(&installation.path("bin/sopin"), "root/bin/sopin");
    installation.copy(&installation.path("lib/libsopin.so"), "root/lib/libsopin.so");
    fs::create_dir(installation.path("root/proc")).unwrap();
    let inside = || {
        let script = "mount --make-rprivate / && mount --bind root root && mount -t proc proc root/proc && \
                      mount -o remount,bind,ro root && exec chroot root /bin/sopin \"$@\"";
        let command = installation.command("unshare").args(["--mount", "sh", "-c", script, "sh"]);
        command.env_remove("SOPIN_STORE").env_remove("HOME")
    };
    let doctor = || Answer::of(inside());
    // There is no /dev/null for the loader's input either.
    inside().args(["check", "/bin/sopin"]).assert().success().stderr_eq("");
    let unit = "root/run/systemd/system/shop.service.d/sopin.conf";
    installation.file(unit, b"[Service]\nEnvironment=LD_PRELOAD=/lib/libsopin.so\n", 0o644);
    // The loader drops comments.
    installation.file("root/etc/ld.so.preload", b"# /gone/libsopin.so\n", 0o644);
    let answer = doctor();
    assert_eq!((answer.verdict("preload"), answer.fact("preload", "manager")), ("ok", &"systemd".into()));
    assert_eq!(answer.fact("preload", "units"), &json!(["/run/systemd/system/shop.service.d/sopin.conf"]));
    assert_eq!((answer.verdict("libc"), answer.fact("libc", "name")), ("ok", &"glibc".into()));
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert!(answer.fact("trial", "program").as_str().unwrap().ends_with("/libc.so.6"));
    assert_eq!((answer.verdict("store"), answer.verdict("memory")), ("limited", "ok"));
    assert_eq!(answer.verdict("kernel"), "ok", "{}", answer.meaning("kernel"));
    assert!(!installation.path("root/var").exists() && !installation.path("root/.cache").exists());

    // Without a program that could be started, the trial is not made. The unit's library is gone.
    installation.file(unit, b"[Service]\nEnvironment=LD_PRELOAD=/gone/libsopin.so\n", 0o644);
    let libc = installation.path(&format!("root{}", libc.display()));
    fs::set_permissions(libc, PermissionsExt::from_mode(0o644)).unwrap();
    let answer = doctor();
    assert_eq!((answer.verdict("libc"), answer.verdict("trial")), ("limited", "limited"));
    assert!(answer.meaning("trial").starts_with("not made"), "{}", answer.meaning("trial"));
    assert_eq!(answer.verdict("preload"), "no");
    assert!(answer.meaning("preload").contains("shop.service.d/sopin.conf names /gone/libsopin.so"));
    Ok(())
}
