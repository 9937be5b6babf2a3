//! libsopin(7): the variables from their table, the rest from README.md.

use roff::{Roff, bold, roman};
use sopin_core::settings::{VARIABLES, Variable};

use super::{Page, markdown, see_also, title};

pub const README: &str = include_str!("../../../../README.md");

pub fn page() -> Page {
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman("libsopin - makes a running program immune to its shared objects being rewritten on disk")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("sopin run"), roman(" [OPTIONS] [--] COMMAND [ARGUMENT]...")]);
    roff.control("PP", []);
    roff.text([bold("LD_PRELOAD="), roman("/usr/local/lib/libsopin.so COMMAND [ARGUMENT]...")]);
    roff.control("SH", ["DESCRIPTION"]);
    markdown::render(&mut roff, &markdown::introduction(README), true);
    roff.control("SH", ["ENVIRONMENT"]);
    for variable in &VARIABLES {
        describe(&mut roff, variable);
    }
    markdown::render(&mut roff, &markdown::section(README, "Settings"), false);
    roff.control("SH", ["FILES"]);
    markdown::render(&mut roff, &markdown::section(README, "The store"), true);
    roff.control("SH", ["SECURITY"]);
    markdown::render(&mut roff, &markdown::section_with_tables(README, "Who may change whose bytes"), true);
    roff.control("SH", ["CHILDREN"]);
    markdown::render(&mut roff, &markdown::section_with_tables(README, "Programs that it starts"), true);
    roff.control("SH", ["SECCOMP FILTERS"]);
    markdown::render(&mut roff, &markdown::section_with_tables(README, "Seccomp filters"), true);
    roff.control("SH", ["LIMITS"]);
    roff.text([roman("What the library cannot do:")]);
    markdown::render(&mut roff, &markdown::section(README, "What it cannot do"), false);
    see_also(&mut roff, &[("sopin", "1"), ("dlopen", "3"), ("proc", "5"), ("environ", "7"), ("ld.so", "8")]);
    Page { name: "libsopin.7".to_owned(), text: title("libsopin", "7") + &roff.to_roff() }
}

fn describe(roff: &mut Roff, variable: &Variable) {
    let Variable { name, accepted, default, meaning } = variable;
    roff.control("TP", []);
    roff.text([bold(name.to_str().expect("ASCII"))]);
    let default = if default.is_empty() { String::new() } else { format!(" The default is {default}.") };
    roff.text([roman(format!("{}. Accepted: {accepted}.{default}", capitalised(meaning)))]);
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
