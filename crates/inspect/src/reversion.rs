//! The rule by which a relocated word counts as reverted, for live processes and for core dumps.
//! This module is pure.
//!
//! | relocation | on a page that is the file's | on a private copy, or where that is not known |
//! |---|---|---|
//! | RELATIVE, RELR | damaged | damaged if the word is an address without the base |
//! | JUMP_SLOT | damaged | the same: a lazy one holds base + address |
//! | symbols, IRELATIVE | damaged | unknown |
//! | weak symbols without definition, thread-local offsets, COPY | not examined | |
//!
//! A word that the program itself has changed is not damage.

use object::elf::{DT_DEBUG, DT_PLTGOT};

use crate::image::DynamicEntries;
use crate::relocated_words::RelocatedValue;

/// Returns whether a word is certainly right, as most are, so that its page need not be
/// examined.
pub const fn is_plausible(kind: RelocatedValue, value: u64, base: u64) -> bool {
    match kind {
        RelocatedValue::Relative(addend) => value == base.wrapping_add(addend) || base == 0,
        // An address of this object, or of another one at any address.
        RelocatedValue::Compact
        | RelocatedValue::Symbol
        | RelocatedValue::Global
        | RelocatedValue::Jump
        | RelocatedValue::Indirect => value >= 1 << 32 || (base == 0 && value != 0),
    }
}

/// Returns the value that the loader has given to a word, if it follows from the file and the
/// load bias; `raw` is the word in the file.
pub const fn relocated_value(kind: RelocatedValue, raw: Option<u64>, base: u64) -> Option<u64> {
    match (kind, raw) {
        (RelocatedValue::Relative(addend), _) => Some(base.wrapping_add(addend)),
        (RelocatedValue::Compact, Some(raw)) => Some(base.wrapping_add(raw)),
        _ => None,
    }
}

/// Returns whether a word has reverted: `value` in memory, `raw` in the file, each `None`
/// if it cannot be read; `of_file` whether its page is the file's.
pub fn is_damaged(
    kind: RelocatedValue,
    value: Option<u64>,
    raw: Option<u64>,
    of_file: Option<bool>,
    base: u64,
) -> bool {
    let has_reverted = match (value, raw) {
        (Some(value), Some(raw)) => value == raw,
        _ => of_file == Some(true),
    };
    let is_bare_address = || match kind {
        RelocatedValue::Relative(addend) => base != 0 && value.is_some_and(|value| value != 0 && value == addend),
        RelocatedValue::Compact | RelocatedValue::Jump => base != 0 && value.is_some_and(|value| value != 0),
        RelocatedValue::Symbol | RelocatedValue::Global | RelocatedValue::Indirect => false,
    };
    has_reverted && (of_file == Some(true) || is_bare_address())
}

/// Returns whether the entries are those of the file but for what a loader changes: bases
/// added in place, and DT_DEBUG.
pub fn is_same_dynamic(in_memory: &DynamicEntries, in_file: &DynamicEntries, base: u64) -> bool {
    let is_same = |((tag, value), (file_tag, file_value)): (&(u64, u64), &(u64, u64))| {
        let is_moved = *tag >= u64::from(DT_PLTGOT) && *value == base.wrapping_add(*file_value);
        tag == file_tag && (value == file_value || is_moved || *tag == u64::from(DT_DEBUG))
    };
    in_memory.0.len() == in_file.0.len() && in_memory.0.iter().zip(&in_file.0).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x7f00_0000_0000;

    #[test]
    fn a_word_of_the_file_on_a_page_of_the_file_is_damaged() {
        for kind in [
            RelocatedValue::Relative(0xad0),
            RelocatedValue::Compact,
            RelocatedValue::Symbol,
            RelocatedValue::Jump,
            RelocatedValue::Indirect,
        ] {
            for raw in [0, 0xad0] {
                assert!(is_damaged(kind, Some(raw), Some(raw), Some(true), BASE), "{kind:?}");
            }
            assert!(!is_damaged(kind, Some(BASE), Some(0xad0), Some(false), BASE), "{kind:?}");
            assert!(is_damaged(kind, None, None, Some(true), BASE), "{kind:?}: memory cannot be read");
            assert!(!is_damaged(kind, None, None, None, BASE), "{kind:?}: nothing is known");
        }
    }

    #[test]
    fn a_word_of_the_file_on_a_private_page_may_be_the_programs() {
        let private = |kind, value| is_damaged(kind, Some(value), Some(value), Some(false), BASE);
        assert!(private(RelocatedValue::Relative(0xad0), 0xad0));
        assert!(private(RelocatedValue::Jump, 0x1036) && private(RelocatedValue::Compact, 0xad0));
        assert!(!private(RelocatedValue::Relative(0xad0), 0), "a pointer that the program has cleared");
        assert!(!private(RelocatedValue::Relative(0xad0), 0xad1));
        assert!(
            !private(RelocatedValue::Symbol, 0xad0)
                && !private(RelocatedValue::Jump, 0)
                && !private(RelocatedValue::Indirect, 8)
        );
        assert!(
            !is_damaged(RelocatedValue::Jump, Some(0x40_1036), Some(0x40_1036), Some(false), 0),
            "lazy, at a fixed address"
        );
    }

    #[test]
    fn right_words_need_no_second_look() {
        assert!(
            is_plausible(RelocatedValue::Relative(8), BASE + 8, BASE)
                && !is_plausible(RelocatedValue::Relative(8), 8, BASE)
        );
        assert!(is_plausible(RelocatedValue::Symbol, BASE, BASE) && !is_plausible(RelocatedValue::Symbol, 0, BASE));
        assert!(is_plausible(RelocatedValue::Jump, 0x40_1036, 0) && !is_plausible(RelocatedValue::Jump, 0x1036, BASE));
    }

    #[test]
    fn dynamic_sections_are_compared_but_for_the_loaders_doing() {
        let file = DynamicEntries(vec![(1, 7), (5, 0x300), (21, 0)]);
        assert!(is_same_dynamic(&file, &file, BASE));
        assert!(is_same_dynamic(&DynamicEntries(vec![(1, 7), (5, BASE + 0x300), (21, 99)]), &file, BASE));
        assert!(!is_same_dynamic(&DynamicEntries(vec![(1, 7), (5, 0x400), (21, 0)]), &file, BASE));
        assert!(!is_same_dynamic(&DynamicEntries(vec![(1, 7)]), &file, BASE));
    }
}
