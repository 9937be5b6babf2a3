//! What other programs say of the packages: lintian, rpmlint, the shells that read completions,
//! the tool that formats manual pages, pkg-config.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Completion;

use crate::Try;
use crate::common::needs::found_program;
use crate::common::{library, tree};
use crate::package::{self, Kind, Package, VERSION, packaged_version, said};

type Check = fn(&Path) -> Result<Completion, String>;

pub fn trials() -> Vec<(String, Try)> {
    let mut trials: Vec<(String, Try)> = Vec::new();
    for package in package::all() {
        let (tool, run): (&str, Try) = match package.kind {
            Kind::Deb | Kind::DebDevelopment => ("lintian", Box::new(move |_| lintian(package))),
            Kind::Rpm => ("rpmlint", Box::new(move |_| rpmlint(package))),
            Kind::Archive | Kind::RpmDevelopment => continue,
        };
        trials.push((format!("tools::{tool}::{}", package.title()), run));
    }
    let others: [(&str, Check); 4] = [
        ("completions", completions),
        ("manual_pages", manual_pages),
        ("pkg_config", pkg_config),
        ("needs_of_the_rpm", needs_of_the_rpm),
    ];
    trials.extend(others.map(|(name, check)| -> (String, Try) { (format!("tools::{name}"), Box::new(check)) }));
    trials
}

fn unmet(package: Package, programs: &[&str]) -> Option<Completion> {
    let missing = programs.iter().find(|program| found_program(program).is_none());
    let reason = package.unmet().or_else(|| missing.map(|program| format!("no program {program}")))?;
    Some(Completion::ignored_with(reason))
}

/// Without overridden tags lintian says nothing at all.
fn lintian(package: Package) -> Result<Completion, String> {
    if let Some(ignored) = unmet(package, &["lintian"]) {
        return Ok(ignored);
    }
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--pedantic", "--fail-on", "error,warning,pedantic"]).arg(package.path());
    match said(&mut command)? {
        nothing if nothing.trim().is_empty() => Ok(Completion::Completed),
        complaints => Err(complaints),
    }
}

/// Both packages together, because one contains the link to the library in the other.
fn rpmlint(package: Package) -> Result<Completion, String> {
    let development = Package { kind: Kind::RpmDevelopment, ..package };
    if let Some(ignored) = unmet(package, &["rpmlint"]).or_else(|| unmet(development, &[])) {
        return Ok(ignored);
    }
    let mut command = Command::new("rpmlint");
    command.arg("--config").arg(library::checkout().join("packaging/rpm/rpmlint.toml"));
    command.arg(package.path()).arg(development.path());
    let said = said(&mut command)?;
    if said.contains(" 0 errors") { Ok(Completion::Completed) } else { Err(said) }
}

/// Unpacks the native Debian package.
fn unpacked(directory: &Path) -> Result<Vec<PathBuf>, String> {
    Package::native(Kind::Deb).unpack(directory)?;
    tree::files(directory, |_| true).map_err(|error| error.to_string())
}

/// Each shell that is installed reads its file, and then knows how to complete `sopin`.
fn completions(directory: &Path) -> Result<Completion, String> {
    if let Some(ignored) = unmet(Package::native(Kind::Deb), &["bash"]) {
        return Ok(ignored);
    }
    let files = unpacked(directory)?;
    let file = |end: &str| files.iter().find(|path| path.ends_with(end)).ok_or_else(|| format!("no {end}"));
    let bash =
        "source \"$1\"; COMP_WORDS=(sopin st); COMP_CWORD=1; _sopin sopin st sopin; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let zsh = "autoload -Uz compinit; compinit -D -u; source \"$1\"; print $_comps[sopin]; whence -w _sopin";
    let fish = "source $argv[1]; complete --do-complete 'sopin st'";
    let shells = [
        ("bash", vec!["--norc", "-c", bash, "bash"], "bash-completion/completions/sopin", "status"),
        ("zsh", vec!["-f", "-c", zsh, "zsh"], "zsh/vendor-completions/_sopin", "_sopin: function"),
        ("fish", vec!["--no-config", "-c", fish, "--"], "fish/vendor_completions.d/sopin.fish", "status"),
    ];
    for (shell, arguments, end, wanted) in shells {
        if found_program(shell).is_none() {
            continue;
        }
        let answer = said(Command::new(shell).args(arguments).arg(file(end)?).env("HOME", directory))?;
        if !answer.contains(wanted) {
            return Err(format!("{shell}: {answer}"));
        }
    }
    Ok(Completion::Completed)
}

/// Every subcommand has a page, and each page can be formatted.
fn manual_pages(directory: &Path) -> Result<Completion, String> {
    if let Some(ignored) = unmet(Package::native(Kind::Deb), &["mandoc"]) {
        return Ok(ignored);
    }
    let files = unpacked(directory)?;
    let help = said(Command::new(directory.join("usr/bin/sopin")).arg("--help"))?;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|n| *n != "help").collect();
    if names.len() < 5 {
        return Err(format!("the list of subcommands was not understood: {names:?}\n{help}"));
    }
    for name in &names {
        let end = format!("man/man1/sopin-{name}.1.gz");
        if !files.iter().any(|path| path.ends_with(&end)) {
            return Err(format!("sopin {name} has no page"));
        }
    }
    for path in files.iter().filter(|path| path.to_string_lossy().contains("/share/man/")) {
        let text = said(Command::new("sh").args(["-c", "gzip -dc \"$1\" | mandoc -T utf8", "sh"]).arg(path))?;
        if text.lines().count() < 10 {
            return Err(format!("{}: {text}", path.display()));
        }
    }
    Ok(Completion::Completed)
}

/// A program is compiled with what the archive contains, wherever it was unpacked.
fn pkg_config(directory: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Archive);
    if let Some(ignored) = unmet(package, &["pkg-config", "cc"]) {
        return Ok(ignored);
    }
    let prefix = directory.join("moved");
    package.unpack(directory)?;
    fs::rename(directory.join(format!("sopin-{VERSION}-{}-linux", env::consts::ARCH)), &prefix)
        .map_err(|error| error.to_string())?;
    let program = directory.join("host");
    let build = "cc -o \"$2\" \"$3\" $(pkg-config --cflags --libs sopin) -ldl -Wl,-rpath,\"$1\"/lib";
    let mut shell = Command::new("sh");
    shell.args(["-ec", build, "sh"]).arg(&prefix).arg(&program);
    shell.arg(library::checkout().join("examples/c/host.c")).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    said(&mut shell)?;
    let ldd = said(Command::new("ldd").arg(&program))?;
    let wanted = prefix.join("lib/libsopin.so.0");
    if ldd.contains(&*wanted.to_string_lossy()) { Ok(Completion::Completed) } else { Err(ldd) }
}

/// The package asks for no glibc above 2.17, and the one with the header for exactly this package.
fn needs_of_the_rpm(_: &Path) -> Result<Completion, String> {
    let package = Package::native(Kind::Rpm);
    if let Some(ignored) = unmet(package, &[]) {
        return Ok(ignored);
    }
    let needs_of = |path: &Path| said(Command::new("rpm").args(["-qp", "--nosignature", "--requires"]).arg(path));
    for (architecture, rpms_name) in [("x86_64", "x86-64"), ("aarch64", "aarch-64")] {
        let development = Package { kind: Kind::RpmDevelopment, architecture };
        if development.unmet().is_some() {
            continue;
        }
        let (needs, wanted) =
            (needs_of(&development.path())?, format!("sopin({rpms_name}) = {}-1", packaged_version()));
        if !needs.lines().any(|need| need == wanted) {
            return Err(format!("no {wanted} in {needs}"));
        }
    }
    let needs = needs_of(&package.path())?;
    let versions: Vec<(u32, u32)> = needs
        .lines()
        .filter_map(|line| {
            let mut numbers = line.strip_prefix("libc.so.6(GLIBC_")?.split([')', '.']).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect();
    let is_right = versions.contains(&(2, 17)) && versions.iter().all(|version| *version <= (2, 17));
    if is_right { Ok(Completion::Completed) } else { Err(needs) }
}
