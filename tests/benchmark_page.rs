//! Compares the benchmark's page, its chart and the table in README with what is made
//! from the numbers in `docs/benchmarks.json`. The tests fail after an edit by hand.

#[path = "../benches/cost/page/mod.rs"]
#[allow(dead_code, unused_imports, reason = "measuring is the benchmark's part")]
mod page;

use std::fs;
use std::path::Path;

use page::{Results, Spread};

#[test]
fn documents_are_made_from_the_numbers() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let numbers = fs::read_to_string(checkout.join(page::RESULTS)).expect(page::RESULTS);
    let results: Results = serde_json::from_str(&numbers).expect(page::RESULTS);
    assert_eq!(page::json(&results).expect("JSON"), numbers, "{}", page::RESULTS);
    for (file, expected) in page::documents(checkout, &results).expect("documents") {
        let found = fs::read_to_string(checkout.join(file)).expect(file);
        assert_eq!(found, expected, "{file} is not what `make bench` has made of {}", page::RESULTS);
    }
}

#[test]
fn every_row_of_readme_was_measured() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(checkout.join("README.md")).expect("README.md");
    for (name, ..) in page::situations::README_ROWS {
        let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row {name:?}"));
        let numbers = row.split('|').filter(|cell| !cell.trim().is_empty()).count();
        assert!(numbers >= 2, "{name}: {row}");
    }
}

#[test]
fn quartiles_lie_between_numbers() {
    assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Spread { low: 1.75, median: 2.5, high: 3.25 });
    assert_eq!(Spread::of(vec![7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
}

#[test]
fn an_interval_has_the_median_with_the_probability_that_is_claimed() {
    assert_eq!(page::interval_of_median(vec![1.0; 7]), None);
    let numbers: Vec<f64> = (0..21).map(f64::from).rev().collect();
    assert_eq!(page::interval_of_median(numbers), Some([5.0, 15.0]));
    // The chance that so few of the numbers lie on one side of the median, from Pascal's triangle.
    for count in 8..60_usize {
        let numbers: Vec<f64> = (0..count).map(|number| f64::from(u32::try_from(number).expect("small"))).collect();
        let [from, _] = page::interval_of_median(numbers).expect("an interval");
        let mut chances = vec![1.0];
        for _ in 0..count {
            chances.push(0.0);
            for place in (1..chances.len()).rev() {
                chances[place] = f64::midpoint(chances[place], chances[place - 1]);
            }
            chances[0] /= 2.0;
        }
        let outside: f64 = 2.0
            * chances
                .iter()
                .zip(0..)
                .take_while(|(_, place)| f64::from(*place) <= from)
                .map(|(chance, _)| chance)
                .sum::<f64>();
        assert!((0.001..0.05).contains(&outside), "{count} numbers: {outside}");
    }
}

#[test]
fn a_change_of_any_number_changes_every_document() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let numbers = fs::read_to_string(checkout.join(page::RESULTS)).expect(page::RESULTS);
    let mut results: Results = serde_json::from_str(&numbers).expect(page::RESULTS);
    let mut columns = results.sections.iter_mut().flat_map(|section| &mut section.columns);
    let column = columns
        .find(|column| column.summary.as_deref() == Some(page::situations::names::WEB_START))
        .expect("a column that README shows");
    let warm = column.cells.get_mut(&page::Variant::Warm).expect("a column of the library");
    warm.ratio.median *= 1.5;
    warm.extra.median *= 1.5;
    for (file, changed) in page::documents(checkout, &results).expect("documents") {
        assert_ne!(fs::read_to_string(checkout.join(file)).expect(file), changed, "{file} does not show the numbers");
    }
}
