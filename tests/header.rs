//! Checks that `include/sopin.h` is what cbindgen makes of `src/api.rs`, and that it
//! agrees with the library: its functions are exported, its numbers are those of the
//! records. After a change of `src/api.rs`, `make header` writes it again.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cbindgen::{Builder, Config};
use regex::Regex;

use common::library;

fn header_path() -> PathBuf {
    library::checkout().join("include/sopin.h")
}

fn generated() -> String {
    let root = library::checkout();
    let config = Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = Builder::new()
        .with_config(config)
        .with_src(root.join("src/api/types.rs"))
        .with_src(root.join("src/api.rs"))
        .generate();
    let mut text = Vec::new();
    bindings.expect("src/api.rs").write(&mut text);
    text.push(b'\n');
    String::from_utf8(text).expect("text")
}

#[test]
fn the_header_is_that_of_the_source() {
    let generated = generated();
    if std::env::var_os("SOPIN_WRITE_HEADER").is_some() {
        fs::write(header_path(), &generated).expect("include/sopin.h");
    }
    let checked_in = fs::read_to_string(header_path()).unwrap_or_default();
    let differs = generated.lines().zip(checked_in.lines()).find(|(ours, theirs)| ours != theirs);
    assert!(
        generated == checked_in,
        "include/sopin.h is out of date: run `make header`; first difference: {differs:?}"
    );
}

#[test]
fn the_header_declares_exactly_the_exported_functions() {
    let list = fs::read_to_string(library::checkout().join("tests/exported-symbols.txt")).expect("the list");
    // Two underscores begin the names of functions that start-up code for musl calls.
    let is_declared = |name: &&str| name.starts_with("sopin_") && !name.starts_with("sopin__");
    let exported: BTreeSet<&str> =
        list.lines().filter_map(|line| line.strip_prefix("T ")).filter(is_declared).collect();
    let header = generated();
    let declaration = Regex::new(r"(?m)^[a-z].*\b(sopin_\w+)\(.*\);$").expect("a pattern");
    let declared: BTreeSet<&str> =
        declaration.captures_iter(&header).filter_map(|found| found.get(1)).map(|name| name.as_str()).collect();
    assert_eq!(declared, exported);
}

#[test]
fn the_header_has_the_numbers_of_the_records() {
    let header = generated();
    let number = |name: &str| {
        let definition = Regex::new(&format!(r"(?m)^    {name} = (-?\d+),$")).expect("a pattern");
        let found = definition.captures(&header).unwrap_or_else(|| panic!("no {name}"));
        found[1].parse::<i32>().expect("a number")
    };
    for reached in sopin_core::records::Reached::ALL {
        let name = format!("SOPIN_{}", reached.word().to_uppercase().replace(' ', "_"));
        assert_eq!(number(&name), i32::from(reached.code()), "{name}");
    }
    for name in ["FULL", "RELOCATED", "OFF"] {
        let mode =
            u32::try_from(number(&format!("SOPIN_MODE_{name}"))).ok().and_then(sopin_core::records::mode_of_code);
        assert_eq!(mode.map(|mode| format!("{mode:?}").to_uppercase()), Some(name.to_owned()));
    }
}
