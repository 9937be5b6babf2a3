//! One line of `/proc/PID/maps` (`proc_pid_maps(5)`, `show_map_vma` in `fs/proc/task_mmu.c`),
//! with which an entry of `/proc/PID/smaps` begins as well.

use super::{FileId, Vma};
use crate::object::Span;
use crate::sys::{Errno, Result};

/// Parses `start-end rwxp offset major:minor inode   path`; the VMA and where
/// in the line the path begins. `None` for anything else.
pub fn parse_line(line: &[u8]) -> Option<(Vma, usize)> {
    let (start, rest) = hexadecimal(line, b'-')?;
    let (end, rest) = hexadecimal(rest, b' ')?;
    let (flags, rest) = rest.split_first_chunk::<5>()?;
    let (offset, rest) = hexadecimal(rest, b' ')?;
    let (major, rest) = hexadecimal(rest, b':')?;
    let (minor, rest) = hexadecimal(rest, b' ')?;
    let (inode, path) = decimal(rest)?;
    let digits = rest.len() - path.len();
    let path = path.iter().position(|byte| *byte != b' ').unwrap_or(path.len());
    let has = |index: usize, letter: u8, bit: i32| if flags.get(index) == Some(&letter) { bit } else { 0 };
    let vma = Vma {
        span: Span { start: start as usize, end: end as usize },
        protection: has(0, b'r', libc::PROT_READ) | has(1, b'w', libc::PROT_WRITE) | has(2, b'x', libc::PROT_EXEC),
        is_shared: flags.get(3) == Some(&b's'),
        offset,
        file: FileId { device: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?), inode },
    };
    (start < end).then_some((vma, line.len() - rest.len() + digits + path))
}

/// Returns a hexadecimal number up to `separator`, and what follows the separator. A sweep parses
/// five of them in each line, so it does without `u64::from_str_radix`.
fn hexadecimal(text: &[u8], separator: u8) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            byte if *byte == separator && index != 0 => return Some((value, text.get(index + 1..)?)),
            _ => return None,
        };
        if value >> 60 != 0 {
            return None;
        }
        value = value << 4 | u64::from(digit);
    }
    None
}

/// Returns the decimal number with which a text begins, and what follows it.
fn decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut rest) = (0_u64, text);
    while let Some((byte, others)) = rest.split_first().filter(|(byte, _)| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        rest = others;
    }
    (rest.len() != text.len()).then_some((value, rest))
}

/// Undoes the octal escapes of the kernel's `seq_path` (it escapes newlines).
pub fn unescape<'a>(path: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut rest = path;
    let mut len = 0;
    while let Some((first, tail)) = rest.split_first() {
        let escaped =
            tail.first_chunk::<3>().filter(|digits| *first == b'\\' && digits.iter().all(|d| matches!(d, b'0'..=b'7')));
        let byte = if let Some(digits) = escaped {
            rest = tail.get(3..).unwrap_or_default();
            digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0'))
        } else {
            rest = tail;
            *first
        };
        *buffer.get_mut(len).ok_or(Errno(libc::ENAMETOOLONG))? = byte;
        len += 1;
    }
    Ok(buffer.get(..len).unwrap_or_default())
}
