//! Properties that only the program's loader knows: another C library, missing
//! libraries.

use std::fs;
use std::path::Path;
use std::process::Command;

use snapbox::str;

use super::{Case, check, run};
use crate::common::Installation;

pub const CASES: &[Case] = &[
    Case {
        name: "musl",
        needs: &["musl-gcc"],
        test: |installation| {
            installation.program("program", "musl-gcc", &[]);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq("");
            check(installation, &["./program"]).code(0).stderr_eq("").stdout_eq(str![[r#"
./program: would be protected
  file     ./program: program for [..], loaded by /lib/ld-musl-[..].so.1
  loader   maps [ROOT]/lib/libsopin.so and 1 other object

"#]]);
        },
    },
    Case {
        name: "loader_as_program",
        needs: &["cc"],
        test: |installation| {
            let program = installation.program("program", "cc", &[]);
            let loader = loader_of(&program);
            run(installation, &[&loader, "./program"]).code(42).stdout_eq("ran\n").stderr_eq("");
            check(installation, &[&loader, "./program"]).code(0).stderr_eq("").stdout_eq(str![[r#"
/lib[..]: would be protected
  file     /lib[..]: program for [..], without loader
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects

"#]]);
        },
    },
    Case {
        name: "other_loader",
        needs: &["cc"],
        test: |installation| {
            // This loader has an unusual path but belongs to the same C library, so the
            // command asks it and prints no warning.
            let loader = loader_of(&installation.program("reference", "cc", &[]));
            let copy = installation.copy(loader.as_ref(), "opt/ld-linux.so.2");
            let flag = format!("-Wl,--dynamic-linker={}", copy.display());
            installation.program("program", "cc", &[&flag]);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq("");
            check(installation, &["./program"]).code(0).stderr_eq("").stdout_eq(str![[r#"
./program: would be protected
  file     ./program: program for [..], loaded by [ROOT]/opt/ld-linux.so.2
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects

"#]]);
        },
    },
    Case {
        name: "other_loader_of_an_older_library",
        needs: &["cc"],
        test: |installation| {
            let loader = loader_of(&installation.program("reference", "cc", &[]));
            let copy = installation.copy(loader.as_ref(), "opt/ld-linux.so.2");
            let flag = format!("-Wl,--dynamic-linker={}", copy.display());
            installation.program("program", "cc", &[&flag]);
            need_a_future_glibc(installation);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: its loader, [ROOT]/opt/ld-linux.so.2, refuses libsopin.so: ./program: /[..]/libc.so.6: version `GLIBC_9.99' not found (required by [ROOT]/lib/libsopin.so); it will not be protected

"#]]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by [ROOT]/opt/ld-linux.so.2
  because  ./program: its loader would start it, but not with libsopin.so
  loader   says: ./program: /[..]/libc.so.6: version `GLIBC_9.99' not found (required by [ROOT]/lib/libsopin.so)

"#]]);
        },
    },
    Case {
        name: "not_a_loader",
        needs: &["cc"],
        test: |installation| {
            // The command must not execute an arbitrary file that a program names as
            // its loader.
            let evil = installation.script("evil", "#!/bin/sh\ntouch \"${0%/*}/evil-ran\"\n");
            installation.program("program", "cc", &[&format!("-Wl,--dynamic-linker={}", evil.display())]);
            check(installation, &["./program"]).code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: ./program: its loader, [ROOT]/evil, is not called like one, so it was not started

"#]]);
            assert!(!installation.path("evil-ran").exists());
        },
    },
    Case {
        name: "library_missing",
        needs: &["cc"],
        test: |installation| {
            let flags = ["-shared", "-fPIC", "-Wl,-soname,libgone.so.1"];
            let library = installation.compile("libgone.so", "int gone(void) { return 1; }\n", "cc", &flags);
            installation.program("program", "cc", &["-Wl,--no-as-needed", library.to_str().unwrap()]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  ./program: its loader would not start it
  loader   says: [..]libgone.so.1: cannot open shared object file: No such file or directory

"#]]);
        },
    },
    Case {
        name: "library_that_the_loader_ignores",
        needs: &["cc"],
        test: |installation| {
            // The file is a program and not a library, which only the loader reports.
            installation.program("lib/libsopin.so", "cc", &[]);
            installation.program("program", "cc", &[]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  ./program: its loader goes on without libsopin.so
  loader   says: ERROR: ld.so: object '[ROOT]/lib/libsopin.so' from LD_PRELOAD cannot be preloaded [..]

"#]]);
        },
    },
    Case {
        name: "another_build_preloaded",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &[]);
            let other = installation.copy(installation.library().as_ref(), "old/libsopin.so.0");
            let command = installation.sopin().env("LD_PRELOAD", other).args(["run", "./program"]);
            command.assert().code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: [ROOT]/old/libsopin.so.0: another build of the library is in LD_PRELOAD, so everything will be pinned twice; remove it from there

"#]]);
        },
    },
];

fn loader_of(program: &Path) -> String {
    let output = Command::new("readelf").args(["-p", ".interp"]).arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with('/')).unwrap().to_owned()
}

/// Makes the library require a version of glibc that does not exist, as a library built
/// on a newer system would.
fn need_a_future_glibc(installation: &Installation) {
    let path = installation.library();
    let mut bytes = fs::read(&path).unwrap();
    let needed = bytes.windows(11).position(|window| window == b"GLIBC_2.17\0").expect("needs glibc 2.17");
    bytes[needed..needed + 10].copy_from_slice(b"GLIBC_9.99");
    installation.file("lib/libsopin.so", &bytes, 0o755);
}
