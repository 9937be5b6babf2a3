//! Libraries and programs that are missing or wrong.

use std::env;
use std::fs;
use std::process::Command;

use crate::common::{Installation, clean_process, library};
use crate::{Answer, Case};

pub const CASES: &[Case] = &[
    Case { name: "no_library", needs: &["true"], test: no_library },
    Case { name: "another_version", needs: &["true"], test: another_version },
    Case { name: "what_is_no_library", needs: &["true"], test: what_is_no_library },
    Case { name: "a_library_that_the_loader_refuses", needs: &["cc", "true"], test: a_library_that_the_loader_refuses },
    Case { name: "a_preload_that_is_gone", needs: &["true"], test: a_preload_that_is_gone },
    Case { name: "a_program_that_talks", needs: &["cc"], test: a_program_that_talks },
    Case { name: "musl", needs: &["musl-gcc"], test: musl },
];

fn no_library() -> Result<(), String> {
    let installation = Installation::without_library();
    let answer = Answer::of(installation.sopin());
    assert_eq!((answer.verdict("library"), answer.verdict("trial")), ("no", "no"));
    assert!(answer.meaning("library").starts_with("libsopin.so: not found in "), "{}", answer.meaning("library"));
    assert_eq!(answer.verdict("libc"), "ok");
    Ok(())
}

fn another_version() -> Result<(), String> {
    let installation = Installation::without_library();
    let (mut bytes, own) = (fs::read(library()).unwrap(), env!("CARGO_PKG_VERSION").as_bytes());
    let magic = |window: &[u8]| window == b"sopinrec";
    let headers: Vec<_> = (0..bytes.len() - 64).filter(|at| magic(&bytes[*at..*at + 8])).collect();
    let header = headers.into_iter().find(|at| bytes[at + 48..].starts_with(own)).unwrap();
    bytes[header + 48] = b'9';
    installation.file("lib/libsopin.so", &bytes, 0o755);
    let answer = Answer::of(installation.sopin());
    assert_eq!(answer.verdict("library"), "limited");
    assert!(answer.fact("library", "version").as_str().unwrap().starts_with('9'));
    assert_eq!(answer.subject("library")["remedy"], "install both from one release");
    Ok(())
}

fn what_is_no_library() -> Result<(), String> {
    let installation = Installation::without_library();
    installation.file("lib/libsopin.so", b"#!/bin/sh\n", 0o755);
    let answer = Answer::of(installation.sopin());
    assert_eq!((answer.verdict("library"), answer.verdict("trial")), ("no", "no"));
    assert!(answer.meaning("library").ends_with("is not an ELF file that can be read"));
    // The loader prints why it goes on without the file.
    assert!(answer.meaning("trial").contains("has run without the library: "), "{}", answer.meaning("trial"));
    Ok(())
}

fn a_library_that_the_loader_refuses() -> Result<(), String> {
    let installation = Installation::without_library();
    let source = "extern int nowhere; int *needs = &nowhere;\n";
    installation.compile("lib/libsopin.so", source, "cc", &["-shared", "-fPIC", "-Wl,-z,now"]);
    let answer = Answer::of(installation.sopin());
    assert_eq!((answer.verdict("library"), answer.verdict("trial")), ("no", "no"));
    let meaning = answer.meaning("trial");
    assert!(meaning.contains("does not run with the library") && meaning.contains("nowhere"), "{meaning}");
    assert_ne!(answer.fact("trial", "status"), 0);
    Ok(())
}

fn a_preload_that_is_gone() -> Result<(), String> {
    let installation = Installation::new();
    // A command that is dynamic has the loader's complaint on stderr.
    let mut command = Command::new(installation.path("bin/sopin"));
    let command = clean_process(&mut command).args(["doctor", "--json"]).env("LD_PRELOAD", "/gone/libsopin.so");
    let answer = Answer(serde_json::from_slice(&command.output().unwrap().stdout).unwrap());
    assert_eq!(answer.verdict("preload"), "no");
    assert_eq!(answer.fact("preload", "missing")[0], "LD_PRELOAD names /gone/libsopin.so");
    // The others are judged without it.
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    Ok(())
}

/// The first `true` in PATH prints more than a pipe holds, and leaves a process that holds its output.
fn a_program_that_talks() -> Result<(), String> {
    let installation = Installation::new();
    let source = "#include <stdio.h>\n#include <unistd.h>\n\
        int main(void) {\n\
        \x20   if (!fork()) sleep(30);\n\
        \x20   else for (int line = 0; line < 100000; line++) fprintf(stderr, \"line %d\\n\", line);\n\
        \x20   return 0;\n\
        }\n";
    installation.compile("talks/true", source, "cc", &[]);
    let path = format!("{}:{}", installation.path("talks").display(), env::var("PATH").unwrap());
    let answer = Answer::of(installation.sopin().env("PATH", path));
    assert_eq!(answer.verdict("trial"), "ok", "{}", answer.meaning("trial"));
    assert!(answer.fact("trial", "milliseconds").as_f64().unwrap() < 20_000.0);
    assert!(answer.fact("trial", "messages").as_array().unwrap().len() <= 32);
    Ok(())
}

/// The first `true` in PATH is that of a musl system.
fn musl() -> Result<(), String> {
    let installation = Installation::new();
    installation.compile("musl/true", "int main(void) { return 0; }\n", "musl-gcc", &[]);
    let path = format!("{}:{}", installation.path("musl").display(), env::var("PATH").unwrap());
    let answer = Answer::of(installation.sopin().env("PATH", path));
    assert_eq!((answer.verdict("libc"), answer.fact("libc", "name")), ("ok", &"musl".into()));
    assert!(answer.fact("libc", "version").as_str().unwrap().starts_with("1."));
    assert!(answer.fact("libc", "loader").as_str().unwrap().contains("/ld-musl-"));
    assert_eq!(answer.fact("trial", "program"), installation.path("musl/true").to_str().unwrap());
    assert_ne!(answer.verdict("trial"), "limited", "{}", answer.meaning("trial"));
    Ok(())
}
