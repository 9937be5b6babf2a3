//! `sopin run` when it runs no program: its exit statuses 125, 126 and 127, and its
//! messages.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs;

use common::{Installation, sopin};
use snapbox::cmd::OutputAssert;
use snapbox::str;

fn run(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["run", "--"]).args(command).assert()
}

#[test]
fn a_program_that_does_not_exist() {
    let installation = Installation::new();
    run(&installation, &["no-such-program"]).code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: no-such-program: no such program in PATH

"#]]);
    run(&installation, &["./no-such-program"]).code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: ./no-such-program: no such file

"#]]);
    run(&installation, &[""]).code(127).stderr_eq(str![[r#"
sopin: '': no such program in PATH

"#]]);
    run(&installation, &["\x1b[31mred\n"]).code(127).stderr_eq(str![[r#"
sopin: \u{1b}[31mred\n: no such program in PATH

"#]]);
    fs::write(installation.path("file"), "").unwrap();
    run(&installation, &["./file/program"]).code(127).stderr_eq(str![[r#"
sopin: ./file/program: no such file

"#]]);
}

#[test]
fn a_program_that_must_not_be_executed() {
    let installation = Installation::new();
    installation.file("data", b"#!/bin/sh\n", 0o644);
    run(&installation, &["./data"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: ./data: no permission to execute it

"#]]);
}

#[test]
fn a_directory() {
    let installation = Installation::new();
    run(&installation, &["./lib"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: ./lib: it is a directory

"#]]);
}

#[test]
fn a_script_whose_interpreter_does_not_exist() {
    let installation = Installation::new();
    installation.script("script", &format!("#!{}\n", installation.path("missing/python3").display()));
    run(&installation, &["./script"]).code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: ./script: its interpreter [ROOT]/missing/python3: no such file

"#]]);
}

#[test]
fn a_script_whose_interpreter_must_not_be_executed() {
    let installation = Installation::new();
    let interpreter = installation.file("data", b"", 0o644);
    installation.script("script", &format!("#!{}\n", interpreter.display()));
    run(&installation, &["./script"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: ./script: its interpreter [ROOT]/data: no permission to execute it

"#]]);
}

#[test]
fn scripts_that_are_each_others_interpreters() {
    let installation = Installation::new();
    let path = installation.path("script").display().to_string();
    installation.script("script", &format!("#!{path}\n"));
    run(&installation, &["./script"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/script: more than 5 scripts that are each other's interpreters

"#]]);
}

#[test]
fn as_many_interpreters_as_the_kernel_follows() {
    let installation = Installation::new();
    let mut interpreter = "/bin/sh".to_owned();
    for name in ["./one", "./two", "./three", "./four", "./five", "./six"] {
        installation.script(name, &format!("#!{interpreter}\nexit 42\n"));
        interpreter = name.to_owned();
    }
    run(&installation, &["./five"]).code(42).stderr_eq("");
    installation.sopin().args(["check", "./five"]).assert().success();
    let refused = run(&installation, &["./six"]).code(126);
    let said = refused.stderr_eq(str![[r#"
sopin: ./one: more than 5 scripts that are each other's interpreters

"#]]);
    installation.sopin().args(["check", "./six"]).assert().code(126).stderr_eq(said.get_output().stderr.clone());
}

#[test]
fn a_script_that_env_leads_back_to() {
    let installation = Installation::new();
    installation.script("bin/script", "#!/usr/bin/env script\n");
    let path = installation.path("bin").display().to_string();
    // Running this script would never end, so only `check` is tested.
    installation.sopin().env("PATH", path).args(["check", "script"]).assert().code(126).stderr_eq(str![[r#"
sopin: [ROOT]/bin/script: it leads to itself

"#]]);
}

#[test]
fn a_program_whose_loader_does_not_exist() {
    let installation = Installation::new();
    let loader = installation.path("missing/ld.so.1");
    installation.program("program", "cc", &[&format!("-Wl,--dynamic-linker={}", loader.display())]);
    run(&installation, &["./program"]).code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: ./program: its loader [ROOT]/missing/ld.so.1: no such file

"#]]);
}

#[test]
fn a_program_for_another_machine() {
    let installation = Installation::new();
    let path = installation.program("program", "cc", &[]);
    let mut bytes = fs::read(&path).unwrap();
    // e_machine is EM_68K, for which the machine has no emulator registered.
    bytes[18..20].copy_from_slice(&4_u16.to_le_bytes());
    installation.file("program", &bytes, 0o755);
    run(&installation, &["./program"]).code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: warning: ./program: made for machine 4 of elf.h, 64 bits, which libsopin.so is not; it will not be protected
sopin: ./program: made for machine 4 of elf.h, 64 bits, which this machine does not execute

"#]]);
}

#[test]
fn a_file_of_the_path_that_must_not_be_executed_is_passed_over() {
    let installation = Installation::new();
    installation.file("one/program", b"#!/bin/sh\necho one\n", 0o644);
    fs::create_dir_all(installation.path("two/program")).unwrap();
    let path = ["one", "two", "three"].map(|name| installation.path(name).display().to_string()).join(":");
    let run = || installation.sopin().env("PATH", &path).args(["run", "program"]).assert();
    run().code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/one/program: no permission to execute it

"#]]);
    installation.script("three/program", "#!/bin/sh\necho three\n");
    run().success().stdout_eq("three\n").stderr_eq("");
}

#[test]
fn an_empty_element_of_the_path_is_the_current_directory() {
    let installation = Installation::new();
    installation.script("program", "#!/bin/sh\necho here\n");
    for path in ["", ":missing", "missing::missing", "missing:"] {
        installation.sopin().env("PATH", path).args(["run", "program"]).assert().success().stdout_eq("here\n");
    }
    installation.sopin().env("PATH", "missing").args(["run", "program"]).assert().code(127);
}

#[test]
fn without_a_path_there_is_a_default() {
    let installation = Installation::new();
    installation.sopin().env_remove("PATH").args(["run", "echo", "found"]).assert().success().stdout_eq("found\n");
}

#[test]
fn a_file_that_the_kernel_does_not_know_is_a_shell_script() {
    let installation = Installation::new();
    installation.script("bin/script", "echo $0 $1; exit 3\n");
    let path = installation.path("bin").display().to_string();
    let command = installation.sopin().env("PATH", path).args(["run", "script", "argument"]);
    command.assert().code(3).stderr_eq("").stdout_eq(str![[r#"
[ROOT]/bin/script argument

"#]]);
    installation.script("empty", "");
    run(&installation, &["./empty"]).success();
}

#[test]
fn no_library() {
    let installation = Installation::without_library();
    run(&installation, &["true"]).code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: libsopin.so: not found in [ROOT]/bin, [ROOT]/lib, [ROOT]/lib/[..]-linux-gnu, [ROOT]/lib64; install the library and the command below one prefix

"#]]);
}

#[test]
fn a_library_that_is_not_an_elf_file() {
    let installation = Installation::new();
    fs::write(installation.library(), "no library").unwrap();
    run(&installation, &["true"]).code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: [ROOT]/lib/libsopin.so: not a valid ELF file

"#]]);
}

#[test]
fn a_path_that_cannot_be_written_into_the_list() {
    for prefix in ["with space", "with:colon", "with$LIB"] {
        let installation = Installation::new();
        for file in ["bin/sopin", "lib/libsopin.so"] {
            installation.copy(&installation.path(file), &format!("{prefix}/{file}"));
        }
        let command =
            installation.command(installation.path(&format!("{prefix}/bin/sopin"))).args(["run", "echo", "ran"]);
        let refused = command.assert().code(125).stdout_eq("");
        match prefix {
            "with space" => refused.stderr_eq(str![[r#"
sopin: [ROOT]/with space/lib/libsopin.so: the path has a space in it, which separates entries of LD_PRELOAD; install sopin below another directory

"#]]),
            "with:colon" => refused.stderr_eq(str![[r#"
sopin: [ROOT]/with:colon/lib/libsopin.so: the path has a colon in it, which separates entries of LD_PRELOAD; install sopin below another directory

"#]]),
            _ => refused.stderr_eq(str![[r#"
sopin: [ROOT]/with$LIB/lib/libsopin.so: the path has a dollar sign in it, which the loader takes for a token such as $LIB; install sopin below another directory

"#]]),
        };
    }
}

#[test]
fn values_that_the_library_would_not_understand() {
    sopin().args(["run", "--mode", "fulll", "true"]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: invalid value 'fulll' for '--mode <MODE>'
  [possible values: full, relocated, off]

For more information, try '--help'.

"#]]);
    sopin().args(["run", "--store", "cache", "true"]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: invalid value 'cache' for '--store <DIR>'
  [possible values: "an absolute path of a directory", off]

For more information, try '--help'.

"#]]);
    sopin().args(["run", "--log=INFO", "true"]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: invalid value 'INFO' for '--log <LEVEL>'
  [possible values: off, error, warn, info, debug]

For more information, try '--help'.

"#]]);
    sopin().args(["run", "--mode", "", "true"]).assert().code(125).stdout_eq("");
}

#[test]
fn a_command_line_that_is_not_understood() {
    sopin().arg("run").assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <COMMAND>...

Usage: sopin run [OPTIONS] [--] COMMAND [ARGUMENT]...

For more information, try '--help'.

"#]]);
    sopin().args(["run", "--nonsense", "true"]).assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: unexpected argument '--nonsense' found

  tip: to pass '--nonsense' as a value, use '-- --nonsense'

Usage: sopin run [OPTIONS] [--] COMMAND [ARGUMENT]...

For more information, try '--help'.

"#]]);
    sopin().args(["nonsense"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: unrecognized subcommand 'nonsense'

Usage: sopin <COMMAND>

For more information, try '--help'.

"#]]);
    sopin().assert().code(2).stdout_eq("");
}
