//! The number of rounds of all measurements.

/// How many rounds there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// One of everything, to check that the benchmark works.
    Quick,
    /// Enough for stable medians on a quiet machine.
    Usual,
    /// Four times as many, for differences of less than a hundredth.
    Thorough,
}

impl Effort {
    /// Returns the number of rounds of a measurement that usually has `usual`.
    pub fn rounds(self, usual: usize) -> usize {
        match self {
            Self::Quick => 1,
            Self::Usual => usual,
            Self::Thorough => 4 * usual,
        }
    }
}
