//! ELF files: dynamic, static, for other machines, broken.

use std::fs;
use std::os::unix::fs::symlink;

use snapbox::str;

use super::{Case, check, run};

pub const CASES: &[Case] = &[
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
        needs: &["cc", "-static"],
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
        needs: &["cc", "-static-pie"],
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
        name: "i386",
        needs: &["cc", "-m32"],
        test: |installation| {
            // exit(42): int 0x80 needs no libraries of the other word size.
            let source = "__asm__(\".globl _start\\n_start: mov $1, %eax\\n mov $42, %ebx\\n int $0x80\\n\");\n";
            installation.compile("program", source, "cc", &["-m32", "-nostdlib", "-static", "-ffreestanding"]);
            // The status is 126 if the kernel does not support such programs.
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
            // These bytes are the header of a static ppc64 program.
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
        name: "named_by_a_link",
        needs: &["cc", "-static"],
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
        name: "in_the_current_directory",
        needs: &["cc"],
        test: |installation| {
            installation.program("program", "cc", &[]);
            installation.script("script", "#!program\n");
            for command in ["program", "script"] {
                let sopin = || installation.sopin().env("PATH", "");
                sopin().args(["run", command]).assert().code(42).stdout_eq("ran\n").stderr_eq("");
                sopin().args(["check", command]).assert().code(0).stderr_eq("");
            }
        },
    },
];
