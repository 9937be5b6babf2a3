//! Programs that give their caller rights, or that the caller may not read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process;

use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

use super::{Case, check, run};
use crate::common::Installation;

/// Runs the command as a user without rights, to whom setuid programs give some.
fn as_nobody(installation: &Installation, subcommand: &str, program: &str) -> OutputAssert {
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let command: Command = installation.command("setpriv").args(nobody).arg(installation.path("bin/sopin"));
    command.args([subcommand, "--", program]).assert()
}

pub const CASES: &[Case] = &[
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
            // If root runs it, it gives no further rights, so the loader does not enter
            // its secure mode.
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
        name: "in_a_directory_that_must_not_be_searched",
        needs: &["root", "setpriv"],
        test: |installation| {
            installation.script("private/program", "#!/bin/sh\n");
            fs::set_permissions(installation.path("private"), Permissions::from_mode(0o700)).unwrap();
            let path = format!("{}:/usr/bin:/bin", installation.path("private").display());
            let command = installation.command("setpriv").args(["--reuid=65534", "--clear-groups", "--"]);
            let command = command.arg(installation.path("bin/sopin")).args(["run", "program"]).env("PATH", path);
            command.assert().code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: program: no such program in PATH, of which not every directory may be searched

"#]]);
        },
    },
];
