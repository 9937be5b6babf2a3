//! Names and numbers in the lines of a status file. Each sweep parses some fifty lines, most of
//! which it does not need, so a name is found and compared as one number.

use crate::slices;

/// Returns the first 8 bytes of a name as one number, with zeroes behind a shorter one. No two names
/// that are needed, and no needed one and another in the file, have the same first 8 bytes.
pub const fn key(name: &[u8]) -> u64 {
    let (mut key, mut rest, mut shift) = (0, name, 0);
    while let [first, others @ ..] = rest
        && shift != u64::BITS
    {
        (key, rest, shift) = (key | (*first as u64) << shift, others, shift + 8);
    }
    key
}

/// Returns the first line of a text without its newline, if that is there.
pub fn until_newline(text: &[u8]) -> Option<&[u8]> {
    text.get(..slices::position(text, b'\n')?)
}

/// Returns the key of the name at the beginning of a line, up to the colon.
pub fn key_of(line: &[u8]) -> u64 {
    let start = line.first_chunk().map_or_else(|| key(line), |start| u64::from_le_bytes(*start));
    match slices::equal_bytes(start, b':') {
        0 => start,
        colons => start & ((1 << (8 * slices::lowest(colons))) - 1),
    }
}

/// Returns the rest of a line, behind the colon.
pub fn value(line: &[u8]) -> &[u8] {
    slices::position(line, b':').and_then(|colon| line.get(colon + 1..)).unwrap_or_default()
}

/// Returns the words of a value that consist of hexadecimal digits.
pub fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| !word.is_empty())
}

/// Returns the first word of a value as a decimal number; `None` if it is none, or too large.
pub fn decimal(value: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for digit in first_digits(value)? {
        number = number.checked_mul(10)?.checked_add((digit < 10).then_some(digit)?)?;
    }
    Some(number)
}

/// Returns the first word of a value as a hexadecimal number; `None` if there is none, or if it has
/// more than 16 digits.
pub fn hexadecimal(value: &[u8]) -> Option<u64> {
    let (mut number, mut count) = (0, 0);
    for digit in first_digits(value)? {
        (number, count) = (number << 4 | digit, count + 1);
    }
    (count <= u64::BITS / 4).then_some(number)
}

/// Returns the values of the digits of the first word, as hexadecimal ones.
fn first_digits(value: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let start = value.iter().position(|byte| digit(*byte).is_some())?;
    Some(value.get(start..)?.iter().map_while(|byte| digit(*byte)))
}

/// Returns the value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u64> {
    let (decimal, letter) = (byte.wrapping_sub(b'0'), (byte | 0x20).wrapping_sub(b'a'));
    if decimal < 10 { Some(decimal.into()) } else { (letter < 6).then_some(u64::from(letter) + 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_colon_wherever_it_is() {
        for (line, name, value) in [
            (&b"Pid:\t813"[..], &b"Pid"[..], &b"\t813"[..]),
            (b"Pid:\t8", b"Pid", b"\t8"),
            (b"Threads:\t2", b"Threads", b"\t2"),
            (b"Seccomp_filters:\t3", b"Seccomp_", b"\t3"),
            (b"no colon", b"no colon", b""),
            (b"none", b"none", b""),
            (b":", b"", b""),
            (b"", b"", b""),
        ] {
            assert_eq!((key_of(line), super::value(line)), (key(name), value), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn numbers_are_whole_words_of_their_radix() {
        assert_eq!((decimal(b":\t 64 kB"), decimal(b":\t18446744073709551615")), (Some(64), Some(u64::MAX)));
        assert_eq!((decimal(b":\t18446744073709551616"), decimal(b":\t6a"), decimal(b":\t")), (None, None, None));
        assert_eq!(
            (hexadecimal(b":\t00a80425fB\n"), hexadecimal(b":\tffffffffffffffff")),
            (Some(0xa804_25fb), Some(u64::MAX))
        );
        assert_eq!((hexadecimal(b":\t10000000000000000"), hexadecimal(b":\tg")), (None, None));
        for byte in 0..=u8::MAX {
            assert_eq!(digit(byte), char::from(byte).to_digit(16).map(u64::from));
        }
    }
}
