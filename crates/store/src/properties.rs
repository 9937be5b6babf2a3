//! What must hold for the name of any entry (proptest).

use std::borrow::ToOwned;
use std::ffi::CString;
use std::format;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::name::{Identity, Key, Version};

fn identity() -> impl Strategy<Value = Identity> {
    let time = || {
        (any::<i64>(), 0_i64..1_000_000_000)
            .prop_map(|(seconds, rest)| i128::from(seconds) * 1_000_000_000 + i128::from(rest))
    };
    (any::<u64>(), any::<u64>(), any::<u64>(), time(), time())
        .prop_map(|(device, inode, size, modified, changed)| Identity { device, inode, size, modified, changed })
}

fn key_of(identity: &Identity, name: &str) -> (Vec<u8>, Version) {
    let key = Key::new(identity, &CString::new(name).unwrap());
    (key.as_c_str().to_bytes().to_owned(), key.version())
}

proptest! {
    // What earlier failures found has a test of its own.
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_key_names_one_version(one in identity(), other in identity(), name in "[a-z.]{1,20}") {
        let (text, version) = key_of(&one, &name);
        prop_assert_eq!(Version::parse(&text), Some(version));
        prop_assert_eq!(version.identity, one);
        // NAME_MAX, and nothing that means something in a path.
        prop_assert!(!text.is_empty() && text.len() <= 255 && !text.contains(&b'/') && text[0] != b'.');
        prop_assert_eq!(key_of(&other, &name).0 == text, one == other);
        let later = Identity { changed: one.changed.wrapping_add(1), ..one };
        prop_assert!(key_of(&later, &name).0 != text);
    }

    #[test]
    fn any_name_is_a_key_or_none(name in vec(any::<u8>(), 0..80), nearly in "[0-9a-f]{7,9}(-[0-9a-f]{0,18}){3,6}") {
        let _ = Version::parse(&name);
        if let Some(version) = Version::parse(nearly.as_bytes()) {
            prop_assert_eq!(nearly.matches('-').count(), 5);
            let begin = format!("{:08x}-", version.name_hash);
            prop_assert!(nearly.starts_with(&begin));
        }
    }
}
