//! The first line of a script: how the kernel reads it (`fs/binfmt_script.c`),
//! and which program `env(1)` makes of its argument.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes of a file that the kernel reads (`BINPRM_BUF_SIZE`, since Linux 5.1; 128 before).
pub const HEADER_SIZE: usize = 256;

/// A `#!` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shebang {
    /// The interpreter, relative to the current directory if it has no slash in front.
    pub interpreter: PathBuf,
    /// The rest of the line, as one argument.
    pub argument: Option<OsString>,
}

/// Parses the `#!` line at the beginning of a file; `None` if there is none that the kernel
/// would accept.
pub fn header(beginning: &[u8]) -> Option<Shebang> {
    let beginning = &beginning[..beginning.len().min(HEADER_SIZE)];
    let rest = beginning.strip_prefix(b"#!")?;
    let end = rest.iter().position(|byte| *byte == b'\n');
    let is_truncated = end.is_none() && beginning.len() == HEADER_SIZE;
    let line = rest[..end.unwrap_or(rest.len())].trim_ascii_start();
    // The kernel ignores what follows a NUL.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii_end();
    let length = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
    // The kernel passes a truncated argument on, but refuses a truncated interpreter, which
    // would be another program.
    if length == 0 || (is_truncated && length == line.len()) {
        return None;
    }
    let (interpreter, argument) = line.split_at(length);
    let argument = argument.trim_ascii_start();
    Some(Shebang {
        interpreter: OsStr::from_bytes(interpreter).into(),
        argument: (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned()),
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What `env(1)`, as the interpreter of a script, does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// The program that it executes.
    pub program: Option<OsString>,
    /// Whether that program gets an environment without `LD_PRELOAD`.
    pub drops_preload: bool,
}

impl Shebang {
    /// Returns what env(1) does with the argument, if env(1) is the interpreter.
    pub fn env(&self) -> Option<Env> {
        let is_env = self.interpreter.file_name() == Some(OsStr::new("env"));
        is_env.then(|| self.argument.as_deref().map_or_else(Env::default, read_env))
    }
}

/// Reads the argument of `#!/usr/bin/env`. The kernel passes all of it as one
/// word; `-S` has env split it, and without that only a bare name works.
fn read_env(argument: &OsStr) -> Env {
    let bytes = argument.as_bytes();
    // Scripts also use the spellings `-iS cmd` and `-vS cmd`.
    let split = bytes.strip_prefix(b"--split-string=").map(|rest| (rest, false)).or_else(|| {
        let flags = bytes.strip_prefix(b"-")?;
        let at = flags.iter().position(|byte| *byte == b'S')?;
        let before = &flags[..at];
        before.iter().all(|flag| b"iv0".contains(flag)).then(|| (&flags[at + 1..], before.contains(&b'i')))
    });
    let (words, mut drops_preload) = match split {
        Some((rest, drops)) => (rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect(), drops),
        None => (vec![bytes], false),
    };
    let mut words = words.into_iter();
    let mut program = None;
    while let Some(word) = words.next() {
        match word {
            b"-u" | b"--unset" => drops_preload |= words.next() == Some(b"LD_PRELOAD"),
            b"-" | b"-i" | b"--ignore-environment" | b"-uLD_PRELOAD" | b"--unset=LD_PRELOAD" => drops_preload = true,
            b"-C" | b"--chdir" => _ = words.next(),
            _ if word.starts_with(b"LD_PRELOAD=") => drops_preload = true,
            _ if word.starts_with(b"-") || word.contains(&b'=') => {}
            _ => {
                program = Some(OsStr::from_bytes(word).to_owned());
                break;
            }
        }
    }
    Env { program, drops_preload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Option<String>)> {
        let header = header(text.as_bytes())?;
        Some((header.interpreter.to_str()?.to_owned(), header.argument.map(|text| text.into_string().unwrap())))
    }

    fn line(interpreter: &str, argument: Option<&str>) -> (String, Option<String>) {
        (interpreter.to_owned(), argument.map(str::to_owned))
    }

    #[test]
    fn headers_are_read_as_the_kernel_does() {
        assert_eq!(read("#!/bin/sh\nexit"), Some(line("/bin/sh", None)));
        assert_eq!(read("#! \t/bin/sh -e  -x \t\n"), Some(line("/bin/sh", Some("-e  -x"))));
        assert_eq!(read("#!/bin/sh"), Some(line("/bin/sh", None)), "no newline at the end of the file");
        assert_eq!(read("#!/bin/a\0b\n"), Some(line("/bin/a", None)));
        assert_eq!(read("#!relative\n"), Some(line("relative", None)));
    }

    #[test]
    fn a_line_that_the_kernel_refuses_is_not_a_shebang() {
        for text in ["", "#", "#!", "#!\n/bin/sh", "#!  \n", " #!/bin/sh\n", "echo"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_truncated_interpreter_is_refused() {
        let long = format!("#!/{}", "x".repeat(400));
        assert_eq!(read(&long), None);
        let long_argument = format!("#!/bin/sh {}", "x".repeat(400));
        assert_eq!(read(&long_argument).unwrap().0, "/bin/sh");
    }

    fn env(line: &str) -> (Option<String>, bool) {
        let env = header(format!("{line}\n").as_bytes()).unwrap().env().unwrap();
        (env.program.map(|name| name.into_string().unwrap()), env.drops_preload)
    }

    #[test]
    fn env_is_followed() {
        let python = Some("python3".to_owned());
        assert_eq!(env("#!/usr/bin/env python3"), (python.clone(), false));
        assert_eq!(env("#!/usr/bin/env -S python3 -u -X dev"), (python.clone(), false));
        assert_eq!(env("#!/usr/bin/env -S A=b -u C python3"), (python.clone(), false));
        assert_eq!(env("#!/usr/bin/env --split-string=python3 -i"), (python.clone(), false));
        assert_eq!(env("#!/bin/env -Spython3"), (python, false));
        assert_eq!(env("#!/bin/env"), (None, false));
        assert_eq!(header(b"#!/bin/sh env\n").unwrap().env(), None);
    }

    #[test]
    fn variables_that_env_removes_are_recognised() {
        for arguments in ["-S -i python3", "-iS python3", "-S -u LD_PRELOAD python3", "-S LD_PRELOAD= python3"] {
            assert!(env(&format!("#!/usr/bin/env {arguments}")).1, "{arguments}");
        }
    }

    #[test]
    fn without_splitting_env_gets_one_word() {
        // env then searches for this name, in vain.
        assert_eq!(env("#!/usr/bin/env python3 -u").0.as_deref(), Some("python3 -u"));
    }
}
