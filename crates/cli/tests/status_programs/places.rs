//! Programs that see other files than the command does, for instance in containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Case;
use crate::common::victim::{LIBRARY, PROGRAM, Running, Victim, object};
use crate::common::{Installation, clean_process};

pub const CASES: &[Case] = &[
    Case { name: "a_chroot", needs: &["root", "chroot"], test: a_chroot },
    Case { name: "another_mount_namespace", needs: &["root", "unshare", "mount"], test: another_mount_namespace },
    Case { name: "a_read_only_mount", needs: &["root", "unshare", "mount"], test: a_read_only_mount },
    Case { name: "an_image_in_a_file", needs: &["root", "unshare", "mount", "mksquashfs"], test: an_image_in_a_file },
    Case { name: "a_false_copy", needs: &["root", "unshare", "mount"], test: a_false_copy },
];

/// Returns the path of a file of the C library from its name.
fn system_file(name: &str) -> PathBuf {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().unwrap();
    fs::canonicalize(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
}

fn a_chroot() -> Result<(), String> {
    let installation = Installation::new();
    let loader = fs::read_dir("/lib64").unwrap().map(|entry| entry.unwrap().path());
    let loader =
        loader.filter(|path| path.to_string_lossy().contains("/ld-linux")).max().ok_or("no loader in /lib64")?;
    installation.copy(&fs::canonicalize(loader).unwrap(), "root/ld.so");
    installation.copy(&system_file("libc.so.6"), "root/libc.so.6");
    let library =
        installation.compile("root/libvictim.so", LIBRARY, "cc", &["-shared", "-fPIC", "-Wl,-soname,libvictim.so"]);
    let flags = [library.to_str().unwrap(), "-Wl,--dynamic-linker=/ld.so", "-Wl,-rpath,/"];
    installation.compile("root/program", PROGRAM, "cc", &flags);
    let mut command = Command::new("chroot");
    let running = Running::start(clean_process(&mut command).arg(installation.path("root")).arg("/program"));
    let victim = Victim { installation, library };
    let state = || {
        let process = victim.json(running.pid());
        let object = object(&process, "/libvictim.so");
        (object["state"].clone(), object["file"]["state"].clone())
    };
    assert_eq!(state(), ("exposed".into(), "unchanged".into()));
    victim.rewrite(&running);
    assert_eq!(state(), ("damaged".into(), "rewritten".into()));
    Ok(())
}

/// Starts a shell in a mount namespace of its own that mounts a tmpfs and runs the
/// program there.
fn in_namespace(victim: &Victim, after_copying: &str) -> Running {
    let mount = victim.installation.path("mounted");
    fs::create_dir(&mount).unwrap();
    let script = format!(
        "mount -t tmpfs none {0} && cp program libvictim.so {0}/ && cd {0} && {after_copying} && \
         exec env LD_PRELOAD={0}/libvictim.so {0}/program",
        mount.display()
    );
    let mut command = Command::new("unshare");
    let command = clean_process(&mut command).args(["--mount", "sh", "-c", &script]);
    Running::start(command.current_dir(victim.installation.path("")))
}

fn another_mount_namespace() -> Result<(), String> {
    let victim = Victim::compiled(&["-Wl,-soname,libvictim.so"]);
    let running = in_namespace(&victim, "true");
    let path = victim.installation.path("mounted/libvictim.so");
    assert!(!path.exists(), "the path does not exist for this process");
    let seen = |path: &Path| PathBuf::from(format!("/proc/{}/root{}", running.pid(), path.display()));
    let state = || {
        let process = victim.json(running.pid());
        let object = object(&process, path.to_str().unwrap());
        (object["state"].clone(), object["file"]["state"].clone())
    };
    let (exposed, file) = state();
    // The shell may have copied the file so shortly before it executed the program that
    // the times do not show which came first.
    assert!(exposed == "exposed" && (file == "unchanged" || file == "rewritten"), "{exposed} {file}");
    running.settle();
    let bytes = fs::read(seen(&path)).unwrap();
    fs::write(seen(&path), bytes).unwrap();
    assert_eq!(state(), ("damaged".into(), "rewritten".into()));
    fs::remove_file(seen(&path)).unwrap();
    assert_eq!(state(), ("damaged".into(), "deleted".into()));
    Ok(())
}

/// The mount can be made writable again.
fn a_read_only_mount() -> Result<(), String> {
    let victim = Victim::compiled(&["-Wl,-soname,libvictim.so"]);
    let running = in_namespace(&victim, "mount -o remount,ro .");
    let process = victim.json(running.pid());
    let object = object(&process, "/mounted/libvictim.so");
    assert_eq!(object["state"], "exposed", "{process:#}");
    assert_eq!(object["reason"], "libsopin.so is not loaded");
    Ok(())
}

/// No process can write to a squashfs, but a process can write to the file that
/// contains it.
fn an_image_in_a_file() -> Result<(), String> {
    let victim = Victim::compiled(&["-Wl,-soname,libvictim.so"]);
    let running = in_namespace(
        &victim,
        "mksquashfs . ../image -quiet -no-progress >/dev/null && mount -o loop -t squashfs ../image .",
    );
    let process = victim.json(running.pid());
    let object = object(&process, "/mounted/libvictim.so");
    assert_eq!(object["state"], "exposed", "{process:#}");
    assert_eq!(object["damage"], Value::Null);
    Ok(())
}

/// A file in the system's store is a copy only if root has put it there.
fn a_false_copy() -> Result<(), String> {
    let victim = Victim::compiled(&["-Wl,-soname,libvictim.so"]);
    let state = |owner: &str| {
        let script = format!(
            "mount -t tmpfs none /var/lib && cd /var/lib && mkdir -p sopin/0123abcd-fe00-2a-1000-10-11 && \
             cd sopin/* && cp {0}/libvictim.so . && chown {owner} libvictim.so && \
             exec env LD_PRELOAD=$PWD/libvictim.so {0}/program",
            victim.installation.path("").display()
        );
        let mut command = Command::new("unshare");
        let running = Running::start(clean_process(&mut command).args(["--mount", "sh", "-c", &script]));
        object(&victim.json(running.pid()), "/libvictim.so")["state"].clone()
    };
    assert_eq!(state("65534"), "exposed");
    assert_eq!(state("0"), "full");
    Ok(())
}
