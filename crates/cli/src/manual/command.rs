//! sopin(1) and a page for each subcommand, from what clap knows. What follows
//! the options in `--help` has headings of the form `Exit status:`, which become
//! sections here.

use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::{Page, see_also, title};
use crate::args;

/// All pages, each command before its subcommands.
pub fn pages() -> Vec<Page> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

fn add(command: &clap::Command, pages: &mut Vec<Page>) {
    pages.push(page(command));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        add(subcommand, pages);
    }
}

fn page(command: &clap::Command) -> Page {
    let name = name(command);
    let man = Man::new(command.clone().mut_args(with_values_in_words)).section("1");
    let mut text = title(&name, "1").into_bytes();
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
    let mut other_pages = vec![("libsopin", "7"), ("env", "1"), ("ld.so", "8")];
    let mut above = name.as_str();
    while let Some((parent, _)) = above.rsplit_once('-') {
        other_pages.insert(0, (parent, "1"));
        above = parent;
    }
    see_also(&mut roff, &other_pages);
    roff.to_writer(&mut text).expect("writing to memory");
    Page { name: format!("{name}.1"), text: String::from_utf8(text).expect("text in, text out") }
}

fn name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// As a sentence of the description. The list that `clap_mangen` makes of them is
/// half a page long and has spacing that mandoc complains about.
fn with_values_in_words(argument: clap::Arg) -> clap::Arg {
    let values: Vec<_> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if values.is_empty() || !argument.get_action().takes_values() {
        return argument;
    }
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    argument.hide_possible_values(true).long_help(format!("{help}: {}", values.join(", ")))
}

/// What the last line was, which decides whether the next one begins a paragraph.
#[derive(PartialEq)]
enum Last {
    Heading,
    Sentence,
    Other,
}

/// `Heading:`, then lines that are indented by two spaces: `key  meaning`, which
/// may go on in lines that are indented deeper, sentences, and examples. Sentences
/// at the margin are notes.
fn sections(roff: &mut Roff, text: &str) {
    let mut last = Last::Other;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(heading) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            // A quote would end the macro's argument.
            roff.control("SH", [heading.to_uppercase().replace('"', "\\(dq").as_str()]);
            last = Last::Heading;
            continue;
        }
        let indented = line.strip_prefix("  ");
        if indented.is_none() && last == Last::Other {
            roff.control("SH", ["NOTES"]);
            last = Last::Heading;
        }
        let indented = indented.unwrap_or(line);
        let is_example = indented.starts_with("sopin ");
        match indented.split_once("  ") {
            Some(("", continued)) => _ = roff.text([roman(continued.trim())]),
            Some((key, meaning)) => _ = roff.control("TP", []).text([bold(key)]).text([roman(meaning.trim())]),
            None => {
                if last == Last::Other || is_example && last == Last::Sentence {
                    roff.control("PP", []);
                }
                roff.text([if is_example { bold(indented) } else { roman(indented) }]);
            }
        }
        last = if indented.contains("  ") || is_example { Last::Other } else { Last::Sentence };
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

#[test]
fn every_subcommand_tells_its_exit_statuses() {
    let pages = pages();
    assert!(pages.len() > 3);
    for Page { name, text } in pages {
        assert!(text.contains("\n.SH \"EXIT STATUS\"\n"), "{name}: no `Exit status:` in after_long_help");
    }
}
