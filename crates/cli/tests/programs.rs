//! One program of each kind: what `sopin run` warns of while it runs it all the
//! same, and what `sopin check` says without running it. A kind that this machine
//! has no compiler or rights for is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{self, ExitCode};

use common::{Installation, missing};
use libtest_mimic::{Arguments, Completion, Trial};
use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

/// A kind of program.
struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    test: fn(&Installation),
}

fn main() -> ExitCode {
    let trials = CASES.iter().map(|case| Trial::ignorable_test(case.name, || Ok(try_one(case)))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn try_one(case: &Case) -> Completion {
    if let Some(reason) = missing(case.needs) {
        return Completion::ignored_with(reason);
    }
    (case.test)(&Installation::new());
    Completion::Completed
}

fn run(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["run", "--"]).args(command).assert()
}

fn check(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["check", "--"]).args(command).assert()
}

/// The command as a user without rights, whom setuid programs give some.
fn as_nobody(installation: &Installation, subcommand: &str, program: &str) -> OutputAssert {
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let command: Command = installation.command("setpriv").args(nobody).arg(installation.path("bin/sopin"));
    command.args([subcommand, "--", program]).assert()
}

const CASES: &[Case] = &[
    Case {
        name: "dynamic",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &[]);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq("");
            check(installation, &["./program"]).code(0).stderr_eq("").stdout_eq(str![[r#"
./program: would be protected
  file     ./program: program for [..], loaded by /lib[..]
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects

"#]]);
        },
    },
    Case {
        name: "static",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &["-static"]);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: statically linked, so there is no loader that reads LD_PRELOAD; it will not be protected

"#]]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], without loader
  because  ./program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "static_pie",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &["-static-pie"]);
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: statically linked, so there is no loader that reads LD_PRELOAD; it will not be protected

"#]]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], without loader
  because  ./program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "setuid",
        needs: &["root", "cc", "setpriv"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            fs::set_permissions(path, Permissions::from_mode(0o4755)).unwrap();
            as_nobody(installation, "run", "./program").code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: setuid root, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files; it will not be protected

"#]]);
            as_nobody(installation, "check", "./program").code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  ./program: setuid root, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files

"#]]);
            // It raises nobody's rights when root runs it, so the loader is not wary.
            run(installation, &["./program"]).code(42).stderr_eq("");
            check(installation, &["./program"]).code(0);
        },
    },
    Case {
        name: "setgid",
        needs: &["root", "cc", "setpriv"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            chown(&path, Some(0), Some(7)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o2755)).unwrap();
            as_nobody(installation, "run", "./program").code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: setgid to group 7, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files; it will not be protected

"#]]);
            as_nobody(installation, "check", "./program").code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  ./program: setgid to group 7, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files

"#]]);
        },
    },
    Case {
        name: "file_capabilities",
        needs: &["root", "cc", "setpriv", "setcap"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            let status = process::Command::new("setcap").arg("cap_net_raw=ep").arg(path).status().unwrap();
            assert!(status.success());
            as_nobody(installation, "run", "./program").code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: it has file capabilities, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files; it will not be protected

"#]]);
            as_nobody(installation, "check", "./program").code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  ./program: it has file capabilities, so its loader takes from LD_PRELOAD only names without a slash that it finds in its own directories as setuid files

"#]]);
            check(installation, &["./program"]).code(0);
        },
    },
    Case {
        name: "setuid_and_promised_to_gain_nothing",
        needs: &["root", "cc", "setpriv"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            fs::set_permissions(path, Permissions::from_mode(0o4755)).unwrap();
            let confined = ["--reuid=65534", "--clear-groups", "--no-new-privs", "--"];
            let command = installation.command("setpriv").args(confined).arg(installation.path("bin/sopin"));
            command.args(["run", "./program"]).assert().code(42).stderr_eq("");
        },
    },
    Case {
        name: "i386",
        needs: &["cc"],
        test: |installation| {
            // exit(42): int 0x80 needs no libraries of the other word size.
            let source = "__asm__(\".globl _start\\n_start: mov $1, %eax\\n mov $42, %ebx\\n int $0x80\\n\");\n";
            installation.compile("program", source, "cc", &["-m32", "-nostdlib", "-static", "-ffreestanding"]);
            // 126 where the kernel has no support for such programs.
            let output = run(installation, &["./program"]).stdout_eq("").stderr_eq(str![[r#"
sopin: warning: ./program: made for i386, which libsopin.so is not; it will not be protected
sopin: warning: ./program: statically linked, so there is no loader that reads LD_PRELOAD; it will not be protected

"#]]);
            assert!([Some(42), Some(126)].contains(&output.get_output().status.code()));
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for i386, without loader
  because  ./program: made for i386, which libsopin.so is not
  because  ./program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "aarch64",
        needs: &["cc"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            let mut bytes = fs::read(&path).unwrap();
            bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
            installation.file("program", &bytes, 0o755);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for aarch64, loaded by /lib64/ld-linux-x86-64.so.2
  because  ./program: made for aarch64, which libsopin.so is not

"#]]);
        },
    },
    Case {
        name: "big_endian",
        needs: &[],
        test: |installation| {
            // The header of a static ppc64 program.
            let mut bytes = vec![0; 64];
            bytes[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
            bytes[16..24].copy_from_slice(&[0, 2, 0, 21, 0, 0, 0, 1]);
            installation.file("program", &bytes, 0o755);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for ppc64, big-endian, without loader
  because  ./program: made for ppc64, big-endian, which libsopin.so is not
  because  ./program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "script",
        needs: &[],
        test: |installation| {
            installation.script("script", "#!/bin/sh -e\necho ran $1\n");
            run(installation, &["./script", "it"]).code(0).stdout_eq("ran it\n").stderr_eq("");
            check(installation, &["./script"]).code(0).stderr_eq("").stdout_eq(str![[r#"
./script: would be protected
  file     ./script: script for /bin/sh -e
  file     /bin/sh: program for [..], loaded by /lib[..]
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects

"#]]);
        },
    },
    Case {
        name: "script_without_interpreter",
        needs: &[],
        test: |installation| {
            installation.script("script", "echo ran\n");
            check(installation, &["./script"]).code(0).stderr_eq("").stdout_eq(str![[r#"
./script: would be protected
  file     ./script: script without #!, for /bin/sh
  file     /bin/sh: program for [..], loaded by /lib[..]
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects

"#]]);
        },
    },
    Case {
        name: "script_of_a_script_of_a_static_program",
        needs: &["cc"],
        test: |installation| {
            let program = installation.program("program", "cc", &["-static"]);
            let inner = installation.script("inner", &format!("#!{}\n", program.display()));
            installation.script("outer", &format!("#! {}  -a  -b \n", inner.display()));
            run(installation, &["./outer"]).code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: [ROOT]/program: statically linked, so there is no loader that reads LD_PRELOAD; it will not be protected

"#]]);
            check(installation, &["./outer"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./outer: would not be protected
  file     ./outer: script for [ROOT]/inner -a  -b
  file     [ROOT]/inner: script for [ROOT]/program
  file     [ROOT]/program: program for [..], without loader
  because  [ROOT]/program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "script_by_env",
        needs: &["cc"],
        test: |installation| {
            installation.program("bin/static-program", "cc", &["-static"]);
            installation.script("script", "#!/usr/bin/env static-program\n");
            let path = format!("{}:/usr/bin:/bin", installation.path("bin").display());
            let sopin = || installation.sopin().env("PATH", &path);
            sopin().args(["run", "./script"]).assert().code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: [ROOT]/bin/static-program: statically linked, so there is no loader that reads LD_PRELOAD; it will not be protected

"#]]);
            sopin().args(["check", "./script"]).assert().code(1).stderr_eq("").stdout_eq(str![[r#"
./script: would not be protected
  file     ./script: script for /usr/bin/env static-program
  file     /usr/bin/env: program for [..], loaded by /lib[..]
  file     [ROOT]/bin/static-program: program for [..], without loader
  because  [ROOT]/bin/static-program: statically linked, so there is no loader that reads LD_PRELOAD

"#]]);
        },
    },
    Case {
        name: "script_by_env_of_nothing",
        needs: &[],
        test: |installation| {
            installation.script("script", "#!/usr/bin/env no-such-program\n");
            // It is env(1) that says so, in its own words.
            let output = run(installation, &["./script"]).code(127).stdout_eq("");
            assert!(String::from_utf8_lossy(&output.get_output().stderr).starts_with("/usr/bin/env: "));
            check(installation, &["./script"]).code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: no-such-program: no such program in PATH

"#]]);
        },
    },
    Case {
        name: "script_by_env_with_another_environment",
        needs: &[],
        test: |installation| {
            installation.script("script", "#!/usr/bin/env -S -i sh\necho \"<$LD_PRELOAD>\"\n");
            run(installation, &["./script"]).code(0).stdout_eq("<>\n").stderr_eq(str![[r#"
sopin: warning: /usr/bin/env: env is told to take LD_PRELOAD away; it will not be protected

"#]]);
            check(installation, &["./script"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./script: would not be protected
  file     ./script: script for /usr/bin/env -S -i sh
  file     /usr/bin/env: program for [..], loaded by /lib[..]
  file     [..]/sh: program for [..], loaded by /lib[..]
  because  /usr/bin/env: env is told to take LD_PRELOAD away

"#]]);
        },
    },
    Case {
        name: "musl",
        needs: &["musl-gcc"],
        test: |installation| {
            installation.program("program", "musl-gcc", &[]);
            // Without care it would not even start: exit status 127, unknown symbols.
            run(installation, &["./program"]).code(42).stdout_eq("ran\n").stderr_eq(str![[r#"
sopin: warning: ./program: its loader, /lib/ld-musl-[..].so.1, refuses libsopin.so: [..] [ROOT]/lib/libsopin.so[..]; it will not be protected

"#]]);
            check(installation, &["./program"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib/ld-musl-[..].so.1
  because  ./program: its loader would start it, but not with libsopin.so
...

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
            // The same C library under another path: nothing to warn of, but to be asked.
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
        name: "loader_that_is_none",
        needs: &["cc"],
        test: |installation| {
            // Starting what a file names as its loader must not run just anything.
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
        name: "execute_only",
        needs: &["root", "cc", "setpriv"],
        test: |installation| {
            let path = installation.program("program", "cc", &[]);
            fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
            as_nobody(installation, "run", "./program").code(42).stdout_eq("ran\n").stderr_eq("");
            as_nobody(installation, "check", "./program").code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: ./program: no permission to read it; check it as a user who can

"#]]);
        },
    },
    Case {
        name: "damaged",
        needs: &[],
        test: |installation| {
            installation.file("program", b"\x7fELF\x02\x01\x01", 0o755);
            run(installation, &["./program"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: ./program: not a valid ELF file

"#]]);
            check(installation, &["./program"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: ./program: not a valid ELF file

"#]]);
        },
    },
    Case {
        name: "library_that_the_loader_passes_over",
        needs: &["cc"],
        test: |installation| {
            // A program is no library, and the loader only says so.
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
        name: "named_by_a_link",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &["-static"]);
            symlink("program", installation.path("link")).unwrap();
            check(installation, &["./link"]).code(1).stderr_eq("").stdout_eq(str![[r#"
./link: would not be protected
  file     ./link: program for [..], without loader
  because  ./link: statically linked, so there is no loader that reads LD_PRELOAD

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

fn loader_of(program: &std::path::Path) -> String {
    let output = process::Command::new("readelf").args(["-p", ".interp"]).arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with('/')).unwrap().to_owned()
}

/// Makes the library require a version of glibc that nobody has, as a library
/// built on a newer system does.
fn need_a_future_glibc(installation: &Installation) {
    let path = installation.library();
    let mut bytes = fs::read(&path).unwrap();
    let needed = bytes.windows(11).position(|window| window == b"GLIBC_2.34\0").expect("built for glibc 2.34");
    bytes[needed..needed + 10].copy_from_slice(b"GLIBC_9.99");
    installation.file("lib/libsopin.so", &bytes, 0o755);
}
