//! The page with all results, docs/lab.md.

use std::env;
use std::fmt::Write;
use std::fs;

use crate::common::library;
use crate::results::{self, SuiteResult};

const HEAD: &str = "\
# Other kernels, C libraries and architectures

`make lab` makes this page from the results in `tests/lab/results`. `make lab WHAT=kernel-5.10` runs one system.
CONTRIBUTING.md lists the systems.

| system | suite | passed | failed | ignored | date | commit | note |
|---|---|--:|--:|--:|---|---|---|
";

const LEGEND: &str = "
- *kernel-...*: a machine in QEMU without KVM, with Debian's kernel of this version (*newest*: that of Debian's unstable
  release) and the programs of Debian 12. *arm64*: the same for aarch64 with pages of 4 KiB, *arm64-16k* with pages of
  16 KiB, with the library and the command that `make dist-binaries` builds. *arm64-64k*: the same with pages of 64 KiB.
  Debian has no such kernel; `scripts/lab-kernel` builds a small one from Debian's sources. A machine has two processors
  unless the note contains another number.
- *glibc-...*: the C library, the compiler and the Python of another release of Debian in a mount namespace, on the kernel of
  the machine that ran the test, with the library and the command that `make dist-binaries` builds.
- *musl*: the same with the musl of Debian 13, and a CPython for it that is built from Debian's sources, with start-up code
  as GCCs for musl have it. numpy, pandas, lxml, cryptography and greenlet are those of the Python Package Index. Of the
  fixtures, those for musl run.
- *qemu-user*: programs for x86-64 and aarch64 in user-mode emulators, which have no kernel of their own (*emulators*).
- *fixtures*: the tests of `tests/fixtures` in the system, with their negative controls. *basic*: a selection of them.
- *python*: a busy Python with numpy (on musl with all five packages), while each of its shared objects is rewritten twice.
  Without the library it must die. It must live with a cold store, with a warm store and without a store.
- *status*: `sopin status` of that process before and after a rewriting, and of a process that has lost its relocations.
- *store*: filling, using and verifying a store, and finding a damaged copy.
- *calls*: the library does not make a system call that the kernel does not know for each object.
- *pin*: the trials of `tests/pin`, which pin running programs by `sopin pin`, and the unit tests of `crates/reach`. The
  trials with programs of other projects are ignored.
- *demo*: gunicorn while its objects are rewritten in four ways, with the promises that `make demo` checks.
- *yama*: `sopin pin` and late pins in the process, for root and for another user, with each value of
  `kernel.yama.ptrace_scope`.
- *kernel*: the kernel has written no warning meanwhile.
- *commit*: what was tested, with `+` after it if the checkout contained changes that were not committed; empty in results
  that are older than this column.
- *ignored*: tests that need a program, a file system or a kernel that the system does not have.
";

/// Compares docs/lab.md with the results, after writing it if `SOPIN_WRITE_TABLE` is set.
///
/// # Errors
/// Results that cannot be parsed, errors of the file, or the first line that differs.
pub fn compare() -> Result<(), String> {
    let file = library::checkout().join("docs/lab.md");
    let error = |error| format!("{}: {error}", file.display());
    let page = render(&results::all()?);
    if env::var_os("SOPIN_WRITE_TABLE").is_some() {
        fs::write(&file, &page).map_err(error)?;
    }
    let checked_in = fs::read_to_string(&file).map_err(error)?;
    if checked_in == page {
        return Ok(());
    }
    let differs = page.lines().zip(checked_in.lines()).find(|(ours, theirs)| ours != theirs);
    Err(format!("docs/lab.md is out of date: run `make lab WHAT=table`; first difference: {differs:?}"))
}

fn render(results: &[SuiteResult]) -> String {
    let mut page = HEAD.to_owned();
    for result in results {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            result.system,
            result.suite,
            result.passed,
            result.failed,
            result.ignored,
            result.date,
            result.commit,
            result.note
        );
    }
    page.push_str(LEGEND);
    page
}
