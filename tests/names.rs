//! Checks that a name has one meaning: no two modules of the workspace export one type
//! name for two things.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use common::{library, tree};

/// Returns the source files whose types count. Files of tests do not, because they see
/// their own crate only.
fn sources() -> Vec<PathBuf> {
    let is_of_tests = |path: &Path| path.file_stem().is_some_and(|stem| stem == "tests");
    let mut directories = vec![library::checkout().join("src")];
    for member in fs::read_dir(library::checkout().join("crates")).unwrap() {
        directories.push(member.unwrap().path().join("src"));
    }
    let mut found: Vec<_> = directories
        .iter()
        .flat_map(|directory| tree::files(directory, |directory| !is_of_tests(directory)).unwrap())
        .collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs") && !is_of_tests(path));
    found
}

/// Returns the module that a file holds. The alternatives for architectures, of which one is compiled
/// (`branch_protection/aarch64.rs` and `other.rs`, `entry_x86_64.rs`), are one module.
fn module(path: &Path) -> String {
    let path = path.strip_prefix(library::checkout()).unwrap().to_str().unwrap();
    Regex::new(r"(^|[/_])(aarch64|x86_64|other)\.rs$").unwrap().replace(path, "$1ARCHITECTURE.rs").into_owned()
}

/// Returns the names of the types that the text of a module exports, to its crate or to all.
fn exported_types(text: &str) -> BTreeSet<String> {
    let definition =
        r"(?m)^\s*pub(?:\([^)]*\))?\s+(?:unsafe\s+)?(?:struct|enum|union|trait|type)\s+([A-Za-z_][A-Za-z_0-9]*)";
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    Regex::new(definition).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Returns the names that several modules export, with these modules.
fn shared_names(modules: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for (module, text) in modules {
        for name in exported_types(&text) {
            found.entry(name).or_default().insert(module.clone());
        }
    }
    found.retain(|_, modules| modules.len() > 1);
    found
}

#[test]
fn no_two_modules_export_one_type_name() {
    let modules = sources().into_iter().map(|path| (module(&path), fs::read_to_string(&path).unwrap()));
    let shared = shared_names(modules);
    assert!(shared.is_empty(), "names with two meanings: {shared:#?}");
}

#[test]
fn definitions_of_all_kinds_are_found() {
    let text = "pub struct A;\npub(crate) enum B {}\n    pub(super) unsafe trait C {}\npub type D<'a> = &'a A;\n\
                pub(in crate::x) union E {}\nstruct Private;\npub use other::F;\n/// pub struct G\n\
                #[cfg(test)]\nmod tests {\n    pub struct H;\n}\n";
    assert_eq!(exported_types(text).into_iter().collect::<Vec<_>>(), ["A", "B", "C", "D", "E"]);
}

#[test]
fn a_name_of_two_modules_is_found() {
    let modules = [("one", "pub struct Entry;"), ("two", "pub(crate) enum Entry {}"), ("three", "struct Entry;")];
    let shared = shared_names(modules.map(|(module, text)| (module.to_owned(), text.to_owned())));
    assert_eq!(shared["Entry"].iter().collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn alternatives_by_architecture_are_one_module() {
    let module = |path: &str| module(&library::checkout().join(path));
    assert_eq!(module("src/a/aarch64.rs"), module("src/a/other.rs"));
    assert_eq!(module("src/hooks/entry_aarch64.rs"), module("src/hooks/entry_x86_64.rs"));
    assert_ne!(module("src/a/another.rs"), module("src/a/aarch64.rs"));
    assert_ne!(module("src/a/aarch64.rs"), module("src/b/aarch64.rs"));
}
