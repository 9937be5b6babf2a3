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
    for name in page::markdown::README_COLUMNS {
        assert!(readme.contains(&format!("\n| {name} | ")), "README.md has no row {name:?}");
    }
}

#[test]
fn quartiles_lie_between_numbers() {
    assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Spread { low: 1.75, median: 2.5, high: 3.25 });
    assert_eq!(Spread::of(vec![7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
}

#[test]
fn a_change_of_any_number_changes_every_document() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let numbers = fs::read_to_string(checkout.join(page::RESULTS)).expect(page::RESULTS);
    let mut results: Results = serde_json::from_str(&numbers).expect(page::RESULTS);
    let mut columns = results.sections.iter_mut().flat_map(|section| &mut section.columns);
    let column = columns.find(|column| column.summary.is_some()).expect("a column that README shows");
    let warm = column.cells.get_mut(&page::Variant::Warm).expect("a column of the library");
    warm.ratio.median *= 1.5;
    warm.extra.median *= 1.5;
    for (file, changed) in page::documents(checkout, &results).expect("documents") {
        assert_ne!(fs::read_to_string(checkout.join(file)).expect(file), changed, "{file} does not show the numbers");
    }
}
