//! Measures the cost of protection, compared in the same run with the same work without
//! it and with alternatives. Nothing here fails because something was slow: the page
//! shows the targets.
//!
//! `cargo bench --bench cost` measures everything, and writes docs/benchmarks.json and
//! what is made from it. `cargo bench --bench cost -- start imports` measures a part
//! and only prints it; with `--update`, that replaces the same part of
//! docs/benchmarks.json, or is added. `--quick` prints one round of everything, to check that the
//! benchmark works; `--thorough` makes four times as many rounds; `--render` makes the
//! documents again from docs/benchmarks.json.

mod big;
mod circumstances;
mod container;
mod counts;
mod effort;
mod enabled;
mod filled;
mod gunicorn;
mod http;
mod imports;
mod inodes;
mod large_store;
mod late;
mod load;
mod many;
mod memory;
mod mounts;
mod older_kernels;
mod page;
mod pinning;
mod pooled;
mod rounds;
mod run;
mod serving;
mod site;
mod sizes;
mod small;
mod status;

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use effort::Effort;
use page::{Results, Section};
use site::Site;

/// Measures one kind of work.
type Measure = fn(&Site) -> Result<Section, String>;

/// Every kind of work, by the name that selects it.
const ALL: [(&str, Measure); 20] = [
    ("imports", imports::scientific),
    ("counted-imports", imports::counted),
    ("small-imports", imports::small),
    ("filled", filled::filled),
    ("big", big::big),
    ("container", container::container),
    ("memory", serving::small),
    ("scientific-memory", serving::scientific),
    ("service", load::service),
    ("libraries", small::libraries),
    ("many-libraries", many::libraries),
    ("start", small::start),
    ("calls", small::calls),
    ("older-imports", older_kernels::imports),
    ("older-libraries", older_kernels::libraries),
    ("status", status::status),
    ("sizes", sizes::sizes),
    ("pin", pinning::pin),
    ("late", late::late),
    ("enabled", enabled::enabled),
];

fn main() -> ExitCode {
    match measure_everything() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_everything() -> Result<(), String> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library =
        env::var_os("SOPIN_TEST_LIBRARY").map_or_else(|| checkout.join("target/release/libsopin.so"), Into::into);
    let library =
        library.canonicalize().map_err(|error| format!("{}: {error}; run `make build`", library.display()))?;

    // cargo adds --bench to what the user asked for.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| ALL.iter().all(|(name, _)| name != wanted)) {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!("{unknown:?} is none of {}", names.join(", ")));
    }
    if env::args().any(|argument| argument == "--render") {
        let numbers = fs::read_to_string(checkout.join(page::RESULTS)).map_err(|error| error.to_string())?;
        return publish(checkout, &serde_json::from_str(&numbers).map_err(|error| error.to_string())?);
    }
    let has = |option: &str| env::args().any(|argument| argument == option);
    let effort = match (has("--quick"), has("--thorough")) {
        (true, _) => Effort::Quick,
        (_, true) => Effort::Thorough,
        _ => Effort::Usual,
    };
    let site = Site::new(checkout, library, effort)?;
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for (name, measure) in ALL {
        if wanted.is_empty() && name == "big" && !big::is_possible(&site) {
            eprintln!("bench: {name}: left out, because scripts/big-environment was not run");
        } else if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name}");
            match measure(&site) {
                Ok(section) => {
                    println!("{}", page::table(&section));
                    sections.push(section);
                }
                Err(error) => {
                    eprintln!("bench: {name}: {error}");
                    failed.push(name);
                }
            }
        }
    }
    site.remove_stale()?;
    if has("--update") {
        let numbers = fs::read_to_string(checkout.join(page::RESULTS)).map_err(|error| error.to_string())?;
        let mut results: Results = serde_json::from_str(&numbers).map_err(|error| error.to_string())?;
        results.circumstances = circumstances::circumstances(&site);
        for section in sections {
            results.measured.insert(section.title.clone(), circumstances::today(&site));
            match results.sections.iter_mut().find(|old| old.title == section.title) {
                Some(old) => *old = section,
                None => results.sections.push(section),
            }
        }
        publish(checkout, &results)?;
    } else if wanted.is_empty() && effort != Effort::Quick {
        let today = circumstances::today(&site);
        let measured = sections.iter().map(|section| (section.title.clone(), today.clone())).collect();
        publish(checkout, &Results { circumstances: circumstances::circumstances(&site), measured, sections })?;
    }
    // The numbers that were measured are kept even so.
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", "))) }
}

/// Writes the numbers and all documents that are made from them.
fn publish(checkout: &Path, results: &Results) -> Result<(), String> {
    let write = |file: &str, text: String| {
        let file = checkout.join(file);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    write(page::RESULTS, page::json(results).map_err(|error| error.to_string())?)?;
    for (file, text) in page::documents(checkout, results)? {
        write(file, text)?;
    }
    Ok(())
}
