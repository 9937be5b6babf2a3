//! Other programs read the texts of the command: shells the completions, formatters the
//! manual pages. The test of a program that is not installed is ignored.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use common::{missing, sopin};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let trials = vec![
        trial("bash_completes", "bash", || {
            let words = "COMP_WORDS=(sopin run --mode re); COMP_CWORD=3";
            let script = format!(". FILE; {words}; _sopin sopin re --mode; echo ${{COMPREPLY[@]}}");
            assert_eq!(ask("bash", &["--norc"], &script), "relocated\n");
        }),
        trial("zsh_completes", "zsh", || {
            // The completion system loads the function in this way, by the name of its
            // file.
            let script = "autoload -Uz compinit && compinit -D -u; fpath=(${$(echo FILE):h} $fpath); \
                          autoload -Uz _sopin; autoload +X _sopin; functions _sopin | grep -c relocated";
            assert_ne!(ask("zsh", &["-f"], script).trim(), "0");
        }),
        trial("fish_completes", "fish", || {
            let answer = ask("fish", &["--no-config"], "source FILE; complete -C 'sopin run --mode '");
            let words: Vec<_> = answer.lines().filter_map(|line| line.split_whitespace().next()).collect();
            assert_eq!(words, ["full", "off", "relocated"]);
        }),
        trial("mandoc_has_no_complaint", "mandoc", || {
            // The pages have no date on purpose.
            format_pages("mandoc", &["-T", "lint", "-W", "warning"], |line| line.contains("missing date"));
        }),
        trial("groff_has_no_complaint", "groff", || {
            format_pages("groff", &["-man", "-ww", "-b", "-z", "-K", "utf8", "-T", "utf8"], |_| false);
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, program: &'static str, test: fn()) -> Trial {
    Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
        if let Some(reason) = missing(&[program]) {
            return Ok(Completion::ignored_with(reason));
        }
        test();
        Ok(Completion::Completed)
    })
}

/// Runs a shell script in which `FILE` stands for the completions of that shell.
/// Returns what it prints.
fn ask(shell: &str, options: &[&str], script: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("_sopin");
    let completions = sopin().args(["completions", shell]).assert().success().stderr_eq("");
    fs::write(&file, &completions.get_output().stdout).unwrap();
    let script = script.replace("FILE", file.to_str().unwrap());
    let mut command = Command::new(shell);
    let output = command.env("HOME", directory.path()).args(options).args(["-c", &script]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn format_pages(program: &str, options: &[&str], is_meant: fn(&str) -> bool) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man");
    let mut pages = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new(program).args(options).arg(&path).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let complaints: Vec<_> = said.lines().filter(|line| !line.is_empty() && !is_meant(line)).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        pages += 1;
    }
    assert!(pages > 3);
}
