//! As much Markdown as README.md has, in roff: paragraphs, lists, code; and
//! tables where they are asked for, a tagged paragraph for each row.

use roff::{Inline, Roff, bold, italic, roman};

/// A piece of text.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    Paragraph(String),
    Item(String),
    Code(Vec<String>),
    /// The cells of a table's row, each with the heading of its column.
    Row(Vec<(String, String)>),
}

/// What is between the title and the first heading.
pub fn introduction(text: &str) -> Vec<Block> {
    let end = text.find("\n## ").unwrap_or(text.len());
    let start = text.find('\n').unwrap_or(0);
    blocks(&text[start..end])
}

/// What is below a heading, without tables.
///
/// # Panics
/// When there is no such heading: the page is to have it.
pub fn section(text: &str, heading: &str) -> Vec<Block> {
    let mut blocks = section_with_tables(text, heading);
    blocks.retain(|block| !matches!(block, Block::Row(_)));
    blocks
}

/// What is below a heading.
///
/// # Panics
/// As [`section`].
pub fn section_with_tables(text: &str, heading: &str) -> Vec<Block> {
    let marker = format!("\n## {heading}\n");
    let start = text.find(&marker).unwrap_or_else(|| panic!("README.md has no section {heading:?}")) + marker.len();
    let end = text[start..].find("\n## ").map_or(text.len(), |length| start + length);
    blocks(&text[start..end])
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    // Whether the next line of text goes on with the last block.
    let mut is_open = false;
    let mut headings = Vec::new();
    for line in text.lines() {
        if let Some(cells) = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|')) {
            let cells: Vec<_> = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            if headings.is_empty() {
                headings = cells;
            } else if !cells.iter().all(|cell| cell.chars().all(|character| ":-".contains(character))) {
                blocks.push(Block::Row(headings.iter().cloned().zip(cells).collect()));
            }
            is_open = false;
            continue;
        }
        headings.clear();
        if line.trim().is_empty() {
            is_open = false;
        } else if let Some(item) = line.strip_prefix("- ") {
            blocks.push(Block::Item(item.to_owned()));
            is_open = true;
        } else if let Some(code) = line.strip_prefix("    ").filter(|_| !is_open) {
            match blocks.last_mut() {
                Some(Block::Code(lines)) => lines.push(code.to_owned()),
                _ => blocks.push(Block::Code(vec![code.to_owned()])),
            }
        } else if let (true, Some(Block::Paragraph(text) | Block::Item(text))) = (is_open, blocks.last_mut()) {
            text.push(' ');
            text.push_str(line.trim());
        } else {
            blocks.push(Block::Paragraph(line.to_owned()));
            is_open = true;
        }
    }
    blocks
}

/// Writes blocks; `is_first` if they are right behind a heading, which begins a
/// paragraph itself.
pub fn render(roff: &mut Roff, blocks: &[Block], is_first: bool) {
    for (index, block) in blocks.iter().enumerate() {
        match block {
            Block::Paragraph(text) if is_first && index == 0 => roff.text(inlines(text)),
            Block::Paragraph(text) => roff.control("PP", []).text(inlines(text)),
            Block::Item(text) => roff.control("IP", ["\\(bu", "2"]).text(inlines(text)),
            Block::Code(lines) => {
                roff.control("PP", []).control("nf", []);
                for line in lines {
                    roff.text([bold(line)]);
                }
                roff.control("fi", [])
            }
            Block::Row(cells) => {
                let mut cells = cells.iter();
                let tag = cells.next().map(|(_, cell)| cell.as_str()).unwrap_or_default();
                roff.control("TP", []).text(inlines(tag));
                for (heading, cell) in cells {
                    let end = if heading.ends_with('?') { "" } else { ":" };
                    roff.text(inlines(&format!("*{heading}*{end} {cell}.")));
                }
                &mut *roff
            }
        };
    }
}

/// `code`, *emphasis*, **strong** and [links](to), which lose their target.
fn inlines(text: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (plain, marked) = rest.split_at(at);
        let found = if let Some(inside) = between(marked, "**", "**") {
            Some((bold(inside), inside.len() + 4))
        } else if let Some(inside) = between(marked, "*", "*") {
            Some((italic(inside), inside.len() + 2))
        } else if let Some(inside) = between(marked, "`", "`") {
            Some((bold(inside), inside.len() + 2))
        } else if let Some(link) = between(marked, "[", ")") {
            link.split_once("](").map(|(shown, _)| (roman(shown), link.len() + 2))
        } else {
            None
        };
        let (inline, length) = found.unwrap_or_else(|| (roman(&marked[..1]), 1));
        inlines.extend([roman(plain), inline]);
        rest = &marked[length..];
    }
    inlines.push(roman(rest));
    inlines
}

fn between<'a>(text: &'a str, opening: &str, closing: &str) -> Option<&'a str> {
    let inside = text.strip_prefix(opening)?;
    inside.find(closing).filter(|length| *length > 0).map(|length| &inside[..length])
}

#[test]
fn blocks_are_told_apart() {
    let text =
        "one\ntwo\n\n- item\n  goes on\n- next\n\n    code\n      more\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\nlast\n";
    let paragraph = |text: &str| Block::Paragraph(text.to_owned());
    let item = |text: &str| Block::Item(text.to_owned());
    let code = Block::Code(vec!["code".to_owned(), "  more".to_owned()]);
    let row = Block::Row(vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    assert_eq!(blocks(text), [paragraph("one two"), item("item goes on"), item("next"), code, row, paragraph("last")]);
}

#[test]
fn marks_become_fonts() {
    let mut roff = Roff::new();
    roff.text(inlines("a `b*c` *d* **e** [f](g) 2 * 3 [h]"));
    assert_eq!(roff.to_roff(), "a \\fBb*c\\fR \\fId\\fR \\fBe\\fR f 2 * 3 [h]\n");
}
