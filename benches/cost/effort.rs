//! How thoroughly everything is measured.

/// How many rounds there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// One of everything, to see that the benchmark works.
    Quick,
    /// Enough for medians to hold still on a quiet machine.
    Usual,
    /// Four times as many: for differences of less than a hundredth.
    Thorough,
}

impl Effort {
    /// How many rounds there are of a measurement that usually has so many.
    pub fn rounds(self, usual: usize) -> usize {
        match self {
            Self::Quick => 1,
            Self::Usual => usual,
            Self::Thorough => 4 * usual,
        }
    }
}
