//! Text of bounded length, formatted without allocation.

use core::ffi::CStr;
use core::fmt;

/// A buffer of `N` bytes that implements [`fmt::Write`]. Text that does not fit is cut at a
/// character boundary, and the end is replaced by "..." so that readers see that it was cut.
pub struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
    cut: bool,
}

impl<const N: usize> Line<N> {
    /// Returns an empty line.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0, cut: false }
    }

    /// Formats `arguments` with control characters as they are: for names and
    /// C strings, not for messages.
    pub fn format_raw(arguments: fmt::Arguments<'_>) -> Self {
        let mut raw = Raw(Self::new());
        let _ = fmt::Write::write_fmt(&mut raw, arguments);
        raw.0
    }

    /// Appends a NUL.
    pub fn terminate(&mut self) {
        self.push(b"\0");
    }

    /// Appends bytes as they are, all of them or, where they do not fit, none: for names and C
    /// strings. Returns whether they fit.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        self.push(bytes)
    }

    /// Empties the line.
    pub const fn clear(&mut self) {
        self.len = 0;
        self.cut = false;
    }

    /// Returns what has been written so far.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns what has been written, up to a NUL, as a C string; empty without a NUL.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.as_bytes()).unwrap_or_default()
    }

    /// Ends the line with "..." if it was cut, and with a newline.
    pub fn finish(&mut self) -> &[u8] {
        if self.cut || self.len > N.saturating_sub(1) {
            self.shorten(N.saturating_sub(4));
            self.push(b"...");
        }
        self.push(b"\n");
        self.as_bytes()
    }

    /// Takes whole characters off the end until at most `len` bytes are left.
    fn shorten(&mut self, len: usize) {
        const CONTINUES: core::ops::Range<u8> = 0x80..0xc0;
        let mut len = len;
        while len < self.len && self.bytes.get(len).is_some_and(|byte| CONTINUES.contains(byte)) {
            len -= 1;
        }
        self.len = self.len.min(len);
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
                true
            }
            None => false,
        }
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut encoded = [0; 4];
        for character in text.chars() {
            // Control characters in a file name must not forge a second line.
            let character = if character.is_control() { '?' } else { character };
            if self.cut || !self.push(character.encode_utf8(&mut encoded).as_bytes()) {
                self.cut = true;
                break;
            }
        }
        Ok(())
    }
}

struct Raw<const N: usize>(Line<N>);

impl<const N: usize> fmt::Write for Raw<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.push(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Bytes that are mostly text, such as a path: shown with anything that is not
/// UTF-8 as `\xNN`.
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            f.write_str(part.valid())?;
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<const N: usize> Line<N> {
        fn format(arguments: fmt::Arguments<'_>) -> Self {
            let mut line = Self::new();
            let _ = fmt::Write::write_fmt(&mut line, arguments);
            line
        }
    }

    #[test]
    fn a_line_that_fits_ends_with_a_newline() {
        assert_eq!(Line::<8>::format(format_args!("{}", 42)).finish(), b"42\n");
    }

    #[test]
    fn a_long_line_says_that_it_was_cut() {
        assert_eq!(Line::<8>::format(format_args!("0123456789")).finish(), b"0123...\n");
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(Line::<8>::format(format_args!("012ää567")).finish(), b"012...\n");
        assert_eq!(Line::<8>::format(format_args!("01234567")).finish(), b"0123...\n");
    }

    #[test]
    fn a_line_cannot_be_forged() {
        assert_eq!(Line::<16>::format(format_args!("a\nlibsopin")).finish(), b"a?libsopin\n");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        let line = Line::<32>::format(format_args!("{}", Text(b"/a\xff/\xc3\xa4")));
        assert_eq!(line.as_bytes(), "/a\\xff/ä".as_bytes());
    }
}
