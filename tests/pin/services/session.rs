//! A session with `PostgreSQL`, in the protocol that its manual describes ("Frontend/Backend
//! Protocol"), version 3.0, without authentication.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::ANSWER_TIMEOUT;

const VERSION: u32 = 0x0003_0000;

/// A connection that one process of the server serves.
pub struct Session {
    stream: UnixStream,
    /// The number of that process.
    pub pid: u32,
}

impl Session {
    /// Connects as the user `postgres`.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub fn open(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|error| error.to_string())?;
        let mut session = Self { stream, pid: 0 };
        let mut start = VERSION.to_be_bytes().to_vec();
        start.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
        session.send(&start)?;
        session.receive_all()?;
        Ok(session)
    }

    /// Executes SQL and returns the values of all rows.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub fn query(&mut self, sql: &str) -> Result<String, String> {
        self.stream.write_all(b"Q").map_err(|error| error.to_string())?;
        self.send(format!("{sql}\0").as_bytes())?;
        self.receive_all()
    }

    /// Sends the length of a message, which includes its own 4 bytes, and the message.
    fn send(&mut self, message: &[u8]) -> Result<(), String> {
        let length = u32::try_from(message.len() + 4).map_err(|error| error.to_string())?;
        let bytes = [&length.to_be_bytes(), message].concat();
        self.stream.write_all(&bytes).map_err(|error| error.to_string())
    }

    /// Receives messages until the server is ready for the next query.
    fn receive_all(&mut self) -> Result<String, String> {
        let mut values = Vec::new();
        let mut failure = None;
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).map_err(|error| format!("no answer: {error}"))?;
            let mut message = vec![0; number(&head[1..])?.saturating_sub(4) as usize];
            self.stream.read_exact(&mut message).map_err(|error| format!("no answer: {error}"))?;
            match head[0] {
                b'Z' => return failure.map_or_else(|| Ok(values.join("|")), Err),
                b'K' => self.pid = number(&message)?,
                b'D' => values.extend(row(&message)?),
                b'E' => failure = Some(String::from_utf8_lossy(&message).replace('\0', " ")),
                _ => {}
            }
        }
    }
}

/// Returns the number in the first four bytes.
fn number(bytes: &[u8]) -> Result<u32, String> {
    let first = bytes.first_chunk().ok_or("a message that is too short")?;
    Ok(u32::from_be_bytes(*first))
}

/// Returns the values of a row: their number in two bytes, then for each its length and its bytes.
fn row(message: &[u8]) -> Result<Vec<String>, String> {
    let mut rest = message.get(2..).ok_or("a message that is too short")?;
    let mut values = Vec::new();
    while !rest.is_empty() {
        // The length of a value that is null is -1.
        let length = usize::try_from(number(rest)?.cast_signed()).unwrap_or(0);
        let value = rest.get(4..4 + length).ok_or("a value that is too short")?;
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = &rest[4 + length..];
    }
    Ok(values)
}
