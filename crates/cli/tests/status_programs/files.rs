//! `sopin status --files`: files that programs map themselves.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Case;
use crate::common::victim::Running;
use crate::common::{Installation, clean_process};

pub const CASES: &[Case] = &[
    Case { name: "a_mapped_file", needs: &["python3"], test: a_mapped_file },
    Case { name: "kinds_of_mappings", needs: &["python3"], test: kinds_of_mappings },
    Case { name: "who_may_write", needs: &["root", "python3"], test: who_may_write },
    Case { name: "a_name_like_the_mark", needs: &["python3"], test: a_name_like_the_mark },
    Case {
        name: "a_server_that_answers_nothing",
        needs: &["root", "python3", "stat"],
        test: a_server_that_answers_nothing,
    },
    Case { name: "a_jvm", needs: &["java", "javac"], test: a_jvm },
    Case { name: "the_c_librarys_own_files", needs: &["python3", "locale"], test: the_c_librarys_own_files },
];

/// A signal (`signal(7)`), on x86-64 and aarch64.
const SIGBUS: i32 = 7;
/// Maps each file as its kind says, and reads the last byte of each when its input ends.
const SCRIPT: &str = "import mmap, os, sys\n\
    flags = {'s': mmap.MAP_SHARED, 'p': mmap.MAP_PRIVATE}\n\
    maps = []\n\
    for kind, path in zip(sys.argv[1::2], sys.argv[2::2]):\n\
    \x20   file = os.open(path, os.O_RDWR) if path != 'memfd' else os.memfd_create('x')\n\
    \x20   path == 'memfd' and os.ftruncate(file, 8192)\n\
    \x20   prot = mmap.PROT_READ | (mmap.PROT_WRITE if 'w' in kind else 0)\n\
    \x20   maps.append(mmap.mmap(file, os.fstat(file).st_size, flags[kind[0]], prot))\n\
    \x20   'd' in kind and os.unlink(path)\n\
    print('ready', flush=True)\n\
    sys.stdin.read()\n\
    sum(one[len(one) - 1] for one in maps)\n";

/// Starts the script under these words.
fn start(installation: &Installation, under: &[&str], arguments: &[&str]) -> Running {
    installation.file("script.py", SCRIPT.as_bytes(), 0o644);
    let mut words = under.iter().chain(&["python3", "script.py"]).chain(arguments);
    let mut command = Command::new(words.next().unwrap());
    Running::start(clean_process(&mut command).args(words).current_dir(installation.path("")))
}

/// Returns the files of a process that are below the installation's directory.
fn files(installation: &Installation, pid: u32) -> Vec<Value> {
    let process = process(installation, pid);
    let files = process["files"].as_array().unwrap().clone();
    let is_below = |file: &Value| Path::new(file["path"].as_str().unwrap()).starts_with(installation.path(""));
    files.into_iter().filter(is_below).collect()
}

fn extension(file: &Value) -> Option<&str> {
    Path::new(file["path"].as_str()?).extension()?.to_str()
}

fn process(installation: &Installation, pid: u32) -> Value {
    let output = installation.sopin().args(["status", "--files", "--json", &pid.to_string()]).assert();
    let answer: Value = serde_json::from_slice(&output.stderr_eq("").get_output().stdout).unwrap();
    answer["processes"][0].clone()
}

fn a_mapped_file() -> Result<(), String> {
    let installation = Installation::new();
    for under in [&["env"][..], &["bin/sopin", "run", "--"]] {
        installation.file("data", &vec![b'x'; 20_000], 0o644);
        let control = start(&installation, under, &["s", "data"]);
        assert!(control.ends_well(), "without a truncation the program ends well");

        let running = start(&installation, under, &["s", "data"]);
        let files = files(&installation, running.pid());
        assert_eq!(files.len(), 1, "{files:#?}");
        assert_eq!(files[0]["path"], installation.path("data").to_str().unwrap());
        assert_eq!((&files[0]["mapped_kib"], &files[0]["mappings"]), (&20.into(), &1.into()));
        assert_eq!((&files[0]["shared"], &files[0]["writable"]), (&true.into(), &false.into()));
        assert_eq!((&files[0]["deleted"], &files[0]["mode"]), (&false.into(), &"0644".into()));
        let text = installation.sopin().args(["status", "--files", &running.pid().to_string()]).assert();
        let text = String::from_utf8_lossy(&text.get_output().stdout).into_owned();
        let line = format!("20 KiB  {}: shared, read-only, 0644: ", installation.path("data").display());
        assert!(text.contains(&line) && text.contains("libsopin.so does not protect them"), "{text}");
        // Its objects, their copies in the store and their witnesses are none.
        assert!(!text.contains(".so: ") && !text.contains(".so.6: "), "{text}");

        fs::File::options().write(true).open(installation.path("data")).unwrap().set_len(0).unwrap();
        assert_eq!(running.end().signal(), Some(SIGBUS), "the library does not protect it");
    }
    // Without the option there is no such field.
    let running = start(&installation, &["env"], &[]);
    let output = installation.sopin().args(["status", "--json", &running.pid().to_string()]).assert();
    let answer: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert!(answer["processes"][0].get("files").is_none());
    Ok(())
}

fn kinds_of_mappings() -> Result<(), String> {
    let installation = Installation::new();
    let names = ["shared", "private", "gone"];
    for name in names {
        installation.file(name, &[b'x'; 4096], 0o644);
    }
    let running =
        start(&installation, &["env"], &["sw", "shared", "pw", "private", "s", "shared", "sd", "gone", "sw", "memfd"]);
    let files = files(&installation, running.pid());
    let found: Vec<_> = files
        .iter()
        .map(|file| {
            let name = Path::new(file["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
            (name, file["shared"] == true, file["writable"] == true, file["deleted"] == true)
        })
        .collect();
    let all = [
        ("gone", true, false, true),
        ("private", false, true, false),
        ("shared", true, false, false),
        ("shared", true, true, false),
    ];
    assert_eq!(found, all);
    assert!(files[1]["consequence"].as_str().unwrap().contains("its own changes are lost"));
    let all = process(&installation, running.pid());
    assert!(!all["files"].to_string().contains("memfd"), "{all:#}");
    Ok(())
}

fn who_may_write() -> Result<(), String> {
    let installation = Installation::new();
    let owners = [("own", 0, 0o600, false), ("nobodys", 65534, 0o644, true), ("everybodys", 0, 0o666, true)];
    for (name, owner, mode, _) in owners {
        let path = installation.file(name, b"x", mode);
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    }
    let running = start(&installation, &["env"], &["s", "own", "s", "nobodys", "s", "everybodys"]);
    let files = files(&installation, running.pid());
    for (name, owner, _, others) in owners {
        let file = files.iter().find(|file| file["path"].as_str().unwrap().ends_with(&format!("/{name}"))).unwrap();
        assert_eq!((&file["owner"], &file["others"]), (&owner.into(), &others.into()), "{file:#}");
    }
    let text = installation.sopin().args(["status", "--files", &running.pid().to_string()]).assert();
    let text = String::from_utf8_lossy(&text.get_output().stdout).into_owned();
    assert!(text.contains("0644: user 65534 may write to it") && text.contains("everybody may write"), "{text}");
    Ok(())
}

/// The kernel marks the path of a file without a name, and a file may have a name like that.
fn a_name_like_the_mark() -> Result<(), String> {
    let installation = Installation::new();
    for name in ["named (deleted)", "gone (deleted)", "linked"] {
        installation.file(name, b"x", 0o644);
    }
    fs::hard_link(installation.path("linked"), installation.path("other")).unwrap();
    let arguments = ["s", "named (deleted)", "sd", "gone (deleted)", "sd", "linked"];
    let running = start(&installation, &["env"], &arguments);
    let files = files(&installation, running.pid());
    let found: Vec<_> = files.iter().map(|file| (file["path"].as_str().unwrap(), file["deleted"] == true)).collect();
    let path = |name| installation.path(name).into_os_string().into_string().unwrap();
    // The last has another name, so others can still open it.
    let all = [(path("gone (deleted)"), true), (path("linked"), false), (path("named (deleted)"), false)];
    assert_eq!(found, all.each_ref().map(|(path, is_deleted)| (path.as_str(), *is_deleted)));
    Ok(())
}

/// Returns whether a process ends in time. One that waits for the server cannot even be killed.
fn ends(child: &mut Child, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// The control is stat(1), which waits for the server until that is killed.
fn a_server_that_answers_nothing() -> Result<(), String> {
    if !Path::new("/dev/fuse").exists() {
        return Err("no /dev/fuse".to_owned());
    }
    let installation = Installation::new();
    installation.file("served.py", include_bytes!("served.py"), 0o644);
    fs::create_dir(installation.path("mount")).unwrap();
    let mut command = Command::new("python3");
    let command = clean_process(&mut command).args(["served.py", "mount"]).current_dir(installation.path(""));
    let running = Running::start(command);
    let pid = running.pid().to_string();

    let mut command = Command::new(installation.path("bin/sopin"));
    let command = clean_process(&mut command).args(["status", "--files", "--json", &pid]).stdout(Stdio::piped());
    let mut status = command.spawn().unwrap();
    let has_ended = ends(&mut status, Duration::from_secs(20));
    let file = format!("/proc/{pid}/root{}", installation.path("mount/file").display());
    let mut waits = Command::new("stat").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_control = !ends(&mut waits, Duration::from_secs(1));
    // The end of the server ends both.
    running.end();
    assert!(ends(&mut waits, Duration::from_secs(20)));
    let output = status.wait_with_output().unwrap();
    assert!(has_ended, "the command waits for the server");
    assert!(is_control, "stat does not wait for the server");

    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = answer["processes"][0]["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"].as_str().unwrap().ends_with("/mount/file"));
    let file = file.ok_or("its mapping is listed")?;
    assert_eq!((&file["owner"], &file["mapped_kib"], &file["shared"]), (&Value::Null, &4.into(), &true.into()));
    Ok(())
}

fn a_jvm() -> Result<(), String> {
    let installation = Installation::new();
    let source = "public class Wait {\n\
        \x20   public static void main(String[] arguments) throws Exception {\n\
        \x20       System.out.println(\"ready\");\n\
        \x20       while (System.in.read() != -1) {}\n\
        \x20   }\n\
        }\n";
    installation.file("Wait.java", source.as_bytes(), 0o644);
    let compiled = Command::new("javac").arg("Wait.java").current_dir(installation.path("")).status().unwrap();
    assert!(compiled.success());
    let mut command = Command::new("java");
    let command = clean_process(&mut command).args(["-Xshare:auto", "-cp", ".", "Wait"]);
    let running = Running::start(command.current_dir(installation.path("")));
    let process = process(&installation, running.pid());
    let files = process["files"].as_array().unwrap();
    let modules = files.iter().find(|file| file["path"].as_str().unwrap().ends_with("/lib/modules"));
    let modules = modules.ok_or("this JVM does not map lib/modules")?;
    assert!(modules["mapped_kib"].as_u64().unwrap() > 1000 && modules["shared"] == true, "{modules:#}");
    let is_of_classes = |file: &&Value| extension(file) == Some("jsa");
    assert!(files.iter().find(is_of_classes).is_none_or(|archive| archive["shared"] == false));
    let sizes: Vec<_> = files.iter().map(|file| file["mapped_kib"].as_u64().unwrap()).collect();
    assert!(sizes.is_sorted_by(|one, other| one >= other), "{sizes:?}");
    Ok(())
}

/// A locale, and the cache of the C library's converters.
fn the_c_librarys_own_files() -> Result<(), String> {
    let installation = Installation::new();
    installation.file("script.py", SCRIPT.as_bytes(), 0o644);
    let mut command = Command::new("python3");
    let command = clean_process(&mut command).arg("script.py").env("LC_ALL", "C.UTF-8");
    let running = Running::start(command.current_dir(installation.path("")));
    let process = process(&installation, running.pid());
    let files: Vec<_> =
        process["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    let are_locale = |path: &&&str| path.contains("/locale") || path.contains("/gconv");
    if files.iter().find(are_locale).is_none() {
        return Err(format!("the C library maps neither a locale nor its cache: {files:?}"));
    }
    assert!(files.iter().all(|path| !path.contains(".so")), "{files:?}");
    Ok(())
}
