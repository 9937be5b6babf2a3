//! gunicorn with one and with eight workers: memory, throughput, latency.

use crate::gunicorn::{Application, Gunicorn, SCIENCE, SHOP, Workers};
use crate::memory;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::site::Site;

const VARIANTS: [Variant; 8] = [
    Variant::Native,
    Variant::Floor,
    Variant::Relocated,
    Variant::Warm,
    Variant::Reread,
    Variant::Memfd,
    Variant::Anonymous,
    Variant::Replaced,
];
const MANY: usize = 8;

/// Measures the memory of a small web service.
///
/// # Errors
/// If it does not start.
pub fn small(site: &Site) -> Result<Section, String> {
    let title = "Memory of a small Flask and SQLAlchemy service under gunicorn";
    let mut section = memory_of(site, SHOP, 2, title)?;
    if let Some(many) = section.columns.iter_mut().find(|column| column.what.starts_with("8 workers: memory")) {
        many.add_target(Variant::Warm, Compared::Ratio, 1.04);
        many.summary = Some(names::WEB_MEMORY.to_owned());
    }
    Ok(section)
}

/// Measures the memory of a service with the scientific stack.
///
/// # Errors
/// If it does not start.
pub fn scientific(site: &Site) -> Result<Section, String> {
    let title = "Memory of a service with numpy, scipy, pandas and SQLAlchemy under gunicorn";
    let mut section = memory_of(site, SCIENCE, 1, title)?;
    if let Some(many) = section.columns.iter_mut().find(|column| column.what.starts_with("8 workers: memory")) {
        many.add_target(Variant::Warm, Compared::Ratio, 1.04);
        many.summary = Some(names::SCIENCE_MEMORY.to_owned());
    }
    Ok(section)
}

fn memory_of(site: &Site, application: Application, rounds: usize, title: &str) -> Result<Section, String> {
    site.copy_packages()?;
    let start = |variant, workers| Gunicorn::start(site, variant, application, Workers::Sync, workers);
    start(Variant::Reread, 1)?;
    site.drop_from_cache()?;
    let (mut columns, mut measured) = (Vec::new(), 0);
    for workers in [1, MANY] {
        let mut distinct_known = true;
        let [memory, pages, resident, shared] = interleave(site, &VARIANTS, rounds, |variant| {
            let gunicorn = start(variant, workers)?;
            for worker in &gunicorn.workers {
                memory::text_of(*worker, &site.stores())?.check(variant, application.objects)?;
            }
            let memory = memory::of(&gunicorn.processes(), &site.stores())?;
            distinct_known &= memory.distinct.is_some();
            Ok([
                memory.proportional,
                memory.distinct.unwrap_or_default(),
                memory.store_resident,
                memory.store_proportional,
            ])
        })?;
        measured = memory.count();
        let name = |what: &str| format!("{workers} worker{}: {what}", if workers == 1 { "" } else { "s" });
        columns.push(Column::new(&name("memory"), "MiB", &[Compared::Ratio], memory.cells()));
        if distinct_known {
            columns.push(Column::new(&name("pages"), "MiB", &[Compared::Ratio], pages.cells()));
        }
        if workers == MANY {
            columns.push(Column::new("of the store, each for itself", "MiB", &[], resident.cells()));
            columns.push(Column::new("of the store, really", "MiB", &[], shared.cells()));
        }
    }
    Ok(Section {
        title: title.to_owned(),
        about: "Master and sync workers, no `--preload`: each worker imports the application. Measured when every worker \
            has answered 20 requests. \"Of the store\" is what the processes map of the store's entries: the sum of Rss, \
            where each page counts once for each process, and the sum of Pss."
            .to_owned(),
        rounds: measured,
        columns,
    })
}
