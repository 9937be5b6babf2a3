//! The kernel's words, without what is in front of them: a crash, or a line that continues one.

use super::{CrashEvent, LoggedCrash, LoggedObject, SIGBUS};

/// Bytes of a thread's name without its NUL (`TASK_COMM_LEN`).
const MOST_NAME: usize = 15;
/// The name of a program whose name was cut off.
const UNKNOWN: &str = "?";
/// The most characters of a message that are kept.
const MOST_MESSAGE: usize = 512;

/// Parses a line that reports a crash.
pub fn crash(message: &str) -> Option<LoggedCrash> {
    segfault(message)
        .or_else(|| trap(message))
        .or_else(|| old_exception(message))
        .or_else(|| exception(message))
        .or_else(|| broken_memory(message))
        .or_else(|| audited(message))
        .or_else(|| fatal_signal(message))
        .or_else(|| unit(message))
}

/// Adds what a line says about the crash before it.
pub fn continue_crash(crash: &mut LoggedCrash, message: &str) {
    if let Some(bytes) = message.strip_prefix("Code: ") {
        // The byte at the instruction is in angle brackets; aarch64 prints words in parentheses.
        let from = bytes.split_once('<').map(|(_, from)| from).unwrap_or_default();
        crash.code = from.split_whitespace().map_while(|byte| byte_of(byte.trim_end_matches('>'))).collect();
    }
    let is_exception = matches!(crash.event, CrashEvent::Exception(..)) && crash.ip.is_none();
    if let Some(pc) = message.strip_prefix("pc : ").filter(|_| is_exception) {
        let word = pc.split_whitespace().next().unwrap_or_default();
        crash.ip = hex(word.trim_start_matches("[<").trim_end_matches(">]"));
    }
}

fn byte_of(text: &str) -> Option<u8> {
    u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2)
}

/// Returns how many lines the kernel has left out before this one.
pub fn suppressed(message: &str) -> u64 {
    let count = message.strip_suffix(" callbacks suppressed").and_then(|rest| rest.rsplit(' ').next());
    let is_ours = ["show_signal_msg", "show_signal", "arm64_show_signal", "do_trap", "do_general_protection"];
    let is_ours = is_ours.iter().any(|name| message.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
    count.filter(|_| is_ours).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Parts of the line may be missing: people cut them off, and write `...` for them.
fn segfault(message: &str) -> Option<LoggedCrash> {
    let (before, behind) = message.split_once("segfault at ")?;
    let mut crash = match before.strip_suffix("]: ") {
        Some(before) => named(before, CrashEvent::Segfault, message)?,
        None if before.is_empty() => new(UNKNOWN, None, CrashEvent::Segfault, message),
        None => return None,
    };
    let mut words = behind.split_whitespace();
    crash.address = Some(hex(words.next()?)?);
    while let Some(word) = words.next() {
        match word {
            "ip" | "rip" | "eip" => crash.ip = hex(words.next()?),
            "error" => crash.error = hex(words.next()?),
            "in" => break,
            _ => {}
        }
    }
    crash.ip?;
    crash.object = object(behind);
    Some(crash)
}

/// A trap, or a general or control protection fault.
fn trap(message: &str) -> Option<LoggedCrash> {
    let (head, behind) = message.split_once(" ip:").or_else(|| message.split_once(" rip:"))?;
    let kinds = ["] trap ", "] general protection", "] control protection"];
    let at = kinds.iter().find_map(|kind| head.rfind(kind))?;
    let (before, kind) = (head.get(..at)?, head.get(at + 2..)?);
    let kind = kind.strip_prefix("trap ").unwrap_or(kind);
    // Older kernels say `general protection` without `fault`.
    let kind = if kind.starts_with("general protection") { "general protection fault" } else { kind };
    let before = before.strip_prefix("traps: ").unwrap_or(before);
    let mut crash = named(before, CrashEvent::Trap(kind.to_owned()), message)?;
    crash.ip = hex(behind.split_whitespace().next()?);
    crash.object = object(behind);
    Some(crash)
}

/// A fault on aarch64 as older kernels print it (4.14).
fn old_exception(message: &str) -> Option<LoggedCrash> {
    if let Some((before, behind)) = message.split_once("]: undefined instruction: pc=") {
        let event = CrashEvent::Exception("undefined instruction".to_owned(), Some(4));
        let mut crash = named(before, event, message)?;
        crash.ip = hex(behind.split_whitespace().next()?);
        return Some(crash);
    }
    let (before, behind) = message.split_once("]: unhandled ")?;
    let (what, numbers) = behind.split_once(") at 0x")?;
    let (kind, signal) = what.rsplit_once(" (")?;
    let mut crash = named(before, CrashEvent::Exception(kind.to_owned(), Some(signal.parse().ok()?)), message)?;
    crash.address = hex(numbers.split(',').next()?);
    crash.syndrome = numbers.split_once("esr 0x").and_then(|(_, value)| hex(value.split(',').next()?));
    crash.object = object(behind);
    Some(crash)
}

/// A fault on aarch64 as newer kernels print it (4.19): without the address.
fn exception(message: &str) -> Option<LoggedCrash> {
    let (before, behind) = message.split_once("]: unhandled exception: ")?;
    let (what, object) = (behind.rsplit_once(" in ").map_or(behind, |(what, _)| what), object(behind));
    let kind = what.rsplit(", ").next().unwrap_or(what);
    let mut crash = named(before, CrashEvent::Exception(kind.to_owned(), None), message)?;
    crash.syndrome = behind.split_once("ESR 0x").and_then(|(_, value)| hex(value.split(',').next()?));
    crash.object = object;
    Some(crash)
}

fn broken_memory(message: &str) -> Option<LoggedCrash> {
    let (_, behind) = message.split_once("MCE: Killing ")?;
    let (who, address) = behind.split_once(" due to hardware memory corruption fault at ")?;
    let (name, pid) = who.rsplit_once(':')?;
    let mut crash = new(name, pid.parse().ok(), CrashEvent::BrokenMemory, message);
    crash.address = hex(address.trim());
    Some(crash)
}

/// The audit subsystem's record of an abnormal end.
fn audited(message: &str) -> Option<LoggedCrash> {
    let (_, behind) = message.split_once("type=1701 audit(")?;
    let field = |key: &str| behind.split_once(key).map(|(_, value)| value);
    let word = |key: &str| field(key).and_then(|value| value.split_whitespace().next());
    let signal = word(" sig=")?.parse().ok().filter(|signal| *signal == SIGBUS)?;
    let comm = field(" comm=")?;
    let comm = match comm.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
        // A name with a quote or a space is in hexadecimal digits (audit_log_untrustedstring).
        None => unhexed(comm.split_whitespace().next()?)?,
    };
    Some(new(&comm, word(" pid=").and_then(|pid| pid.parse().ok()), CrashEvent::Ended(signal), message))
}

fn unhexed(digits: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        digits.as_bytes().chunks(2).map(|pair| byte_of(std::str::from_utf8(pair).ok()?)).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

fn fatal_signal(message: &str) -> Option<LoggedCrash> {
    let (who, signal) = message.split_once("potentially unexpected fatal signal ")?;
    let signal = signal.trim_end_matches('.').parse().ok().filter(|signal| *signal == SIGBUS)?;
    // `NAME/PID: `, later nothing, later `FILE: NAME: `.
    let who = who.trim_end().trim_end_matches(':');
    let (name, pid) = match who.rsplit_once('/') {
        Some((name, pid)) if pid.parse::<u32>().is_ok() => (name, pid.parse().ok()),
        _ => (who.rsplit(": ").next().unwrap_or_default(), None),
    };
    Some(new(name, pid, CrashEvent::Ended(signal), message))
}

/// systemd's line about the main process of a unit.
fn unit(message: &str) -> Option<LoggedCrash> {
    let (unit, _) = message.split_once(": Main process exited, code=")?;
    message.contains(", status=7/BUS").then_some(())?;
    let unit = unit.rsplit(' ').next().unwrap_or(unit);
    Some(new(unit, None, CrashEvent::Ended(SIGBUS), message))
}

/// Makes a crash from `NAME[PID`.
fn named(before: &str, event: CrashEvent, message: &str) -> Option<LoggedCrash> {
    let (name, pid) = before.rsplit_once('[')?;
    let pid = pid.parse().ok()?;
    Some(new(name_of(name), Some(pid), event, message))
}

/// Removes a prefix that no known program writes: a name is short.
fn name_of(text: &str) -> &str {
    if text.len() <= MOST_NAME {
        return text;
    }
    let behind = |mark: &str| text.rsplit_once(mark).map(|(_, name)| name);
    behind("] ").or_else(|| behind(": ")).or_else(|| behind(" ")).unwrap_or(text)
}

fn new(program: &str, pid: Option<u32>, event: CrashEvent, message: &str) -> LoggedCrash {
    LoggedCrash {
        program: program.chars().take(256).collect(),
        pid,
        when: None,
        event,
        ip: None,
        address: None,
        error: None,
        syndrome: None,
        object: None,
        code: Vec::new(),
        message: message.chars().take(MOST_MESSAGE).collect(),
    }
}

/// Parses ` in NAME[START+SIZE]` or ` in NAME[OFFSET,START+SIZE]`, the last in the text.
fn object(text: &str) -> Option<LoggedObject> {
    let (_, named) = text.split_once(" in ")?;
    let (name, range) = named.get(..named.rfind(']')?)?.rsplit_once('[')?;
    let (offset, range) = match range.split_once(',') {
        Some((offset, range)) => (Some(hex(offset)?), range),
        None => (None, range),
    };
    let (start, size) = range.split_once('+')?;
    Some(LoggedObject { name: name.to_owned(), start: hex(start)?, size: hex(size)?, offset })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}
