//! The value of `LD_PRELOAD`: paths or names, separated by spaces or colons
//! (`ld.so(8)`).

use crate::object::file_name;
use crate::slices;

/// What [`remove`] has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// Everything: no entry had that name.
    Unchanged,
    /// The first so many bytes are the new list.
    Bytes(usize),
    /// Nothing: there was no other entry.
    Nothing,
}

/// Removes the entries whose file name is `name`, in place. It compares file names because an
/// entry may be written with `$LIB` or be found in a search path.
pub fn remove(list: &mut [u8], name: &[u8]) -> Remainder {
    if !list.split(|byte| is_separator(*byte)).any(|entry| file_name(entry) == name) {
        return Remainder::Unchanged;
    }
    let (mut read, mut kept) = (0, 0);
    while read < list.len() {
        let rest = list.get(read..).unwrap_or_default();
        let len = rest.iter().position(|byte| is_separator(*byte)).unwrap_or(rest.len());
        if len != 0 && file_name(rest.get(..len).unwrap_or_default()) != name {
            if kept != 0 {
                if let Some(separator) = list.get_mut(kept) {
                    *separator = b':';
                }
                kept += 1;
            }
            slices::move_down(list, read..read + len, kept);
            kept += len;
        }
        read += len + 1;
    }
    if kept == 0 { Remainder::Nothing } else { Remainder::Bytes(kept) }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn removed(list: &str) -> Option<String> {
        let mut bytes = list.as_bytes().to_vec();
        match remove(&mut bytes, b"libsopin.so") {
            Remainder::Unchanged => {
                assert_eq!(bytes, list.as_bytes());
                None
            }
            Remainder::Bytes(len) => Some(String::from_utf8(bytes[..len].to_vec()).unwrap()),
            Remainder::Nothing => Some(String::new()),
        }
    }

    #[test]
    fn other_entries_stay_in_order() {
        assert_eq!(removed("/a/liba.so:/x/libsopin.so:/b/libb.so").as_deref(), Some("/a/liba.so:/b/libb.so"));
        assert_eq!(removed("/x/libsopin.so /a/liba.so").as_deref(), Some("/a/liba.so"));
        assert_eq!(removed("liba.so libsopin.so").as_deref(), Some("liba.so"));
        assert_eq!(removed("a b libsopin.so:c").as_deref(), Some("a:b:c"));
        assert_eq!(removed("a::b: libsopin.so :c").as_deref(), Some("a:b:c"));
    }

    #[test]
    fn the_only_entry_leaves_nothing() {
        assert_eq!(removed("/usr/$LIB/libsopin.so").as_deref(), Some(""));
        assert_eq!(removed(":libsopin.so: /y/libsopin.so").as_deref(), Some(""));
    }

    #[test]
    fn a_list_without_the_library_is_unchanged() {
        for list in ["", "a::b", "/x/libsopin.so.1 /libsopin.so/a"] {
            assert_eq!(removed(list), None);
        }
    }
}
