use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::trials;
use crate::address_map::AddressMap;
use crate::object::Span;
use crate::pages::PageVec;
use crate::runs::Runs;
use crate::slices;
use crate::sys;

/// What can be done to a map. Few keys, so that they collide and come back.
#[derive(Clone, Copy, Debug)]
enum MapStep {
    Insert(usize, u32),
    Remove(usize),
}

fn map_step() -> impl Strategy<Value = MapStep> {
    // Multiples of 64 from headers at the beginning of pages, and neighbours.
    let key = || (1_usize..80, 0_usize..2).prop_map(|(page, word)| page << 12 | word << 6 | 0x40);
    prop_oneof![
        6 => (key(), any::<u32>()).prop_map(|(key, value)| MapStep::Insert(key, value)),
        4 => key().prop_map(MapStep::Remove),
    ]
}

/// What can be done to an array.
#[derive(Clone, Debug)]
enum ArrayStep {
    Push(u64),
    Extend(Vec<u64>),
    Truncate(usize),
    Retain(u64),
    Clear,
}

fn array_step() -> impl Strategy<Value = ArrayStep> {
    prop_oneof![
        any::<u64>().prop_map(ArrayStep::Push),
        vec(any::<u64>(), 0..900).prop_map(ArrayStep::Extend),
        (0_usize..2000).prop_map(ArrayStep::Truncate),
        (1_u64..4).prop_map(ArrayStep::Retain),
        Just(ArrayStep::Clear),
    ]
}

proptest! {
    #![proptest_config(trials())]

    #[test]
    fn slices_are_sorted_as_by_the_standard_library(mut items: Vec<(u8, bool)>) {
        let mut expected = items.clone();
        expected.sort_unstable_by_key(|item| (!item.1, item.0));
        slices::sort_by_key(&mut items, |item| (!item.1, item.0));
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn an_address_map_is_a_map(steps in vec(map_step(), 0..400)) {
        let (mut ours, mut theirs) = (AddressMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                MapStep::Insert(key, value) => {
                    ours.insert(key, value).unwrap();
                    theirs.insert(key, value);
                }
                MapStep::Remove(key) => prop_assert_eq!(ours.remove(key), theirs.remove(&key)),
            }
            prop_assert_eq!(ours.len(), theirs.len());
        }
        for page in 1_usize..80 {
            for key in [page << 12 | 0x40, page << 12 | 0x80] {
                prop_assert_eq!(ours.get_mut(key).copied(), theirs.get(&key).copied());
            }
        }
    }

    #[test]
    fn an_array_of_pages_is_an_array(steps in vec(array_step(), 0..20)) {
        let (mut ours, mut theirs) = (PageVec::new(), Vec::new());
        for step in steps {
            match step {
                ArrayStep::Push(value) => {
                    ours.push(value).unwrap();
                    theirs.push(value);
                }
                ArrayStep::Extend(values) => {
                    ours.extend(&values).unwrap();
                    theirs.extend(values);
                }
                ArrayStep::Truncate(len) => {
                    ours.truncate(len);
                    theirs.truncate(len);
                }
                ArrayStep::Retain(divisor) => {
                    ours.retain(|value| value % divisor == 0);
                    theirs.retain(|value| value % divisor == 0);
                }
                ArrayStep::Clear => {
                    ours.clear();
                    theirs.clear();
                }
            }
            prop_assert_eq!(&*ours, &theirs[..]);
        }
    }

    #[test]
    fn runs_are_what_is_kept(kept in vec(any::<bool>(), 0..64)) {
        let (page, start) = (sys::page_size(), 0x10_0000);
        let mut found = Vec::new();
        let mut runs = Runs::new(start, |run: Span| {
            found.push(run);
            Ok::<_, crate::sys::Errno>(())
        });
        for (index, keep) in kept.iter().enumerate() {
            prop_assert_eq!(runs.position(), start + index * page);
            runs.judge(*keep).unwrap();
        }
        let left_out = kept.iter().filter(|keep| !**keep).count() * page;
        prop_assert_eq!(runs.finish(), Ok(left_out));
        // The longest there are: not empty, in order, a page that is left out between two.
        prop_assert!(found.iter().all(|run| !run.is_empty()));
        prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
        for (index, keep) in kept.iter().enumerate() {
            let address = start + index * page;
            prop_assert_eq!(found.iter().any(|run| run.contains(address)), *keep);
        }
        prop_assert_eq!(found.iter().map(Span::len).sum::<usize>() + left_out, kept.len() * page);
    }
}
