//! A Java virtual machine that answers by HTTP (programs/Answers.java).

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::copies::Copies;
use super::load::{Client, get};
use super::{ANSWER_TIMEOUT, Service, run_service};
use crate::Run;
use crate::common::dialogue::Dialogue;
use crate::common::directives::PASSED;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::process::{Finished, Outcome};

#[derive(Default)]
pub struct Java {
    /// The standard output, whose first line has the port.
    output: PathBuf,
}

impl Service for Java {
    fn unmet_need(&self) -> Option<String> {
        Need::Program("javac".to_owned()).unmet().or_else(|| home().err())
    }

    fn start(&mut self, run: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String> {
        let home = home()?;
        copies.add_directory(&home, "java")?;
        copies.add_libraries_of(&home.join("bin/java"))?;
        copies.add_libraries_of(&home.join("lib/server/libjvm.so"))?;
        let mut java = copies.command(&copies.root().join("java/bin/java"));
        java.args(["-Xmx64m", "-XX:+UseG1GC", "-XX:-CreateCoredumpOnCrash", "-XX:-UsePerfData", "-cp"]);
        java.arg(classes(run)?).arg("Answers");
        self.output = directory.join("service.stdout");
        run_service(java, directory)
    }

    fn client(&self, _: usize) -> Result<Client, String> {
        let output = std::fs::read_to_string(&self.output).map_err(|error| error.to_string())?;
        let port = output.lines().find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok());
        let port = port.ok_or("no port was printed")?;
        Ok(Box::new(move |question| {
            let connection = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
            connection.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|error| error.to_string())?;
            let body = get(connection, &format!("/{question}"), "")?;
            Ok(String::from_utf8_lossy(&body).into_owned())
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

/// Returns the directory with the classes, which are compiled for the first trial that needs them.
fn classes(run: &Run) -> Result<PathBuf, String> {
    let classes = run.built("classes");
    if classes.exists() {
        return Ok(classes);
    }
    let mut command = Command::new("javac");
    command.arg("-d").arg(&classes).arg(checkout().join("tests/pin/programs/Answers.java"));
    let compiled = command.output().map_err(|error| format!("javac: {error}"))?;
    if compiled.status.success() { Ok(classes) } else { Err(String::from_utf8_lossy(&compiled.stderr).into_owned()) }
}

/// Returns the directory of the virtual machine.
fn home() -> Result<PathBuf, String> {
    let output = Command::new("java").args(["-XshowSettings:properties", "-version"]).output();
    let output = output.map_err(|error| format!("java: {error}"))?;
    let settings = String::from_utf8_lossy(&output.stderr);
    let home = settings.lines().find_map(|line| line.trim().strip_prefix("java.home = "));
    let home = PathBuf::from(home.ok_or_else(|| format!("java does not print its directory: {settings}"))?);
    if home.join("lib/server/libjvm.so").is_file() {
        Ok(home)
    } else {
        Err(format!("no libjvm.so in {}", home.display()))
    }
}
