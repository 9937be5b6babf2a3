//! nginx: a first process that forks workers, and forks new ones when it reads its configuration
//! again.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::copies::Copies;
use super::load::{Client, get};
use super::{ANSWER_TIMEOUT, Service, run_service, wait_for};
use crate::Run;
use crate::common::dialogue::Dialogue;
use crate::common::needs::found_program;
use crate::common::process::{Finished, Outcome};
use crate::states::send;

#[derive(Default)]
pub struct Nginx {
    socket: PathBuf,
    log: PathBuf,
}

/// Returns the program, which may not be in a user's search path.
fn program() -> Option<PathBuf> {
    found_program("nginx").or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()))
}

/// Every path is rewritten by a regular expression, and the answer compressed if the client likes
/// that. `AT` is the directory of the trial.
const CONFIGURATION: &str = r#"
daemon off;
worker_processes 2;
pid AT/pid;
error_log AT/error.log;
events {}
http {
    client_body_temp_path AT/client_body;
    proxy_temp_path AT/proxy;
    fastcgi_temp_path AT/fastcgi;
    uwsgi_temp_path AT/uwsgi;
    scgi_temp_path AT/scgi;
    access_log off;
    default_type text/plain;
    gzip on;
    gzip_types text/plain;
    gzip_http_version 1.0;
    server {
        listen unix:AT/socket;
        root AT/files;
        rewrite "^/(?<number>\d+)/(\w+)$" /$2-$number.txt;
    }
}
"#;

/// Returns the processes that a process has forked.
fn children(pid: u32) -> Result<Vec<u32>, String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

impl Service for Nginx {
    fn unmet_need(&self) -> Option<String> {
        program().is_none().then(|| "no program nginx".to_owned())
    }

    fn start(&mut self, _: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String> {
        let copy = copies.add_program(&program().ok_or("no nginx")?, "bin/nginx")?;
        (self.socket, self.log) = (directory.join("socket"), directory.join("error.log"));
        let files = directory.join("files");
        fs::create_dir(&files).map_err(|error| error.to_string())?;
        for number in 0..100 {
            let text = (0..2000).map(|line| format!("line {}", line * number)).collect::<Vec<_>>().join("\n");
            fs::write(files.join(format!("text-{number}.txt")), text).map_err(|error| error.to_string())?;
        }
        let written = directory.join("nginx.conf");
        let configuration = CONFIGURATION.replace("AT", &directory.to_string_lossy());
        fs::write(&written, configuration).map_err(|error| error.to_string())?;
        let mut server = copies.command(&copy);
        server.arg("-e").arg(&self.log).arg("-c").arg(&written);
        run_service(server, directory)
    }

    fn client(&self, number: usize) -> Result<Client, String> {
        let socket = self.socket.clone();
        let header = if number.is_multiple_of(2) { "Accept-Encoding: gzip\r\n" } else { "" };
        Ok(Box::new(move |question| {
            let connection = UnixStream::connect(&socket).map_err(|error| error.to_string())?;
            connection.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|error| error.to_string())?;
            let body = get(connection, &format!("/{question}/text"), header)?;
            let mut hasher = DefaultHasher::new();
            body.hash(&mut hasher);
            Ok(format!("{} bytes, {}", body.len(), hasher.finish()))
        }))
    }

    /// Lets new workers serve.
    fn after_pin(&mut self, process: &Dialogue, _: &Path) -> Result<Vec<Client>, String> {
        let before = children(process.id())?;
        send(process.id(), Signal::HUP)?;
        wait_for(|| {
            let now = children(process.id())?;
            let are_new = now.len() == 2 && !now.iter().any(|worker| before.contains(worker));
            if are_new { Ok(()) } else { Err(format!("the workers {before:?} are not replaced: {now:?}")) }
        })?;
        Ok(Vec::new())
    }

    fn end(&mut self, process: &mut Dialogue) -> Result<(), String> {
        send(process.id(), Signal::TERM)
    }

    fn ended_well(&self, finished: &Finished) -> bool {
        finished.outcome == Outcome::Exit(0)
    }

    fn died(&self, process: &mut Dialogue) -> Result<bool, String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Ok(process.is_over()? || log.contains("exited on signal"))
    }
}
