//! Splits the text in front of the kernel's words off a line: the stamps of dmesg, journalctl and syslog. This
//! module does not interpret the words.

/// The months as syslog writes them.
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The name of the kernel in lines of syslog and the journal.
const KERNEL: &str = "kernel: ";

/// Returns what is in front of the kernel's words, if anything, and the words.
///
/// | written by | example |
/// |---|---|
/// | `dmesg`, also with `-T`, `-H` | `[  12.345678] `, `[Sat Nov 28 00:44:34 2026] `, `[  +0.001737] ` |
/// | a kernel with `CONFIG_PRINTK_CALLER` | `[  12.345678][ T4711] ` |
/// | `dmesg -x` | `kern  :info  : [  12.345678] ` |
/// | `dmesg --time-format iso` | `2026-11-28T00:44:34,766913+00:00 ` |
/// | `/dev/kmsg` | `6,5126,13871766913,-;` |
/// | a serial console | `<6>[  12.345678] ` |
/// | `journalctl -k`, syslog | `Nov 28 00:44:34 host kernel: `, also with `[  12.345678] ` behind it |
pub fn split(line: &str) -> (Option<&str>, &str) {
    let line = line.trim();
    let mut rest = line;
    if let Some((_, behind)) = line.split_once(KERNEL).filter(|(before, _)| is_syslog(before)) {
        rest = behind;
    } else if let Some(behind) = line.strip_prefix("kern").and_then(|rest| rest.splitn(3, ':').nth(2)) {
        rest = behind;
    } else if let Some((before, behind)) = line.split_once(' ').filter(|(before, _)| is_iso(before)) {
        (_, rest) = (before, behind);
    } else if let Some((_, behind)) = line.split_once(';').filter(|(before, _)| is_kmsg(before)) {
        rest = behind;
    }
    loop {
        rest = rest.trim_start();
        let behind = bracketed(rest, '<', '>').filter(|(level, _)| level.bytes().all(|byte| byte.is_ascii_digit()));
        let Some((_, behind)) = behind.or_else(|| bracketed(rest, '[', ']').filter(|(stamp, _)| is_stamp(stamp)))
        else {
            break;
        };
        rest = behind;
    }
    let before = line.get(..line.len() - rest.len()).unwrap_or_default();
    let when = before.trim_end().trim_end_matches(KERNEL.trim_end()).trim_end();
    ((!when.is_empty()).then_some(when), rest)
}

fn bracketed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_prefix(open)?.split_once(close)
}

/// The text of a stamp: seconds, a date, or the caller (`T4711`, `C0`), never the name of a program.
fn is_stamp(text: &str) -> bool {
    let text = text.trim();
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b".@+".contains(&byte));
    let is_caller = |text: &str| is_number(text.trim_start_matches(['T', 'C']));
    let is_date = |text: &str| text.contains(':') && MONTHS.iter().any(|month| text.contains(month));
    !text.is_empty() && (is_number(text) || is_caller(text) || is_date(text))
}

/// The text in front of `kernel: `: a time and the name of the machine, or nothing.
fn is_syslog(before: &str) -> bool {
    before.is_empty() || before.len() < 160 && before.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_iso(word: &str) -> bool {
    word.len() >= 19 && word.as_bytes().get(10) == Some(&b'T') && word.starts_with(|first: char| first.is_ascii_digit())
}

/// Priority, sequence number, microseconds, flags (Documentation/ABI/testing/dev-kmsg).
fn is_kmsg(before: &str) -> bool {
    let mut fields = before.split(',');
    let is_number = |field: Option<&str>| {
        field.is_some_and(|field| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number(fields.next()) && is_number(fields.next()) && is_number(fields.next()) && fields.next().is_some()
}
