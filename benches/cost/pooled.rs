//! Quantiles of everything that was measured in all rounds of a variant together. One round has too few
//! requests for a quantile such as p99.9, which would be that of the two or three slowest.
//!
//! The interval of a ratio comes from a bootstrap over the rounds: they are drawn anew, with
//! repetition and native and variant together, a thousand times. Requests of one round are not independent
//! of each other, since what else the machine does hits several; rounds nearly are.

use std::collections::BTreeMap;

use crate::page::{Cell, Spread, Variant};

const DRAWS: usize = 1000;
/// The part of the draws that lies in the interval.
const CONFIDENCE: f64 = 0.95;

/// What was measured in each round of each variant.
#[derive(Default)]
pub struct Pooled(BTreeMap<Variant, Vec<Vec<f64>>>);

impl Pooled {
    /// Adds what was measured in the next round of a variant.
    pub fn add(&mut self, variant: Variant, measured: Vec<f64>) {
        self.0.entry(variant).or_default().push(measured);
    }

    /// Drops the first round of all variants, in which caches were still cold.
    pub fn drop_first(&mut self) {
        self.0.values_mut().filter(|rounds| !rounds.is_empty()).for_each(|rounds| drop(rounds.remove(0)));
    }

    /// Returns how much was measured in all rounds of the variant with the least.
    pub fn least(&self) -> usize {
        self.0.values().map(|rounds| rounds.iter().map(Vec::len).sum()).min().unwrap_or_default()
    }

    /// Returns the cells of a quantile.
    pub fn cells(&self, part: f64) -> BTreeMap<Variant, Cell> {
        let native = self.0.get(&Variant::Native).map(Vec::as_slice).unwrap_or_default();
        let cell = |rounds: &[Vec<f64>]| {
            let all: Vec<usize> = (0..rounds.len()).collect();
            let (value, of_native) = (quantile(rounds, &all, part), quantile(native, &all, part));
            let one = |number: f64| Spread::of(vec![number]);
            Cell {
                value: one(value),
                ratio: one(value / of_native),
                extra: one(value - of_native),
                to_floor: None,
                ratio_interval: interval(rounds, native, part),
            }
        };
        self.0.iter().map(|(variant, rounds)| (*variant, cell(rounds))).collect()
    }
}

/// Returns the interval of the ratio of two quantiles. `None` if the rounds are too few to draw from.
fn interval(rounds: &[Vec<f64>], native: &[Vec<f64>], part: f64) -> Option<[f64; 2]> {
    const LEAST: usize = 8;
    let count = rounds.len().min(native.len());
    if count < LEAST {
        return None;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = (0..count).map(|_| random.below(count)).collect();
            quantile(rounds, &drawn, part) / quantile(native, &drawn, part)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| crate::page::quantile_of_sorted(&ratios, part);
    Some([at((1.0 - CONFIDENCE) / 2.0), at(f64::midpoint(1.0, CONFIDENCE))].map(|ratio| (ratio * 1e4).round() / 1e4))
}

/// Returns the quantile of these rounds together.
fn quantile(rounds: &[Vec<f64>], drawn: &[usize], part: f64) -> f64 {
    let mut all: Vec<f64> = drawn.iter().filter_map(|index| rounds.get(*index)).flatten().copied().collect();
    if all.is_empty() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    let place = part * (all.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let place = place.round() as usize;
    *all.select_nth_unstable_by(place, f64::total_cmp).1
}

/// A generator of numbers that look random (xorshift64), the same ones in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % count
    }
}
