//! Comparing variants in interleaved rounds, so that whatever else the machine
//! does hits all alike, and each is compared with the native run of its round.

use std::collections::BTreeMap;

use crate::page::{Cell, Spread, Variant};
use crate::site::Site;

/// Measured numbers: by variant one for each round. The native ones come in the
/// same order as the others.
#[derive(Default)]
pub struct Rounds {
    numbers: BTreeMap<Variant, Vec<f64>>,
}

/// Calls `measure` once a round for every variant, after a round of which nothing
/// is kept: it warms caches and fills the store. Of a measurement that has several
/// numbers each comes into its own [`Rounds`].
///
/// # Errors
/// The first of `measure`.
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
            // Forwards and backwards, from another place each time: nobody always
            // comes after the same neighbour.
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
    /// How many numbers each variant has.
    pub fn count(&self) -> usize {
        self.numbers.values().map(Vec::len).max().unwrap_or_default()
    }

    /// The cells of a column.
    pub fn cells(&self) -> BTreeMap<Variant, Cell> {
        let native = self.numbers.get(&Variant::Native).map(Vec::as_slice).unwrap_or_default();
        let cell = |numbers: &[f64]| {
            let against_native = |compare: fn(f64, f64) -> f64| {
                // There are measures that natively do not exist.
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
