//! `PostgreSQL`: each session has a process, which the first process of the server forks and which
//! loads libraries of its own.
//!
//! The first process has loaded a contributed library, and is pinned with it; sessions that are opened
//! after the pin inherit that. Those that were opened before it have also loaded PL/pgSQL, and are
//! pinned with it. Two later ones load PL/pgSQL after the pin: `sopin status` shows it as exposed. One
//! of them is pinned again and survives; the other one is the control, and dies when it calls PL/pgSQL
//! after the rewriting.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};

use super::copies::Copies;
use super::load::Client;
use super::session::Session;
use super::{Service, run_service, wait_for};
use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::states::send;
use crate::{Run, command};

/// The server refuses to run as root.
const NOBODY: &str = "65534";
const INSTALLED: &str = "/usr/lib/postgresql";
const SCHEMA: &str = "create extension pg_trgm;
    create function digits(number int) returns text language plpgsql as $$
    declare digit text; result text := '';
    begin
        foreach digit in array regexp_split_to_array((number * 7919)::text, '') loop
            result := digit || result;
        end loop;
        return result;
    end $$";

#[derive(Default)]
pub struct PostgreSql {
    data: PathBuf,
    log: PathBuf,
    /// The session that has loaded a library after the pin.
    exposed: Option<Session>,
}

/// Returns the newest version that is installed.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir(INSTALLED).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut versions: Vec<_> = versions.filter(|path| path.join("bin/postgres").is_file()).collect();
    versions.sort();
    versions.pop()
}

/// Returns a command that runs a program as a user who may run the server.
fn as_user(copies: &Copies, program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    copies.apply(&mut command);
    command
}

fn succeed(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

impl PostgreSql {
    fn open(&self) -> Result<Session, String> {
        Session::open(&self.data.join(".s.PGSQL.5432"))
    }

    /// Makes the cluster, in a directory of its user.
    fn initialise(&mut self, copies: &Copies, programs: &Path, directory: &Path) -> Result<(), String> {
        self.data = directory.join("data");
        self.log = directory.join("service.stderr");
        fs::create_dir(&self.data).map_err(|error| error.to_string())?;
        if geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg(NOBODY).arg(&self.data);
            succeed(chown)?;
        }
        let mut initdb = as_user(copies, &programs.join("initdb"));
        initdb.args(["--no-sync", "--auth", "trust", "--username", "postgres", "--pgdata"]).arg(&self.data);
        succeed(initdb)
    }
}

impl Service for PostgreSql {
    fn unmet_need(&self) -> Option<String> {
        match installed() {
            None => Some(format!("no PostgreSQL in {INSTALLED}")),
            Some(version) if !version.join("lib/pg_trgm.so").is_file() => Some("no contributed libraries".to_owned()),
            Some(_) => None,
        }
    }

    fn start(&mut self, _: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String> {
        let installed = installed().ok_or("no PostgreSQL")?;
        let version = installed.file_name().unwrap_or_default();
        let own = Path::new("postgresql").join(version);
        // The programs find the other directories by the path to their own.
        let programs = copies.root().join("lib").join(&own).join("bin");
        for program in ["postgres", "initdb"] {
            let to = Path::new("lib").join(&own).join("bin").join(program);
            copies.add_program(&installed.join("bin").join(program), &to.to_string_lossy())?;
        }
        let libraries = copies.root().join("lib").join(&own).join("lib");
        fs::create_dir(&libraries).map_err(|error| error.to_string())?;
        for library in ["dict_snowball.so", "plpgsql.so", "pg_trgm.so"] {
            fs::copy(installed.join("lib").join(library), libraries.join(library))
                .map_err(|error| error.to_string())?;
        }
        let share = copies.root().join("share/postgresql");
        fs::create_dir_all(&share).map_err(|error| error.to_string())?;
        symlink(Path::new("/usr/share").join(&own), share.join(version)).map_err(|error| error.to_string())?;
        self.initialise(copies, &programs, directory)?;

        let mut server = as_user(copies, &programs.join("postgres"));
        server.arg("-D").arg(&self.data).arg("-k").arg(&self.data);
        // What the server starts by itself at any time would make the trial less exact.
        for setting in
            ["listen_addresses=", "autovacuum=off", "fsync=off", "jit=off", "shared_preload_libraries=pg_trgm"]
        {
            server.args(["-c", setting]);
        }
        let process = run_service(server, directory)?;
        wait_for(|| self.open())?.query(SCHEMA)?;
        Ok(process)
    }

    /// The first client opens a session for each question.
    fn client(&self, number: usize) -> Result<Client, String> {
        let data = self.data.clone();
        if number == 0 {
            return Ok(Box::new(move |question| client(data.clone(), similarity)?(question)));
        }
        client(data, |question| format!("select digits({question}); {}", similarity(question)))
    }

    fn after_pin(&mut self, _: &Dialogue, directory: &Path) -> Result<Vec<Client>, String> {
        // This one loads nothing.
        let later =
            client(self.data.clone(), |question| format!("select md5('{question}'), exp({question}::numeric)"))?;
        let [mut exposed, mut pinned] = [self.open()?, self.open()?];
        for session in [&mut exposed, &mut pinned] {
            session.query("select similarity('a', 'b')")?;
            is_exposed(session, directory, 0)?;
            session.query("select digits(1)")?;
            is_exposed(session, directory, 1)?;
        }
        command::pin(pinned.pid, directory)?.is_whole()?;
        is_exposed(&pinned, directory, 0)?;
        self.exposed = Some(exposed);
        Ok(vec![later, Box::new(move |question| pinned.query(&format!("select digits({question})")))])
    }

    fn end(&mut self, process: &mut Dialogue) -> Result<(), String> {
        let mut exposed = self.exposed.take().ok_or("no session")?;
        if let Ok(answer) = exposed.query("select digits(1)") {
            return Err(format!("a session that was not pinned again has to die, and has answered {answer:?}"));
        }
        wait_for(|| self.died(process)?.then_some(()).ok_or_else(|| "the session did not die".to_owned()))?;
        // It recovers with processes that it forks, which have the pins.
        wait_for(|| self.open())?.query("select md5('1')")?;
        // A fast shutdown.
        send(process.id(), Signal::INT)
    }

    fn ended_well(&self, finished: &Finished) -> bool {
        finished.outcome == Outcome::Exit(0)
    }

    fn died(&self, process: &mut Dialogue) -> Result<bool, String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Ok(process.is_over()? || log.contains("was terminated by signal"))
    }
}

/// Returns a query that runs the library that the first process has loaded.
fn similarity(question: usize) -> String {
    format!("select similarity('shared object', 'shared objects {question}'), exp({question}::numeric)")
}

/// Returns a client with a session of its own.
fn client(data: PathBuf, sql: fn(usize) -> String) -> Result<Client, String> {
    let open = move || Session::open(&data.join(".s.PGSQL.5432"));
    let mut session = Some(open()?);
    Ok(Box::new(move |question| {
        let mut present = session.take().map_or_else(&open, Ok)?;
        let answer = present.query(&sql(question))?;
        session = Some(present);
        Ok(answer)
    }))
}

/// Checks how many objects of a session's process are exposed.
fn is_exposed(session: &Session, directory: &Path, wanted: u64) -> Result<(), String> {
    let (status, outcome) = command::status(session.pid, directory)?;
    let expected = Outcome::Exit(i32::from(wanted != 0));
    let names = status["objects"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let exposed: Vec<_> = names.filter(|object| object["state"] == "exposed").collect();
    let is_plpgsql =
        |object: &&serde_json::Value| object["path"].as_str().is_some_and(|path| path.ends_with("/plpgsql.so"));
    if status["exposed"] == wanted && outcome == expected && exposed.iter().all(is_plpgsql) {
        return Ok(());
    }
    Err(format!("{wanted} exposed objects are expected: {outcome}\n{status:#}"))
}
