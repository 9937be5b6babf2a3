//! Programs that people use: under the library every object is full, without it every
//! object is exposed, and in neither case does the command report damage.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Case;
use crate::common::victim::children;
use crate::common::{Installation, clean_process, sopin};

pub const CASES: &[Case] = &[
    Case { name: "python", needs: &["python3"], test: python },
    Case { name: "gunicorn", needs: &["python3"], test: gunicorn },
    Case { name: "node", needs: &["node"], test: node },
    Case { name: "postgres", needs: &["root", "setpriv"], test: postgres },
];

/// A process that is killed with its children when it is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // A stopped process starts no other in place of one that is killed.
        kill("-STOP", self.0.id());
        let pids = self.pids();
        // The process itself first.
        for pid in pids.iter().rev() {
            kill("-KILL", *pid);
        }
        let _ = self.0.wait();
        // PostgreSQL does not start while a process has the memory of the one before.
        let deadline = Instant::now() + Duration::from_secs(10);
        while pids.iter().any(|pid| is_running(*pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn kill(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Returns whether a process exists and has not ended; nothing may have waited for it yet.
fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Service {
    /// Returns its process number and those of its children.
    fn pids(&self) -> Vec<u32> {
        let mut pids = children(self.0.id());
        pids.push(self.0.id());
        pids
    }

    /// Returns its processes in the JSON output, once there are so many and `is_ready`
    /// agrees.
    fn status_when(&self, count: usize, is_ready: impl Fn() -> bool) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.pids().len() < count || !is_ready() {
            assert!(Instant::now() < deadline, "{:?}", self.pids());
            std::thread::sleep(Duration::from_millis(20));
        }
        let pids: Vec<String> = self.pids().iter().map(u32::to_string).collect();
        let output = sopin().args(["status", "--json"]).args(pids).assert().stderr_eq("").get_output().clone();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["not_inspected"], Value::Array(vec![]));
        answer["processes"].as_array().unwrap().clone()
    }
}

/// Judges a service, each of whose processes must have at least `objects` objects.
fn judge(processes: &[Value], is_protected: bool, objects: u64) {
    assert!(!processes.is_empty());
    for process in processes {
        let count = |state: &str| process[state].as_u64().unwrap();
        assert_eq!(process["errors"], Value::Array(vec![]), "{process:#}");
        assert_eq!((process["shim"].is_object(), &process["source"]), (is_protected, &"loader".into()));
        assert_eq!(count("damaged"), 0, "{process:#}");
        let all = process["objects"].as_array().unwrap().len() as u64;
        let (good, bad) = if is_protected { ("full", "exposed") } else { ("exposed", "full") };
        // Node remaps its own text, with and without the library.
        assert!(count(good) >= objects && count(good) == all && count(bad) == 0, "{process:#}");
    }
}

/// Starts a command, without the library or under `sopin run`.
fn start(installation: &Installation, is_protected: bool, words: &[&str], variables: &[(&str, &str)]) -> Service {
    let sopin = installation.path("bin/sopin");
    let under = [sopin.to_str().unwrap(), "run", "--"];
    let mut words = under.iter().filter(|_| is_protected).chain(words);
    let mut command = Command::new(words.next().unwrap());
    let command = clean_process(&mut command).args(words).envs(variables.iter().copied());
    let command = command.current_dir(installation.path("")).stdin(Stdio::null()).stdout(Stdio::piped());
    Service(command.stderr(Stdio::piped()).spawn().unwrap())
}

fn first_line(service: &mut Service) -> String {
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

fn python() -> Result<(), String> {
    for is_protected in [false, true] {
        let installation = Installation::new();
        let script = "import ssl, sqlite3, ctypes, time; print('ready', flush=True); time.sleep(1000)";
        let mut service = start(&installation, is_protected, &["python3", "-c", script], &[]);
        assert_eq!(first_line(&mut service), "ready\n");
        judge(&service.status_when(1, || true), is_protected, 8);
    }
    Ok(())
}

fn gunicorn() -> Result<(), String> {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/demo/packages");
    if !PathBuf::from(packages).join("gunicorn").is_dir() {
        return Err("no gunicorn; scripts/test-environments installs it".to_owned());
    }
    for is_protected in [false, true] {
        let installation = Installation::new();
        let app = "def app(environ, start):\n    start('200 OK', [])\n    return [b'x']\n";
        installation.file("app.py", app.as_bytes(), 0o644);
        // The port is free again before gunicorn uses it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let words = ["python3", "-m", "gunicorn", "-w", "2", "--preload", "-b", &port, "app:app"];
        let service = start(&installation, is_protected, &words, &[("PYTHONPATH", packages)]);
        let is_serving = || std::net::TcpStream::connect(&port).is_ok();
        judge(&service.status_when(3, is_serving), is_protected, 8);
    }
    Ok(())
}

fn node() -> Result<(), String> {
    for is_protected in [false, true] {
        let installation = Installation::new();
        let script = "console.log('ready'); setInterval(() => {}, 1 << 30)";
        let mut service = start(&installation, is_protected, &["node", "-e", script], &[]);
        assert_eq!(first_line(&mut service), "ready\n");
        judge(&service.status_when(1, || true), is_protected, 6);
    }
    Ok(())
}

/// Returns the directory of the newest `PostgreSQL`, where Debian and others install
/// it.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    versions.chain(["/usr/bin".into()]).filter(|path| path.join("initdb").exists()).max()
}

fn postgres() -> Result<(), String> {
    let Some(programs) = postgres_programs() else { return Err("no PostgreSQL".to_owned()) };
    let programs = |name: &str| programs.join(name).into_os_string().into_string().unwrap();
    let installation = Installation::new();
    let place = installation.path("place");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    let data = place.join("data").into_os_string().into_string().unwrap();
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let (initdb, postgres) = (programs("initdb"), programs("postgres"));
    let mut initialise = Command::new(as_nobody[0]);
    let initialise = clean_process(&mut initialise).args(&as_nobody[1..]).current_dir(&place);
    let initialised = initialise.args([initdb.as_str(), "-U", "postgres", "-N", "-D", &data]).output().unwrap();
    assert!(initialised.status.success(), "{initialised:?}");
    for is_protected in [false, true] {
        let words = [&as_nobody[..], &[&postgres, "-D", &data, "-k", &data, "-c", "listen_addresses="]].concat();
        let service = start(&installation, is_protected, &words, &[]);
        let pid_file = format!("{data}/postmaster.pid");
        let is_ready = || fs::read_to_string(&pid_file).is_ok_and(|text| text.contains("ready"));
        // Its processes start one after the other: checkpointer, writers, launchers.
        judge(&service.status_when(6, is_ready), is_protected, 10);
        drop(service);
        fs::remove_file(pid_file).unwrap();
    }
    Ok(())
}
