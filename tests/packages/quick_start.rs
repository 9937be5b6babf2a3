//! From nothing to a protected program, as README says it: in a minimal installation without a
//! compiler, with the package alone, and in less than two minutes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Completion;

use crate::Try;
use crate::package::{Kind, Package, VERSION};
use crate::root::{self, Root};

const LIMIT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<(String, Try)> {
    let trial = |name: &str, release: &'static str, kind| -> (String, Try) {
        (format!("quick_start::{name}"), Box::new(move |directory: &Path| start(release, kind, directory)))
    };
    vec![
        trial("deb_on_debian_12", "bookworm", Kind::Deb),
        trial("deb_on_debian_13", "trixie", Kind::Deb),
        trial("archive_on_debian_11", "bullseye", Kind::Archive),
    ]
}

fn start(release: &str, kind: Kind, directory: &Path) -> Result<Completion, String> {
    let package = Package::native(kind);
    if let Some(reason) = root::unmet(release, &[package], &[]) {
        return Ok(Completion::ignored_with(reason));
    }
    let root = Root::copy(release, directory)?;
    has_no_toolchain(&root)?;
    root::dies_without_sopin(&root)?;

    let begun = Instant::now();
    let file = format!("/root/{}", package.file_name(1));
    root.add(&package.path(), &file)?;
    let sopin = if kind == Kind::Archive {
        root.succeed(&["tar", "-xzf", &file, "-C", "/opt"])?;
        format!("/opt/sopin-{VERSION}-{}-linux/bin/sopin", package.architecture)
    } else {
        root.succeed(&["apt-get", "install", "-y", &file])?;
        "sopin".to_owned()
    };
    root.succeed(&[&sopin, "check", "python3"])?;
    let mut service = root.start(&[&sopin, "run", "--"])?;
    let took = begun.elapsed();
    let status = root.succeed(&[&sopin, "status", &service.processes()[0].to_string()])?;

    root.rewrite()?;
    service.work("work")?;
    service.work("load _codecs_jp")?;
    service.finish()?;
    if took > LIMIT {
        return Err(format!("from nothing to a protected program in {took:?}"));
    }
    println!("{release}: from nothing to a protected program in {:.1} s", took.as_secs_f64());
    if !status.stdout.contains("python3") {
        return Err(status.to_string());
    }
    if kind == Kind::Deb {
        keeps_a_name_that_stays(&root, &sopin)?;
    }
    root.discard()?;
    Ok(Completion::Completed)
}

/// Programs get the library by its soname also where the link for linkers is installed: they
/// pass the path on to their children, and the package with that link may be removed meanwhile.
fn keeps_a_name_that_stays(root: &Root, sopin: &str) -> Result<(), String> {
    let development = Package::native(Kind::DebDevelopment);
    if let Some(reason) = development.unmet() {
        return Err(reason);
    }
    root.add(&development.path(), "/root/development.deb")?;
    root.succeed(&["dpkg", "--install", "/root/development.deb"])?;
    let directory = format!("/usr/lib/{}-linux-gnu", development.architecture);
    if !root.path(&directory).join("libsopin.so").exists() {
        return Err("the development package has no link".to_owned());
    }
    let environment = root.succeed(&[sopin, "run", "--", "env"])?;
    let wanted = format!("LD_PRELOAD={directory}/libsopin.so.0");
    if environment.stdout.lines().any(|line| line == wanted) { Ok(()) } else { Err(environment.to_string()) }
}

fn has_no_toolchain(root: &Root) -> Result<(), String> {
    for program in ["cc", "gcc", "clang", "make", "cargo", "rustc", "ld"] {
        for directory in ["bin", "usr/bin", "usr/local/bin"] {
            if fs::symlink_metadata(root.path(directory).join(program)).is_ok() {
                return Err(format!("the root has {directory}/{program}"));
            }
        }
    }
    Ok(())
}
