//! The manual pages in `man/`, written from what the command and the library
//! know about themselves: `--help`, the table of variables, and README.md, which
//! is where the limits and the store are described once. Only the tests know this
//! module; `make man` has them write the pages anew.
//!
//! | module | responsible for |
//! |---|---|
//! | [`command`] | sopin(1) and a page for each subcommand |
//! | [`library`] | libsopin(7) |
//! | [`markdown`] | as much Markdown as README.md has, in roff |

use std::fs;
use std::path::{Path, PathBuf};

use roff::{Roff, bold, roman};
use snapbox::data::DataFormat;
use snapbox::{Assert, Data};

mod command;
mod library;
mod markdown;

/// A page by its file name.
struct Page {
    name: String,
    text: String,
}

fn pages() -> Vec<Page> {
    let mut pages = command::pages();
    pages.push(library::page());
    pages
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man")
}

/// The beginning of a page. It bears the version instead of a date.
fn title(name: &str, section: &str) -> String {
    format!(".TH {name} {section} \"\" \"sopin {}\" sopin\n", env!("CARGO_PKG_VERSION"))
}

/// The section that tells where to read on.
fn see_also(roff: &mut Roff, pages: &[(&str, &str)]) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (index, (name, section)) in pages.iter().enumerate() {
        let separator = if index + 1 < pages.len() { ", " } else { "" };
        line.extend([bold(*name), roman(format!("({section}){separator}"))]);
    }
    roff.text(line);
}

#[test]
fn the_pages_are_up_to_date() {
    let assert = Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV);
    for Page { name, text } in pages() {
        let path = directory().join(&name);
        // Compared as it is: a page has brackets and dots of its own.
        assert.eq(Data::text(text).raw(), Data::read_from(&path, Some(DataFormat::Text)).raw());
    }
    let written: Vec<_> = pages().into_iter().map(|page| page.name).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(written.contains(&name), "man/{name} belongs to no subcommand any more");
    }
}

#[test]
fn every_variable_and_every_limit_is_there() {
    let text = library::page().text;
    for variable in &sopin_core::settings::VARIABLES {
        assert!(text.contains(&format!("\\fB{}\\fR", variable.name.to_str().unwrap())), "{:?}", variable.name);
    }
    let limits = markdown::section(library::README, "What it cannot do");
    let items = limits.iter().filter(|block| matches!(block, markdown::Block::Item(_))).count();
    let page_limits = text.split(".SH LIMITS").nth(1).unwrap();
    assert!(items > 5 && page_limits.matches(".IP").count() == items, "{items} limits");
}
