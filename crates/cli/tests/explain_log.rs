//! `sopin explain --log`: lines that this machine's kernel logs about processes that really crash,
//! because their library was rewritten in place or for another reason, and searches for the object.
//! The kernel leaves lines out when others crash as well; then a test waits and crashes again.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::cases::{self, Case};
use common::victim::Running;
use common::{Installation, clean_process};
use serde_json::Value;

/// A library with a pointer to a function, a lazily bound call, and a bug.
const LIBRARY: &str = "#include <stdlib.h>\n\
    static int discount(int n) { return n / 2; }\n\
    static int surcharge(int n) { return n * 2; }\n\
    static int (*volatile rules[])(int) = { discount, surcharge };\n\
    int price(int n) { return rules[n & 1](n); }\n\
    int absolute(int n) { return abs(n) + 1; }\n\
    int bug(int n) { int (*volatile none)(int) = 0; return none(n) + 1; }\n";
/// A program that loads it, waits for its input to end, and calls one of its functions.
const PROGRAM: &str = "#include <dlfcn.h>\n#include <stdio.h>\n\
    int main(int count, char **words) {\n\
    \x20   void *library = dlopen(words[1], RTLD_LAZY);\n\
    \x20   if (!library) { puts(dlerror()); return 1; }\n\
    \x20   int (*function)(int) = (int (*)(int))dlsym(library, words[2]);\n\
    \x20   puts(\"ready\");\n\
    \x20   fflush(stdout);\n\
    \x20   while (getchar() != EOF) {}\n\
    \x20   return function(7) < 0;\n\
    }\n";
/// The most processes that a test crashes until the kernel has logged one.
const TRIES: usize = 8;
/// The pause after a crash whose line the kernel has left out: the kernel counts for 5 seconds.
const WAIT: Duration = Duration::from_secs(3);

/// A test.
#[derive(Clone, Copy)]
enum Test {
    /// It needs a line that the kernel logs, and returns why there is none.
    Logged(fn() -> Result<(), String>),
    /// It makes its lines.
    Made(fn()),
}

use Test::{Logged, Made};

fn main() -> ExitCode {
    let case = |name, test: Test| Case { name, needs: &["cc"], test };
    let cases = vec![
        Case {
            name: "a_package_of_another_system_has_the_object",
            needs: &["cc", "dpkg-query"],
            test: Made(a_package_of_another_system_has_the_object),
        },
        Case {
            name: "a_separate_file_has_the_name",
            needs: &["cc", "strip", "readelf"],
            test: Made(a_separate_file_has_the_name),
        },
        case("a_reverted_pointer_is_named", Logged(a_reverted_pointer_is_named)),
        case("a_lazy_entry_is_named", Logged(a_lazy_entry_is_named)),
        case("an_ordinary_null_call_is_not_it", Logged(an_ordinary_null_call_is_not_it)),
        case("sigbus_is_not_logged", Logged(sigbus_is_not_logged)),
        case("a_process_of_the_same_program_has_the_object", Made(a_process_of_the_same_program_has_the_object)),
        case("a_python_distribution_has_the_object", Made(a_python_distribution_has_the_object)),
        case("a_journal_is_searched_for_crashes", Made(a_journal_is_searched_for_crashes)),
        case("odd_files_are_passed_over", Made(odd_files_are_passed_over)),
        case("what_cannot_be_told_has_a_status_of_its_own", Made(what_cannot_be_told_has_a_status_of_its_own)),
    ];
    cases::run(cases, |test| match test {
        Logged(test) => test(),
        Made(test) => {
            test();
            Ok(())
        }
    })
}

/// The library and the program, which has a name that no other process has.
struct Shop {
    installation: Installation,
    library: PathBuf,
    name: String,
}

impl Shop {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let installation = Installation::without_library();
        let name = format!("shop{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(installation.path("lib")).unwrap();
        let flags = ["-shared", "-fPIC", "-O1", "-fno-builtin", "-Wl,-z,lazy"];
        let library = installation.compile("lib/prices.so", LIBRARY, "cc", &flags);
        installation.compile(&name, PROGRAM, "cc", &["-ldl"]);
        Self { installation, library, name }
    }

    fn start(&self, function: &str) -> Running {
        let mut command = Command::new(self.installation.path(&self.name));
        Running::start(clean_process(&mut command).arg(&self.library).arg(function))
    }

    /// Crashes processes until the kernel has logged one. Returns its lines, or why there are none.
    fn crash(&self, function: &str, change: impl Fn(&Path)) -> Result<String, String> {
        for _ in 0..TRIES {
            let mut log = Kmsg::at_end()?;
            let running = self.start(function);
            running.settle();
            change(&self.library);
            assert!(!running.ends_well(), "{function} must not end well");
            if let Some(lines) = log.lines_about(&self.name) {
                return Ok(lines);
            }
            thread::sleep(WAIT);
        }
        Err("the kernel has logged none of the crashes; others crash, too, or it does not log here".to_owned())
    }

    /// Explains a line. Returns the answer in JSON, and the text for people.
    fn explain(&self, line: &str, arguments: &[&str], status: i32) -> (Value, String) {
        let run = |more: &[&str]| {
            let command = self.installation.sopin().args(["explain", "--log", line]).args(arguments).args(more);
            command.assert().code(status).stderr_eq("").get_output().stdout.clone()
        };
        let answer: Value = serde_json::from_slice(&run(&["--json"])).unwrap();
        assert_eq!(answer["schema"], 1);
        (answer, String::from_utf8(run(&[])).unwrap())
    }

    fn directory(&self) -> String {
        self.installation.path("lib").to_str().unwrap().to_owned()
    }

    /// Returns the address of a function as nm prints it.
    fn address_of(&self, function: &str) -> u64 {
        let output = Command::new("nm").arg(&self.library).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.ends_with(&format!(" {function}"))).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    }

    /// Returns a line as of a process that has jumped to that function without base.
    fn line_for(&self, function: &str) -> String {
        let address = self.address_of(function);
        if cfg!(target_arch = "aarch64") {
            return format!("shop[7]: unhandled level 3 translation fault (11) at 0x{address:08x}, esr 0x82000007");
        }
        format!("shop[7]: segfault at {address:x} ip {address:016x} sp 00007ffc26773df8 error 14")
    }
}

/// The kernel's log from now on.
struct Kmsg(File);

impl Kmsg {
    fn at_end() -> Result<Self, String> {
        let trace = fs::read_to_string("/proc/sys/debug/exception-trace").unwrap_or_default();
        if trace.trim() == "0" {
            return Err("the kernel does not log crashes (debug.exception-trace is 0)".to_owned());
        }
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg");
        let mut file = file.map_err(|error| format!("/dev/kmsg cannot be read: {error}"))?;
        file.seek(SeekFrom::End(0)).map_err(|error| format!("/dev/kmsg: {error}"))?;
        Ok(Self(file))
    }

    /// Returns the record about a program and the one behind it. The kernel has logged a crash before the
    /// process ends.
    fn lines_about(&mut self, name: &str) -> Option<String> {
        let (mut record, mut found) = (vec![0; 8192], String::new());
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]).into_owned();
                    if text.contains(&format!("{name}[")) || !found.is_empty() {
                        found += &text;
                    }
                }
                // The buffer has wrapped around.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

fn rewrite(library: &Path) {
    let bytes = fs::read(library).unwrap();
    fs::write(library, bytes).unwrap();
}

fn a_reverted_pointer_is_named() -> Result<(), String> {
    let shop = Shop::new();
    let lines = shop.crash("price", rewrite)?;
    let (answer, text) = shop.explain(&lines, &["--in", &shop.directory()], 4);
    let group = &answer["groups"][0];
    assert_eq!((&answer["verdict"], &group["sign"]), (&"signature".into(), &"jump".into()), "{answer:#}");
    assert_eq!(group["program"], shop.name.as_str());
    assert_eq!(group["small_address"], shop.address_of("surcharge"), "{lines}");
    let candidate = &group["candidates"][0];
    assert_eq!(candidate["names"][0]["name"], "surcharge", "{answer:#}");
    assert_eq!((&candidate["words"], &candidate["holders"][0]["name"]), (&1.into(), &"rules".into()), "{answer:#}");
    assert!(text.contains("surcharge in ") && text.contains("lib/prices.so without its load base"), "{text}");
    // Without a place to search in, the line alone has the signature.
    shop.explain(&lines, &[], 4);
    Ok(())
}

fn a_lazy_entry_is_named() -> Result<(), String> {
    if cfg!(target_arch = "aarch64") {
        return Err("on aarch64 all lazy entries have one address".to_owned());
    }
    let shop = Shop::new();
    let lines = shop.crash("absolute", rewrite)?;
    let (answer, text) = shop.explain(&lines, &["--in", &shop.directory()], 4);
    let name = &answer["groups"][0]["candidates"][0]["names"][0];
    assert_eq!((&name["kind"], &name["name"]), (&"plt".into(), &"abs".into()), "{answer:#}");
    assert!(text.contains("the lazy PLT entry of abs of "), "{text}");
    Ok(())
}

/// The negative control: the same program, without a change of its library.
fn an_ordinary_null_call_is_not_it() -> Result<(), String> {
    let shop = Shop::new();
    let lines = shop.crash("bug", |_| {})?;
    let (answer, text) = shop.explain(&lines, &["--in", &shop.directory()], 0);
    assert_eq!(
        (&answer["verdict"], &answer["groups"][0]["sign"]),
        (&"nothing".into(), &"null-call".into()),
        "{answer:#}"
    );
    assert!(text.contains("does not look like it: a call of a null pointer"), "{text}");
    Ok(())
}

/// docs/diagnosis.md says so of x86-64.
fn sigbus_is_not_logged() -> Result<(), String> {
    if cfg!(target_arch = "aarch64") {
        return Err("aarch64 logs SIGBUS".to_owned());
    }
    let shop = Shop::new();
    // Without this, an empty log would prove nothing.
    shop.crash("bug", |_| {})?;
    let mut log = Kmsg::at_end()?;
    let running = shop.start("price");
    fs::write(&shop.library, "").unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&running.end()), Some(7), "SIGBUS");
    assert_eq!(log.lines_about(&shop.name), None);
    Ok(())
}

fn a_process_of_the_same_program_has_the_object() {
    let shop = Shop::new();
    let line = shop.line_for("discount");
    let running = shop.start("price");
    let (answer, _) = shop.explain(&line, &["--pid", &running.pid().to_string()], 4);
    let candidates = answer["groups"][0]["candidates"].as_array().unwrap();
    let of_library = candidates.iter().find(|found| found["path"].as_str().unwrap().ends_with("/lib/prices.so"));
    assert_eq!(of_library.unwrap()["names"][0]["name"], "discount", "{answer:#}");
    // The program itself, libc, the loader.
    assert!(answer["searched"]["objects"].as_u64().unwrap() >= 3, "{answer:#}");
    assert!(running.ends_well());
}

fn a_python_distribution_has_the_object() {
    let shop = Shop::new();
    let site = shop.installation.path("venv/lib/python3.11/site-packages");
    fs::create_dir_all(site.join("Shop_Prices-1.0.dist-info")).unwrap();
    fs::write(site.join("Shop_Prices-1.0.dist-info/RECORD"), "shop/__init__.py,,\nshop/prices.so,sha256=x,1\n")
        .unwrap();
    fs::create_dir(site.join("shop")).unwrap();
    fs::copy(&shop.library, site.join("shop/prices.so")).unwrap();
    let explain = |package: &str| {
        let command = shop.installation.sopin().env("VIRTUAL_ENV", shop.installation.path("venv"));
        command.args(["explain", "--json", "--log", &shop.line_for("discount"), "--package", package]).assert()
    };
    let output = explain("shop-prices").code(4).stderr_eq("");
    let answer: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(answer["searched"]["objects"], 1, "{answer:#}");
    assert_eq!(answer["groups"][0]["candidates"][0]["names"][0]["name"], "discount");
    explain("no-such-package").code(3).stdout_eq("");
}

/// Links in the other system lead to what is in it.
fn a_package_of_another_system_has_the_object() {
    let shop = Shop::new();
    let root = shop.installation.path("root");
    let (database, lib) = (root.join("var/lib/dpkg"), root.join("usr/lib"));
    fs::create_dir_all(database.join("info")).unwrap();
    fs::create_dir_all(&lib).unwrap();
    fs::copy(&shop.library, lib.join("prices.so")).unwrap();
    symlink("/usr/lib", root.join("lib")).unwrap();
    let status = "Package: shop\nStatus: install ok installed\nMaintainer: a <a@example.org>\nArchitecture: all\n\
                  Version: 1\nDescription: prices\n";
    fs::write(database.join("status"), status).unwrap();
    fs::write(database.join("info/shop.list"), "/.\n/lib\n/lib/prices.so\n/lib/gone.so\n").unwrap();
    let (answer, _) =
        shop.explain(&shop.line_for("discount"), &["--sysroot", root.to_str().unwrap(), "--package", "shop"], 4);
    assert_eq!(answer["searched"]["objects"], 1, "{answer:#}");
    assert_eq!(answer["groups"][0]["candidates"][0]["names"][0]["name"], "discount");
}

fn a_separate_file_has_the_name() {
    let shop = Shop::new();
    let line = shop.line_for("discount");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(&shop.library).output().unwrap();
        assert!(output.status.success(), "{program}");
        String::from_utf8(output.stdout).unwrap()
    };
    let notes = run("readelf", &["-n"]);
    let Some((_, build_id)) = notes.split_once("Build ID: ") else { return };
    let (first, rest) = build_id.lines().next().unwrap().trim().split_at(2);
    let debug = shop.installation.path("debug");
    let directory = debug.join(".build-id").join(first);
    fs::create_dir_all(&directory).unwrap();
    fs::copy(&shop.library, directory.join(format!("{rest}.debug"))).unwrap();
    run("strip", &[]);
    let name = |arguments: &[&str]| {
        let (answer, text) = shop.explain(&line, &[arguments, &["--in", &shop.directory()]].concat(), 4);
        (answer["groups"][0]["candidates"][0]["names"][0]["name"].clone(), text)
    };
    let (without, text) = name(&[]);
    assert!(without.is_null() && text.contains("is a function without a symbol in "), "{text}");
    assert_eq!(name(&["--debug-dir", debug.to_str().unwrap()]).0, "discount");
}

fn a_journal_is_searched_for_crashes() {
    let shop = Shop::new();
    // 100 MB of addresses, less than the longest line.
    let mut command = Command::new("sh");
    let command = clean_process(&mut command).args(["-c", "ulimit -v 100000; exec \"$@\"", "sh"]);
    let command = command.arg(shop.installation.path("bin/sopin"));
    let command = command.args(["explain", "--json", "--log", "-", "--in", &shop.directory()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = shop.line_for("surcharge");
    let writer = thread::spawn(move || {
        let noise = format!("Nov 28 00:44:34 host kernel: {}\n", "x".repeat(1000));
        for round in 0..20_000 {
            stdin.write_all(noise.as_bytes()).unwrap();
            if round % 5000 == 0 {
                stdin.write_all(format!("Nov 28 00:44:{:02} host kernel: {line}\n", round / 5000).as_bytes()).unwrap();
            }
            if round == 7 {
                (0..160).for_each(|_| stdin.write_all(&vec![b'y'; 1 << 20]).unwrap());
                stdin.write_all(b"\n").unwrap();
            }
        }
    });
    let output = {
        let mut text = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
        text
    };
    writer.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let answer: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&answer["lines"], &answer["crashes"]), (&20_005.into(), &4.into()));
    let group = &answer["groups"][0];
    assert_eq!((&group["count"], &group["last"]), (&4.into(), &"Nov 28 00:44:03 host".into()), "{group:#}");
    assert_eq!(group["candidates"][0]["names"][0]["name"], "surcharge");
}

/// FIFOs, links, directories without permission, and files that are no objects or damaged ones.
fn odd_files_are_passed_over() {
    let shop = Shop::new();
    let lib = shop.installation.path("lib");
    let bytes = fs::read(&shop.library).unwrap();
    assert!(Command::new("mkfifo").arg(lib.join("fifo.so")).status().unwrap().success());
    symlink("nowhere", lib.join("dangling.so")).unwrap();
    symlink("..", lib.join("loop")).unwrap();
    symlink("/dev/zero", lib.join("device.so")).unwrap();
    symlink("prices.so", lib.join("again.so")).unwrap();
    fs::hard_link(&shop.library, lib.join("same.so")).unwrap();
    fs::write(lib.join("empty.so"), "").unwrap();
    fs::write(lib.join("text.so"), "INPUT(-lprices)").unwrap();
    fs::write(lib.join("short.so"), &bytes[..700]).unwrap();
    let mut odd = bytes.clone();
    // The offset of the program headers, and their number.
    odd[32..40].fill(0xff);
    odd[56..58].fill(0xff);
    fs::write(lib.join("odd.so"), &odd).unwrap();
    let sparse = File::create(lib.join("sparse.so")).unwrap();
    (&sparse).write_all(&bytes).unwrap();
    sparse.set_len(1 << 40).unwrap();
    fs::create_dir(lib.join("closed")).unwrap();
    fs::set_permissions(lib.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let (answer, _) = shop.explain(&shop.line_for("surcharge"), &["--in", &shop.directory()], 4);
    let candidates = answer["groups"][0]["candidates"].as_array().unwrap();
    let mut names: Vec<_> =
        candidates.iter().map(|found| found["path"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    names.sort_unstable();
    // The file with two names is searched once.
    assert!(names == ["prices.so", "sparse.so"] || names == ["same.so", "sparse.so"], "{answer:#}");
    fs::set_permissions(lib.join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn what_cannot_be_told_has_a_status_of_its_own() {
    let shop = Shop::new();
    let line = shop.line_for("surcharge");
    // The objects of this directory are others.
    fs::create_dir(shop.installation.path("other")).unwrap();
    let other = shop.installation.path("other");
    let (answer, text) = shop.explain(&line, &["--in", other.to_str().unwrap()], 3);
    assert_eq!((&answer["verdict"], &answer["groups"][0]["sign"]), (&"possible".into(), &"jump".into()));
    assert!(text.contains("the object is another one, or has other contents by now"), "{text}");
    for line in [
        "a[1]: segfault at 46e0 ip 000056175672623e sp 00007ffdb578a960 error 6 in a[123e,561756726000+1000]",
        "traps: a[1] trap invalid opcode ip:55639f0c7297 sp:7ffc8e23e900 error:0 in a[1297,55639f0c7000+1000]",
        "shop.service: Main process exited, code=killed, status=7/BUS",
    ] {
        shop.explain(line, &[], 3);
    }
    let sopin = |arguments: &[&str]| shop.installation.sopin().args(["explain", "--log"]).args(arguments).assert();
    sopin(&["usb 1-1: new device"]).code(3).stdout_eq("");
    sopin(&[&line, "--in", "/no/such/directory"]).code(3).stdout_eq("");
    sopin(&[&line, "--pid", "4194304"]).code(3).stdout_eq("");
    sopin(&[&line, "--pid", "0"]).code(2).stdout_eq("");
    shop.installation.sopin().args(["explain", "--log", "-"]).stdin("").assert().code(3).stdout_eq("");
    shop.installation.sopin().args(["explain", "--log", "-"]).stdin("nothing\n").assert().code(0).stderr_eq("");
}
