//! A Go program that calls C (programs/answers.go). Its scheduler interrupts its threads by signals
//! and switches stacks by itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::copies::Copies;
use super::load::Client;
use super::{ANSWER_TIMEOUT, Service, run_service};
use crate::Run;
use crate::common::dialogue::Dialogue;
use crate::common::directives::PASSED;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::process::{Finished, Outcome};

#[derive(Default)]
pub struct Go {
    socket: PathBuf,
}

/// Returns the program, which is built for the first trial that needs it.
fn program(run: &Run) -> Result<PathBuf, String> {
    let program = run.built("answers");
    if program.exists() {
        return Ok(program);
    }
    let source = checkout().join("tests/pin/programs/answers.go");
    let mut command = Command::new("go");
    command.arg("build").arg("-o").arg(&program).arg(source);
    // What Go compiles of its own library is kept for the next run.
    command.env("GOCACHE", checkout().join("target/go-cache")).env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off");
    command.env("CGO_ENABLED", "1").env("CGO_LDFLAGS", format!("-L{}", run.built("").display()));
    let built = command.output().map_err(|error| format!("go: {error}"))?;
    if built.status.success() { Ok(program) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
}

impl Service for Go {
    fn unmet_need(&self) -> Option<String> {
        Need::Program("go".to_owned()).unmet()
    }

    fn start(&mut self, run: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String> {
        let library = copies.root().join("lib/libanswers.so");
        std::fs::copy(run.built("libanswers.so"), library).map_err(|error| error.to_string())?;
        let copy = directory.join("answers");
        std::fs::copy(program(run)?, &copy).map_err(|error| error.to_string())?;
        self.socket = directory.join("socket");
        let mut command = copies.command(&copy);
        command.arg(&self.socket);
        run_service(command, directory)
    }

    fn client(&self, _: usize) -> Result<Client, String> {
        let socket = self.socket.clone();
        let connect = move || -> std::io::Result<_> {
            let stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(BufReader::new(stream))
        };
        let mut connection = None;
        Ok(Box::new(move |question| {
            let mut ask = || -> std::io::Result<String> {
                let mut stream = connection.take().map_or_else(&connect, Ok)?;
                writeln!(stream.get_mut(), "{question}")?;
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                connection = Some(stream);
                Ok(line)
            };
            ask().map_err(|error| format!("no answer: {error}"))
        }))
    }

    fn end(&mut self, _: &mut Dialogue) -> Result<(), String> {
        // Its standard input ends.
        Ok(())
    }

    fn ended_well(&self, finished: &Finished) -> bool {
        finished.outcome == Outcome::Exit(PASSED)
    }
}
