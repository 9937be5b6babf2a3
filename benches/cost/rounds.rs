//! Compares variants in interleaved rounds, so that other work of the machine affects
//! all alike, and each is compared with the native run of its round.

use std::collections::BTreeMap;

use crate::page::{Cell, Spread, Variant};
use crate::site::Site;

/// The measured numbers: for each variant one for each round. The native ones are in
/// the same order as the others.
#[derive(Default)]
pub struct Rounds {
    numbers: BTreeMap<Variant, Vec<f64>>,
}

/// Calls `measure` once a round for every variant, after a round whose numbers are
/// dropped: it warms caches and fills the store. If a measurement has several numbers,
/// each goes into its own [`Rounds`].
///
/// # Errors
/// The first error of `measure`.
pub fn interleave<const N: usize>(
    site: &Site,
    variants: &[Variant],
    rounds: usize,
    mut measure: impl FnMut(Variant) -> Result<[f64; N], String>,
) -> Result<[Rounds; N], String> {
    let mut all = [const { Rounds { numbers: BTreeMap::new() } }; N];
    let rounds = site.effort.rounds(rounds);
    for round in 0..=rounds {
        for position in 0..variants.len() {
            // The order goes forwards and backwards and begins at another variant each
            // time, so that no variant always follows the same one.
            let place = if round % 2 == 0 { position } else { variants.len() - 1 - position };
            let variant = variants[(round + place) % variants.len()];
            let numbers = measure(variant)?;
            site.settle(variant)?;
            if round > 0 {
                for (rounds, number) in all.iter_mut().zip(numbers) {
                    rounds.numbers.entry(variant).or_default().push(number);
                }
            }
        }
    }
    Ok(all)
}

impl Rounds {
    /// Returns how many numbers each variant has.
    pub fn count(&self) -> usize {
        self.numbers.values().map(Vec::len).max().unwrap_or_default()
    }

    /// Returns the cells of a column.
    pub fn cells(&self) -> BTreeMap<Variant, Cell> {
        let native = self.numbers.get(&Variant::Native).map(Vec::as_slice).unwrap_or_default();
        let cell = |numbers: &[f64]| {
            let against_native = |compare: fn(f64, f64) -> f64| {
                // Some measures do not exist natively.
                let pairs = numbers.iter().zip(native).filter(|(_, native)| **native != 0.0);
                Spread::of(pairs.map(|(number, native)| compare(*number, *native)).collect())
            };
            Cell {
                value: Spread::of(numbers.to_vec()),
                ratio: against_native(|number, native| number / native),
                extra: against_native(|number, native| number - native),
            }
        };
        self.numbers.iter().map(|(variant, numbers)| (*variant, cell(numbers))).collect()
    }
}
