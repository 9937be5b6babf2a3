//! Scripts: the programs to which they lead, and whether those are protected.

use snapbox::str;

use super::{Case, check, run};

pub const CASES: &[Case] = &[
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
        needs: &["cc", "-static"],
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
        needs: &["cc", "-static"],
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
        name: "script_by_env_of_a_missing_program",
        needs: &[],
        test: |installation| {
            installation.script("script", "#!/usr/bin/env no-such-program\n");
            // env(1) prints this error itself.
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
];
