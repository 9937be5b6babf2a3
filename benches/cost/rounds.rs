//! Compares variants in interleaved rounds, so that other work of the machine affects
//! all alike, and each is compared with the native run of its round.

use std::collections::BTreeMap;

use crate::page::{Cell, Spread, Variant, interval_of_median};
use crate::site::Site;

/// The measured numbers: for each variant one for each round. The native ones are in
/// the same order as the others.
#[derive(Default)]
pub struct Rounds {
    numbers: BTreeMap<Variant, Vec<f64>>,
    /// True if the cells have the intervals of the medians of their ratios.
    shows_intervals: bool,
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
    measure: impl FnMut(Variant) -> Result<[f64; N], String>,
) -> Result<[Rounds; N], String> {
    interleave_while(site, variants, rounds, rounds, |_| false, measure)
}

/// [`interleave_until_known`] makes rounds until the interval of the median is at most this wide.
const WIDTH: f64 = 0.01;
/// The largest factor by which it increases the number of rounds.
const PATIENCE: usize = 4;

/// Does the same, with at least `rounds`, until the median ratio of the first number of `decisive` to
/// the native one is known to one hundredth ([`interval_of_median`]). Quick efforts do not wait for that.
///
/// # Errors
/// The first error of `measure`.
pub fn interleave_until_known<const N: usize>(
    site: &Site,
    variants: &[Variant],
    rounds: usize,
    decisive: Variant,
    measure: impl FnMut(Variant) -> Result<[f64; N], String>,
) -> Result<[Rounds; N], String> {
    let least = site.effort.rounds(rounds);
    let most = if least < rounds { least } else { least * PATIENCE };
    let is_unknown = |all: &[Rounds; N]| {
        let interval = all.first().and_then(|rounds| rounds.interval(decisive));
        interval.is_none_or(|[from, to]| to - from > WIDTH)
    };
    let mut all = interleave_while(site, variants, least, most, is_unknown, measure)?;
    if let Some(first) = all.first_mut() {
        first.shows_intervals = true;
    }
    Ok(all)
}

/// Makes at least `least` rounds, and others up to `most` while `is_unfinished`.
fn interleave_while<const N: usize>(
    site: &Site,
    variants: &[Variant],
    least: usize,
    most: usize,
    is_unfinished: impl Fn(&[Rounds; N]) -> bool,
    mut measure: impl FnMut(Variant) -> Result<[f64; N], String>,
) -> Result<[Rounds; N], String> {
    let mut all = [const { Rounds { numbers: BTreeMap::new(), shows_intervals: false } }; N];
    for round in 0..=most {
        if round > least && !is_unfinished(&all) {
            break;
        }
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
    /// Returns the rounds of a number that is measured once for each variant, since it does not scatter.
    ///
    /// # Errors
    /// The first error of `measure`.
    pub fn once<const N: usize>(
        variants: &[Variant],
        mut measure: impl FnMut(Variant) -> Result<[f64; N], String>,
    ) -> Result<[Self; N], String> {
        let mut all = [const { Self { numbers: BTreeMap::new(), shows_intervals: false } }; N];
        for variant in variants {
            for (rounds, number) in all.iter_mut().zip(measure(*variant)?) {
                rounds.numbers.insert(*variant, vec![number]);
            }
        }
        Ok(all)
    }

    /// Returns the rounds with the intervals of the medians of their ratios in their cells.
    #[must_use]
    pub fn with_intervals(self) -> Self {
        Self { shows_intervals: true, ..self }
    }

    /// Returns the interval of the median ratio of a variant to the native one.
    fn interval(&self, variant: Variant) -> Option<[f64; 2]> {
        let pairs = self.numbers.get(&variant)?.iter().zip(self.numbers.get(&Variant::Native)?);
        interval_of_median(pairs.map(|(number, native)| number / native).collect())
    }

    /// Returns how many numbers each variant has.
    pub fn count(&self) -> usize {
        self.numbers.values().map(Vec::len).max().unwrap_or_default()
    }

    /// Returns the cells of a column.
    pub fn cells(&self) -> BTreeMap<Variant, Cell> {
        let native = self.numbers.get(&Variant::Native).map(Vec::as_slice).unwrap_or_default();
        let floor = self.numbers.get(&Variant::Floor);
        let cell = |variant: Variant, numbers: &[f64]| {
            let against = |others: &[f64], compare: fn(f64, f64) -> f64| {
                // Some measures do not exist natively.
                let pairs = numbers.iter().zip(others).filter(|(_, other)| **other != 0.0);
                Spread::of(pairs.map(|(number, other)| compare(*number, *other)).collect())
            };
            let floor = floor.filter(|_| !matches!(variant, Variant::Native | Variant::Floor));
            Cell {
                value: Spread::of(numbers.to_vec()),
                ratio: against(native, |number, native| number / native),
                extra: against(native, |number, native| number - native),
                to_floor: floor.map(|floor| against(floor, |number, floor| number / floor)),
                ratio_interval: self.interval(variant).filter(|_| self.shows_intervals && variant != Variant::Native),
            }
        };
        self.numbers.iter().map(|(variant, numbers)| (*variant, cell(*variant, numbers))).collect()
    }
}
