//! Checks that links in the Markdown documents lead to files and headings that exist,
//! and that README stays short.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use common::{library, tree};

/// Returns every Markdown file of the checkout outside of `target` and similar
/// directories.
fn documents() -> Vec<PathBuf> {
    let enters = |directory: &Path| !["target", ".git", "node_modules"].iter().any(|name| directory.ends_with(name));
    let mut found = tree::files(library::checkout(), enters).unwrap();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|character| character.is_alphanumeric() || "-_ ".contains(*character));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let link = Regex::new(r"\]\(([^()\s]+)\)").expect("a pattern");
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(path.exists(), "{}: {target} does not exist", document.display());
            assert!(
                anchor.is_empty() || anchors(&path).contains(anchor),
                "{}: {target}: no such heading",
                document.display()
            );
        }
    }
    assert!(links > 20, "{links} links");
}

#[test]
fn readme_is_short() {
    let readme = fs::read_to_string(library::checkout().join("README.md")).unwrap();
    assert!(readme.lines().count() < 150, "{} lines: move details to docs/", readme.lines().count());
}
