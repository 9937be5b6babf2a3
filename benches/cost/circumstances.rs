//! The machine that the numbers are for, and the day and the version that one section is for: enough
//! to judge them, but nothing that identifies a machine's owner.

use std::fs;
use std::process::Command;

use crate::site::Site;

/// Returns pairs of words for people. What cannot be determined is left out.
pub fn circumstances(site: &Site) -> Vec<(String, String)> {
    let all = [
        ("processor", processor()),
        ("memory", memory()),
        ("kernel", kernel()),
        ("C library", said("getconf", &["GNU_LIBC_VERSION"])),
        ("Python", python(site)),
        ("file system of objects and store", file_system(site)),
    ];
    all.into_iter().filter_map(|(what, value)| Some((what.to_owned(), value?))).collect()
}

fn processor() -> Option<String> {
    let known = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "))?.1;
    let count = std::thread::available_parallelism().ok()?;
    let shared = if known.contains(" hypervisor") { ", virtual" } else { "" };
    Some(format!("{model}, {count} logical cores{shared}"))
}

fn memory() -> Option<String> {
    let known = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = known.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok()?;
    Some(format!("{} GiB", (kib + (1 << 19)) >> 20))
}

/// Returns the kernel as `Linux 6.18`, without additions by its builder.
fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let version = release.split(|character: char| character != '.' && !character.is_ascii_digit()).next()?;
    Some(format!("Linux {version}"))
}

fn file_system(site: &Site) -> Option<String> {
    // The output has a heading and the type.
    let table = said("df", &["--output=fstype", &site.checkout.to_string_lossy()])?;
    table.lines().last().map(str::to_owned)
}

fn python(site: &Site) -> Option<String> {
    const ASK: &str = "import platform, numpy, scipy, pandas, sqlalchemy
print(platform.python_version(), *(f'{module.__name__} {module.__version__}'
      for module in (numpy, scipy, pandas, sqlalchemy)), sep=', ')";
    let python = site.checkout.join("target/test-python/bin/python");
    said(&python.to_string_lossy(), &["-c", ASK])
}

/// Returns today's date, and the version of sopin that is measured.
pub fn today(site: &Site) -> String {
    let checkout = site.checkout.to_string_lossy();
    let commit = said("git", &["-C", &checkout, "describe", "--always", "--dirty"]);
    let commit = commit.map(|commit| format!(", {commit}")).unwrap_or_default();
    let date = said("date", &["--utc", "+%Y-%m-%d"]).unwrap_or_default();
    format!("{date}, sopin {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// Returns what a program prints.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
