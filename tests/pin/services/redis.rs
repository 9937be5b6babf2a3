//! Redis, which forks children that write snapshots while it serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::copies::Copies;
use super::load::Client;
use super::{ANSWER_TIMEOUT, Service, run_service};
use crate::Run;
use crate::common::dialogue::Dialogue;
use crate::common::needs::{Need, found_program};
use crate::common::process::{Finished, Outcome};

/// What a question makes the server do: store, compress, hash and format.
const SCRIPT: &str = "for i = 1, 50 do redis.call('set', ARGV[1] .. ':' .. i, string.rep(ARGV[1], i)) end \
                      return redis.sha1hex(redis.call('get', ARGV[1] .. ':50')) .. cjson.encode({a = ARGV[1]})";

#[derive(Default)]
pub struct Redis {
    socket: PathBuf,
}

impl Service for Redis {
    fn unmet_need(&self) -> Option<String> {
        Need::Program("redis-server".to_owned()).unmet()
    }

    fn start(&mut self, _: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String> {
        let program = found_program("redis-server").ok_or("no redis-server")?;
        let copy = copies.add_program(&program, "bin/redis-server")?;
        self.socket = directory.join("socket");
        let mut server = copies.command(&copy);
        server.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]).arg(directory);
        server.arg("--unixsocket").arg(&self.socket);
        run_service(server, directory)
    }

    fn client(&self, _: usize) -> Result<Client, String> {
        let mut connection = Connection::new(&self.socket);
        Ok(Box::new(move |question| connection.ask(&["EVAL", SCRIPT, "0", &question.to_string()])))
    }

    fn after_pin(&mut self, _: &Dialogue, _: &Path) -> Result<Vec<Client>, String> {
        let mut connection = Connection::new(&self.socket);
        Ok(vec![Box::new(move |_| snapshot(&mut connection))])
    }

    fn end(&mut self, _: &mut Dialogue) -> Result<(), String> {
        // The server closes the connection instead of answering.
        let _ = Connection::new(&self.socket).ask(&["SHUTDOWN", "NOSAVE"]);
        Ok(())
    }

    fn ended_well(&self, finished: &Finished) -> bool {
        finished.outcome == Outcome::Exit(0)
    }
}

/// Lets a child write a snapshot, waits for its end, and returns the server's words about it.
fn snapshot(connection: &mut Connection) -> Result<String, String> {
    connection.ask(&["BGSAVE"])?;
    for _ in 0..400 {
        let info = connection.ask(&["INFO", "persistence"])?;
        if info.contains("rdb_bgsave_in_progress:0") {
            let status = info.lines().find(|line| line.starts_with("rdb_last_bgsave_status:"));
            return Ok(status.unwrap_or_default().to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err("a snapshot takes too long".to_owned())
}

/// A connection in the protocol RESP, which is made anew after an error.
struct Connection {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
}

impl Connection {
    fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), stream: None }
    }

    /// Sends a command and returns the simple or bulk string of the answer.
    fn ask(&mut self, words: &[&str]) -> Result<String, String> {
        let connect = || -> std::io::Result<_> {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(BufReader::new(stream))
        };
        let mut stream = self.stream.take().map_or_else(connect, Ok).map_err(|error| error.to_string())?;
        let answer = exchange(&mut stream, words).map_err(|error| format!("no answer: {error}"))?;
        self.stream = Some(stream);
        if answer.starts_with('-') { Err(answer) } else { Ok(answer) }
    }
}

fn exchange(stream: &mut BufReader<UnixStream>, words: &[&str]) -> std::io::Result<String> {
    write!(stream.get_mut(), "*{}\r\n", words.len())?;
    for word in words {
        write!(stream.get_mut(), "${}\r\n{word}\r\n", word.len())?;
    }
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let Some(length) = line.strip_prefix('$') else { return Ok(line.trim_end().to_owned()) };
    let length: usize = length.trim().parse().map_err(std::io::Error::other)?;
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
