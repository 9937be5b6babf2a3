//! The manual pages in `man/`. `clap_mangen` makes sopin(1) and a page for each
//! subcommand of `--help`; `make man` writes them anew. libsopin(7) is written by
//! hand, and compared here with the tables that it repeats.

use std::fs;
use std::path::{Path, PathBuf};

use clap_mangen::Man;
use roff::{Roff, bold, roman};
use snapbox::data::DataFormat;
use snapbox::{Assert, Data};
use sopin_core::settings::{VARIABLES, Variable};

use crate::args;

const LIMITS: &str = include_str!("../../../docs/limits.md");

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man")
}

/// Returns the pages of the command by file name, each command before its subcommands.
fn pages() -> Vec<(String, String)> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

fn add(command: &clap::Command, pages: &mut Vec<(String, String)>) {
    pages.push(page(command));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        add(subcommand, pages);
    }
}

/// Returns the first line of a page. It bears the version instead of a date, and
/// `clap_mangen` writes no argument for a date that is empty.
fn title(name: &str, section: &str) -> String {
    format!(".TH {name} {section} \"\" \"sopin {}\" sopin", env!("CARGO_PKG_VERSION"))
}

fn page(command: &clap::Command) -> (String, String) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone().mut_args(with_values_in_words));
    let mut text = title(&name, "1").into_bytes();
    text.push(b'\n');
    let mut render = |section: fn(&Man, &mut dyn std::io::Write) -> std::io::Result<()>| {
        section(&man, &mut text).expect("writing to memory");
    };
    render(Man::render_name_section);
    render(Man::render_synopsis_section);
    render(Man::render_description_section);
    render(Man::render_options_section);
    if command.get_subcommands().any(|subcommand| !subcommand.is_hide_set()) {
        render(Man::render_subcommands_section);
    }
    let mut roff = Roff::new();
    if let Some(more) = command.get_after_long_help() {
        sections(&mut roff, &more.to_string());
    }
    see_also(&mut roff, &name);
    roff.to_writer(&mut text).expect("writing to memory");
    (man.get_filename(), String::from_utf8(text).expect("UTF-8"))
}

/// Puts the possible values into the description. `clap_mangen` makes a list of them
/// with spacing that mandoc warns about.
fn with_values_in_words(argument: clap::Arg) -> clap::Arg {
    let values: Vec<_> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if values.is_empty() || !argument.get_action().takes_values() {
        return argument;
    }
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    argument.hide_possible_values(true).long_help(format!("{help}: {}", values.join(", ")))
}

/// Makes sections of what follows the options in `--help`, where `clap_mangen` has one
/// section EXTRA for all of it. `Heading:` begins a section of `key  meaning`, which
/// goes on in lines that are indented deeper, of sentences, and of examples. Sentences
/// at the margin are notes.
fn sections(roff: &mut Roff, text: &str) {
    let mut begins_paragraph = false;
    let mut has_heading = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indented = line.strip_prefix("  ");
        if indented.is_none() {
            let heading = line.strip_suffix(':');
            if heading.is_some() || !has_heading {
                // A quote would end the macro's argument.
                roff.control("SH", [heading.unwrap_or("Notes").to_uppercase().replace('"', "\\(dq").as_str()]);
                (begins_paragraph, has_heading) = (false, true);
            }
            if heading.is_some() {
                continue;
            }
        }
        let content = indented.unwrap_or(line);
        let is_example = content.starts_with("sopin ");
        match content.split_once("  ") {
            Some(("", continued)) => _ = roff.text([roman(continued.trim())]),
            Some((key, meaning)) => _ = roff.control("TP", []).text([bold(key)]).text([roman(meaning.trim())]),
            None => {
                if begins_paragraph {
                    roff.control("PP", []);
                }
                roff.text([if is_example { bold(content) } else { roman(content) }]);
            }
        }
        begins_paragraph = is_example || content.contains("  ");
    }
}

/// Names the commands above this one, and the pages of the library and its loader.
fn see_also(roff: &mut Roff, name: &str) {
    let mut all = args::command();
    all.build();
    let parents = name.match_indices('-').map(|(end, _)| &name[..end]);
    let mut parents: Vec<_> = parents.filter(|parent| is_command(&all, parent)).map(|parent| (parent, "1")).collect();
    parents.extend([("libsopin", "7"), ("env", "1"), ("ld.so", "8")]);
    roff.control("SH", ["SEE ALSO"]);
    let last = parents.len() - 1;
    let references = parents.iter().enumerate().flat_map(|(index, (name, section))| {
        [bold(*name), roman(format!("({section}){}", if index < last { ", " } else { "" }))]
    });
    roff.text(references.collect::<Vec<_>>());
}

/// Returns whether a command has this name. `sopin-copy` is none, though that of one begins so.
fn is_command(command: &clap::Command, name: &str) -> bool {
    command.get_display_name().unwrap_or_else(|| command.get_name()) == name
        || command.get_subcommands().any(|subcommand| is_command(subcommand, name))
}

#[test]
fn the_pages_are_up_to_date() {
    let assert = Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV);
    let pages = pages();
    for (name, text) in &pages {
        let path = directory().join(name);
        // The text is compared literally, because a page may contain brackets and dots, which
        // snapbox would take for patterns.
        assert.eq(Data::text(text).raw(), Data::read_from(&path, Some(DataFormat::Text)).raw());
    }
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_made = pages.iter().any(|(made, _)| *made == name);
        assert!(is_made || name == "libsopin.7", "man/{name} belongs to no subcommand any more");
    }
}

#[test]
fn every_subcommand_lists_its_exit_statuses() {
    let pages = pages();
    assert!(pages.len() > 3);
    for (name, text) in pages {
        assert!(text.contains("\n.SH \"EXIT STATUS\"\n"), "{name}: no `Exit status:` in after_long_help");
    }
}

#[test]
fn the_end_of_help_becomes_sections() {
    let mut roff = Roff::new();
    let help = "A note\nof two lines.\n\nThe \"exit\" status:\n  0  good, as far\n     as we know\n  One thing\n  more.\n\n\
                Examples:\n  sopin a\n  sopin b\n";
    sections(&mut roff, help);
    let lines = [
        ".SH NOTES",
        "A note",
        "of two lines.",
        ".SH \"THE \\(dqEXIT\\(dq STATUS\"",
        ".TP",
        "\\fB0\\fR",
        "good, as far",
        "as we know",
        ".PP",
        "One thing",
        "more.",
        ".SH EXAMPLES",
        "\\fBsopin a\\fR",
        ".PP",
        "\\fBsopin b\\fR",
    ];
    assert_eq!(roff.to_roff().lines().collect::<Vec<_>>(), lines);
}

/// Returns a section of libsopin(7), without what follows the next `.SH`.
fn section(heading: &str) -> String {
    let page = fs::read_to_string(directory().join("libsopin.7")).unwrap();
    let after = page.split_once(&format!("\n.SH {heading}\n")).unwrap_or_else(|| panic!("no section {heading}")).1;
    after.split("\n.SH ").next().unwrap().to_owned()
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[test]
fn libsopin_7_describes_every_variable_as_the_table_does() {
    let environment = section("ENVIRONMENT");
    for Variable { name, accepted, default, meaning } in &VARIABLES {
        let default = if default.is_empty() { String::new() } else { format!("The default is {default}.\n") };
        let text = format!("{}.\nAccepted: {accepted}.\n{default}", capitalised(meaning)).replace('-', "\\-");
        let entry = format!(".TP\n\\fB{}\\fR\n{text}", name.to_str().unwrap());
        assert!(environment.contains(&entry), "man/libsopin.7 needs this entry:\n{entry}");
    }
    let entries = environment.matches(".TP\n\\fBSOPIN_").count();
    assert_eq!(entries, VARIABLES.len(), "man/libsopin.7 describes variables that do not exist");
}

#[test]
fn libsopin_7_has_the_limits_of_their_document() {
    let documented: Vec<_> =
        LIMITS.lines().filter_map(|line| line.strip_prefix("## ")).map(|heading| heading.replace('`', "")).collect();
    let limits = section("LIMITS");
    let headings = limits.lines().filter_map(|line| line.strip_prefix(".SS \"")?.strip_suffix('"'));
    assert!(documented.len() > 5);
    assert_eq!(headings.map(|heading| heading.replace("\\-", "-")).collect::<Vec<_>>(), documented);
}

#[test]
fn libsopin_7_bears_the_version() {
    let page = fs::read_to_string(directory().join("libsopin.7")).unwrap();
    let title = title("libsopin", "7");
    assert!(page.lines().any(|line| line == title), "{title}");
}
