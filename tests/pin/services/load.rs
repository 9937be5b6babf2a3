//! Clients that keep a service busy and compare its answers with those that it gave in the
//! beginning.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The number of different questions.
const QUESTIONS: usize = 20;
/// An answer whose request was sent after an event. The request of the first one may have been
/// sent before.
const ANSWERS_THAT_PROVE: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks one of the questions, and returns the answer. After an error, the next call begins anew.
pub type Client = Box<dyn FnMut(usize) -> Result<String, String> + Send>;

/// Threads that ask until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    answered: Vec<Arc<AtomicUsize>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Makes a load without clients.
    pub fn new() -> Self {
        Self { shared: Arc::default(), threads: Vec::new(), answered: Vec::new() }
    }

    /// Lets this client ask everything once, and then again and again.
    ///
    /// # Errors
    /// The first answer to a question could not be had.
    pub fn add(&mut self, mut client: Client) -> Result<(), String> {
        let expected = (0..QUESTIONS).map(&mut client).collect::<Result<Vec<_>, _>>()?;
        let answered = Arc::new(AtomicUsize::new(0));
        self.answered.push(Arc::clone(&answered));
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || {
            for (question, right) in expected.iter().enumerate().cycle() {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let failure = match client(question) {
                    Ok(answer) if answer == *right => None,
                    Ok(answer) => Some(format!("question {question}: {answer:?} instead of {right:?}")),
                    Err(error) => Some(format!("question {question}: {error}")),
                };
                if let Some(failure) = failure {
                    if let Ok(mut failures) = shared.failures.lock() {
                        failures.push(failure);
                    }
                    // Refused connections return at once; this limits their number.
                    thread::sleep(Duration::from_millis(20));
                } else {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        Ok(())
    }

    /// Waits until each client has the right answer to a question that it has sent after this
    /// call.
    ///
    /// # Errors
    /// A client has had another answer, or none comes.
    pub fn goes_on(&self) -> Result<(), String> {
        let count = || self.answered.iter().map(|one| one.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = count();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(first) = self.failures().first() {
                return Err(format!("of {} answers one was wrong: {first}", count().iter().sum::<usize>()));
            }
            let now = count();
            if now.iter().zip(&before).all(|(now, before)| now - before >= ANSWERS_THAT_PROVE) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("no answers come any more: {before:?}, {now:?}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns what went wrong.
    pub fn failures(&self) -> Vec<String> {
        self.shared.failures.lock().map(|failures| failures.clone()).unwrap_or_default()
    }

    /// Stops the threads after their present questions.
    ///
    /// # Errors
    /// An answer was wrong at any time.
    pub fn stop(mut self) -> Result<(), String> {
        self.end();
        self.failures().first().map_or(Ok(()), |first| Err(first.clone()))
    }

    fn end(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that has panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends one request by HTTP and returns the body of the response.
///
/// # Errors
/// Those of the connection, and a status other than 200.
pub fn get(mut connection: impl Read + Write, path: &str, header: &str) -> Result<Vec<u8>, String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n");
    connection.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut response = Vec::new();
    connection.read_to_end(&mut response).map_err(|error| error.to_string())?;
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let is_right = response.starts_with(b"HTTP/1.") && response.get(8..13) == Some(b" 200 ");
    match end {
        Some(end) if is_right => Ok(response.split_off(end + 4)),
        _ => Err(format!("the response {:?}", String::from_utf8_lossy(&response))),
    }
}
